"""The timm network of the settings, with fresh weights.

In: `TrainConfig`. Out: a module.
"""

from typing import Any

from torch import nn

from synclones.models.network import create_network, takes_image_size
from synclones.train.settings import TrainConfig


def new_network(config: TrainConfig, num_outputs: int) -> nn.Module:
    """Return the timm network that the settings describe, with fresh weights; 0 outputs for its features.

    Raises:
        InputError: timm cannot build it.
    """
    network: nn.Module = create_network(config.architecture, num_outputs, config.image_size_px, network_args(config))
    return network


def network_args(config: TrainConfig) -> dict[str, Any]:
    """Return what timm builds the network with: its shape, and what training alone does to it."""
    more: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    other_size = config.local_views and config.local_size_px != config.image_size_px
    if other_size and takes_image_size(config.architecture):
        more["dynamic_img_size"] = True  # position embeddings are interpolated for the smaller crops
    return config.model_args() | more

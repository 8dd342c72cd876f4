"""AdamW with a warm-up and a cosine, and its state as named tensors.

In: named parameters and `TrainConfig`. Out: the optimizer, the learning rate of each step, and what a checkpoint keeps.
"""

import math

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from synclones.train.settings import TrainConfig

BETAS = (0.9, 0.999)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def new_optimizer(network: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) that decays what timm decays; every step sets its learning rate.

    timm's rule: no biases, no vectors and scalars, and nothing that the network lists in its own ``no_weight_decay``
    (class tokens and position embeddings of vision transformers).
    """
    spared = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    groups = param_groups_weight_decay(network, config.weight_decay, no_weight_decay_list=spared)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, weight_decay=0.0, fused=device.type == "cuda" or None)


def learning_rate(step: int, num_steps: int, config: TrainConfig) -> float:
    """Return the rate of step 0..num_steps-1: linear warm-up to the peak, then half a cosine to 0.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    warm = config.warmup * num_steps
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, num_steps - warm)))


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the moments of every parameter as ``moment/parameter``."""
    return {f"{m}/{name}": optimizer.state[p][m] for name, p in parameters.items() for m in MOMENTS}


def expected_state(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return tensors of the names, shapes and types that `optimizer_state` returns."""
    count = torch.zeros(())
    return {f"{m}/{name}": count if m == "step" else p for name, p in parameters.items() for m in MOMENTS}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]
) -> None:
    """Take over what `optimizer_state` returned; names, shapes and types are those of `expected_state`."""
    for name, parameter in parameters.items():
        moments = {moment: state[f"{moment}/{name}"].clone() for moment in MOMENTS}
        # Without a fused kernel the count of steps stays on the CPU, where AdamW reads it without waiting for the GPU.
        on_gpu = parameter.device.type == "cuda"
        optimizer.state[parameter] = {
            moment: tensor.to(parameter.device) if moment != "step" or on_gpu else tensor
            for moment, tensor in moments.items()
        }

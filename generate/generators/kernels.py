"""What makes a GPU faster without changing what is drawn but for rounding: compiled networks, the attention kernel.

In: a loaded pipeline and a plan. Both settings belong to the plan, since they decide in which order numbers are added.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_KERNELS = {"math": "math", "efficient": "mem_efficient", "flash": "flash", "cudnn": "cudnn"}


def check_speed(attention: str, device: str) -> None:
    """Refuse an attention kernel that this machine does not have.

    Raises:
        InputError: naming the flag and what to do.
    """
    if attention in ("efficient", "cudnn", "xformers") and device == "cpu":
        raise InputError(f"--attention {attention}: needs a GPU; leave it out on a CPU")
    if attention == "xformers" and importlib.util.find_spec("xformers") is None:
        raise InputError(
            "--attention xformers: is not installed; run `pip install 'synclones[xformers]'`, or leave it out"
        )


def speed_up(pipeline: "DiffusionPipeline", compiled: bool, attention: str) -> None:
    """Choose the attention kernel of this process; compile the denoising network and the decoder as a whole, in place.

    The first batch of each process pays for the compilation, minutes on a GPU.
    """
    import torch

    for name, kernel in _KERNELS.items():  # torch's switches are the process', so no worker may turn them later
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(attention not in _KERNELS or name == attention)
    if attention == "xformers":
        pipeline.enable_xformers_memory_efficient_attention()
    if compiled:
        network: Any = getattr(pipeline, "unet", None) or pipeline.transformer
        network.compile()
        pipeline.vae.decoder.compile()

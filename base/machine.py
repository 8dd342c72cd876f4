"""Knows the machine: which of several processes this is, its share of the cores, its device and what is fast there.

In: the environment that a launcher sets, and torch (loaded when a device is asked about). Out: plain numbers and names.
"""

import os

from synclones.base.errors import InputError

NO_GPU = "--device cuda: torch finds no GPU; use --device cpu, or check the driver"


def rank() -> int:
    """Return this process' number among all of the job, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes work on the job, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return this process' number among those of this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def cores() -> int:
    """Return how many cores this process may use: those the system grants, shared with its siblings; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check_world_size(launched: int, joined: int) -> None:
    """Compare the launcher's count of processes with Accelerate's: on a CPU it may start fewer than it was asked for.

    Raises:
        InputError: when they differ.
    """
    if launched != joined:
        raise InputError(
            f"WORLD_SIZE is {launched}, Accelerate sees {joined}; on a CPU launch with "
            "`ACCELERATE_USE_CPU=true torchrun --nproc-per-node N`"
        )


def choose_device(asked: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; ``ACCELERATE_USE_CPU`` counts as ``cpu``.

    Raises:
        InputError: when a GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise InputError(NO_GPU)
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return "cuda" if has_gpu and asked != "cpu" and not forced else "cpu"


def cpu_features() -> list[str]:
    """Return which of the 16-bit instruction sets this CPU has: amx_bf16, avx512_bf16, avx512_fp16."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return [name for name in ("amx_bf16", "avx512_bf16", "avx512_fp16") if capabilities.get(name)]


def computes_bf16(device: str) -> bool:
    """Return whether large models are faster in bfloat16: on a GPU, and on a CPU with instructions for it."""
    return device != "cpu" or any("bf16" in name for name in cpu_features())


def has_bf16_matrix_units(device: str) -> bool:
    """Return whether small networks too are faster in bfloat16: with AVX512-BF16 alone they are slower."""
    import torch

    return torch.cuda.is_bf16_supported() if device != "cpu" else "amx_bf16" in cpu_features()

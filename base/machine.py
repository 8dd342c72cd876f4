"""Knows the machine: which of several processes this is, its share of the cores, its device and what is fast there.

In: the environment that a launcher sets, and torch (loaded when a device is asked about). Out: plain numbers and names.
"""

import os

from synclones.base.errors import InputError

# What Accelerate would take from the environment: a result must not depend on what `plan.json` does not hold.
FOREIGN_SWITCHES = {
    **dict.fromkeys(("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"), ("false", "0", "no", "")),
    **dict.fromkeys(("ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"), ("false", "0", "no", "")),
    "ACCELERATE_DYNAMO_BACKEND": ("no", ""),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", ""),
}
_FOREIGN = "it would change how this job computes beside its settings, which cannot say so"
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
NO_GPU = "--device cuda: torch finds no GPU; use --device cpu, or check the driver"


def rank() -> int:
    """Return this process' number among all of the job, from 0."""
    return _number("RANK", 0, below=world_size())


def world_size() -> int:
    """Return how many processes work on the job, on all machines."""
    return _number("WORLD_SIZE", 1, least=1)


def local_rank() -> int:
    """Return this process' number among those of this machine, from 0."""
    return _number("LOCAL_RANK", 0, below=_number("LOCAL_WORLD_SIZE", world_size(), least=1))


def granted_cores() -> int:
    """Return how many cores the system grants to this process and its siblings."""
    return len(os.sched_getaffinity(0))


def cores() -> int:
    """Return how many cores this process may use: those the system grants, shared with its siblings; at least 1."""
    return max(1, granted_cores() // _number("LOCAL_WORLD_SIZE", 1, least=1))


def _number(name: str, default: int, least: int = 0, below: int = 2**20) -> int:
    """Return a variable that launchers set.

    Raises:
        InputError: when it is no whole number from ``least`` to below ``below``.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text[:9]) < below and len(text) < 9):
        raise InputError(
            f"{name} in the environment: got {text!r}, expected a whole number from {least} to {below - 1}; "
            f"let a launcher set it, or run: unset {name}"
        )
    return int(text)


def check_launch() -> None:
    """Check the variables by which the processes of a job meet, for a job whose processes talk to each other.

    Raises:
        InputError: when one is missing or no number, or asks for what the settings should say.
    """
    rank(), local_rank(), cores()
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world_size() > 1 and missing:
        raise InputError(
            f"WORLD_SIZE is {world_size()}, and not set: {', '.join(missing)}; "
            "start the job with torchrun or accelerate launch, or run: unset WORLD_SIZE"
        )
    _number("MASTER_PORT", 0, below=2**16)
    for name, harmless in FOREIGN_SWITCHES.items():
        value = os.environ.get(name, harmless[0])
        if value.lower() not in harmless:
            raise InputError(f"{name}={value} in the environment: {_FOREIGN}; run: unset {name}")


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
        InputError: when a GPU is asked for and there is none, or the variable is neither yes nor no.
    """
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower()
    if forced not in _YES + _NO:
        raise InputError(f"ACCELERATE_USE_CPU in the environment: got {forced!r}, expected true or false")
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise InputError(NO_GPU)
    return "cuda" if has_gpu and asked != "cpu" and forced not in _YES else "cpu"


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


def is_running(pid: int) -> bool:
    """Return whether a process of this machine has that number and has not ended."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0

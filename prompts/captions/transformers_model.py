"""Load a transformers model that writes text, from a folder or the hub, and check that it is complete.

In: a folder or hub id with a revision. Out: a `TextModel`: the model, its processor or tokenizer, their device.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json
from synclones.base.machine import choose_device, computes_bf16
from synclones.base.weights import check_safetensors, find_folder, read_model_json, weight_files

Kind = Literal["image-to-text", "text"]
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class TextModelFolder:
    """A checked model that is not loaded yet."""

    name: str
    path: Path
    revision: str
    sha256: str
    """Over names and hashes of its files."""


def find_text_model(model: str, revision: str, flag: str) -> TextModelFolder:
    """Find and check the model's folder; a hub id is downloaded.

    Raises:
        InputError: when it is incomplete.
        MachineError: when the hub cannot be reached.
    """
    path, commit = find_folder(model, revision, WANTED, flag)
    read_model_json(path / "config.json")
    for part in weight_files(path, "model.safetensors"):
        check_safetensors(part)
    used = sorted(file for pattern in WANTED for file in path.glob(pattern))
    digest = sha256_bytes(canonical_json([[file.name, sha256_file(file)] for file in used]))
    return TextModelFolder(model if commit else path.resolve().name, path, commit, digest)


@dataclass(frozen=True)
class TextModel:
    """A loaded model."""

    model: Any
    processor: Any
    device: str
    dtype: Any


def how_it_computes(device: str, threads: int) -> dict[str, Any]:
    """Return what decides the last bits of a model's sums on this machine: kind of device, number format, threads.

    Raises:
        InputError: when a GPU is asked for and there is none.
    """
    chosen = choose_device(device)
    dtype = "bfloat16" if computes_bf16(chosen) else "float32"
    return {"device": chosen, "dtype": dtype, **({"threads": threads} if chosen == "cpu" else {})}


def load_text_model(folder: TextModelFolder, kind: Kind, device: str, flag: str, threads: int = 0) -> TextModel:
    """Load the model, in bfloat16 where the processor computes in it; of several GPUs on this process' own.

    Args:
        threads: of the CPU; 0 leaves what the process has.

    Raises:
        InputError: when transformers cannot make the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    chosen = choose_device(device)
    if chosen == "cpu" and threads:
        torch.set_num_threads(threads)
    dtype = torch.bfloat16 if computes_bf16(chosen) else torch.float32
    loader = AutoModelForImageTextToText if kind == "image-to-text" else AutoModelForCausalLM
    reader = AutoProcessor if kind == "image-to-text" else AutoTokenizer
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        processor = reader.from_pretrained(folder.path, **safe)
        model = loader.from_pretrained(folder.path, dtype=dtype, use_safetensors=True, **safe)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"{flag} {folder.name}: is no complete {kind} model ({reason}); copy the whole folder"
        ) from None
    if chosen == "cuda":
        chosen = f"cuda:{machine.local_rank() % torch.cuda.device_count()}"
    return TextModel(model.to(chosen).eval(), processor, chosen, dtype)

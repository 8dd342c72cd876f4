"""The plan of a dataset: everything that decides its bytes, fixed and hashed before the first image.

In: a checked prompt table, a checked model, settings. Out: ``plan.json``. Prompts x settings give fixed batches, fixed
batches give fixed shards: the same plan gives the same bytes for any number of processes, kills and order. Changing any
of it in a folder that already has a plan is refused, with the difference.
"""

import platform
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from synclones.base.differences import differences as settings_differences
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, parse_json, pretty_json, read_regular
from synclones.base.machine import computes_bf16, cpu_features
from synclones.base.manifest import versions
from synclones.generate.options import Sampling
from synclones.shards.lock import claim
from synclones.shards.schema import MAX_INDEX, MAX_SHARD_ROWS, MAX_SHARDS, shard_name
from synclones.shards.stores.store import refuse_store

PLAN_FILE = "plan.json"
GROWING = ("num_samples", "prompts_sha256")  # what --extend may change
LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers", "simplejpeg", "numpy", "pyarrow")
IMAGE_LIBRARIES = ("pillow", "torchvision")  # what prepares real images

# What every plan states, beside the fields without a default.
_ALWAYS_STATED = ("scheduler", "num_inference_steps", "guidance_scale", "negative_prompt")


@dataclass(frozen=True, kw_only=True)
class Plan(Sampling):
    """All that an image's bytes depend on: `Sampling`, flat, and these. Every field is part of the identity."""

    prompts_sha256: str
    """``content_sha256`` of the prompt table."""
    num_samples: int
    """Images planned: the table's first rows."""
    has_labels: bool
    """Whether every sample has a class, and so a ``cls`` member."""
    model_name: str
    """Hub id or folder name, for people."""
    model_revision: str
    """Commit of the hub id, or empty."""
    model_sha256: str
    """Content hash of the model's files."""
    drawn_px: int
    """Side of the square image that the model draws."""
    stored_px: int
    """Side of the stored image."""
    jpeg_quality: int
    """JPEG quality, chroma 4:2:0."""
    seed: int
    """The dataset's seed."""
    batch_size: int
    """Images drawn together: kernels choose their order of summation by it, so it is part of an image's identity."""
    images_per_shard: int
    max_attempts: int
    """Times a sample is drawn, with a new seed each, before it is recorded as failed."""
    dtype: str
    device: str
    """``cpu`` with its vector extensions, or the name of the GPU."""
    threads_per_worker: int
    split: str
    """What the shards are named after: train or val."""
    versions: dict[str, str]
    """Of the libraries whose release can change a byte."""
    compiled: bool = False
    attention: str = "auto"
    """Both decide the order in which numbers are added."""
    images_sha256: str = ""
    """Content hash of the real images that drawing starts from, or empty."""
    lora: str = ""
    """Hub id or folder of the LoRA in the model's weights and its file, for people; empty for none."""
    lora_sha256: str = ""
    """Hash of its file."""
    lora_scale: float = 0.0
    """The factor it is added with."""
    tiny_vae: str = ""
    """Hub id or folder of the autoencoder in place of the model's own, for people; empty for the model's own."""
    tiny_vae_sha256: str = ""
    """Hash of its files."""
    gates: dict[str, str | int | float] = field(default_factory=dict)
    """What the quality gates do that they do not do by themselves, with the hashes of what they look with."""
    retries: list[dict[str, Any]] = field(default_factory=list)
    """Of a later version of a set: which samples (``status``) of which version (``parent``, its content hash) got how
    many more ``attempts``."""

    @property
    def plan_id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of how images are drawn and stored.

        It does not depend on how many there are, on the whole table, or on retries, so that a set may grow, or failed
        samples get further attempts, and the other shards are kept.
        """
        how = {name: value for name, value in self.stated().items() if name not in (*GROWING, "retries")}
        return sha256_bytes(canonical_json(how))[:16]

    def stated(self) -> dict[str, Any]:
        """Return all fields but later ones that have their default: a set drawn before they existed keeps its bytes."""
        optional = {f.name: f.default_factory() for f in fields(self) if f.default_factory is not MISSING}
        return {name: value for name, value in asdict(self).items() if optional.get(name, MISSING) != value}

    @property
    def num_shards(self) -> int:
        return -(-self.num_samples // self.images_per_shard)

    def shard_name(self, shard: int) -> str:
        """File name of a shard without its suffix."""
        return shard_name(self.split, shard, self.num_shards)

    def batches(self, shard: int) -> list[range]:
        """Return the rows of the prompt table in each batch of a shard; only the last batch of all may be smaller."""
        start = shard * self.images_per_shard
        stop = min(start + self.images_per_shard, self.num_samples)
        return [range(first, min(first + self.batch_size, stop)) for first in range(start, stop, self.batch_size)]

    @property
    def rounds(self) -> list[tuple[range, str]]:
        """Return (attempts, status) in order: the samples of that status are drawn with those attempts; "" for all."""
        rounds = [(range(self.max_attempts), "")]
        for retry in self.retries:
            start = rounds[-1][0].stop
            rounds.append((range(start, start + int(retry["attempts"])), str(retry["status"])))
        return rounds

    def to_json(self) -> bytes:
        """Return the bytes of ``plan.json``; ``num_shards`` and ``plan_id`` follow from the rest."""
        derived = {"format": 1, "plan_id": self.plan_id, "num_shards": self.num_shards}
        return pretty_json(self.stated() | derived)


def check_settings(plan: Plan) -> None:
    """Refuse settings that make no dataset.

    Raises:
        InputError: naming the flag.
    """
    if plan.images_per_shard % plan.batch_size:
        nearest = max(1, round(plan.images_per_shard / plan.batch_size)) * plan.batch_size
        raise InputError(
            f"--images-per-shard: {plan.images_per_shard} is not a multiple of --batch-size {plan.batch_size}; "
            f"choose {nearest}"
        )
    if plan.num_shards > MAX_SHARDS:
        raise InputError(
            f"--images-per-shard: {plan.images_per_shard} makes {plan.num_shards} shards, at most {MAX_SHARDS} are "
            f"handled; choose at least {-(-plan.num_samples // MAX_SHARDS)}"
        )
    if plan.stored_px > plan.drawn_px:
        raise InputError(
            f"--stored-px: {plan.stored_px} is larger than the drawn {plan.drawn_px} px; choose at most that"
        )


def read_plan(folder: Path) -> Plan:
    """Read the plan of a dataset folder.

    Raises:
        InputError: there is none, or it is not one of this format.
    """
    refuse_store(folder)
    path = folder / PLAN_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {PLAN_FILE}; give a folder that `synclones generate` made")
    try:
        return parse_plan(read_regular(path), path)
    except ValueError as error:
        raise error if isinstance(error, InputError) else _no_plan(path, error) from None


def parse_plan(data: bytes, where: Path | str) -> Plan:
    """Read the plan in the bytes of a ``plan.json``.

    Raises:
        InputError: when it is not one of this format.
    """
    try:
        stored = parse_json(data)
        names = Plan.__dataclass_fields__
        given = {key: value for key, value in stored.items() if key in names}
        if missing := [name for name in _ALWAYS_STATED if name not in given]:
            raise ValueError(f"{missing[0]}: Field required")
        TypeAdapter(Plan).validate_json(canonical_json(given), strict=True)  # dataclasses do not check their types
        plan = Plan(**given)
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_plan(where, error) from None
    if problem := _out_of_bounds(plan):
        raise InputError(f"{where}: not a plan of this format ({problem}); choose another folder")
    return plan


def _no_plan(where: Path | str, error: Exception) -> InputError:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        error = ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    reason = " ".join(str(error).split())[:160]
    return InputError(f"{where}: not a plan of this format ({reason}); choose another folder")


def _out_of_bounds(plan: Plan) -> str:
    """What of a plan nobody can have asked for, in words, or nothing."""
    limits = {"num_samples": MAX_INDEX, "images_per_shard": MAX_SHARD_ROWS, "batch_size": MAX_SHARD_ROWS}
    limits |= dict.fromkeys(("drawn_px", "stored_px", "num_inference_steps", "max_attempts"), 2**16)
    for name, most in limits.items():
        if not 1 <= getattr(plan, name) <= most:
            return f"{name} is {str(getattr(plan, name))[:20]}, expected 1 to {most}"
    for retry in plan.retries:
        if type(retry.get("attempts")) is not int or not 1 <= retry["attempts"] <= 2**16 or "status" not in retry:
            return "a retry without its status and number of attempts"
    return "it has too many shards" if plan.num_shards > MAX_SHARDS else ""


def claim_folder(folder: Path, plan: Plan) -> bool:
    """Write the plan into a new folder, or check that the folder already holds this very plan.

    Returns:
        Whether the folder was there with this plan, so that the run resumes.

    Raises:
        InputError: the folder holds another plan (the message says what differs) or other files.
    """
    refuse_strangers(folder)
    path = folder / PLAN_FILE
    if not path.exists() and _write_first(path, plan):
        return False
    if not path.is_file() or path.read_bytes() != plan.to_json():
        stored = read_plan(folder)
        more = stored.plan_id == plan.plan_id and stored.num_samples < plan.num_samples
        hint = "choose a new --out" + (", or let the set grow with --extend" if more else "")
        raise InputError(f"{folder}: made by another plan: {differences(stored, plan)}; {hint}")
    return True


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder that holds files but no plan: somebody else's, which nothing may be mixed into.

    Raises:
        InputError: when it does.
    """
    # What else lies there is looked at before the plan is: another process may write its plan between the two looks.
    strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    if strangers and not (folder / PLAN_FILE).exists():
        raise InputError(f"{folder}: holds {strangers[0]!r} but no {PLAN_FILE}; choose an empty or new folder as --out")


def _write_first(path: Path, plan: Plan) -> bool:
    """Write the plan if nobody did; of two commands that begin at once, the second will find the first's plan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = claim(path.parent, "plan", wait=True)
    assert held is not None, "a claim that waits is always granted"
    with held:
        if path.exists():
            return False
        write_atomic(path, plan.to_json())
    return True


def differences(stored: Plan, wanted: Plan) -> str:
    """Return in which settings two plans differ, and how."""
    return settings_differences(asdict(stored), asdict(wanted))


def plan_versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of ``LIBRARIES`` and of ``more``, read without importing them."""
    installed = versions()
    return {name: installed[name] for name in (*LIBRARIES, *more)}


def describe_device(device: str) -> str:
    """Return what decides a kernel's choice: the GPU's name, or the CPU's architecture and vector extensions."""
    import torch

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return " ".join(["cpu", platform.machine(), torch.backends.cpu.get_cpu_capability(), *cpu_features()])


def choose_dtype(asked: str, device: str) -> str:
    """Choose the number format; ``auto`` is bfloat16 where the processor computes in it, float32 elsewhere."""
    if asked != "auto":
        return asked
    return "bfloat16" if computes_bf16(device) else "float32"

"""The settings of a generation.

In: flags and YAML. Out: `GenerateConfig`, of which every number is within its range; `GeneratorOptions` holds those
that decide how images are drawn.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synclones.base import machine
from synclones.base.config import Count, check_ranges, grouped
from synclones.base.derived import derived
from synclones.base.errors import InputError
from synclones.base.yaml_file import read_yaml
from synclones.generate.gates.check import gate_settings
from synclones.generate.generators.families import licence_note
from synclones.generate.options import GeneratorOptions
from synclones.shards.schema import MAX_SHARD_ROWS

PRESETS = Path(__file__).resolve().parent / "presets"
BY_INPUTS = Path("data/{prompts}")
Attention = Literal["auto", "math", "efficient", "flash", "cudnn", "xformers"]


@grouped(
    What="prompts out num_images preset seed split plan_only dry_run price_per_hour",
    Model="model revision lora lora_scale tiny_vae size_px stored_px jpeg_quality",
    Sampling="num_inference_steps guidance_scale negative_prompt scheduler guidance_start guidance_stop step_cache "
    "token_merging images strength noise_level",
    Storage="images_per_shard work steal_lease extend retry parent",
    Gates="max_attempts on_bad_source on_blank on_unsafe clip_score min_clip_score on_low_clip_score "
    "near_duplicates_of on_near_duplicate near_duplicate_bits",
    Machine="batch_size device dtype workers part shards attention compile",
    Publishing="push_to_hub",
)
@dataclass(frozen=True, kw_only=True)
class GenerateConfig(GeneratorOptions, *gate_settings()):  # type: ignore[misc]
    """Draw the images of a prompt table into WebDataset shards; the same command resumes after any kill."""

    prompts: Path | None = None
    """Prompt table (Parquet) of `synclones prompts build`; by default the lab's 1,000 CLIP templates."""
    out: Path = BY_INPUTS
    """Dataset folder to make or to go on with; or s3://bucket/prefix, gs://bucket/prefix; by default it is
    named by the prompts, and data/lab without any."""
    work: Path | None = None
    """For a URL as --out: local folder in which shards grow before they are uploaded; data/.work by default."""
    steal_lease: bool = False
    """For a URL as --out: take over shards that another process says it is drawing, because it is dead."""
    preset: str = ""
    """Named settings that flags override, listed by --help; lab without --model."""
    num_images: Count = 0
    """Images to draw, the table's first rows; 0 for all of them."""
    split: Literal["train", "val"] = "train"
    """What the images are for; readers find a validation set by the names of its shards."""
    seed: int = 0
    """Seed of the dataset; each image's seed is a bijection of its index keyed by it."""
    size_px: int = 0
    """Side of the drawn image in px; 0 for the size the model was trained for."""
    stored_px: int = 0
    """Side of the stored image in px; 0 for 256, or the drawn size if that is smaller."""
    jpeg_quality: int = 90
    """JPEG quality 1..100, chroma 4:2:0."""
    batch_size: int | Literal["auto"] = 50
    """Images drawn together; part of an image's identity, fixed for the dataset. `auto` measures once."""
    images_per_shard: Count = 10_000
    """Images of one tar, at most 2^20; a multiple of the batch size."""
    on_bad_source: Literal["fail", "drop"] = "fail"
    """What an image of --images that cannot be used does: fail (name all of them and draw nothing), drop its rows."""
    max_attempts: int = 3
    """Seeds tried for an image that comes out broken before it is recorded as failed."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the networks; auto is bfloat16 where the processor computes in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to draw; auto takes a GPU when there is one."""
    compile: bool = False
    """Compile network and decoder (torch.compile): minutes at the start, then faster; for long jobs on GPUs."""
    attention: Attention = "auto"
    """Attention kernel: torch's choice, one of torch's (math, efficient, flash, cudnn), or xformers."""
    workers: int = 0
    """Batches drawn side by side in this process; 0 for one per CPU core, or two per GPU, which take turns."""
    part: str = ""
    """Which share of the shards to draw, as in 3/16, for machines without a common launcher."""
    shards: tuple[int, ...] = ()
    """Numbers of the only shards to draw, as `synclones shards missing` prints them; the others are left to others."""
    extend: bool = False
    """Let a set grow: more images, of the same prompt table or of one that begins with it; full shards are kept."""
    retry: Literal["", "failed", "dropped"] = ""
    """Draw these samples of the finished --parent again, with --max-attempts further seeds, into a new --out."""
    parent: Path | None = None
    """Finished set that --retry makes a new version of, or that --extend lets grow in a new --out and leaves as it is;
    its settings hold where no flag says otherwise."""
    push_to_hub: str = ""
    """OWNER/NAME of a dataset repository on the Hugging Face Hub for the finished set; a new one is private."""
    plan_only: bool = False
    """Write plan.json and the data card, and stop."""
    dry_run: bool = False
    """Print the plan with the rate measured on one batch, hours and cost, and write nothing."""
    price_per_hour: float = 0.0
    """Dollars per hour of one process' machine, for --dry-run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out == BY_INPUTS:
            given = [self.prompts] if self.prompts else [self.model] if self.model not in ("", "lab") else []
            object.__setattr__(self, "out", derived("data", *given) if given else Path("data/lab"))
        check_ranges(
            self,
            num_images=(0, 2**32),
            jpeg_quality=(1, 100),
            **({} if self.batch_size == "auto" else {"batch_size": (1, 4096)}),
            images_per_shard=(1, MAX_SHARD_ROWS),
            max_attempts=(1, 100),
            workers=(0, 1024),
            size_px=(0, 4096),
            stored_px=(0, 4096),
        )


@dataclass(frozen=True)
class Preset:
    """A named generation, as its file in ``presets/`` says it."""

    name: str
    summary: str
    """The first line of its header."""
    licence: str
    """What is known of the licence of its generator."""


def presets() -> list[Preset]:
    """Return all presets by name."""
    return [_preset(path) for path in sorted(PRESETS.glob("*.yaml"))]


def _preset(path: Path) -> Preset:
    header = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
    model = read_yaml(path)["model"].value
    return Preset(path.stem, header, licence_note("generator" if model == "lab" else model))


@dataclass(frozen=True, kw_only=True)
class RedrawConfig:
    """Draw images of a dataset again, in their planned batches, and compare them with the stored ones."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix."""
    index: int | None = None
    """One image."""
    random: Count = 0
    """Whole batches drawn at random, with at least this many images."""
    seed: int = 0
    """Which batches."""
    out: Path | None = None
    """File for the one new image."""


def resolve_device(asked: str) -> str:
    """Return ``cpu``, or ``cuda:N`` with N this process' local rank.

    Raises:
        InputError: when a GPU is asked for and there is none.
    """
    if machine.choose_device(asked) == "cpu":
        return "cpu"
    import torch

    return f"cuda:{machine.local_rank() % torch.cuda.device_count()}"


def parse_part(text: str) -> tuple[int, int]:
    """Return ``3/16`` as (2, 16): the third of sixteen shares.

    Raises:
        InputError: for anything else.
    """
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise InputError(f"--part: {text!r} was given, expected K/N with 1 <= K <= N, as in 3/16")
    return int(number) - 1, int(total)


def num_workers(config: GenerateConfig, device: str) -> int:
    """Return the workers of this process: as asked, two per GPU, or this machine's cores divided by its processes."""
    if config.workers or device != "cpu":
        return config.workers or 2
    return machine.cores()

"""The settings of a generation, and how they become a plan.

In: flags and YAML. Out: `GenerateConfig`, and with a prompt table and a model a `Plan`. What the user can get wrong is
refused here, before a model loads and before anything is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synclones.base import machine
from synclones.base.config import Count, check_ranges, grouped
from synclones.base.errors import InputError
from synclones.generate.generators.kernels import Attention, check_speed
from synclones.generate.generators.model import (
    OWN_LOOP,
    WITHOUT_NEGATIVE_PROMPT,
    ModelFolder,
    native_size_px,
    pipeline_class,
    scheduler_class,
    size_step_px,
)
from synclones.generate.plan import IMAGE_LIBRARIES, Plan, check_settings, choose_dtype, describe_device, plan_versions
from synclones.prompts.table import PromptTable
from synclones.shards.schema import MAX_SHARD_ROWS

THREADS_PER_WORKER = 1
Policy = Literal["fail", "mark", "drop"]  # see `gates`


@grouped(
    What="prompts out num_images preset seed split plan_only dry_run price_per_hour",
    Model="model revision lora lora_scale tiny_vae size_px stored_px jpeg_quality",
    Sampling="num_inference_steps guidance_scale negative_prompt scheduler guidance_start guidance_stop step_cache "
    "token_merging images strength noise_level",
    Storage="images_per_shard work steal_lease extend retry parent",
    Gates="max_attempts on_blank on_unsafe clip_score min_clip_score on_low_clip_score near_duplicates_of "
    "on_near_duplicate near_duplicate_bits",
    Machine="batch_size device dtype workers part attention compile",
    Publishing="push_to_hub",
)
@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Draw the images of a prompt table into WebDataset shards; the same command resumes after any kill."""

    prompts: Path | None = None
    """Prompt table (Parquet) of `synclones prompts build`; by default the lab's 1,000 CLIP templates."""
    out: Path = Path("data/lab")
    """Dataset folder to make or to go on with; or s3://bucket/prefix, gs://bucket/prefix."""
    work: Path | None = None
    """For a URL as --out: local folder in which shards grow before they are uploaded; data/.work by default."""
    steal_lease: bool = False
    """For a URL as --out: take over shards that another process says it is drawing, because it is dead."""
    preset: str = ""
    """Named settings that flags override: lab (the default without --model), scaling-supervised, scaling-clip, synclr,
    stablerep, imagenet-sd, synthclip, fast, lcm, turbo, sdxl, unclip, lcm-lora,
    hyper-sd."""
    model: str = ""
    """Diffusers folder or hub id of a text-to-image model; `lab` is the embedded one."""
    revision: str = ""
    """Commit of the hub id; the one in the cache or the newest when empty."""
    lora: str = ""
    """LoRA for an SD or SDXL model: folder or hub id, with :FILE.safetensors when it holds several; needs peft."""
    lora_scale: float = 1.0
    """How much of the LoRA is added to the weights."""
    tiny_vae: str = ""
    """AutoencoderTiny to decode with: folder or hub id, madebyollin/taesd for SD, taesdxl for SDXL; less detail."""
    num_images: Count = 0
    """Images to draw, the table's first rows; 0 for all of them."""
    split: Literal["train", "val"] = "train"
    """What the images are for; readers find a validation set by the names of its shards."""
    seed: int = 0
    """Seed of the dataset; each image's seed is a bijection of its index keyed by it."""
    num_inference_steps: int = 20
    """Denoising steps."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; 1 turns it off. Clones learn best from low guidance (1.5 to 2.5)."""
    guidance_start: float = 0.0
    """First guided step, as a fraction of all steps (SD, SDXL); unguided steps cost half."""
    guidance_stop: float = 1.0
    """First step that is no longer guided, as a fraction of all steps (SD, SDXL)."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    step_cache: int = 1
    """Compute the whole UNet in every Nth step only, its last layer in the others (SD, SDXL); 1 for every step."""
    token_merging: float = 0.0
    """Merge this share of the tokens before the largest self-attentions (models with a UNet), 0 to 0.75; 0 for none."""
    images: Path | None = None
    """Real images to draw from, found by the table's source_key: the folder of shards or pictures that keys are of."""
    strength: float = 0.0
    """How far an SD or SDXL model leaves the image of --images, 0 to 1; 0 draws from prompts alone."""
    noise_level: int = 0
    """Noise on the image's embedding in an unCLIP model, 0 to 999."""
    scheduler: str = ""
    """Diffusers scheduler class such as DPMSolverMultistepScheduler; the model's own when empty."""
    size_px: int = 0
    """Side of the drawn picture in px; 0 for the size the model was trained for."""
    stored_px: int = 0
    """Side of the stored picture in px; 0 for 256, or the drawn size if that is smaller."""
    jpeg_quality: int = 90
    """JPEG quality 1..100, chroma 4:2:0."""
    batch_size: int | Literal["auto"] = 50
    """Images drawn together; part of an image's identity, fixed for the dataset. `auto` measures once."""
    images_per_shard: Count = 10_000
    """Images of one tar, at most 2^20; a multiple of the batch size."""
    max_attempts: int = 3
    """Seeds tried for an image that comes out broken before it is recorded as failed."""
    on_blank: Policy = "fail"
    """What happens to a picture of one colour: fail (draw again with the next seed), mark (keep it, with the finding in
    its row), drop (leave the image out at once)."""
    on_unsafe: Literal["off", "fail", "mark", "drop"] = "off"
    """What happens to a picture that the generator's safety checker flags; off does not load the checker."""
    clip_score: str = ""
    """CLIP model that says how well each picture shows its prompt: an open_clip folder, hub id, or architecture/tag."""
    min_clip_score: float | None = None
    """Cosine, -1 to 1, below which the CLIP score is low; without one it is only recorded."""
    on_low_clip_score: Policy = "mark"
    """What happens to a picture with a low CLIP score."""
    near_duplicates_of: Path | None = None
    """Test set whose pictures must not come up: a dataset folder or a folder of images."""
    near_duplicate_bits: int = 6
    """Of the 64 bits of two perceptual hashes, how many may differ between near-duplicates."""
    on_near_duplicate: Policy = "mark"
    """What happens to a near-duplicate of the test set."""
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
    extend: bool = False
    """Let a set grow: more images, of the same prompt table or of one that begins with it; full shards are kept."""
    retry: Literal["", "failed", "dropped"] = ""
    """Draw these samples of the finished --parent again, with --max-attempts further seeds, into a new --out."""
    parent: Path | None = None
    """Finished dataset folder that --retry makes a new version of; its settings hold where no flag says otherwise."""
    push_to_hub: str = ""
    """OWNER/NAME of a dataset repository on the Hugging Face Hub for the finished set; a new one is private."""
    plan_only: bool = False
    """Write plan.json and the data card, and stop."""
    dry_run: bool = False
    """Print the plan with the rate measured on one batch, hours and cost, and write nothing."""
    price_per_hour: float = 0.0
    """Dollars per hour of one process' machine, for --dry-run."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            num_images=(0, 2**32),
            num_inference_steps=(1, 1000),
            jpeg_quality=(1, 100),
            **({} if self.batch_size == "auto" else {"batch_size": (1, 4096)}),
            images_per_shard=(1, MAX_SHARD_ROWS),
            max_attempts=(1, 100),
            near_duplicate_bits=(0, 32),
            workers=(0, 1024),
            step_cache=(1, 100),
            token_merging=(0, 0.75),
            guidance_scale=(0, 100),
            guidance_start=(0, 1),
            guidance_stop=(0, 1),
            strength=(0, 1),
            noise_level=(0, 999),
            lora_scale=(-10, 10),
            size_px=(0, 4096),
            stored_px=(0, 4096),
        )
        if self.min_clip_score is not None:
            check_ranges(self, min_clip_score=(-1, 1))


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
    """``cpu`` or ``cuda:N`` with N this process' local rank."""
    if machine.choose_device(asked) == "cpu":
        return "cpu"
    import torch

    return f"cuda:{machine.local_rank() % torch.cuda.device_count()}"


def make_plan(
    config: GenerateConfig,
    table: PromptTable,
    model: ModelFolder,
    device: str,
    images_sha256: str = "",
    gates: dict[str, str | int | float] | None = None,
    libraries: Sequence[str] = (),
) -> Plan:
    """The plan of a checked table, model, real images and gates. Raises InputError for settings that do not fit them.

    ``libraries``: whose releases decide rows, beside those that decide pictures.
    """
    num_samples = config.num_images or table.num_rows
    if num_samples > table.num_rows:
        raise InputError(
            f"--num-images: {num_samples} asked, {table.path} has {table.num_rows} rows; build a longer table"
        )
    drawn_px = _drawn_px(config, model)
    _refuse_unused_guidance(config, model)
    check_speed(config.attention, device)
    plan = Plan(
        prompts_sha256=table.check(),
        num_samples=num_samples,
        has_labels=table.has_labels(num_samples),
        model_name=model.name,
        model_revision=model.revision,
        model_sha256=model.sha256,
        scheduler=scheduler_class(model, config.scheduler),
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        negative_prompt=config.negative_prompt,
        guidance_start=config.guidance_start,
        guidance_stop=config.guidance_stop,
        step_cache=config.step_cache,
        drawn_px=drawn_px,
        stored_px=config.stored_px or min(drawn_px, 256),
        jpeg_quality=config.jpeg_quality,
        seed=config.seed,
        batch_size=1 if config.batch_size == "auto" else config.batch_size,  # settled when all else is checked
        images_per_shard=config.images_per_shard,
        max_attempts=config.max_attempts,
        dtype=choose_dtype(config.dtype, device),
        device=describe_device(device),
        threads_per_worker=THREADS_PER_WORKER,
        split=config.split,
        compiled=config.compile,
        attention=config.attention,
        versions=plan_versions(
            (*(IMAGE_LIBRARIES if images_sha256 else ()), *(("peft",) if model.lora else ()), *libraries)
        ),
        images_sha256=images_sha256,
        strength=config.strength,
        noise_level=config.noise_level,
        gates=gates or {},
        **_equipment(model),
    )
    check_settings(plan)
    return plan


def _drawn_px(config: GenerateConfig, model: ModelFolder) -> int:
    drawn_px, step = config.size_px or native_size_px(model), size_step_px(model)
    if drawn_px % step:
        raise InputError(f"--size-px: {drawn_px} is not a multiple of {step}; choose {drawn_px // step * step + step}")
    return drawn_px


def _equipment(model: ModelFolder) -> dict[str, Any]:
    """The plan's fields of what does not come with the model."""
    found: dict[str, Any] = {}
    if model.lora:
        found |= {"lora": model.lora.name, "lora_sha256": model.lora.sha256, "lora_scale": model.lora.scale}
    if model.tiny_vae:
        found |= {"tiny_vae": model.tiny_vae.name, "tiny_vae_sha256": model.tiny_vae.sha256}
    return found | {"token_merging": model.token_merging}


def _refuse_unused_guidance(config: GenerateConfig, model: ModelFolder) -> None:
    """What would be accepted and do nothing."""
    kind = pipeline_class(model)
    interval = (config.guidance_start, config.guidance_stop)
    named = "--negative-prompt" if config.negative_prompt else "--guidance-start, --guidance-stop"
    if (config.negative_prompt or interval != (0, 1)) and config.guidance_scale <= 1:
        raise InputError(f"{named}: no effect without guidance; give --guidance-scale above 1, or leave it out")
    if config.negative_prompt and kind in WITHOUT_NEGATIVE_PROMPT:
        raise InputError(f"--negative-prompt: a {kind} takes none; leave it out")
    if interval != (0, 1) and kind not in OWN_LOOP:
        raise InputError(f"--guidance-start, --guidance-stop: only for {' and '.join(OWN_LOOP)}, this is a {kind}")
    if interval[0] >= interval[1]:
        raise InputError(
            f"--guidance-start: {interval[0]} is not below --guidance-stop {interval[1]}; no step is guided"
        )


def parse_part(text: str) -> tuple[int, int]:
    """``3/16`` as (2, 16): the third of sixteen shares. Raises InputError for anything else."""
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise InputError(f"--part: {text!r} was given, expected K/N with 1 <= K <= N, as in 3/16")
    return int(number) - 1, int(total)


def num_workers(config: GenerateConfig, device: str) -> int:
    """Workers of this process: as asked, two per GPU, or the cores divided by the processes of this machine."""
    if config.workers or device != "cpu":
        return config.workers or 2
    return machine.cores()

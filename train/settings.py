"""The settings of a training, and the part of them that decides the weights.

In: flags and YAML. Out: `TrainConfig`; `identity` is what a run folder is compared with before it is resumed.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from synclones.base.config import Count, check_ranges, grouped, parse_count, parse_duration
from synclones.base.derived import derived
from synclones.base.errors import InputError
from synclones.base.machine import has_bf16_matrix_units
from synclones.base.manifest import versions
from synclones.shards.loading.mixture import Mixture, parse_mixture
from synclones.train.options.augmentation import (
    AUGMENTATION_RANGES,
    AugmentationSettings,
    MixingSettings,
    RandAugmentSettings,
)
from synclones.train.options.objective import OBJECTIVE_RANGES, ObjectiveSettings
from synclones.train.options.optimizer import OPTIMIZER_RANGES, EmaSettings, OptimizerSettings
from synclones.train.options.starting import StartingSettings
from synclones.train.options.validation import VALIDATION_RANGES, ValidationSettings

# What may change between two starts of one training: where and how, never what.
NOT_IDENTITY = (
    *("out", "recipe", "expected", "data", "checkpoint_every", "keep_checkpoints", "log_every"),
    *("decode_threads", "torch_threads"),
    *("zero_shot_classes", "zero_shot_templates"),  # what the export is asked, not what is trained
    *("device", "compile", "dry_run", "price_per_hour", "timeout_s", "micro_batch_size", "verify", "on_bad_sample"),
    *("track", "cache_gb", "validate"),
    "probe_cache",  # plans say whether features were cached
    *("weights", "batch_norm_data"),  # paths; plans have the hashes of what is there
)
SILENT_AT_DEFAULT = {
    *("objective", "loss", "head_bias", "crop_scale_max", "pixels", "drop_path", "mlp_ratio", "label_captions"),
    *(
        field.name
        for part in (
            *(OptimizerSettings, EmaSettings, AugmentationSettings, RandAugmentSettings, MixingSettings),
            StartingSettings,
        )
        for field in fields(part)
    ),
    *(field.name for field in fields(ValidationSettings)),
}
# How is measured decides the weights only where a measurement chooses them; what is never shown always does.
OF_MEASURING = {field.name for field in fields(ValidationSettings)} - {"hold_out", "select"}
VIT_SHAPE = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
LIBRARIES = ("torch", "timm")
OBJECTIVE = "supervised"
BY_INPUTS = Path("runs/{data}")
# What a training does beside its settings; a number more whenever the same settings would give other weights.
# 1 (plans say nothing): crops were cut at the edges and not antialiased, class tokens and position embeddings decayed.
# 2: images were shrunk to one size for all, rotated, then cropped; the order was shuffled within windows of shards, so
# that a small set could be absent from half of an epoch.
# 3: crops are taken from the full image, before rotation; sets take turns evenly.
RULES = 3
# Settings that plans of earlier rules do not have: what such a plan says by having none.
NEW_WITH_RULES_3 = {"decode": "faithful", "interpolation": "bicubic"}


# What each number may be: (lowest, highest).
RANGES: dict[str, tuple[float, float]] = {
    "image_size_px": (8, 4096),
    "patch_size": (0, 4096),
    "embed_dim": (0, 2**16),
    "depth": (0, 1000),
    "num_heads": (0, 4096),
    "mlp_ratio": (0, 64),
    "samples": (0, 10**15),
    "steps": (0, 10**12),
    "epochs": (0, 1e6),
    "batch_size": (1, 10**6),
    "micro_batch_size": (0, 10**6),
    "learning_rate": (0, 100),
    "warmup": (0, 1),
    "weight_decay": (0, 10),
    "clip_norm": (1e-6, 1e6),
    "crop_scale_min": (0.001, 1),
    "rotation_degrees": (0, 180),
    "colour_jitter": (0, 1),
    "seed": (0, 2**63 - 1),
    "crop_fraction": (0.01, 1),
    "keep_checkpoints": (1, 10**6),
    "log_every": (1, 10**9),
    "decode_threads": (0, 256),
    "torch_threads": (0, 1024),
    "cache_gb": (1e-6, 1e6),
    "timeout_s": (1, 10**6),
    "price_per_hour": (0, 1e6),
}


def parse_interval(value: object) -> int | str:
    """Return a number of steps as an integer, a time such as ``10min`` as it is.

    Raises:
        ValueError: when it is neither, or nothing.
    """
    if isinstance(value, int) or str(value).strip().isdecimal():
        interval: int | str = parse_count(value)
        amount: float = int(interval)
    else:
        interval = str(value).strip()
        amount = parse_duration(value)
    has_unit = str(interval)[-1].isalpha()
    if not 1 <= amount <= 10**9 or has_unit == isinstance(interval, int):
        raise ValueError(f"{value!r} is no interval")
    return interval


Interval = Annotated[int | str, BeforeValidator(parse_interval), "steps such as 500, or a time such as 10min or 1h"]


@grouped(
    What="data out recipe expected samples steps epochs seed dry_run price_per_hour",
    Model="architecture image_size_px patch_size embed_dim depth num_heads mlp_ratio",
    Starting="weights head reinitialise freeze train_only batch_norm batch_norm_data",
    Objective="objective loss head_bias label_smoothing temperature images_per_caption positives views local_views "
    "local_size_px local_scale_min local_scale_max projection_dim projection_hidden projection_norm "
    "mask_probability mask_ratio patch_loss_weight prototypes prototype_dim prototype_hidden target_temperature "
    "target_temperature_from target_temperature_steps teacher_column teacher_temperature teacher_share drop_path "
    "probe_rates probe_norm probe_select probe_cache",
    Text="caption_column label_captions text_length text_width text_layers text_heads joint_dim patch_dropout "
    "zero_shot_classes zero_shot_templates",
    Mixing="mixup_alpha cutmix_alpha mix_probability mix_switch mix_mode",
    Optimization="batch_size micro_batch_size optimizer learning_rate warmup warmup_steps warmup_samples warmup_from "
    "schedule step_at step_factor min_rate weight_decay weight_decay_end layer_decay beta1 beta2 epsilon momentum "
    "nesterov clip_norm ema_decay ema_schedule",
    Augmentation="crop_scale_min crop_scale_max flip rotation_degrees colour_jitter saturation_jitter "
    "hue_jitter jitter_probability grey_probability blur_probability blur_sigma_min blur_sigma_max "
    "solarise_probability solarise_threshold erase_probability erase_mode rand_augment rand_augment_operations "
    "rand_augment_magnitude rand_augment_deviation decode interpolation pixels crop_fraction",
    Validation="validate validate_every validate_features validate_probe knn_bank knn_neighbours knn_temperature "
    "hold_out select",
    Checkpoints="checkpoint_every keep_checkpoints log_every track on_bad_sample verify",
    Machine="device precision compile decode_threads torch_threads cache_gb timeout_s",
)
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ObjectiveSettings,
    OptimizerSettings,
    EmaSettings,
    AugmentationSettings,
    RandAugmentSettings,
    StartingSettings,
    ValidationSettings,
):
    """Train a clone on shards; the same command resumes after any kill."""

    data: tuple[str, ...] = ()
    """Sets and how much of each: a b:3 c,fraction=1/8, or a YAML file (docs/mixtures.md). The lab's by default."""
    out: Path = BY_INPUTS
    """Run folder to make or to go on with; by default it is named by the sets, and runs/lab without any."""
    recipe: str = ""
    """Named settings that flags override, listed by --help; lab without --data."""
    expected: tuple[str, ...] = ()
    """What a recipe's source reached: value | images | trainings | source | test-time augmentation."""
    objective: str = OBJECTIVE
    """What is minimised, a file of train/objectives/: supervised, clip, multipositive, ..."""
    architecture: str = "vit_small_patch16_224"
    """Any timm architecture; weights for that of --weights."""
    image_size_px: int = 224
    """Side of the network's input in px."""
    patch_size: int = 0
    """Patch side of a vision transformer in px; 0 for the architecture's own."""
    embed_dim: int = 0
    """Width of a vision transformer; 0 for the architecture's own."""
    depth: int = 0
    """Blocks of a vision transformer; 0 for the architecture's own."""
    num_heads: int = 0
    """Attention heads of a vision transformer; 0 for the architecture's own."""
    mlp_ratio: float = 0.0
    """Hidden width of a vision transformer's MLPs over its own width; 0 for the architecture's own."""
    samples: Count = 0
    """Length in images seen, as in 60k; give exactly one of samples, steps, epochs."""
    steps: Count = 0
    """Length in optimizer steps."""
    epochs: float = 0.0
    """Length in passes over the data."""
    batch_size: int = 1024
    """Images of one optimizer step, over all processes."""
    micro_batch_size: int = 0
    """Images a process holds at once, gradients being accumulated; 0 for its whole share of the batch."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises linearly; then it falls to 0 along a cosine."""
    weight_decay: float = 0.05
    """Weight decay (--optimizer says how); by timm's rule none of biases, vectors, class tokens and positions."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    crop_scale_min: float = 0.08
    """Smallest share of the image's area in a random crop (torchvision's RandomResizedCrop); 1 turns cropping off."""
    crop_scale_max: float = 1.0
    """Largest share."""
    flip: bool = True
    """Mirror half of the images; not for digits or text."""
    rotation_degrees: float = 0.0
    """Largest random rotation."""
    colour_jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor of 1 plus or minus at most this."""
    decode: Literal["faithful", "fast"] = "faithful"
    """The pixels of PIL's crop and resize, or JPEGs decoded at 1/2 to 1/8 where crops allow it, and a linear filter."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of faithful decoding, antialiased, and of evaluation."""
    seed: int = 0
    """Seed of the weights, of the order and of the augmentation."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the matrix products; auto is bf16 on GPUs and CPUs (AMX) where it is faster."""
    pixels: Literal["imagenet", "half", "clip"] = "imagenet"
    """What pixels are normalised by: mean and deviation of ImageNet, 0.5 and 0.5 (-1..1), or OpenAI's for CLIP."""
    crop_fraction: float = 1.0
    """Recorded for evaluation: side of the centre crop over the shorter side of the resized image."""
    checkpoint_every: Interval = 500
    """Steps between checkpoints, or time as in 10min: what a kill costs at most; a signal costs nothing."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Where metrics go besides metrics.jsonl; tensorboard and wandb write into the run folder."""
    on_bad_sample: Literal["fail", "skip"] = "fail"
    """What to do with a damaged image: stop, or leave it out and count it."""
    verify: Literal["quick", "full"] = "quick"
    """Before training: shards present with the right sizes, or every byte against its hash."""
    decode_threads: int = 0
    """Threads that decode ahead, more than four as processes; 0: two, with a GPU one for each core, sixteen at most."""
    torch_threads: int = 0
    """Torch's CPU threads per process; 0 for all its cores. Weights are promised bit for bit with 1."""
    cache_gb: float = 50.0
    """Disk for each set in a store or on the hub, in 10^9 bytes: at least 64 of its shards, read in turns."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    compile: bool = False
    """Compile the network with Inductor (GPU only)."""
    timeout_s: int = 600
    """Longest wait for another process before the job ends."""
    dry_run: bool = False
    """Print the plan with the rate measured on this device, hours and cost, and write nothing."""
    price_per_hour: float = 0.0
    """Dollars per hour of one process' machine, for --dry-run."""

    def __post_init__(self) -> None:
        # One length, in whatever unit; then the ranges.
        given = [name for name in ("samples", "steps", "epochs") if getattr(self, name)]
        if len(given) != 1:
            named = " and ".join(f"--{name}" for name in given) or "none of them"
            raise InputError(f"--samples, --steps, --epochs: {named} was given, expected exactly one length")
        if self.warmup_steps and self.warmup_samples:
            raise InputError("--warmup-steps, --warmup-samples: both were given, expected one length of the warm-up")
        check_ranges(self, **RANGES, **OBJECTIVE_RANGES, **OPTIMIZER_RANGES, **AUGMENTATION_RANGES)
        check_ranges(self, **VALIDATION_RANGES)
        # What depends on other settings.
        check_ranges(
            self,
            momentum=(0.001 if self.nesterov else 0, 0.99999),
            min_rate=(0, self.learning_rate),
            warmup_from=(-1, self.learning_rate),
            blur_sigma_max=(self.blur_sigma_min, 100),
            rand_augment_magnitude=(0, 30 if self.rand_augment in ("torchvision", "big_vision") else 10),
            crop_scale_max=(self.crop_scale_min, 1),
            local_scale_max=(self.local_scale_min, 1),
        )
        mixture = self.mixture()
        if self.out == BY_INPUTS:
            is_file = len(self.data) == 1 and self.data[0].endswith((".yaml", ".yml"))
            given = list(self.data) if is_file else [item.path for item in mixture.items]
            object.__setattr__(self, "out", derived("runs", *given) if given else Path("runs/lab"))
        parse_mixture(self.batch_norm_data)
        self.check_starting(self.architecture, self.head_bias)

    def mixture(self) -> Mixture:
        """Return which sets are read, and how much of each.

        Raises:
            InputError: a text of ``data`` that says neither.
        """
        return parse_mixture(self.data)

    def checkpoint_interval(self) -> tuple[int | None, float | None]:
        """Return the steps between checkpoints, or the seconds; the other one is None."""
        every = self.checkpoint_every
        return (every, None) if isinstance(every, int) else (None, parse_duration(every))

    def model_args(self) -> dict[str, float]:
        """Return the shape of a vision transformer where it was given."""
        return {name: getattr(self, name) for name in VIT_SHAPE if getattr(self, name)}

    def num_steps(self, images_per_epoch: int) -> int:
        """Return the optimizer steps of the whole training; a length that ends within a step is rounded up."""
        images = self.samples or self.epochs * images_per_epoch
        return self.steps or max(1, math.ceil(images / self.batch_size))


def choose_precision(asked: str, device: str) -> str:
    """Return ``bf16`` or ``fp32``; for ``auto`` the faster one on this device."""
    if asked != "auto":
        return asked
    return "bf16" if has_bf16_matrix_units(device) else "fp32"


def identity(
    config: TrainConfig, data: list[dict[str, Any]], precision: str, read: Sequence[str] = ("label_smoothing",)
) -> dict[str, Any]:
    """Return all that the weights depend on but the number of processes: settings, data by content, versions.

    ``read``: settings of the objective that it reads; what others are has no effect.
    """
    unread = {field.name for field in fields(ObjectiveSettings)} - {*read}
    unread |= OF_MEASURING if config.select == "last" else set()
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_IDENTITY}
    settings = {name: value for name, value in settings.items() if name not in unread}
    # Settings that the first plans did not know say nothing while they have the value that was theirs.
    default = {field.name: field.default for field in fields(config)}
    settings = {n: value for n, value in settings.items() if n not in SILENT_AT_DEFAULT or value != default[n]}
    installed = versions()
    libraries = {name: installed.get(name, "") for name in LIBRARIES}
    # Plans that say nothing of it are of versions in which LARS left matrices without decay to plain SGD.
    settings |= {"lars_adapts": "all matrices"} if config.optimizer == "lars" else {}
    return settings | {"precision": precision, "data": data, "versions": libraries, "rules": RULES}

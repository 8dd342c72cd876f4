"""A training, checked: its data, its network's shape and its length, before a weight is made or a file written.

In: `TrainConfig`. Out: `Job`. What the user can get wrong is refused here.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.machine import choose_device
from synclones.models.network import Preprocessing, check_network
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.verify import verify
from synclones.train.objective import Objective, load_objective
from synclones.train.settings import TrainConfig, choose_precision, identity

ANY_CLASSES = 10  # of a network that is only looked at


@dataclass(frozen=True)
class Job:
    """Everything a training needs."""

    config: TrainConfig
    objective: Objective
    sources: list[tuple[LabelledSource, int]]
    class_ids: tuple[str, ...]
    preprocessing: Preprocessing
    num_steps: int
    device: str
    precision: str
    plan: dict[str, Any]
    """Everything the weights depend on."""
    rank: int
    world_size: int

    @property
    def plan_id(self) -> str:
        """The identity of the training."""
        return sha256_bytes(canonical_json(self.plan))[:16]

    def loader(self, pin_memory: bool = False) -> BatchLoader:
        """Return the batches of this process."""
        config = self.config
        return BatchLoader(
            self.sources,
            batch_size=config.batch_size,
            seed=config.seed,
            crops=_crops(config),
            rank=self.rank,
            world_size=self.world_size,
            threads=config.decode_threads,
            on_bad_sample=config.on_bad_sample,
            pin_memory=pin_memory,
        )


def check_settings(config: TrainConfig, world_size: int) -> Objective:
    """Check what needs no data, before any is opened or drawn; return what is minimised.

    Raises:
        InputError: an objective, a tracker, a device or a network that this training cannot have.
    """
    if config.compile and choose_device(config.device) == "cpu":
        raise InputError("--compile: Inductor is slower than eager on CPUs; leave it out, or train on a GPU")
    # Before Accelerate looks for it: its own refusal comes late, and from every process.
    if config.track != "none" and find_spec(config.track) is None:
        raise InputError(f"--track {config.track}: not installed; run: pip install 'synclones[track]'")
    objective = load_objective(config.objective)
    # A step is only as possible as its smallest part: batch normalisation needs more than one value.
    shares = {len(slice_of_rank(config.batch_size, rank, world_size)) for rank in range(world_size)}
    smallest = min(_smallest_part(share, config.micro_batch_size) for share in shares)
    outputs = objective.num_outputs(ANY_CLASSES)
    check_network(config.architecture, outputs, config.image_size_px, config.model_args(), max(1, smallest))
    return objective


def _smallest_part(share: int, micro_batch: int) -> int:
    """Return how many images the smallest micro-batch of a process' share has."""
    size = min(micro_batch or share, share)
    return share % size or size if size else 0


def prepare(config: TrainConfig, rank: int, world_size: int) -> Job:
    """Check all input, and write nothing.

    Raises:
        InputError: when the data do not fit each other, the batch or the recipe.
        VerificationError: when a shard is not what its sidecars promise.
    """
    objective, device = check_settings(config, world_size), choose_device(config.device)
    sources = [(_open(folder, config.verify), repeat) for folder, repeat in config.sources()]
    class_ids = _common_classes([source for source, _ in sources])
    # The plan is the identity of the training: whoever resumes must ask for the same.
    precision = choose_precision(config.precision, device)
    plan = identity(config, [(source.content_hash(), repeat) for source, repeat in sources], precision)
    images = sum(sum(source.groups_per_shard) * repeat for source, repeat in sources)
    job = Job(
        config=config,
        objective=objective,
        sources=sources,
        class_ids=class_ids,
        preprocessing=_preprocessing(config),
        num_steps=config.num_steps(images),
        device=device,
        precision=precision,
        plan=plan,
        rank=rank,
        world_size=world_size,
    )
    job.loader()  # refuses a batch that does not fit
    return job


def _open(folder: Path, how: str) -> LabelledSource:
    source = LabelledSource(folder, split="train")
    verify(folder, quick=how == "quick", split=source.split)
    source.check_labels()
    return source


def _crops(config: TrainConfig) -> Crops:
    return Crops(
        size_px=config.image_size_px,
        scale_min=config.crop_scale_min,
        flip=config.flip,
        mode=config.decode,
        interpolation=config.interpolation,
        seed=config.seed,
    )


def _preprocessing(config: TrainConfig) -> Preprocessing:
    """Return what evaluation does with an image: it is resized by the filter that training saw."""
    return Preprocessing(
        size_px=config.image_size_px, crop_fraction=config.crop_fraction, interpolation=config.interpolation
    )


def _common_classes(sources: list[LabelledSource]) -> tuple[str, ...]:
    """Return the class list that all folders share.

    Raises:
        InputError: naming the first class in which two of them differ.
    """
    if not sources:
        raise InputError("--data: no folder was given; name one that `synclones generate` finished")
    first = sources[0]
    for other in sources[1:]:
        if other.class_ids != first.class_ids:
            pairs = list(zip(first.class_ids, other.class_ids, strict=False))
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            a, b = (ids[at] if at < len(ids) else "no class" for ids in (first.class_ids, other.class_ids))
            raise InputError(
                f"--data: {first.folder} and {other.folder} have other classes: label {at} is {a!r} and {b!r}; "
                "train on folders of one class list"
            )
    return first.class_ids

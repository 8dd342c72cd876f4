"""A training, checked: its data, its network's shape and its length, before a weight is made or a file written.

In: `TrainConfig`. Out: `Job`. What the user can get wrong is refused here.
"""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.machine import choose_device
from synclones.models.network import Preprocessing, check_network
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.mixture import Item
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.loading.parts import MixedSources, open_item, open_mixture
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.objective import Objective, load_objective
from synclones.train.settings import TrainConfig, choose_precision, identity

ANY_CLASSES = 10  # of a network that is only looked at


@dataclass(frozen=True)
class Job:
    """Everything a training needs."""

    config: TrainConfig
    objective: Objective
    mixed: MixedSources
    preprocessing: Preprocessing
    num_steps: int
    device: str
    precision: str
    plan: dict[str, Any]
    """Everything the weights depend on."""
    rank: int
    world_size: int

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return self.mixed.class_ids

    @property
    def plan_id(self) -> str:
        """The identity of the training."""
        return sha256_bytes(canonical_json(self.plan))[:16]

    def loader(self, pin_memory: bool = False) -> BatchLoader:
        """Return the batches of this process."""
        config = self.config
        return BatchLoader(
            self.mixed,
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
    mixed = open_mixture(config.mixture(), lambda item: _open(item, config, rank))
    mixed.check_caches()
    # The plan is the identity of the training: whoever resumes must ask for the same.
    precision = choose_precision(config.precision, device)
    plan = identity(config, [part.identity() for part in mixed.parts], precision)
    job = Job(
        config=config,
        objective=objective,
        mixed=mixed,
        preprocessing=_preprocessing(config),
        num_steps=config.num_steps(mixed.images_per_epoch),
        device=device,
        precision=precision,
        plan=plan,
        rank=rank,
        world_size=world_size,
    )
    job.loader()  # refuses a batch that does not fit
    return job


def _open(item: Item, config: TrainConfig, rank: int) -> LabelledSource:
    source = open_item(item, config.cache_gb)
    try:
        source.source.check(quick=config.verify == "quick")
        source.check_labels()
    except VerificationError as error:
        if config.on_bad_sample == "fail":
            raise
        if rank == 0:  # what it hits is left out when its turn comes, counted, and bounded by the loader
            print(f"{error}; going on without what is damaged", file=sys.stderr)
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

"""A training, checked: its data, its network's shape and its length, before a weight is made or a file written.

In: `TrainConfig`. Out: `Job`. What the user can get wrong is refused here.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.machine import choose_device, cores
from synclones.models.network import PIXELS, Preprocessing
from synclones.models.stored import StoredWeights
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.extras import Extras, array_width
from synclones.shards.loading.mixture import Item, parse_mixture
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.loading.parts import MixedSources, open_item, open_mixture
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.augmentation.mixing import check_mixing
from synclones.train.augmentation.reading import crops, rand_augment
from synclones.train.caching import why_not_cached
from synclones.train.label_captions import label_captions
from synclones.train.measures.named_sets import held_out, open_named
from synclones.train.measures.validation_sets import ValidationSets, check_validation, open_validation
from synclones.train.network.zero_shot_start import texts_of
from synclones.train.objective import ANY_CLASSES, CAPTION, CAPTION_ID, LABEL, VECTOR, Objective, Task, load_objective
from synclones.train.settings import TrainConfig, choose_precision, identity
from synclones.train.starting import check_start, open_weights, start_identity
from synclones.train.token_column import check_token_columns, token_column_name

THREADS_BESIDE_TRAINING, DECODERS_OF_A_GPU = 2, 16  # by default: on a CPU; at most, one for each core


@dataclass(frozen=True)
class Job:
    """Everything a training needs."""

    config: TrainConfig
    objective: Objective
    mixed: MixedSources
    extras: Extras
    task: Task
    num_steps: int
    device: str
    precision: str
    plan: dict[str, Any]
    """Everything the weights depend on."""
    rank: int
    world_size: int
    statistics: MixedSources | None = None
    """What the statistics of batch normalisation are computed from at the end."""
    measured: ValidationSets = ValidationSets()
    """What is measured on during the training."""
    caches_features: bool = False
    """Whether each image goes through a frozen network once, and its features are read from then on."""

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return self.mixed.class_ids

    @property
    def preprocessing(self) -> Preprocessing:
        """What evaluation does with an image."""
        return self.task.preprocessing

    @property
    def plan_id(self) -> str:
        """The identity of the training."""
        return sha256_bytes(canonical_json(self.plan))[:16]

    @property
    def decode_threads(self) -> int:
        """How many threads, or processes, decode images."""
        beside = min(cores(), DECODERS_OF_A_GPU) if self.device == "cuda" else THREADS_BESIDE_TRAINING
        return self.config.decode_threads or beside

    def _held_out(self) -> list[np.ndarray | None]:
        """Return which images of each set are never shown; pairs, which are two sets, hold out none."""
        return [source.without for part in self.mixed.parts for source in part.sets]

    def loader(self, pin_memory: bool = False, kind: Callable[..., BatchLoader] = BatchLoader) -> BatchLoader:
        """Return the batches of this process, of images."""
        config = self.config
        return kind(
            self.mixed,
            batch_size=config.batch_size,
            seed=config.seed,
            crops=crops(config),
            extras=self.extras,
            change=rand_augment(config, self.preprocessing),
            rank=self.rank,
            world_size=self.world_size,
            threads=self.decode_threads,
            reopen=partial(_reopened, config, self.preprocessing, self._held_out(), self.rank, self.world_size),
            on_bad_sample=config.on_bad_sample,
            pin_memory=pin_memory,
        )


def _reopened(
    config: TrainConfig,
    preprocessing: Preprocessing,
    held_out: list[np.ndarray | None],
    rank: int,
    world_size: int,
) -> BatchLoader:
    """Open what a job reads in another process, which was checked in the job's own; ``held_out``: of each set."""
    objective, without = load_objective(config.objective), iter(held_out)
    labelled = _is_labelled(objective, config)

    def opened(item: Item) -> LabelledSource:
        source, images = _unchecked(item, config, labelled), next(without)
        return source if images is None else source.leaving_out(images)

    mixed = open_mixture(config.mixture(), opened)
    job = Job(
        config=config,
        objective=objective,
        mixed=mixed,
        extras=_extras(objective, config),
        task=Task(config, mixed.class_ids, preprocessing),
        num_steps=config.num_steps(mixed.images_per_epoch),
        device="cpu",
        precision="",
        plan={},
        rank=rank,
        world_size=world_size,
    )
    return job.loader()


def check_settings(config: TrainConfig, world_size: int, class_ids: tuple[str, ...] | None = None) -> Objective:
    """Check all but the data, whose classes will be ``class_ids``, before any is drawn; return what is minimised.

    Raises:
        InputError: an objective, a tracker, a device, a network or a set to measure on that this training cannot have.
    """
    objective = _check_opened(config := open_weights(config)[0], world_size)
    for text in config.validate:
        open_named(text, class_ids, "--validate", quick=True, cache_gb=config.cache_gb)
    _statistics(config, rank=0)
    return objective


def _check_opened(config: TrainConfig, world_size: int) -> Objective:
    if choose_device(config.device) == "cpu" and config.compile:
        raise InputError("--compile: Inductor is slower than eager on CPUs; leave it out, or train on a GPU")
    # Before Accelerate looks for it: its own refusal comes late, and from every process.
    if config.track != "none" and find_spec(config.track) is None:
        extra = "wandb" if config.track == "wandb" else "track"
        raise InputError(f"--track {config.track}: not installed; run: pip install 'synclones[{extra}]'")
    objective = load_objective(config.objective)
    objective.check_settings(config)
    check_validation(config, LABEL in objective.columns or CAPTION in objective.columns)
    if config.validate or config.hold_out:
        objective.check_measurable(config)
    if config.mixes:
        check_mixing(config.batch_size, config.micro_batch_size, world_size)
    # A step is only as possible as its smallest part: batch normalisation needs more than one value.
    shares = {len(slice_of_rank(config.batch_size, rank, world_size)) for rank in range(world_size)}
    smallest = min(_smallest_part(share, config.micro_batch_size) for share in shares)
    classes = tuple(map(str, range(ANY_CLASSES)))
    objective.check(Task(config, classes, _preprocessing(config), ANY_CLASSES), max(1, smallest))
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
    config, stored = open_weights(config)
    objective, device = _check_opened(config, world_size), choose_device(config.device)
    labelled = _is_labelled(objective, config)
    mixed = open_mixture(config.mixture(), lambda item: _open(item, config, rank, labelled))
    mixed.check_caches()
    extras = _extras(objective, config)
    width = array_width(mixed, config.teacher_column) if extras.array_column else 0
    task = _task(config, mixed.class_ids, width, stored)
    objective.check_task(task)
    check_start(objective, task)
    statistics = _statistics(config, rank)
    extras.check(mixed)
    if extras.token_column:
        check_token_columns(config, mixed, rank)
    # The plan is the identity of the training: whoever resumes must ask for the same.
    precision = choose_precision(config.precision, device)
    plan = identity(config, [part.identity() for part in mixed.parts], precision, objective.settings)
    plan |= start_identity(task)
    plan |= {"batch_norm_data": [part.identity() for part in statistics.parts]} if statistics else {}
    measured = open_validation(config, mixed, objective.classes(task))
    if objective.num_heads(config) > 1:
        plan |= {"chosen_on": measured.content(objective.chosen_on(config))}
    caches_features = not why_not_cached(config, objective, mixed)
    plan |= {"features": "cached"} if caches_features else {}
    job = Job(
        config=config,
        objective=objective,
        mixed=mixed,
        extras=extras,
        task=task,
        num_steps=config.num_steps(mixed.images_per_epoch),
        device=device,
        precision=precision,
        plan=parse_json(canonical_json(plan | objective.reads(config) | extras.identity(mixed))),  # as it is read back
        rank=rank,
        world_size=world_size,
        statistics=statistics,
        measured=measured,
        caches_features=caches_features,
    )
    job.loader()  # refuses a batch that does not fit
    return job


def _task(config: TrainConfig, class_ids: tuple[str, ...], width: int, stored: StoredWeights | None) -> Task:
    """Return what a learner is built for; a CLIP that begins zero-shot sees pixels as it always has."""
    task = Task(config, class_ids, _preprocessing(config), width, stored)
    if stored is None or not task.is_zero_shot:
        return task
    if config.pixels != "imagenet" and tuple(PIXELS[config.pixels][0]) != tuple(stored.mean):
        raise InputError(f"--pixels {config.pixels}: the weights were trained with mean {stored.mean}; leave it out")
    pixels = replace(task.preprocessing, mean=stored.mean, std=stored.std)
    texts = texts_of(config.zero_shot_classes, config.zero_shot_templates, class_ids)
    return replace(task, preprocessing=pixels, texts=texts)


def _statistics(config: TrainConfig, rank: int) -> MixedSources | None:
    """Open the sets of ``--batch-norm-data``.

    Raises:
        InputError: by that flag.
    """
    if not config.batch_norm_data:
        return None
    images_alone = replace(config, images_per_caption=1, hold_out=0.0)
    try:
        return open_mixture(parse_mixture(config.batch_norm_data), lambda item: _open(item, images_alone, rank, False))
    except InputError as error:
        raise InputError(str(error).replace("--data:", "--batch-norm-data:")) from None


def _extras(objective: Objective, config: TrainConfig) -> Extras:
    """Return what the objective's columns ask of images beside pixels and labels.

    Raises:
        InputError: a column that has to be named, and is not.
    """
    if VECTOR in objective.columns and not config.teacher_column:
        raise InputError(
            f"--objective {objective.name}: needs a column of vectors; name one with --teacher-column, or make one "
            "with `synclones shards annotate`"
        )
    has_text = CAPTION in objective.columns
    return Extras(
        tokenize=objective.tokenizer(config) if has_text else None,
        text_length=config.text_length if has_text else 0,
        caption_column=config.caption_column,
        token_column=token_column_name(config.text_length, config.caption_column) if has_text else "",
        captions=CAPTION_ID in objective.columns and config.positives == "caption",
        array_column=config.teacher_column,
        seed=config.seed,
    )


def _is_labelled(objective: Objective, config: TrainConfig) -> bool:
    return LABEL in objective.columns or config.positives == LABEL


def _unchecked(item: Item, config: TrainConfig, labelled: bool) -> LabelledSource:
    how: dict[str, Any] = {"cache_gb": config.cache_gb, "label_captions": label_captions(config)}
    return open_item(item, config.images_per_caption, labelled=labelled, **how)


def _open(item: Item, config: TrainConfig, rank: int, labelled: bool) -> LabelledSource:
    source = _unchecked(item, config, labelled)
    try:
        source.source.check(quick=config.verify == "quick")
        if labelled:
            source.check_labels()
    except VerificationError as error:
        if config.on_bad_sample == "fail":
            raise
        if rank == 0:  # what it hits is left out when its turn comes, counted, and bounded by the loader
            print(f"{error}; going on without what is damaged", file=sys.stderr)
    return source.leaving_out(held_out(source, config.hold_out, config.seed)) if config.hold_out else source


def _preprocessing(config: TrainConfig) -> Preprocessing:
    """Return what evaluation does with an image: it is resized by the filter that training saw."""
    mean, std = PIXELS[config.pixels]
    return Preprocessing(
        size_px=config.image_size_px,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
        mean=mean,
        std=std,
    )

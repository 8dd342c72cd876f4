"""A training, checked: its data, its network's shape and its length, before a weight is made or a file written.

In: `TrainConfig`. Out: `Job`. What the user can get wrong is refused here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.machine import choose_device
from synclones.base.manifest import MANIFEST_FILE
from synclones.models.network import Preprocessing
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.verify import verify
from synclones.train.checkpoint import check_format
from synclones.train.objective import Objective, load_objective
from synclones.train.settings import RULES, TrainConfig, choose_precision, identity

PLAN, PLAN_FORMAT = "plan.json", 1


@dataclass(frozen=True)
class Job:
    """Everything a training needs."""

    config: TrainConfig
    objective: Objective
    sources: list[tuple[LabelledSource, int]]
    class_ids: tuple[str, ...]
    preprocessing: Preprocessing
    stored_px: int
    """Side of the images that the loader hands out."""
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
            size_px=self.stored_px,
            rank=self.rank,
            world_size=self.world_size,
            threads=config.decode_threads,
            on_bad_sample=config.on_bad_sample,
            pin_memory=pin_memory,
        )


def prepare(config: TrainConfig, rank: int, world_size: int) -> Job:
    """Check all input, and write nothing.

    Raises:
        InputError: when the data do not fit each other, the batch or the recipe.
        VerificationError: when a shard is not what its sidecars promise.
    """
    # What needs no data is refused before any is opened.
    device = choose_device(config.device)
    if config.compile and device == "cpu":
        raise InputError("--compile: Inductor is slower than eager on CPUs; leave it out, or train on a GPU")
    objective = load_objective(config.objective)
    # Images of all sources leave the loader in one size, that of the smallest, so that they make one batch.
    sources = [(_open(folder, config.verify), repeat) for folder, repeat in config.sources()]
    class_ids = _common_classes([source for source, _ in sources])
    stored_px = min(first_image(source).shape[:2] for source, _ in sources)
    # The plan is the identity of the training: whoever resumes must ask for the same.
    precision = choose_precision(config.precision, device)
    plan = identity(config, [(source.content_hash(), repeat) for source, repeat in sources], precision)
    images = sum(sum(source.groups_per_shard) * repeat for source, repeat in sources)
    job = Job(
        config=config,
        objective=objective,
        sources=sources,
        class_ids=class_ids,
        preprocessing=Preprocessing(size_px=config.image_size_px, crop_fraction=config.crop_fraction),
        stored_px=int(min(stored_px)),
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
    return source


def first_image(source: LabelledSource) -> Any:
    """Return the first stored image, uint8[h, w, 3]."""
    return source.read(0).pixels


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


def claim_plan(job: Job) -> None:
    """Write the plan into the run folder, or compare it with the one there; the caller owns the folder.

    Raises:
        InputError: when it belongs to another training, saying what differs, or a newer synclones wrote its plan.
        VerificationError: when its plan cannot be read.
    """
    path = job.config.out / PLAN
    if path.exists():
        earlier = _read_plan(path)
        if earlier.get("rules", 1) != RULES and not (job.config.out / MANIFEST_FILE).exists():
            raise InputError(
                f"{job.config.out}: begun by a version with other crops and another weight decay; going on would mix "
                "them: finish it with that version of synclones, or give another --out"
            )
        if {**earlier, "rules": RULES} != job.plan:
            changes = differences(earlier, job.plan)
            raise InputError(f"{job.config.out}: belongs to another training: {changes}; give another --out")
    elif (job.config.out / "checkpoints").exists():
        raise InputError(f"{job.config.out}: has checkpoints but no {PLAN}; give another --out")
    else:
        write_atomic(path, pretty_json({"format": PLAN_FORMAT, **job.plan}))


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = read_json(path)
    except ValueError:
        plan = None
    if not isinstance(plan, dict):
        raise VerificationError(f"{path}: damaged; restore it, or train into a new folder")
    check_format(plan, PLAN_FORMAT, path)
    return {key: value for key, value in plan.items() if key != "format"}

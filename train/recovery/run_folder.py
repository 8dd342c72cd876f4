"""The folder of a training: whose it is and whether it is finished, decided before a byte is written into it.

In: `TrainConfig` or `Job`. Out: refusals, a held lock, ``plan.json`` and ``config.yaml``.
"""

import os
from pathlib import Path
from typing import Any

from synclones.base.config import save
from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import refuse_other_kinds, remove_leftovers, sha256_bytes, sha256_file, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.models.folder import CLIP_CONFIG, CLIP_WEIGHTS, CONFIG, WEIGHTS, stated_hashes
from synclones.models.load import files_of
from synclones.shards.lock import Claim, claim
from synclones.train.job import Job
from synclones.train.recovery.checkpoint import check_format
from synclones.train.recovery.folder_names import (
    BEST,
    CHECKPOINTS,
    EXPORT,
    FEATURES,
    LOCK,
    METRICS,
    PLAN,
    SETTINGS,
    list_checkpoints,
)
from synclones.train.settings import NEW_WITH_RULES_3, RULES, TrainConfig

PLAN_FORMAT = 1


def check_place(config: TrainConfig) -> None:
    """Refuse an ``--out`` where no run folder can be, or that another command made; nothing is written.

    Raises:
        InputError: saying what is there.
    """
    out = config.out
    if os.path.lexists(out):
        if not out.is_dir():
            raise InputError(f"--out: {out} is no folder; give the path of a new one, or of a training to go on with")
        _refuse_other_stages(out)
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK) or parent == Path("/proc"):
        raise InputError(f"--out: {out}: nothing can be written into {parent}; give another folder")


def _refuse_other_stages(out: Path) -> None:
    kinds = ((CONFIG, WEIGHTS), (CLIP_CONFIG, CLIP_WEIGHTS))
    if any((out / config).is_file() and (out / weights).is_file() for config, weights in kinds):
        raise InputError(f"--out: {out} is a model folder; give a new folder, or the run that it is the export of")
    stage = _manifest(out).get("stage", "train")
    if stage != "train":
        raise InputError(f"--out: {out} was made by another command ({stage}); give a new folder")
    for name in (PLAN, METRICS):
        if (out / name).is_symlink():
            raise InputError(f"{out / name}: a link; put the file itself there, or give another --out")
    refuse_other_kinds(out, (PLAN, METRICS, SETTINGS, MANIFEST_FILE), (CHECKPOINTS, BEST, FEATURES))


def _manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of a folder, nothing when there is none that can be read."""
    try:
        return read_manifest(out)
    except InputError:
        return {}


def own(job: Job) -> Claim:
    """Make the run folder this job's.

    Raises:
        InputError: when it belongs to another training, or another process trains in it.
        VerificationError: when its plan cannot be read.
    """
    out = job.config.out
    out.mkdir(parents=True, exist_ok=True)
    held = claim(out, LOCK)
    if held is None:
        raise InputError(f"{out}: another process trains here; wait for it, or give another --out")
    try:  # the plan is looked at by whoever owns the folder: of two commands at once, only one writes it
        claim_plan(job)
        remove_leftovers(out)
    except BaseException:
        held.path.unlink(missing_ok=True)
        held.release()
        raise
    return held


def claim_plan(job: Job) -> None:
    """Write the plan into the run folder, or compare it with the one there; the caller owns the folder.

    Raises:
        InputError: when it belongs to another training, saying what differs, or a newer synclones wrote its plan.
        VerificationError: when its plan cannot be read.
    """
    out = job.config.out
    if (out / PLAN).exists():
        earlier = _read_plan(out / PLAN)
        rules = earlier.get("rules", 1)
        if rules != RULES and not is_finished(job):
            raise InputError(
                f"{out}: begun by a version of other rules ({rules}, these are {RULES}: crops, weight decay or order "
                "differ); going on would mix them: finish it with that version of synclones, or give another --out"
            )
        if rules != RULES:  # finished, and read as what it is
            earlier = {**NEW_WITH_RULES_3, **earlier, "rules": RULES}
        if earlier != job.plan:
            changes = differences(earlier, job.plan)
            raise InputError(f"{out}: belongs to another training: {changes}; give another --out")
    for name in (CHECKPOINTS, MANIFEST_FILE):
        if not (out / PLAN).exists() and (out / name).exists():
            raise InputError(f"{out}: has {name} but no {PLAN}; give another --out")
    if not (out / PLAN).exists():
        write_atomic(out / PLAN, pretty_json({"format": PLAN_FORMAT, **job.plan}))


def is_finished(job: Job) -> bool:
    """Return whether the manifest is of the plan there, and the export the one that it states the hashes of.

    Raises:
        VerificationError: when the export is damaged, and no checkpoint is left to make it again from.
    """
    out = job.config.out
    if not (out / MANIFEST_FILE).exists():
        return False
    plan_id = sha256_bytes(canonical_json(_read_plan(out / PLAN)))[:16]
    whole = _export_is_whole(out / EXPORT) and (not job.task.is_zero_shot or _head_is_whole(out / EXPORT, job))
    if _manifest(out).get("plan_id") == plan_id and whole:
        return True
    if not list_checkpoints(out / CHECKPOINTS):
        raise VerificationError(
            f"{out}: {MANIFEST_FILE} or {EXPORT} is damaged, and no checkpoint is left to make it again from; "
            f"restore it, or delete {MANIFEST_FILE} to train anew"
        )
    return False


def _export_is_whole(export: Path) -> bool:
    """Return whether both files are there and have the hashes that manifest and card state."""
    try:
        names = files_of(export)
        hashes = {name: sha256_file(export / name) for name in names}
        stated = stated_hashes(export, *names)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, InputError):
        return False
    return all(digest == hashes[name] for name, by in stated.items() for digest in by.values())


def _head_is_whole(export: Path, job: Job) -> bool:
    from synclones.models.zero_shot import read_trained_head  # loads open_clip

    try:
        return read_trained_head(export, len(job.class_ids)) is not None
    except (InputError, VerificationError):
        return False


def save_config(job: Job) -> None:
    """Write the settings beside the plan, for people and for ``--config``."""
    save(job.config, job.config.out / SETTINGS)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = read_json(path)
    except (ValueError, FileNotFoundError):
        plan = None
    if not isinstance(plan, dict):
        raise VerificationError(f"{path}: damaged; restore it, or train into a new folder")
    check_format(plan, PLAN_FORMAT, path)
    return {key: value for key, value in plan.items() if key != "format"}

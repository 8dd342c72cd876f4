"""Draws stored images again from plan and prompts, and compares bytes: the proof that a dataset is what its plan says.

In: a plan, its dataset folder, its prompt table, a sampler. Out: a line that says what was equal, or VerificationError.
"""

from pathlib import Path

import numpy as np

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import write_atomic
from synclones.generate.batch import draw_batch
from synclones.generate.plan import Plan
from synclones.generate.sampling.sampler import Sampler
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder
from synclones.shards.schema import FailedSample, Sample
from synclones.shards.write import is_complete


def redraw_one(
    plan: Plan, stored: ShardFolder, table: PromptTable, sampler: Sampler, index: int, out: Path | None
) -> str:
    """Draw the batch of one image again, compare the image, and return a line that says so.

    Args:
        out: gets the new image.

    Raises:
        VerificationError: when its bytes or scores differ from the stored ones.
    """
    sample = stored.get(index)
    batch = next(b for b in plan.batches(index // plan.images_per_shard) if index in b)
    drawn = draw_batch(plan, sampler, table.rows(batch.start, batch.stop))[index - batch.start]
    jpg, scores = _facts(drawn)
    if out is not None and jpg:
        write_atomic(out, jpg)
    if (jpg, scores) != _facts(sample):
        what = "" if jpg != sample.jpg else f" in its scores ({scores}, {sample.scores} stored)"
        raise VerificationError(
            f"{stored.folder}: image {index} drawn again (seed {sample.seed}) differs from the stored one{what}"
        )
    return f"image {index}: seed {sample.seed}, {sample.txt!r}: drawn again, the same {len(jpg)} bytes"


def redraw_some(plan: Plan, stored: ShardFolder, table: PromptTable, sampler: Sampler, at_least: int, seed: int) -> str:
    """Draw random batches again until ``at_least`` images were compared, and return a line that says so.

    Raises:
        VerificationError: when images differ; it names the first.
    """
    batches = [batch for shard in range(plan.num_shards) for batch in plan.batches(shard)]
    compared, differ, tried = 0, list[int](), 0
    for number in np.random.default_rng(seed).permutation(len(batches)):
        drawn = draw_batch(plan, sampler, table.rows(batches[number].start, batches[number].stop))
        differ += [sample.index for sample in drawn if _facts(sample) != _stored_facts(stored, sample.index)]
        compared, tried = compared + len(drawn), tried + 1
        if compared >= at_least:
            break
    if differ:
        raise VerificationError(
            f"{stored.folder}: {len(differ)} of {compared} images drawn again differ from the stored ones, "
            f"such as {differ[:3]}"
        )
    return f"{stored.folder}: {compared} images of {tried} random batches drawn again, the same bytes"


def redraws_alike(plan: Plan, folder: Path, table: PromptTable, sampler: Sampler) -> bool | None:
    """Draw the first batch of a finished shard again; return whether the bytes are equal, None without a shard.

    Bytes are promised on CPU. On a GPU kernels may differ between drivers and devices of one name, so a process that
    resumes on one says whether it continues the same images or only the same prompts and seeds.
    """
    shard = next((n for n in range(plan.num_shards) if is_complete(folder, plan.shard_name(n))), None)
    if shard is None:
        return None
    batch = plan.batches(shard)[0]
    drawn = draw_batch(plan, sampler, table.rows(batch.start, batch.stop))
    stored = {
        sample.index: sample.jpg for sample in ShardFolder(folder, plan.split).sequential([plan.shard_name(shard)])
    }
    return all(stored.get(s.index) == (s.jpg if isinstance(s, Sample) else None) for s in drawn)


def _facts(drawn: Sample | FailedSample) -> tuple[bytes, str]:
    """Return the image and its scores, or nothing for a sample without an image: all must be as they were."""
    return (drawn.jpg, drawn.scores) if isinstance(drawn, Sample) else (b"", "")


def _stored_facts(stored: ShardFolder, index: int) -> tuple[bytes, str]:
    try:
        return _facts(stored.get(index))
    except InputError:
        return b"", ""  # recorded as failed or dropped

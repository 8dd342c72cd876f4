"""Draws one planned batch: prompt rows in, samples for a shard out.

In: a plan, a sampler, the rows of a batch. Out: per row a `Sample` with its JPEG, or a `FailedSample` with the reason.
"""

from collections.abc import Sequence
from typing import Any

import simplejpeg

from synclones.base.json_file import canonical_json
from synclones.generate.plan import Plan
from synclones.generate.sampling.sampler import DrawnImage, Sampler
from synclones.prompts.schema import PromptRow
from synclones.shards.schema import FailedSample, Sample, SampleRow


def draw_batch(
    plan: Plan, sampler: Sampler, rows: Sequence[PromptRow], earlier: Sequence[SampleRow] = ()
) -> list[Sample | FailedSample]:
    """Draw and encode one batch of prompt rows, in their order; ``earlier`` as in `Sampler.draw`."""
    drawn = sampler.draw(rows, earlier)
    return [_to_sample(plan, row, record) for row, record in zip(rows, drawn, strict=True)]


def _to_sample(plan: Plan, row: PromptRow, drawn: DrawnImage) -> Sample | FailedSample:
    # What the sidecar's row has of every planned sample, drawn or not.
    verdict = drawn.verdict
    shared: dict[str, Any] = {
        "index": row.index,
        "label": row.label if plan.has_labels else None,
        "seed": drawn.seed,
        "attempt": drawn.attempt,
        "reason": verdict.reason,
        "scores": verdict.scores,
    }
    if verdict.status != "ok":
        return FailedSample(status=verdict.status, **shared)
    # What travels with the image; constants of the set are in its plan.
    facts = {
        "index": row.index,
        "seed": drawn.seed,
        "attempt": drawn.attempt,
        "class_id": row.class_id,
        "caption_id": row.caption_id,
        "plan": plan.plan_id,
    }
    jpg = simplejpeg.encode_jpeg(drawn.image, quality=plan.jpeg_quality, colorspace="RGB", colorsubsampling="420")
    return Sample(jpg=jpg, json=canonical_json(facts), txt=row.prompt, **shared)

"""How far a generation is: what `shards.status` counts in its folder, and what to do about images that failed.

In: a dataset folder that ``synclones generate`` began. Out: a `Status`, or None for others' folders.
"""

from dataclasses import replace
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.resume import typed
from synclones.base.status import Status
from synclones.generate.plan import PLAN_FILE, read_plan
from synclones.generate.retry import retry_command
from synclones.shards.status import status as dataset_status


def status(path: Path) -> Status | None:
    """Return how far the images of a folder are that `synclones generate` draws."""
    if not (path / PLAN_FILE).is_file():
        return None
    try:
        read_plan(path)
    except InputError:
        return None  # of another stage, or damaged: the room of shards knows
    known = dataset_status(path)
    if known is None or known.state != "finished":
        return known
    if known.failed or known.dropped:
        return replace(known, next=retry_command(path, "failed" if known.failed else "dropped"))
    return replace(known, next=typed(["train", "--data", str(path), "--out", f"runs/{path.resolve().name}"]))

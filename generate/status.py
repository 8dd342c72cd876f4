"""How far a generation is: what `shards.status` counts in its folder, and what to do about images that failed.

In: a dataset folder that ``synclones generate`` began. Out: a `Status`, or None for others' folders.
"""

from dataclasses import replace
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.manifest import names_of_classes
from synclones.base.resume import typed
from synclones.base.status import Status
from synclones.generate.plan import PLAN_FILE, read_plan
from synclones.generate.retry import retry_command
from synclones.lab.world import preset_for
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
    return replace(known, next=typed(_train_words(path, known.done)))


def _train_words(path: Path, images: int) -> list[str]:
    """Return the words that train on a set: by the lab's recipe on its digits, else with a length, as one is needed."""
    is_labs = preset_for(names_of_classes(path).values()) == "lab"
    how, batch = (["--recipe", "lab"], 128) if is_labs else (["--epochs", "10"], 1024)
    small = ["--batch-size", str(images)] if images < batch else []
    return ["train", "--data", str(path), *how, *small, "--out", f"runs/{path.resolve().name}"]

"""The names in a run folder, known without loading torch: for who trains, and for who only looks.

In: a run folder. Out: where its parts lie, and which checkpoints it has.
"""

import re
from pathlib import Path

PLAN, SETTINGS = "plan.json", "config.yaml"
CHECKPOINTS, METRICS, EXPORT = "checkpoints", "metrics.jsonl", "export"
FEATURES = "features"
"""Of images that a frozen network sees once."""
BEST = "best"
"""The checkpoint of the best measurement, where that is what is exported."""
LOCK = "run"
"""What a training holds while it works in the folder."""
_CHECKPOINT = re.compile(r"step-(\d{8,})")


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of every folder with the name of a checkpoint, oldest first, whole or not."""
    named = [(_CHECKPOINT.fullmatch(path.name), path) for path in Path(folder).glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match)

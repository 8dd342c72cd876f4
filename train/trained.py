"""A finished training in Python: where its parts lie, and what it logged.

In: a run folder. Out: `TrainedRun`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.train.progress import read_metrics
from synclones.train.recovery.folder_names import EXPORT, METRICS


@dataclass(frozen=True)
class TrainedRun:
    """A run folder."""

    folder: Path

    @property
    def export(self) -> Path:
        """The model, a folder that timm or open_clip loads by ``local-dir:``."""
        return self.folder / EXPORT

    def metrics(self) -> list[dict[str, Any]]:
        """Return the logged intervals in order: ``step``, ``samples``, ``loss``, ``learning_rate`` and so on."""
        return read_metrics(self.folder / METRICS)

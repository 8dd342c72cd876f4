"""What Figures 3 and 4 are drawn from: accuracy, calibration and shape bias, as the authors' logs state them.

In: ``figures.csv``. Out: `Cell`s by model and column key. Calibration errors counted again from the logs' bins are the
stated ones to 1e-5 for all 39.
"""

from dataclasses import dataclass
from functools import cache

from synclones.evaluate.published.tables import FIGURES, Cell, Column, read_csv

SETS = {"imagenet": "ImageNet", "imagenetr": "ImageNet-R", "imageneta": "ImageNet-A"}
"""Set as its column is keyed -> its name."""
HALF_DIGIT = 0.5e-4
"""Of errors in hundredths of points and of fractions with four digits alike."""


@dataclass(frozen=True)
class Logged(Cell):
    """A number of a log that a figure is drawn from."""

    figure: int

    @property
    def place(self) -> str:
        """Which figure it is shown in."""
        return f"Figure {self.figure}"

    @property
    def source(self) -> str:
        """Where it stands."""
        return f"the log of {self.row} behind {self.place}, {self.column.heading}"


@cache
def figures() -> dict[str, dict[str, Logged]]:
    """Return what the logs state of each model: ``accuracy_SET``, ``ece_SET``, ``shape_bias``; Table 2 has one more."""
    return {line["model"]: _of_model(line) for line in read_csv("figures.csv")}


def _of_model(line: dict[str, str]) -> dict[str, Logged]:
    cells = {}
    for key, name in SETS.items():
        right = f"{100 - float(line[f'error_{key}']):.2f}"
        if name != "ImageNet":
            cells[f"accuracy_{key}"] = _cell(line, f"accuracy {name}", "accuracy", "higher", right, 100.0, 3)
        cells[f"ece_{key}"] = _cell(line, f"ECE {name}", "ece", "lower", line[f"ece_{key}"], 1.0, 3)
    cells["shape_bias"] = _cell(line, "shape bias", "shape_bias", "higher", line["shape_bias"], 1.0, 4)
    return cells


def _cell(line: dict[str, str], heading: str, metric: str, better: str, text: str, unit: float, figure: int) -> Logged:
    model, column = line["model"], Column(metric, heading, better, metric)
    return Logged(FIGURES, model, model, column, text, float(text) / unit, HALF_DIGIT, figure)

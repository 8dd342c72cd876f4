"""A folder of results in Python: its numbers, as they are or as a table of pandas.

In: a folder that ``synclones evaluate`` wrote. Out: `Results`.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base.errors import InputError
from synclones.evaluate.stored.output import REPORT
from synclones.evaluate.stored.results import Cell, read_cells

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Results:
    """The numbers of a folder of results, or some of them."""

    folder: Path
    cells: tuple[Cell, ...]
    """By set, model, metric and settings."""

    @property
    def report(self) -> Path:
        """The page with tables and figures of all numbers of the folder."""
        return self.folder / REPORT

    def __len__(self) -> int:
        return len(self.cells)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row for each number, its settings as columns of their own: values are fractions.

        Raises:
            InputError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise InputError("to_pandas(): pandas is not installed; run: pip install pandas")
        import pandas

        return pandas.DataFrame([_row(cell) for cell in self.cells])


def _row(cell: Cell) -> dict[str, object]:
    first = ("dataset", "model", "metric", "value", "ci_low", "ci_high", "n", "interval", "protocol", "trained_on_test")
    last = ("suite", "weights_sha256", "dataset_sha256", "seed")
    settings = {name: value for name, value in cell.settings.items() if name not in (*first, *last)}
    return {n: getattr(cell, n) for n in first} | settings | {n: getattr(cell, n) for n in last}


def results(folder: Path | str, weights_sha256: str = "") -> Results:
    """Open a folder of results; ``weights_sha256``: with the numbers of these weights alone.

    Raises:
        InputError: no such folder, or no results in it.
        VerificationError: a result is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that `synclones evaluate` made")
    cells = read_cells(folder)
    if not cells:
        raise InputError(f"{folder}: holds no results; give a folder that `synclones evaluate` made")
    return Results(folder, tuple(c for c in cells if c.weights_sha256 == weights_sha256 or not weights_sha256))

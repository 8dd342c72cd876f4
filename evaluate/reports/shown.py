"""What figures show of all results of a folder: for each model its cells, every number once, and how it is drawn.

In: `Cell`s. Out: `Shown` models. Figures show numbers of the corrected protocol; of a model that has none, the paper's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from synclones.base.page_style import SERIES
from synclones.evaluate.published.beside import is_clone, model_of
from synclones.evaluate.reports.cell_text import PAPER, heading
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell

MAX_MODELS = 24
"""More of them are no figure to read."""
COLOURS = SERIES
MARKERS = "os^Dv"
"""Together thirty pairs of colour and marker, of which neighbours differ in both."""
_ON_REFERENCE = (
    *("r_cc", "r_adv", "accuracy_fgsm", "r_adv_pgd", "accuracy_pgd", "r_adv_autoattack", "accuracy_autoattack"),
    "auroc",
)
_NAMED_BY_ITS_WAY = ("shape_bias_per_class_answered",)
GLYPHS = {"o": "●○", "s": "■□", "^": "▲△", "D": "◆◇", "v": "▼▽"}


@dataclass(frozen=True)
class Shown:
    """A model in figures."""

    name: str
    number: int
    """Its place in the order of the results."""
    synthetic: bool
    """Whether it is known to be trained on synthetic images alone."""
    cells: tuple[Cell, ...]

    @property
    def colour(self) -> str:
        """Its colour in all figures."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def marker(self) -> str:
        """Its marker in all figures, as matplotlib names it."""
        return MARKERS[self.number % len(MARKERS)]

    @property
    def glyph(self) -> str:
        """Its marker as a character: hollow where it is synthetic."""
        return GLYPHS[self.marker][self.synthetic]

    @property
    def reference(self) -> str:
        """The content hash of the clean test set: what ratios to it, attacks and outliers are measured on.

        Without any of these it is the first set with an accuracy; empty where there is none.
        """
        own = [*self.having(*_ON_REFERENCE), *self.having("accuracy")]
        return own[0].dataset_sha256 if own else ""

    def having(self, *metrics: str) -> list[Cell]:
        """Return its defined numbers of some metrics."""
        return [cell for cell in self.cells if cell.metric in metrics and cell.value is not None]

    def one(self, metric: str, **settings: object) -> Cell | None:
        """Return its first defined number of a metric with these settings."""
        for cell in self.having(metric):
            if all(cell.settings.get(name) == value for name, value in settings.items()):
                return cell
        return None


def shown(cells: list[Cell], names: Names, synthetic: Mapping[str, bool] = MappingProxyType({})) -> list[Shown]:
    """Return the models in the order of the cells.

    Args:
        synthetic: name of a model -> whether it is trained on synthetic images alone; the paper's are known.
    """
    by_model: dict[str, dict[tuple[str, ...], Cell]] = {}
    corrected = {cell.model_identity for cell in cells if cell.protocol != PAPER}
    for cell in sorted(cells, key=lambda cell: cell.protocol == PAPER):  # the order of others stays
        own = by_model.setdefault(names.models[cell.model_identity], {})
        # Beside corrected numbers one of the paper's way would look like one of them, but for what is named by its way.
        if cell.protocol == PAPER and cell.model_identity in corrected and cell.metric not in _NAMED_BY_ITS_WAY:
            continue
        # Figures name sets as tables do: two folders of one name are two diagrams.
        named = replace(cell, dataset=names.datasets[cell.dataset_sha256])
        own.setdefault((cell.dataset_sha256, cell.metric, heading(cell)), named)
    return [
        Shown(name, number, synthetic.get(name, is_clone(model_of(name))), tuple(own.values()))
        for number, (name, own) in enumerate(by_model.items())
    ]

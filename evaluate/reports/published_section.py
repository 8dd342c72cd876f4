"""Measured numbers beside those that the paper prints of the same models, and what these should have been.

In: `Cell`s. Out: HTML, a table for each model of the paper; nothing for others.
"""

from dataclasses import dataclass
from html import escape

from synclones.base.page import table
from synclones.evaluate.published.beside import model_of, published_of
from synclones.evaluate.published.corrected import correction
from synclones.evaluate.published.grids import PARTLY, published
from synclones.evaluate.published.grids import corrected as corrected_text
from synclones.evaluate.published.tables import PAPER, Cell
from synclones.evaluate.reports.cell_text import PAPER as AS_PUBLISHED
from synclones.evaluate.reports.cell_text import percent, reading_order, title
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.result_tables import with_interval
from synclones.evaluate.stored.results import Cell as Result


@dataclass(frozen=True)
class Beside:
    """A measured number and the published one of the same model."""

    result: Result
    published: Cell

    @property
    def expected(self) -> tuple[float, str]:
        """The published number that the measured one should be, and which that is.

        Of a number that follows the deviations that is the printed one; of others the corrected one where it is known.
        """
        known = correction(self.published).value
        if self.result.protocol == AS_PUBLISHED or known is None:
            return self.published.value, "published"
        return known, "corrected"

    @property
    def difference(self) -> float | None:
        """The measured number less the expected one, a fraction."""
        return None if self.result.value is None else self.result.value - self.expected[0]


def beside_of(cells: list[Result]) -> list[Beside]:
    """Return all measured numbers that a published one stands beside, in the order of reading."""
    pairs = ((cell, published_of(cell.model, cell)) for cell in sorted(cells, key=reading_order))
    return [Beside(cell, number) for cell, number in pairs if number is not None]


def section(cells: list[Result], names: Names) -> str:
    """Return the tables; nothing where no model is one of the paper's, or no set."""
    by_model: dict[str, list[Beside]] = {}
    for item in beside_of(cells):
        by_model.setdefault(names.models[item.result.model_identity], []).append(item)
    if not by_model:
        return ""
    parts = []
    for name, items in by_model.items():
        heads = ("number", "published", "corrected", "measured", "difference")
        parts.append(f"<h3>{escape(name)}, in the paper {escape(model_of(items[0].result.model) or '')}</h3>")
        parts.append(table([_line(item, names) for item in items], heads, numbers=True))
    return (
        f"<h2>Beside the published numbers</h2><p>{escape(PAPER)}. That a model is the paper's is taken from its name. "
        "The difference is measured less published under protocol paper, else measured less corrected; where there is "
        "no corrected number, less published. It is bold where the interval does not hold the other number. "
        f"{PARTLY}: only some deviations are undone.</p>{''.join(parts)}"
    )


def _line(item: Beside, names: Names) -> list[str]:
    result, gap, (value, which) = item.result, item.difference, item.expected
    label = escape(title(result, names.datasets[result.dataset_sha256]))
    note = f"<small>protocol {result.protocol}, {item.published.place}</small>"
    shown = corrected_text(item.published, correction(item.published))
    outside = result.ci_low is not None and result.ci_high is not None and not result.ci_low <= value <= result.ci_high
    kind = "real" if outside else "noise"
    words = "undefined" if gap is None else f"{100 * gap:+.1f}<small>to {which}</small>"
    return [
        label + note,
        escape(published(item.published)),
        escape(shown),
        with_interval(percent(result)),
        f'<td class="{kind}">{words}</td>',
    ]

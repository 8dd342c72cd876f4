"""Published and corrected numbers for people: published | corrected | difference, in points of 100.

In: `Table`s. Out: Markdown that fits 120 columns, or LaTeX. A table of the paper is divided into grids of as many
metrics as fit beside each other.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from synclones.evaluate.published.corrected import MISPRINT, TRUNCATED, Correction, correction
from synclones.evaluate.published.deviations import CODE, deviations
from synclones.evaluate.published.records import difference
from synclones.evaluate.published.tables import COUNT, PAPER, Cell, Column, Table

WIDTH = 120
PARTLY = "*"
ROUNDING = "rounding"
_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
# Of what is known to a hundredth of a point; the rest of Tables 6 and 7 is known to a tenth.
_HUNDREDTHS = ("accuracy", "bg_gap", "cb2")


@dataclass(frozen=True)
class Grid:
    """Headings and rows of text."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def widths(self) -> list[int]:
        """The width of each column in characters."""
        return [max(map(len, column)) for column in zip(self.headings, *self.rows, strict=True)]

    @property
    def width(self) -> int:
        """The width of a line in characters."""
        return sum(self.widths) + 3 * len(self.widths) + 1


def grids(table: Table) -> list[Grid]:
    """Return a table of the paper as grids: row, then published, corrected and difference of each metric."""
    first = Grid(("model",), tuple((row,) for row in table.rows))
    done, current = [], first
    for columns in _alike(table, first.widths[0]):
        part = _grid(table, columns)
        wider = _beside(current, part)
        if current is not first and wider.width > WIDTH:
            done.append(current)
            wider = _beside(first, part)
        current = wider
    return [*done, current]


def _alike(table: Table, room: int) -> list[list[Column]]:
    """Return columns in groups: neighbours without corrected values, for the same reasons, share what is said of them.

    ``room`` is what the labels of the rows take of a line.
    """
    groups: list[list[Column]] = []
    for column in table.columns:
        reasons = _reasons(table, column)
        longer = [*groups[-1], column] if groups else []
        shared = longer and reasons is not None and reasons == _reasons(table, longer[0])
        if shared and _grid(table, longer).width + room + 3 <= WIDTH:
            groups[-1] = longer
        else:
            groups.append([column])
    return groups


def _reasons(table: Table, column: Column) -> tuple[str, ...] | None:
    """Return why no number of a column is corrected; None where some are."""
    known = [correction(row[column.key]) for row in table.rows.values()]
    return None if any(item.value is not None for item in known) else tuple(item.reason for item in known)


def _beside(left: Grid, right: Grid) -> Grid:
    rows = tuple((*one, *other) for one, other in zip(left.rows, right.rows, strict=True))
    return Grid((*left.headings, *right.headings), rows)


def _grid(table: Table, columns: list[Column]) -> Grid:
    """Return metrics that share what is said of them; where no number is corrected, there is no difference to show."""
    last = columns[-1].key
    compared = _reasons(table, columns[-1]) is None
    rows = []
    for row in table.rows.values():
        known = correction(row[last])
        words = (corrected(row[last], known), *([_difference(row[last], known)] if compared else []))
        rows.append((*(published(row[column.key]) for column in columns), *words))
    headings = tuple(column.heading + _ARROWS[column.better] for column in columns)
    return Grid((*headings, "corrected", *(["difference"] if compared else [])), tuple(rows))


def published(cell: Cell) -> str:
    """Return a number as printed, in points."""
    if cell.column.key == COUNT:
        return cell.printed
    return f"{100 * cell.value:.{_decimals_printed(cell)}f}"


def _decimals_printed(cell: Cell) -> int:
    printed = len(cell.printed.partition(".")[2])
    return printed if abs(float(cell.printed) - 100 * cell.value) < 1e-9 else max(0, printed - 2)


def corrected(cell: Cell, known: Correction) -> str:
    """Return the corrected number in points, marked where something remains to be corrected, or the reason."""
    if known.value is None:
        return known.reason
    return f"{100 * known.value:.{_decimals(cell)}f}{PARTLY if known.remains else ''}"


def _difference(cell: Cell, known: Correction) -> str:
    gap = difference(cell, known)
    if gap is None:
        return ""
    return ROUNDING if abs(gap) <= cell.step else f"{100 * gap:+.{_decimals(cell)}f}"


def _decimals(cell: Cell) -> int:
    return 2 if cell.table < 6 or cell.column.key in _HUNDREDTHS else 1


# ------------------------------------------------------------------ what the marks mean


def notes(table: Table) -> list[str]:
    """Return what was undone in the corrected numbers of a table and what remains in them, in sentences."""
    known = {cell.source: correction(cell) for cell in table.cells}
    done, left = defaultdict[str, int](int), defaultdict[str, set[str]](set)
    for cell in table.cells:
        for word in known[cell.source].undone:
            done[word] += 1
        if known[cell.source].value is not None:
            for word in known[cell.source].remains:
                left[word].add(cell.model)
    sentences = []
    if done:
        sentences.append(f"Undone: {', '.join(f'{_named(word)} ({count})' for word, count in done.items())}.")
    if left:
        words = ", ".join(_remaining(word, models, table) for word, models in left.items())
        sentences.append(f"What remains in numbers marked {PARTLY} needs a run: {words}.")
    others = dict.fromkeys(cell.model for cell in table.cells if known[cell.source].identity)
    if others:
        sentences.append(f"D8, another model than the text says: {', '.join(others)}.")
    return sentences


def _named(word: str) -> str:
    return {TRUNCATED: "cut off in place of rounded", MISPRINT: "misprinted"}.get(word, word)


def _remaining(word: str, models: set[str], table: Table) -> str:
    every = list(dict.fromkeys(cell.model for cell in table.cells))
    few = [model for model in every if model in models]
    if len(few) == len(every):
        return word
    return f"{word} ({', '.join(few) if len(few) < 3 else f'{len(few)} models'})"


def introduction(shown: Iterable[Table]) -> list[str]:
    """Return what the numbers are, how many of them could be corrected, and which deviations are named."""
    known = [correction(cell) for table in shown for cell in table.cells]
    whole, part = (sum(item.code == code for item in known) for code in ("corrected", "corrected-in-part"))
    plain, wait = (sum(item.code == code for item in known) for code in ("as-printed", "needs-run"))
    ids = {word for item in known for word in (*item.undone, *item.remains, item.identity)}
    return [
        f"{PAPER}.",
        f"Corrected by the logs of {CODE}.",
        "Points of 100; ↑ more is better, ↓ less is better.",
        f"The difference is corrected - published; {ROUNDING}: it is less than the printed digits show.",
        f"{len(known)} numbers: {whole} corrected, {part} corrected in part ({PARTLY}), {plain} as printed, "
        f"{wait} need a run of the models.",
        *(f"{item.id}: {item.title}" for item in deviations().values() if item.id in ids),
        "`synclones evaluate explain D1` says more of each; `--format json` has every derivation.",
    ]


# ------------------------------------------------------------------ as text


def markdown(shown: list[Table]) -> str:
    """Return tables as Markdown, padded so that it reads as plain text too."""
    opening, *rest = introduction(shown)
    parts = [opening, "", *(f"- {line}" for line in rest)]
    for table in shown:
        parts += ["", f"## Table {table.number}. {table.title}"]
        for grid in grids(table):
            parts += ["", _line(grid.headings, grid.widths), "|".join(["", *_rules(grid.widths), ""])]
            parts += [_line(row, grid.widths) for row in grid.rows]
        parts += ["", *notes(table)] if notes(table) else []
    return "\n".join(parts) + "\n"


def _line(texts: tuple[str, ...], widths: list[int]) -> str:
    padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
    return f"| {' | '.join(padded)} |"


def _rules(widths: list[int]) -> list[str]:
    return ["-" * (width + 2) for width in widths]


def latex(shown: list[Table]) -> str:
    """Return tables as LaTeX: a ``tabular`` per grid, with the rules of the package booktabs."""
    parts = [f"% {_tex(line)}" for line in introduction(shown)]
    for table in shown:
        for grid in grids(table):
            columns = "l" + "r" * (len(grid.headings) - 1)
            parts += ["", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
            parts += [_tex_line(grid.headings), r"\midrule", *map(_tex_line, grid.rows), r"\bottomrule"]
            caption = " ".join([f"{table.title} (Table {table.number} of Singh et al. 2024).", *notes(table)])
            parts += [r"\end{tabular}", rf"\caption{{{_tex(caption)}}}", r"\end{table}"]
    return "\n".join(parts) + "\n"


def _tex_line(texts: tuple[str, ...]) -> str:
    return " & ".join(map(_tex, texts)) + r" \\"


def _tex(text: str) -> str:
    special = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "*": r"$^{*}$"}
    return "".join(special.get(character, character) for character in text)

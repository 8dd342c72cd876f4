"""Results as LaTeX in the layout of the paper's Tables 1 to 5, and of the numbers behind its Figures 3 and 4.

In: `Cell`s. Out: ``table.tex``: needs the package booktabs. Best numbers of each group of models are bold.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from synclones.base.escape import latex_text
from synclones.evaluate.axis import metrics
from synclones.evaluate.published.beside import GROUPS, group_of
from synclones.evaluate.reports.cell_text import PAPER
from synclones.evaluate.reports.latex_columns import TABLES, Column, Layout
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell

MOST_MODELS = 13
"""Columns of models that a page is wide enough for."""
_ARROWS = {"more": r" ($\uparrow$)", "less": r" ($\downarrow$)", "neither": ""}
_NONE = "--"


@dataclass(frozen=True)
class Model:
    """A line of a table, or a column where it is turned."""

    name: str
    group: str
    cells: tuple[Cell, ...]


def latex(cells: list[Cell], names: Names) -> str:
    """Return all tables that some model has numbers for: of the corrected protocol, then those that paper changes."""
    head = (
        "% Values in percent but where a unit is written, without their 95 % intervals, which table.csv has.\n"
        "% Needs \\usepackage{booktabs}.\n"
    )
    parts = [head]
    for protocol in ("corrected", PAPER):
        models = _models(cells, names, protocol)
        for layout in TABLES:
            columns = layout.columns([cell for model in models for cell in model.cells])
            used = [c for c in columns if any(c.value(m.cells) is not None for m in models)]
            follows = any(cell.protocol == PAPER for m in models for c in used for cell in c.cells(m.cells))
            if used and (protocol != PAPER or follows):
                parts += _tables(layout, used, models, protocol)
    return "\n".join(parts) + "\n"


def _models(cells: list[Cell], names: Names, protocol: str) -> list[Model]:
    """Return models by group with the numbers of a protocol; those that paper does not change are the same."""
    own: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.protocol == PAPER) != (protocol == PAPER)):
        if cell.protocol != PAPER or protocol == PAPER:
            named = replace(cell, dataset=names.datasets[cell.dataset_sha256])
            own.setdefault(cell.model_identity, []).append(named)
    order = list(GROUPS)
    models = [Model(names.models[i], group_of(cells_of[0].model), tuple(cells_of)) for i, cells_of in own.items()]
    rank = list(dict.fromkeys(names.models[cell.model_identity] for cell in cells))
    return sorted(models, key=lambda m: (order.index(m.group) if m.group else len(order), rank.index(m.name)))


def _tables(layout: Layout, columns: list[Column], models: list[Model], protocol: str) -> Iterable[str]:
    """Return a layout as one table, or several where it is turned and has more models than a page is wide."""
    has = [model for model in models if any(c.value(model.cells) is not None for c in columns)]
    texts = {model.name: _texts(model, columns, has) for model in has}
    which = "" if protocol != PAPER else " Protocol paper: computed as the code of Singh et al.\\ 2024 does."
    caption = f"{latex_text(layout.caption)} Bold is the best of each group of models.{which}"
    label = f"{layout.label}-paper" if protocol == PAPER else layout.label
    if not layout.turned:
        yield _table(label, [_groups(columns), _heads(columns)], _lines(has, texts), caption, len(columns))
        return
    for start in range(0, len(has), MOST_MODELS):
        part = has[start : start + MOST_MODELS]
        heads = [" & ".join(["", *(latex_text(model.name) for model in part)])]
        lines = [" & ".join([_head(c, c.group), *(texts[m.name][k] for m in part)]) for k, c in enumerate(columns)]
        number = start // MOST_MODELS + 1  # a label that stands twice is one that \\ref finds wrongly
        yield _table(label if number == 1 else f"{label}-{number}", heads, lines, caption, len(part))


def _texts(model: Model, columns: list[Column], models: list[Model]) -> list[str]:
    """Return the numbers of a model, bold where none of its group has a better one."""
    texts = []
    for column in columns:
        value = column.value(model.cells)
        others = [v for m in models if m.group == model.group and (v := column.value(m.cells)) is not None]
        if value is None:
            texts.append(_NONE)
            continue
        best = {"more": max, "less": min}.get(metrics()[column.metric].better)
        printed = _printed(column, value)
        is_best = best is not None and len(others) > 1 and printed == _printed(column, best(others))
        texts.append(rf"\textbf{{{printed}}}" if is_best else printed)
    return texts


def _printed(column: Column, value: float) -> str:
    metric = metrics()[column.metric]
    return f"{metric.scale * value:.{max(2, metric.decimals)}f}"


def _lines(models: list[Model], texts: dict[str, list[str]]) -> list[str]:
    """Return the lines of models, with a rule between groups."""
    lines: list[str] = []
    for _, group in groupby(models, key=lambda model: model.group):
        lines += [r"\midrule"] if lines else []
        lines += [" & ".join([latex_text(model.name), *texts[model.name]]) for model in group]
    return lines


def _head(column: Column, group: str = "") -> str:
    """Return the heading of a column: behind an underscore follows an index."""
    symbol, _, index = column.head.partition("_")
    indexed = rf"$_{{\mathrm{{{index}}}}}$" if index else ""
    return f"{latex_text(f'{group} {symbol}'.strip())}{indexed}{_ARROWS[metrics()[column.metric].better]}"


def _heads(columns: list[Column]) -> str:
    return " & ".join(["Model", *map(_head, columns)])


def _groups(columns: list[Column]) -> str:
    """Return the line above the headings: what neighbours have in common."""
    parts = [(name, len(list(group))) for name, group in groupby(columns, key=lambda column: column.group)]
    if not any(name for name, _ in parts):
        return ""
    return " & ".join(["", *(rf"\multicolumn{{{n}}}{{c}}{{{latex_text(name)}}}" for name, n in parts)])


def _table(label: str, heads: list[str], lines: list[str], caption: str, columns: int) -> str:
    ended = [line if line == r"\midrule" else rf"{line} \\" for line in lines]
    return "\n".join(
        [
            *("", r"\begin{table*}", r"\centering", rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"),
            *(rf"{head} \\" for head in heads if head),
            *(r"\midrule", *ended, r"\bottomrule", r"\end{tabular}"),
            *(rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}", r"\end{table*}"),
        ]
    )

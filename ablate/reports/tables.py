"""The table of a grid as Markdown, CSV and LaTeX: the paper's layout, in each cell our value and the paper's.

In: a `Study`. Out: text; names of others do nothing in it. CSV has fractions, one line for each cell and column.
"""

import csv
import io

from synclones.ablate.arms import Arm
from synclones.ablate.columns import Column
from synclones.ablate.comparisons import Difference
from synclones.ablate.reports import words
from synclones.ablate.scaling import Law, Refusal
from synclones.ablate.study import Study
from synclones.base.escape import csv_text, latex_text, markdown_code, markdown_text
from synclones.evaluate.reports.chance import AT_CHANCE

MOST_PAIRS = 60


def markdown(study: Study) -> str:
    """Return the report as Markdown: verdict, sentences, table, comparisons, laws, what is missing, commands."""
    results = study.results
    lines = [f"# {markdown_text(results.title)}", "", markdown_text(words.verdict_of(study)), ""]
    lines += [f"- {markdown_text(fact)}" for fact in words.facts(study)]
    lines += _sentences(study)
    lines += ["", "## Table", "", words.noise_note(study), "", *_table(study)]
    lines += _missing(study) + _comparisons(study) + _laws(study) + _commands(study)
    return "\n".join(lines) + "\n"


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table of escaped cells."""
    line = "|".join(["", *(" --- " for _ in head), ""])
    return [f"| {' | '.join(head)} |", line, *(f"| {' | '.join(row)} |" for row in rows)]


def _table(study: Study) -> list[str]:
    head = [*(markdown_text(axis) for axis in study.results.axes), *(words.heading(c) for c in study.columns)]
    rows = []
    for arm in study.arms:
        row = [markdown_text(text) for text in arm.values.values()]
        row[-1] += f" **({AT_CHANCE})**" if arm.name in study.at_chance else ""
        rows.append([*row, *(_cell(arm, column) for column in study.columns)])
    return _rows([markdown_text(text) for text in head], rows)


def _cell(arm: Arm, column: Column) -> str:
    beside = words.beside(arm, column)
    seeds = len(arm.numbers[column.name])
    fewer = f", {seeds} of {len(arm.cells)} trainings" if 0 < seeds < len(arm.cells) else ""
    return words.spread(arm.spread(column.name)) + (f" ({beside}{fewer})" if beside else fewer)


def _sentences(study: Study) -> list[str]:
    if not study.sentences:
        return []
    rows = [
        [markdown_text(item.observation.says), f"**{item.answer}**", item.why, markdown_text(item.observation.source)]
        for item in study.sentences
    ]
    return ["", "## What papers say of it", "", *_rows(["observation", "here", "why", "source"], rows)]


def _missing(study: Study) -> list[str]:
    lines = [
        f"- {markdown_text(reason)}: {markdown_text('; '.join(of))}" for reason, of in words.missing(study).items()
    ]
    return ["", "## Missing", "", *lines] if lines else []


def _comparisons(study: Study) -> list[str]:
    column = study.columns[0]
    own = [pair for pair in study.pairs if pair.column is column]
    if not own:
        return []
    rows = [
        [markdown_text(p.first.name), markdown_text(p.second.name), words.difference(p), words.said(p)]
        for p in own[:MOST_PAIRS]
    ]
    more = [f"The first {MOST_PAIRS} of {len(own)}; comparisons.csv has all.", ""] if len(own) > MOST_PAIRS else []
    head = ["first", "second", f"difference in {column.heading}, points", "verdict"]
    return ["", "## Comparisons", "", family_note(study), "", *more, *_rows(head, rows)]


def family_note(study: Study) -> str:
    """Return how many comparisons there are, and how many would look real by chance."""
    column = study.columns[0]
    known = [p.difference for p in study.pairs if p.column is column and isinstance(p.difference, Difference)]
    apart = sum(not item.inside_noise for item in known)
    return (
        f"{len(known)} comparisons in {column.heading} of arms that differ in one axis; {apart} intervals are without "
        f"0, where about {0.05 * len(known):.1f} would be if nothing differed. 'differs' holds for all of a column "
        "together (Holm); 'may be chance' does not."
    )


def _laws(study: Study) -> list[str]:
    lines = []
    for curve in study.curves:
        law = str(curve.law) if isinstance(curve.law, Refusal) else law_words(curve.law)
        further = "" if isinstance(curve.law, Refusal) else f"; four times the images: {curve.next}"
        lines.append(f"- {markdown_text(curve.kind)}: {law}{further}")
    return ["", "## Growth", "", *lines] if lines else []


def law_words(law: Law) -> str:
    """Return a law in words."""
    return (
        f"floor {100 * law.floor:.1f} %, and {100 * law.factor:.1f} points above it that fall as n^-{law.exponent:.2f}"
    )


def _commands(study: Study) -> list[str]:
    lines = []
    for cell in study.results.cells:
        if cell.commands:
            lines += [f"- {markdown_text(', '.join(cell.values.values()))}, seed {cell.seed}"]
            lines += [f"  - {markdown_code(command)}" for command in cell.commands]
    return ["", "## Commands", "", *lines] if lines else []


# ------------------------------------------------------------------ CSV


def table_csv(study: Study) -> str:
    """Return a line for each arm and column: mean, spread, interval, the paper's value, the difference; fractions."""
    head = ("column", "unit", "better", "mean", "sd", "low", "high", "trainings", "paper", "difference", "missing")
    rows = []
    for arm in study.arms:
        for column in study.columns:
            own, paper = arm.spread(column.name), arm.paper.get(column.name)
            interval = arm.interval(column.name) or (None, None)
            mean, sd, seeds = (None, None, 0) if own is None else (own.mean, own.sd, own.seeds)
            gap = None if mean is None or paper is None else mean - paper
            rows.append(
                [
                    *(csv_text(text) for text in arm.values.values()),
                    *(column.name, "fraction", column.better, mean, sd, *interval, seeds, paper, gap),
                    csv_text(arm.missing.get(column.name, "")),
                ]
            )
    return _csv([*(csv_text(axis) for axis in study.results.axes), *head], rows)


def comparisons_csv(study: Study) -> str:
    """Return a line for each comparison; fractions."""
    head = [
        "axis",
        "first",
        "second",
        "column",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "trainings",
        "paired",
        "verdict",
    ]
    rows = []
    for pair in study.pairs:
        item = pair.difference
        numbers: tuple[object, ...] = (None,) * 7
        if isinstance(item, Difference):
            numbers = (item.value, item.low, item.high, item.p, pair.adjusted, item.seeds, item.paired)
        names = (csv_text(text) for text in (pair.axis, pair.first.name, pair.second.name))
        rows.append([*names, pair.column.name, *numbers, words.said(pair)])
    return _csv(head, rows)


def _csv(head: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


# ------------------------------------------------------------------ LaTeX


def latex(study: Study) -> str:
    """Return the table with the paper's value below each of ours; needs the package booktabs."""
    axes, columns = len(study.results.axes), study.columns
    arrows = {"more": r"$\uparrow$", "less": r"$\downarrow$"}
    head = [*map(latex_text, study.results.axes), *(f"{latex_text(c.heading)} {arrows[c.better]}" for c in columns)]
    lines = [
        "% Percent, BG-Gap points: mean $\\pm$ half the 95 % interval over trainings; the paper's below.",
        "% Needs \\usepackage{booktabs}.",
        rf"\begin{{tabular}}{{{'l' * axes}{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
    ]
    group = None
    for arm in study.arms:
        first = next(iter(arm.values.values()))
        lines += [r"\midrule"] if first != group else []
        group = first
        own = [words.spread(arm.spread(c.name)).replace("±", r"$\pm$").replace(words.NONE, "--") for c in columns]
        lines.append(" & ".join([*map(latex_text, arm.values.values()), *own]) + r" \\")
        if arm.paper:
            papers = [words.value(arm.paper[c.name]) if c.name in arm.paper else "" for c in columns]
            lines.append(" & ".join(["" for _ in range(axes - 1)] + [r"\quad paper", *papers]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

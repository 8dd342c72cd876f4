"""Writes what a grid has come to: a page, the same as Markdown, and its numbers as CSV and LaTeX.

In: `GridResults`, complete or not. Out: report.html, report.md, table.csv, comparisons.csv and table.tex, each written
whole; the same results give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from synclones.ablate.cells import GridResults
from synclones.ablate.columns import columns_named
from synclones.ablate.reports import tables
from synclones.ablate.reports.html_report import report
from synclones.ablate.study import Study
from synclones.base.files import write_atomic

FILES = ("report.html", "report.md", "table.csv", "comparisons.csv", "table.tex")


def write_report(results: GridResults, out: Path, judged: Mapping[str, Path] = MappingProxyType({})) -> None:
    """Write the report of a grid into a folder.

    Args:
        out: made where it does not exist.
        judged: name of a set of images -> folder of `synclones evaluate --model JUDGE --data SET`: recognisability and
            diversity of the set are read from it.

    Raises:
        InputError: the grid has a column that there is none of; nothing is written.
    """
    columns_named(results.columns)
    study = Study(results, judged)
    texts = (tables.markdown, tables.table_csv, tables.comparisons_csv, tables.latex)
    files = [report(study), *(text(study).encode() for text in texts)]
    out.mkdir(parents=True, exist_ok=True)
    for name, data in zip(FILES, files, strict=True):
        write_atomic(out / name, data)

"""Results of evaluations side by side: the numbers of one folder or of several in common tables.

In: folders of results. Out: HTML, and the report that an evaluation wrote into its folder.
"""

from collections.abc import Sequence
from html import escape

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import read_regular
from synclones.evaluate.reports.names import names_of
from synclones.evaluate.reports.result_tables import legend, section
from synclones.evaluate.stored.results import Cell, read_cells
from synclones.serve.folders import Folder, Folders
from synclones.serve.pages.frame import HOME, folder_link, framed, is_below, link, made_from

REPORT = "report.html"
MOST_REPORT_BYTES = 1 << 28


def results_page(chosen: Sequence[Folder], folders: Folders) -> bytes:
    """Return the page of the numbers of some folders.

    Raises:
        VerificationError: a number differs from its checksum.
    """
    cells, unlike = joined([(folder, read_cells(folder.path)) for folder in chosen])
    title = chosen[0].name if len(chosen) == 1 else f"results of {len(chosen)} folders"
    body = [_of_which(chosen)]
    if unlike:
        many = f"{len(unlike)} numbers differ" if len(unlike) > 1 else "1 number differs"
        words = f"{many} between these folders; the value of the first is shown: "
        body.append(f'<p class="warning">{escape(words + "; ".join(unlike[:5]))}</p>')
    body += [section(cells, names_of(cells)), legend(cells)] if cells else ["<p>No numbers so far.</p>"]
    body += [made_from(folder, folders) for folder in chosen[:1] if len(chosen) == 1]
    return framed(title, body, [HOME])


def joined(parts: Sequence[tuple[Folder, list[Cell]]]) -> tuple[list[Cell], list[str]]:
    """Return the numbers of several folders, each once, and which of them are not the same in all."""
    first: dict[tuple[str, str, str], tuple[Folder, Cell]] = {}
    unlike: dict[tuple[str, str, str], str] = {}
    for folder, cells in parts:
        for cell in cells:
            # What has one cell in a table: measured twice, with other seeds or resamples, it is still one number.
            spot = (cell.model_identity, cell.dataset_sha256, f"{cell.metric} {cell.protocol} {_column(cell)}")
            known_in, known = first.setdefault(spot, (folder, cell))
            if known.value != cell.value:
                unlike.setdefault(spot, f"{cell.metric} of {cell.model} ({known_in.name}, {folder.name})")
    return [cell for _, cell in first.values()], list(unlike.values())


def _column(cell: Cell) -> list[tuple[str, str]]:
    return sorted((name, str(value)) for name, value in cell.settings.items() if name != "resamples")


def _of_which(chosen: Sequence[Folder]) -> str:
    """Return the folders whose numbers are shown, where these are several, and their reports."""
    items = []
    for folder in chosen:
        own = [folder_link(folder)] if len(chosen) > 1 else []
        if is_below(folder.path / REPORT, folder.path):
            own.append(link("report with figures", "/report", folder=folder.name))
        items.append(": ".join(own))
    return f'<p class="facts">{", ".join(filter(None, items))}</p>' if any(items) else ""


def report(folder: Folder) -> bytes:
    """Read the report that lies in a folder of results.

    Raises:
        InputError: there is none.
        VerificationError: it cannot be read, or is too large.
    """
    path = folder.path / REPORT
    try:
        if is_below(path, folder.path):
            return read_regular(path, MOST_REPORT_BYTES)
    except (OSError, ValueError) as error:
        raise VerificationError(f"{path}: cannot be shown ({getattr(error, 'strerror', None) or error})") from None
    raise InputError(f"{folder.name}: has no {REPORT}")

"""Which models a report is about: what each was trained on and how, its weights, and when it was evaluated.

In: `Origin`s. Out: HTML.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from synclones.base.page import table
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.origins import Origin, paths_of_data

HEADS = ("model", "trained on", "recipe", "images seen", "seed", "weights", "evaluated")
UNKNOWN = "–"


def section(names: Names, origins: Mapping[str, Origin], out: Path, marks: Mapping[str, str]) -> str:
    """Return a line for each model.

    Args:
        names: of the models, by identity.
        origins: by identity; a model of an earlier version has none.
        out: folder of the report, from which links lead.
        marks: name of a model -> what a reader must know of it first.
    """
    rows = [_row(name, origins.get(identity), out, marks.get(name, "")) for identity, name in names.models.items()]
    return f"<h2>The models</h2>{table(rows, HEADS, first='th')}"


def _row(name: str, origin: Origin | None, out: Path, mark: str) -> list[str]:
    warning = f'<small class="warning">{escape(mark)}</small>' if mark else ""
    if origin is None:
        return [escape(name) + warning, *[UNKNOWN] * (len(HEADS) - 1)]
    kind = origin.architecture or origin.format
    source = f"<small>{escape(origin.source)}</small>" if origin.source not in ("", name) else ""
    about = f"<small>{escape(kind)}</small>" if kind else ""
    return [
        escape(name) + source + warning,
        _data(origin, out) or UNKNOWN,
        (escape(origin.recipe) or UNKNOWN) + about,
        UNKNOWN if origin.images_seen is None else f"{origin.images_seen:,}",
        UNKNOWN if origin.seed is None else str(origin.seed),
        f'<code title="{escape(origin.weights_sha256, quote=True)}">{escape(origin.weights_sha256[:12])}</code>',
        escape(origin.evaluated),
    ]


def _data(origin: Origin, out: Path) -> str:
    links = paths_of_data(origin, out)
    parts = []
    for path in origin.data:
        text = escape(path)
        parts.append(f'<a href="{quote(links[path])}">{text}</a>' if path in links else text)
    synthetic = "<small>generated images alone</small>" if origin.synthetic else ""
    return ", ".join(parts) + synthetic

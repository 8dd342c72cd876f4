"""Results as files: one immutable file per number, and the tables that are made from all of them.

In: `Cell`s. Out: ``KEY.json`` each, written once; ``results.jsonl``, ``table.md`` and ``table.csv`` made from them.
"""

import csv
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.manifest import versions

CELL_NAME = re.compile(r"[0-9a-f]{16}\.json")
# What a cell is about; everything else follows from it.
IDENTITY = ("weights_sha256", "dataset_sha256", "metric", "settings", "protocol", "preprocessing", "seed")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number. Values are fractions; None where the metric is undefined."""

    model: str
    weights_sha256: str
    suite: str
    dataset: str
    dataset_sha256: str
    metric: str
    settings: dict[str, Any]
    value: float | None
    n: int
    ci_low: float | None
    ci_high: float | None
    interval: str
    """wilson, or bootstrap (basic, over images)."""
    protocol: str
    """paper, or corrected where the papers' code deviates from the papers."""
    preprocessing: str
    seed: int
    logits: tuple[str, ...]
    """Names of the cached logits it was computed from."""

    @property
    def key(self) -> str:
        """Its file name's stem: a hash of what it is about."""
        return sha256_bytes(canonical_json({name: getattr(self, name) for name in IDENTITY}))[:16]


def write_cell(folder: Path, cell: Cell) -> None:
    """Write a cell once. VerificationError when the folder holds another value under its key."""
    path = folder / f"{cell.key}.json"
    record = json.loads(canonical_json(asdict(cell)))
    if path.exists():
        there = _read_json(path)
        changed = [k for k in ("value", "n", "ci_low", "ci_high") if there.get(k) != record[k]]
        if changed:
            said = ", ".join(f"{name} {there.get(name)} there, {record[name]} now" for name in changed)
            raise VerificationError(f"{path}: results are never overwritten ({said}); evaluate into another --out")
        return
    write_atomic(path, pretty_json(record | {"versions": versions()}))


def read_cells(folder: Path) -> list[Cell]:
    """All cells of a folder, by model, dataset, metric and settings. VerificationError for one that is damaged."""
    names = Cell.__dataclass_fields__
    cells = []
    for path in sorted(folder.glob("*.json")):
        if CELL_NAME.fullmatch(path.name):
            record = _read_json(path)
            facts: dict[str, Any] = {k: tuple(v) if k == "logits" else v for k, v in record.items() if k in names}
            try:
                cell = Cell(**facts)
            except TypeError:
                raise VerificationError(f"{path}: not a result; remove it") from None
            if cell.key != path.stem:
                raise VerificationError(f"{path}: its content belongs under {cell.key}; remove it, evaluate again")
            cells.append(cell)
    return sorted(cells, key=lambda c: (c.dataset, c.model, c.weights_sha256, c.metric, str(c.settings)))


def refuse_mixture(folder: Path, wanted: dict[str, int]) -> None:
    """InputError when the folder holds numbers of another seed, of other bins or resamples: tables would mix them."""
    for cell in read_cells(folder):
        stated = {"seed": cell.seed, **cell.settings}
        for name, value in wanted.items():
            if stated.get(name, value) != value:
                raise InputError(
                    f"{folder}: its results are of {name} {stated[name]}, {value} was given; give the same, or another "
                    "--out"
                )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise VerificationError(f"{path}: damaged; remove it, and run the same command to compute it again")
    return record


def column(cell: Cell) -> str:
    """The heading of a cell in a table."""
    epsilon = cell.settings.get("epsilon_255")
    title = {"accuracy": "accuracy", "ece": "ECE", "r_adv": "R_adv"}.get(cell.metric, cell.metric)
    if epsilon is None:
        return title
    return f"{title} {epsilon:g}/255" if cell.metric == "r_adv" else f"accuracy under FGSM {epsilon:g}/255"


def shown(cell: Cell) -> str:
    """``91.2 [88.5, 93.3]`` in percent, or ``undefined``."""
    if cell.value is None or cell.ci_low is None or cell.ci_high is None:
        return "undefined"
    return f"{100 * cell.value:.1f} [{100 * cell.ci_low:.1f}, {100 * cell.ci_high:.1f}]"


def columns(cells: list[Cell]) -> list[str]:
    """Headings in the order of reading: accuracy, ECE, then what attacks leave."""
    rank = {"accuracy": 0, "ece": 1, "r_adv": 2, "accuracy_fgsm": 3}
    ordered = sorted(cells, key=lambda c: (rank.get(c.metric, 9), c.settings.get("epsilon_255", 0.0)))
    return list(dict.fromkeys(column(cell) for cell in ordered))


def rows(cells: list[Cell]) -> dict[tuple[str, str], dict[str, Cell]]:
    """(model, weights) -> heading -> cell, in the order of the cells."""
    table: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        table.setdefault((cell.model, cell.weights_sha256), {})[column(cell)] = cell
    return table


def markdown(cells: list[Cell]) -> str:
    """The cells of one dataset as a table, percent with 95 % intervals."""
    heads = columns(cells)
    lines = [f"| model | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for (model, _), row in rows(cells).items():
        lines.append(f"| {model} | {' | '.join(shown(row[head]) if head in row else '' for head in heads)} |")
    return "\n".join(lines)


def write_tables(folder: Path, cells: list[Cell]) -> None:
    """``results.jsonl``, ``table.md`` and ``table.csv`` of all cells in the folder."""
    write_atomic(folder / "results.jsonl", b"".join(canonical_json(asdict(cell)) + b"\n" for cell in cells))
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    parts = [f"## {name}\n\n{markdown([c for c in cells if c.dataset == name])}\n" for name in datasets]
    note = "Percent, with 95 % intervals over the test images.\n"
    write_atomic(folder / "table.md", "\n".join([*parts, note]).encode())
    text = io.StringIO()
    names = ("model", "dataset", "metric", "settings", "value", "ci_low", "ci_high", "n", "interval", "weights_sha256")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for cell in cells:
        values = asdict(cell) | {"settings": json.dumps(cell.settings, sort_keys=True)}
        writer.writerow([values[name] for name in names])
    write_atomic(folder / "table.csv", text.getvalue().encode())

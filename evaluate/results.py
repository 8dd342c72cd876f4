"""Results as files: one immutable file per number.

In: `Cell`s. Out: ``KEY.json`` each, written once.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, parse_json, pretty_json, read_json
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
    """Write a cell once.

    Raises:
        VerificationError: when the folder holds another value under its key.
    """
    path = folder / f"{cell.key}.json"
    record = parse_json(canonical_json(asdict(cell)))
    if path.exists():
        earlier = _read_record(path)
        names = ("value", "n", "ci_low", "ci_high")
        before, now = ({name: values.get(name) for name in names} for values in (earlier, record))
        if before != now:
            changes = differences(before, now, ("before", "now"))
            raise VerificationError(f"{path}: results are never overwritten ({changes}); evaluate into another --out")
        return
    write_atomic(path, pretty_json(record | {"versions": versions()}))


def read_cells(folder: Path) -> list[Cell]:
    """Read all cells of a folder, by dataset, model, metric and settings.

    Raises:
        VerificationError: when one is damaged.
    """
    names = Cell.__dataclass_fields__
    cells = []
    for path in sorted(folder.glob("*.json")):
        if CELL_NAME.fullmatch(path.name):
            record = _read_record(path)
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
    """Refuse to add to numbers of another seed, of other bins or resamples: tables would mix them.

    Raises:
        InputError: when the folder holds some.
    """
    for cell in read_cells(folder):
        stated = {"seed": cell.seed, **cell.settings}
        for name, value in wanted.items():
            if stated.get(name, value) != value:
                raise InputError(
                    f"{folder}: its results are of {name} {stated[name]}, {value} was given; give the same, or another "
                    "--out"
                )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise VerificationError(f"{path}: damaged; remove it, and run the same command to compute it again")
    return record

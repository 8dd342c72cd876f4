"""Results as files: one immutable file per number, each with its own checksum.

In: `Cell`s. Out: ``DATASET.MODEL.METRIC.KEY.json`` each, written once; the words are for people, the key tells what
it is about, and is the whole name in earlier versions.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, parse_json, pretty_json, read_json
from synclones.base.manifest import versions

CELL_NAME = re.compile(r"(?:.+\.)?([0-9a-f]{16})\.json")
# What a cell is about; everything else follows from it.
IDENTITY = ("weights_sha256", "dataset_sha256", "metric", "settings", "preprocessing", "seed")
CHECKSUM = "sha256"
# Settings that say how a number was computed, and not which one it is.
_HOW = ("bins", "resamples")
_MAX_WORD = 40


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number. Values are fractions; None where the metric is undefined."""

    model: str
    """For people, as ``dataset`` is; what is measured is known by its hash."""
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
    """wilson, bootstrap (basic, over images), or sequence: about the whole set, where one looked until it was sure."""
    protocol: str
    """paper where it follows deviations of the papers' code, else corrected (earlier versions called that paper)."""
    preprocessing: str
    seed: int
    logits: tuple[str, ...]
    """Names of the cached logits it was computed from."""
    faultless: float | None = None
    """What a model without the measured fault would show on as many images; None for metrics that show it as 0."""
    logit_scale: float | None = None
    """By what a zero-shot model multiplies cosines, which confidences depend on; None for other models."""
    notes: tuple[str, ...] = ()
    """What a reader should know about this one number, a sentence each."""
    deviations: tuple[str, ...] = ()
    """Which of the papers' code it follows that make a difference to it, such as D4."""
    asked: tuple[str, ...] = ()
    """Of a number of the protocol paper, the deviations that were asked for by name; none: all of them were."""
    trained_on_test: bool = False
    """Whether the model was trained on the set, as far as manifests and cards say; earlier versions did not ask."""

    @property
    def key(self) -> str:
        """The end of its file name's stem: a hash of what it is about."""
        # The word and not the list is what earlier versions wrote of numbers that follow no deviation.
        protocol = {"protocol": list(self.deviations) or "paper"}
        return sha256_bytes(canonical_json({name: getattr(self, name) for name in IDENTITY} | protocol))[:16]

    @property
    def file_name(self) -> str:
        """Its file: what it is about in words, and its key."""
        settings = {name: value for name, value in self.settings.items() if name not in _HOW}
        which = [value for value in settings.values() if isinstance(value, str | float | int)]
        parts = [self.dataset, self.model, "-".join(map(str, [self.metric, *which]))]
        words = (re.sub(r"[^A-Za-z0-9_+.-]+", "-", part).strip("-.")[-_MAX_WORD:].lstrip("-.") for part in parts)
        return ".".join([*filter(None, words), self.key, "json"])

    @property
    def model_identity(self) -> str:
        """The hash of weights and preprocessing: what two models of one name differ in."""
        return sha256_bytes(canonical_json([self.weights_sha256, self.preprocessing]))

    def facts(self) -> dict[str, Any]:
        """Return its fields as JSON-able values; those that say nothing are left out, as earlier versions did."""
        silent = {
            "faultless": None,
            "trained_on_test": False,
            "deviations": (),
            "notes": (),
            "logit_scale": None,
            "asked": (),
        }
        return {name: value for name, value in asdict(self).items() if name not in silent or value != silent[name]}


_CELL = TypeAdapter(Cell)


def cell_files(folder: Path) -> dict[str, Path]:
    """Return key -> file of all cells of a folder; of files that were copied together the first by name."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if match := CELL_NAME.fullmatch(path.name):
            files.setdefault(match[1], path)
    return files


def write_cells(folder: Path, cells: Iterable[Cell]) -> None:
    """Write cells once each; those that are there keep their names.

    Raises:
        VerificationError: when the folder holds another value under a key.
    """
    files = cell_files(folder)
    for cell in cells:
        write_cell(files.get(cell.key, folder / cell.file_name), cell)


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell once; one of an earlier version that did not know what the model was trained on learns it.

    Raises:
        VerificationError: when the file holds another value.
    """
    record = parse_json(canonical_json(cell.facts()))
    if path.exists():
        earlier = _read_record(path)
        names = ("value", "n", "ci_low", "ci_high")
        before, now = ({name: values.get(name) for name in names} for values in (earlier, record))
        if before != now:
            changes = differences(before, now, ("before", "now"))
            raise VerificationError(f"{path}: results are never overwritten ({changes}); evaluate into another --out")
        # What was measured stays as it is; a damaged file must not get a right checksum, so it is left to its reader.
        if not cell.trained_on_test or "trained_on_test" in earlier or not _is_sound(earlier):
            return
        record = {name: value for name, value in earlier.items() if name != CHECKSUM} | {"trained_on_test": True}
    else:
        record |= {"versions": versions()}
    write_atomic(path, pretty_json(record | {CHECKSUM: _checksum(record)}))


def _is_sound(record: dict[str, Any]) -> bool:
    """Whether a record is what its checksum says; those of earlier versions have none."""
    stated: bool = record.get(CHECKSUM, _checksum(record)) == _checksum(record)
    return stated


def _checksum(record: dict[str, Any]) -> str:
    return sha256_bytes(canonical_json({name: value for name, value in record.items() if name != CHECKSUM}))


def read_cells(folder: Path, checked: bool = True) -> list[Cell]:
    """Read all cells of a folder, by dataset, model, metric and settings; ``checked`` against their checksums.

    Raises:
        VerificationError: when one is damaged.
    """
    cells = [_cell(path, key, _read_record(path), checked) for key, path in cell_files(folder).items()]
    return sorted(
        cells, key=lambda c: (c.dataset, c.dataset_sha256, c.model, c.weights_sha256, c.metric, str(c.settings))
    )


def _cell(path: Path, key: str, record: dict[str, Any], checked: bool) -> Cell:
    """Return the cell of a record; those of earlier versions have no checksum."""
    try:
        cell: Cell = _CELL.validate_json(canonical_json(record), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        entry = ".".join(map(str, first["loc"]))
        raise VerificationError(f"{path}: not a result ({entry}: {first['msg']}); remove it") from None
    if not cell.deviations:
        cell = replace(cell, protocol="corrected")
    if cell.key != key:
        raise VerificationError(f"{path}: its content belongs under {cell.key}; remove it, evaluate again")
    if checked and not _is_sound(record):
        raise VerificationError(f"{path}: differs from its own checksum; remove it, evaluate again")
    return cell


def refuse_mixture(cells: Iterable[Cell], folder: Path, wanted: dict[str, int]) -> None:
    """Refuse to add to numbers of another seed, of other bins or resamples: tables would mix them.

    Raises:
        InputError: when there are some among the cells of the folder.
    """
    for cell in cells:
        stated = {"seed": cell.seed, **cell.settings}
        for name, value in wanted.items():
            if stated.get(name, value) != value:
                raise InputError(
                    f"{folder}: its results are of {name} {stated[name]}, {value} was given; give the same, or another "
                    "--out"
                )


def refuse_other_deviations(cells: Iterable[Cell], folder: Path, asked: tuple[str, ...]) -> None:
    """Refuse to add to numbers that follow other deviations of the papers' code: a line of a table would mix them.

    Args:
        asked: by name; none: all of them.

    Raises:
        InputError: when there are some among the cells of the folder.
    """
    for cell in cells:
        if cell.deviations and sorted(cell.asked) != sorted(asked):
            theirs, ours = (" ".join(names) or "all deviations" for names in (cell.asked, asked))
            raise InputError(
                f"{folder}: its results of protocol paper follow {theirs}, {ours} were asked for; give another --out"
            )


def refuse_other_outliers(cells: Iterable[Cell], folder: Path, wanted: dict[str, str]) -> None:
    """Refuse sets of outliers under names that others have in the folder: tables would show one for the other.

    Args:
        wanted: name -> content hash.

    Raises:
        InputError: naming the set.
    """
    for cell in cells:
        name = cell.settings.get("outliers")
        if name in wanted and cell.settings.get("outliers_sha256") != wanted[name]:
            raise InputError(
                f"--outliers: {folder} holds results of another set that is called {name!r}; rename the folder of the "
                "images, or give another --out"
            )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise VerificationError(f"{path}: damaged; remove it, and run the same command to compute it again")
    return record

"""``synclones evaluate reproduce-tables``: the published tables beside what they should have been.

In: the numbers of tables. Out: text in one of four forms, or a folder with all of them. No model, data or GPU.
"""

from collections.abc import Callable
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.files import refuse_other_kinds, sha256_bytes, write_atomic
from synclones.base.manifest import MANIFEST_FILE, write_manifest
from synclones.evaluate.published.grids import latex, markdown
from synclones.evaluate.published.records import csv_of, json_of
from synclones.evaluate.published.tables import NUMBERS, Table, tables

FORMS: dict[str, tuple[str, Callable[[list[Table]], str]]] = {
    "markdown": ("tables.md", markdown),
    "csv": ("tables.csv", csv_of),
    "latex": ("tables.tex", latex),
    "json": ("tables.json", json_of),
}


def reproduce(numbers: tuple[int, ...], form: str) -> str:
    """Return tables, all of them where none is named, in one of `FORMS`.

    Raises:
        InputError: when there is no such table.
    """
    return FORMS[form][1](_chosen(numbers))


def write_tables(numbers: tuple[int, ...], folder: Path) -> list[Path]:
    """Write tables into a folder, once in each of `FORMS`, and a manifest.

    Raises:
        InputError: when there is no such table, or the folder holds something else.
    """
    shown = _chosen(numbers)
    texts = {name: write(shown).encode() for name, write in FORMS.values()}
    own = {*texts, MANIFEST_FILE}
    others = sorted(path.name for path in folder.iterdir() if path.name not in own) if folder.is_dir() else []
    if others or (folder / MANIFEST_FILE).exists() and not all((folder / name).exists() for name in texts):
        raise InputError(f"--out: {folder} holds something else ({(others or [MANIFEST_FILE])[0]}); give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    refuse_other_kinds(folder, own)
    for name, data in texts.items():
        write_atomic(folder / name, data)
    content = {"content_hash": sha256_bytes(texts["tables.json"])}
    config, counts = {"tables": [table.number for table in shown]}, {"numbers": sum(len(t.cells) for t in shown)}
    write_manifest(folder, "reproduce-tables", config, [], counts, {}, content)
    return [folder / name for name in texts]


def _chosen(numbers: tuple[int, ...]) -> list[Table]:
    for number in numbers:
        if number not in NUMBERS:
            raise InputError(f"--table: {number} was given, expected 1 to {NUMBERS[-1]}")
    return [tables()[number] for number in sorted(set(numbers or NUMBERS))]

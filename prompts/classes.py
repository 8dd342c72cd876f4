"""Class lists: which classes there are, in which order, under which names.

In: the name of a shipped list (``lab-digits``, ``cifar10``, ``imagenet1k``) or a user's CSV with a header
``class_id,name`` (or ``name`` alone: the id is its slug). Out: a `ClassList`; a class's position in it is its label.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from synclones.errors import InputError
from synclones.manifest import canonical_json, sha256_bytes
from synclones.prompts.characters import has_unprintable

HERE = Path(__file__).resolve().parent
MAX_NAME_CHARS = 200
MAX_ID_CHARS = 64  # 256 bytes at most: a sample's JSON, which holds the id, has 512
# What the shipped lists are, for `synclones prompts list`.
SHIPPED = {
    "lab-digits": "the ten digits of the lab",
    "cifar10": "the ten classes of CIFAR-10",
    "imagenet1k": "the 1,000 classes of ImageNet-1k with OpenAI's curated names",
}

# Names that OpenAI's published list gives to two classes each; kept, so that prompts equal those of the papers.
PUBLISHED_DUPLICATES = {"imagenet1k": ("missile", "sunglasses")}


@dataclass(frozen=True)
class ClassInfo:
    """One class: its stable id (wnid or slug), its name for prompts, and further columns of the CSV."""

    class_id: str
    name: str
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassList:
    """An ordered list of classes; the label of a class is its position."""

    name: str
    classes: tuple[ClassInfo, ...]

    @property
    def content_sha256(self) -> str:
        """Hash of ids, names and further columns in order."""
        return sha256_bytes(canonical_json([[c.class_id, c.name, c.more] for c in self.classes]))


def load_classes(name_or_csv: str) -> ClassList:
    """A shipped list by name, or a user's CSV by path.

    Raises:
        InputError: no such list or file; bad header, quotes or encoding; empty; a name or id that is empty, too long,
            has control characters, or stands twice (the message names both lines).
    """
    if name_or_csv in SHIPPED:
        path = HERE / f"classes_{name_or_csv.replace('-', '_')}.csv"
        return ClassList(name_or_csv, _read(path, PUBLISHED_DUPLICATES.get(name_or_csv, ())))
    path = Path(name_or_csv)
    if not path.is_file():
        near = get_close_matches(name_or_csv, SHIPPED, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(SHIPPED)} or the path of a CSV file"
        raise InputError(f"--classes: no class list and no file {name_or_csv!r}; {hint}")
    return ClassList(path.stem, _read(path, ()))


def _read(path: Path, allowed_twice: tuple[str, ...]) -> tuple[ClassInfo, ...]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text; save the CSV as UTF-8") from None
    # Not `splitlines`: it also breaks at characters that a name must not hold, and so would hide them.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    classes, lines = [], []
    try:
        _check_header(path, reader.fieldnames or [])
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: expected {len(reader.fieldnames or [])} columns; quote names with commas")
            classes.append(_class(row, where))
            lines.append(reader.line_num)
    except csv.Error as error:
        # DictReader counts lines only when a row was complete.
        line = reader.reader.line_num
        raise InputError(f"{path}:{line}: not a CSV line ({error}); check its quotes") from None
    if not classes:
        raise InputError(f"{path}: no classes; write one `class_id,name` line for each")
    _refuse_duplicates(path, classes, lines, allowed_twice)
    return tuple(classes)


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "name" not in header:
        raise InputError(f"{path}:1: the header is {list(header)}, expected `class_id,name` or `name`")
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise InputError(f"{path}:1: the column {twice[0]!r} stands twice in the header; keep one of them")


def _class(row: dict[str, str], where: str) -> ClassInfo:
    name = row["name"].strip(" ")
    class_id = row.get("class_id", "").strip(" ") or slug(name)
    if name and not class_id:
        raise InputError(f"{where}: no class_id can be made of {name!r}; add a column class_id")
    for column, text, limit in (("name", name, MAX_NAME_CHARS), ("class_id", class_id, MAX_ID_CHARS)):
        if not text:
            raise InputError(f"{where}: the {column} is empty; name every class")
        if len(text) > limit:
            raise InputError(f"{where}: the {column} has {len(text)} characters, at most {limit} are allowed")
        if has_unprintable(text):
            raise InputError(f"{where}: the {column} {text!r} holds a control character; remove it")
    return ClassInfo(class_id, name, {k: v for k, v in row.items() if k not in ("name", "class_id") and v})


def _refuse_duplicates(path: Path, classes: list[ClassInfo], lines: list[int], allowed: tuple[str, ...]) -> None:
    for column in ("class_id", "name"):
        seen: dict[str, int] = {}
        for info, line in zip(classes, lines, strict=True):
            value = getattr(info, column)
            if value in seen and value not in allowed:
                raise InputError(
                    f"{path}:{line}: {column} {value!r} stands in line {seen[value]} already; "
                    "two classes with one prompt could not be told apart"
                )
            seen[value] = line


def slug(name: str) -> str:
    """Lower-case ASCII letters, digits and dashes: ``Great white shark`` becomes ``great-white-shark``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")

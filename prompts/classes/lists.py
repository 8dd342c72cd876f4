"""Load class lists and concept banks: their classes, in which order and under which names.

In: the name of a shipped list, `wordnet-nouns`, or a user's CSV, TSV or JSON with ``id,name[,hypernym,definition]`` (or
``name`` alone: the id is its slug), a txt with a name a line, or torchvision's ``class-to-idx:FILE.json``; several,
joined by commas, make one list. Or names of classes themselves, ``red panda, sea otter``. Out: a `ClassList`; a
class's position in it is its label.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa

from synclones.base.derived import derived
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.prompts.characters import has_unprintable
from synclones.prompts.classes.files import SUFFIXES, Row, read_rows
from synclones.prompts.classes.mappings import CLASS_TO_IDX
from synclones.prompts.classes.wordnet import open_wordnet
from synclones.prompts.clip_tokens import as_read

HERE = Path(__file__).resolve().parent
MAX_NAME_CHARS = 200
MAX_FACT_CHARS = 1000
MAX_ID_CHARS = 64  # 256 bytes at most: a sample's JSON, which holds the id, has 512
WORDNET_NOUNS = "wordnet-nouns"
# A phrase for each shipped list, for `synclones prompts list`.
SHIPPED = {
    "lab-digits": "the ten digits of the lab",
    "cifar10": "the ten classes of CIFAR-10",
    "imagenet100": "100 classes of ImageNet (the choice of Tian et al. 2019, CMC), OpenAI's names",
    "imagenet1k": "the 1,000 classes of ImageNet-1k with OpenAI's curated names",
    "imagenet1k-wordnet": "the same with WordNet's names",
    "fgvc-aircraft": "the 100 variants of FGVC-Aircraft",
    "stanford-cars": "the 196 models of Stanford Cars",
    "dtd": "the 47 textures of DTD",
    "flowers102": "the 102 flowers of Oxford Flowers-102",
    WORDNET_NOUNS: "every noun of WordNet that has a hypernym: 82,114 concepts",
}
# Columns of users' lists that can only mean the label.
_LABEL_COLUMNS = {"label", "index", "idx", "class_idx", "class_index", "target"}
_WNID = re.compile(r"n\d{8}\b")
# A list that is another one's classes under the names of another column.
_OTHER_NAMES = {"imagenet1k-wordnet": ("imagenet1k", "wordnet_name")}

# Names that published lists give to two classes each, as CLIP reads them; kept, so that prompts equal the papers'.
PUBLISHED_DUPLICATES = {"imagenet1k": ("missile", "sunglasses"), "imagenet1k-wordnet": ("cardigan", "crane", "maillot")}


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


def load_classes(given: str, wordnet_dir: Path | None = None) -> ClassList:
    """Load shipped lists by name and users' files by path, joined by commas; a class of two lists counts once, by id.

    Texts with a comma of which none is a list or a file, nor looks like one, are the names of classes.

    Raises:
        InputError: for an unknown list or file; bad header, quotes or encoding; no classes; a name or id that is empty,
            too long, has control characters, or appears twice in one file (the message names both lines).
    """
    parts = [given] if Path(given).is_file() else given.split(",")
    if len(parts) > 1 and not any(map(_is_list, parts)):
        return _named(parts)
    lists = [_load(part.strip(), wordnet_dir) for part in parts]
    if len(lists) == 1:
        return lists[0]
    joined: dict[str, ClassInfo] = {}
    for part in lists:
        joined |= {info.class_id: info for info in part.classes if info.class_id not in joined}
    return ClassList("+".join(part.name for part in lists), tuple(joined.values()))


def _is_list(text: str) -> bool:
    """Whether a text between commas is a list, or meant to be: a path, or nearly the name of a shipped one."""
    text = text.strip()
    is_path = Path(text).is_file() or "/" in text or Path(text).suffix.lower() in SUFFIXES or CLASS_TO_IDX in text
    return is_path or bool(get_close_matches(text, SHIPPED, n=1, cutoff=0.88))


def _named(names: list[str]) -> ClassList:
    """Return the classes of these names; an empty one after the last comma is none."""
    names = names if names[-1].strip() else names[:-1]
    rows = [({"name": name}, f"--classes: name {number}") for number, name in enumerate(names, 1)]
    return ClassList(derived("", *names).name, tuple(_checked(rows, ())))


def _load(name_or_path: str, wordnet_dir: Path | None) -> ClassList:
    if name_or_path == WORDNET_NOUNS:
        return ClassList(WORDNET_NOUNS, tuple(_nouns(wordnet_dir)))
    if name_or_path in SHIPPED:
        source, column = _OTHER_NAMES.get(name_or_path, (name_or_path, "name"))
        path = HERE / f"{source.replace('-', '_')}.csv"
        return ClassList(name_or_path, tuple(_read(path, PUBLISHED_DUPLICATES.get(name_or_path, ()), column)))
    form, _, rest = name_or_path.partition(":")
    form = form if form == CLASS_TO_IDX and not Path(name_or_path).is_file() else ""
    path = Path(rest if form else name_or_path)
    if not path.is_file():
        near = get_close_matches(name_or_path, SHIPPED, n=1, cutoff=0.5)
        known = f"give one of {', '.join(SHIPPED)}, the path of a {', '.join(SUFFIXES)} file, or names with commas"
        hint = f"did you mean {near[0]!r}?" if near else known
        raise InputError(f"--classes: no class list and no file {name_or_path!r}; {hint}")
    return ClassList(path.stem, tuple(_read(path, (), form=form)))


def _nouns(wordnet_dir: Path | None) -> Iterable[ClassInfo]:
    for sense in open_wordnet(wordnet_dir).nouns():
        if sense.hypernym:
            more = {"synset": sense.key, "hypernym": sense.hypernym, "definition": sense.definition}
            yield ClassInfo(sense.wnid, sense.name, more)
    open_wordnet.cache_clear()  # its index takes 100 MB


def _read(path: Path, allowed_twice: tuple[str, ...], name_column: str = "name", form: str = "") -> list[ClassInfo]:
    classes = _checked(
        [(row | {"name": row[name_column]}, where) for row, where in read_rows(path, form)], allowed_twice
    )
    if not classes:
        raise InputError(f"{path}: no classes; write one `class_id,name` line for each")
    return classes


def _checked(given: list[tuple[Row, str]], allowed_twice: tuple[str, ...]) -> list[ClassInfo]:
    rows = [(_class(row, where), where) for row, where in given]
    _refuse_duplicates(rows, allowed_twice)
    _refuse_other_labels(rows)
    return [info for info, _ in rows]


def _class(row: dict[str, str], where: str) -> ClassInfo:
    name = row["name"].strip(" ")
    class_id = row.get("class_id", "").strip(" ") or slug(name)
    if _WNID.match(name):
        how = "is" if _WNID.fullmatch(name) else "begins with"
        raise InputError(f"{where}: the name {name!r} {how} an id of WordNet, which draws nothing; give class names")
    if name and not class_id:
        raise InputError(f"{where}: no class_id can be made of {name!r}; add a column class_id")
    for column, text, limit in (("name", name, MAX_NAME_CHARS), ("class_id", class_id, MAX_ID_CHARS)):
        if not text:
            raise InputError(f"{where}: the {column} is empty; name every class")
        if len(text) > limit:
            raise InputError(f"{where}: the {column} has {len(text)} characters, at most {limit} are allowed")
        if has_unprintable(text):
            raise InputError(f"{where}: the {column} {text!r} holds a control character; remove it")
    for column, text in row.items():
        if len(text) > MAX_FACT_CHARS or has_unprintable(text):
            raise InputError(
                f"{where}: {column} holds a control character or over {MAX_FACT_CHARS} characters; mend it"
            )
    return ClassInfo(class_id, name, {k: v.strip() for k, v in row.items() if k not in ("name", "class_id") and v})


def _refuse_duplicates(rows: list[tuple[ClassInfo, str]], allowed: tuple[str, ...]) -> None:
    """Refuse two classes of one id, or of names that the text encoder cannot tell apart."""
    names = as_read(pa.array([info.name for info, _ in rows], pa.string())).to_pylist()
    for column, keys in (("class_id", [info.class_id for info, _ in rows]), ("name", names)):
        first: dict[str, int] = {}
        for number, key in enumerate(keys):
            earlier = first.setdefault(key, number)
            if earlier != number and not (column == "name" and key in allowed):
                values = [getattr(rows[n][0], column) for n in (number, earlier)]
                line = rows[earlier][1].rpartition(":")[2].strip()
                same = (
                    "appears" if values[0] == values[1] else f"is {values[1]!r} to CLIP's text encoder, which appears"
                )
                raise InputError(
                    f"{rows[number][1]}: {column} {values[0]!r} {same} in {'line ' if line.isdigit() else ''}{line} "
                    "already; two classes with one prompt could not be told apart"
                )


def _refuse_other_labels(rows: list[tuple[ClassInfo, str]]) -> None:
    for position, (info, where) in enumerate(rows):
        for column in _LABEL_COLUMNS & info.more.keys():
            if info.more[column].isdecimal() and int(info.more[column]) != position:
                raise InputError(
                    f"{where}: {column} is {info.more[column]}, but a class's label is its position in the list, "
                    f"{position}; order the classes by {column}, or rename the column"
                )


def slug(name: str) -> str:
    """Return lower-case ASCII letters, digits and dashes: ``Great white shark`` becomes ``great-white-shark``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")

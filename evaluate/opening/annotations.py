"""Reads the annotations of FOCUS: which images show their object under uncommon circumstances.

In: an SQLite file, opened read-only and within bounds, whoever wrote it. Out: `Annotation` by the name of the image.
Which circumstances are uncommon of which class are facts of github.com/priyathamkat/focus at cd458e3.
"""

import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from synclones.base.errors import InputError, one_line

COLUMNS = ("file_name", "category", "time", "weather", "locations")
KINDS = ("time", "weather", "locations")
TIMES = ("day", "night")
WEATHERS = ("cloudy", "foggy", "partly cloudy", "raining", "snowing", "sunny")
LOCATIONS = ("forest", "grass", "indoors", "rocks", "sand", "street", "snow", "water")
_KNOWN = {"time": set(TIMES), "weather": set(WEATHERS), "locations": set(LOCATIONS)}
_NOTHING = {"", "none", "{}", "[]", "null"}
_UNCOMMON_LOCATIONS = {
    "truck": ("indoors", "rocks", "snow", "water"),
    "car": ("indoors", "rocks", "snow", "water"),
    "plane": ("forest", "indoors", "rocks", "sand", "snow", "water"),
    "ship": ("forest", "grass", "indoors", "rocks", "sand", "street", "snow"),
    "cat": ("forest", "rocks", "sand", "snow", "water"),
    "dog": ("forest", "rocks", "snow"),
    "horse": ("indoors", "rocks", "street", "snow", "water"),
    "deer": ("indoors", "rocks", "sand", "street", "snow", "water"),
    "frog": ("indoors", "street", "snow"),
    "bird": ("indoors", "street", "snow"),
}
_MAX_BYTES, _MAX_ROWS, _MAX_CELL, _MAX_STEPS = 2**28, 2**22, 2**12, 2**10

Uncommon = Mapping[str, Mapping[str, frozenset[str]]]
"""Class -> kind of circumstance -> what is uncommon of it."""


@dataclass(frozen=True)
class Annotation:
    """What is known of one image."""

    category: str
    time: str
    """Empty where nothing is stated, as the others."""
    weather: str
    locations: tuple[str, ...]

    def values(self) -> dict[str, tuple[str, ...]]:
        """Return what is stated of every kind of circumstance."""
        return {
            "time": (self.time,) if self.time else (),
            "weather": (self.weather,) if self.weather else (),
            "locations": self.locations,
        }

    def uncommon(self, tables: Uncommon) -> tuple[bool, bool, bool]:
        """Return whether time, weather, and any location is uncommon of its class."""
        table, stated = tables[self.category], self.values()
        time, weather, location = (any(word in table[kind] for word in stated[kind]) for kind in KINDS)
        return time, weather, location

    def strange(self) -> list[str]:
        """Return what is stated and is no word of FOCUS."""
        return [word for kind, words in self.values().items() for word in words if word not in _KNOWN[kind]]


def uncommon_of_focus() -> Uncommon:
    """Return what is uncommon of the ten classes: night of all but frogs, of all bad weather, and places."""
    return {
        name: {
            "time": frozenset() if name == "frog" else frozenset({"night"}),
            "weather": frozenset({"foggy", "raining", "snowing"}),
            "locations": frozenset(locations),
        }
        for name, locations in _UNCOMMON_LOCATIONS.items()
    }


def stated_uncommon(given: Any, classes: tuple[str, ...], where: object) -> Uncommon:
    """Return the same as a suite states it: class -> {time: [...], weather: [...], locations: [...]}.

    Raises:
        InputError: it is something else, or lacks a class.
    """
    if not isinstance(given, dict) or set(given) != set(classes):
        raise InputError(f"{where}: uncommon: expected a line for each of {', '.join(classes)}")
    for name, kinds in given.items():
        sound = isinstance(kinds, dict) and set(kinds) <= set(KINDS)
        if not sound or not all(isinstance(words, list) for words in kinds.values()):
            raise InputError(f"{where}: uncommon: {name}: {kinds!r}: expected lists of {', '.join(KINDS)}")
    return {name: {kind: frozenset(kinds.get(kind, ())) for kind in KINDS} for name, kinds in given.items()}


def read_annotations(path: Path) -> dict[str, Annotation]:
    """Read image -> annotation; names are below the folder of the set, without the slash that they begin with.

    Raises:
        InputError: the file is missing, no such database, or states one image twice.
    """
    annotations: dict[str, Annotation] = {}
    with _opened(path) as connection:
        for row in _rows(connection, path):
            name, category, time, weather, locations = row
            name = name.lstrip("/")
            if not name or ".." in name.split("/") or name in annotations:
                raise InputError(f"{path}: image {name[:80]!r} is stated twice, or no name below the set; mend it")
            annotations[name] = Annotation(category, _word(time), _word(weather), _words(locations))
    if not annotations:
        raise InputError(f"{path}: the table annotations is empty; fetch it again")
    return annotations


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database read-only: nothing is written, not even a journal, and what takes too long is ended.

    Raises:
        InputError: no regular file within bounds, or SQLite refuses it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected the annotations, an SQLite file"
        ) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise InputError(f"{path}: no regular file of at most {_MAX_BYTES} bytes; expected the annotations")
    try:
        address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
            steps = iter(range(_MAX_STEPS))
            connection.set_progress_handler(lambda: next(steps, None) is None, 10**6)
            yield connection
    except sqlite3.Error as error:
        raise InputError(f"{path}: no database that can be read ({one_line(str(error))}); fetch it again") from None


def _rows(connection: sqlite3.Connection, path: Path) -> Iterator[tuple[str, str, Any, Any, Any]]:
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master LIMIT 1000").fetchall())
    if kinds.get("annotations") != "table":
        raise InputError(
            f"{path}: holds {', '.join(map(str, sorted(map(str, kinds)))) or 'nothing'}, expected a table annotations "
            f"with {', '.join(COLUMNS)}"
        )
    columns = {str(row[1]) for row in connection.execute("PRAGMA table_xinfo(annotations)")}
    if set(COLUMNS) - columns:
        raise InputError(
            f"{path}: the table annotations has {', '.join(sorted(columns))}, expected {', '.join(COLUMNS)}; give the "
            "released file"
        )
    for number, row in enumerate(connection.execute(f"SELECT {', '.join(COLUMNS)} FROM annotations ORDER BY 1"), 1):
        texts = [cell for cell in row if cell is not None]
        if not all(isinstance(cell, str) and len(cell) <= _MAX_CELL for cell in texts) or None in row[:2]:
            raise InputError(f"{path}: row {number} holds {str(row)[:80]}, expected short texts")
        if number > _MAX_ROWS:
            raise InputError(f"{path}: more than {_MAX_ROWS} rows; give the released file")
        yield row


def _word(text: str | None) -> str:
    word = (text or "").strip()
    return "" if word.lower() in _NOTHING else word


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word for word in map(_word, (text or "").split(",")) if word)

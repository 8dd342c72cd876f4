"""Reads result files of the official evaluation scripts, and of this project, and says what each of them is.

In: a JSON file, or a folder of any. Out: `Log`s of a known kind; what is none is passed over, counted. A file is read
up to `MAX_BYTES`; numbers are finite.

The official scripts (visinf/benchmarking-synthetic-clones) write a list of entries for attacks and corruptions, one
entry for everything else, and bins by their number; accuracies of attacks and corruptions are in percent, all others
are fractions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, one_line
from synclones.base.json_file import read_json
from synclones.shards.sources.files import PassedOver, name_below, walk_files

MAX_BYTES = 2**23
MAX_FILES = 20_000
MAX_ENTRIES = 10_000
# What the entries of each kind have.
KINDS = {
    "attack": {"attack", "clean_acc", "robust_acc"},
    "corruptions": {"corruption", "severity", "acc"},
    "backgrounds": {"original_acc", "mixed_same_acc", "mixed_rand_acc"},
    "out-of-distribution": {"auroc", "fpr", "ood_dist"},
    "calibration": {"ece", "test_error"},
    "shape bias": {"shape_bias"},
    "bins": {"count", "bin_acc", "bin_conf"},
    "result": {"metric", "value", "settings", "weights_sha256"},
}


@dataclass(frozen=True)
class Log:
    """One file: its name below what was given, its kind, and its entries as they stand."""

    name: str
    path: Path
    kind: str
    entries: tuple[dict[str, Any], ...]

    @property
    def model(self) -> str:
        """What was evaluated: model, and prompts and number of images where it is one of a series."""
        words = (self.text(key) for key in ("model", "model_name", "prompt_type", "dataset_size"))
        return " ".join(filter(None, words)) or Path(self.name).stem

    def text(self, key: str) -> str:
        """Return the text that some entry has under a key; of corruptions one entry of many may have it."""
        return next((one_line(e[key])[:100] for e in self.entries if isinstance(e.get(key), str)), "")


def number(entry: dict[str, Any], key: str) -> float:
    """Return a number of an entry as float; NaN where it has none."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e15 else math.nan


def first_number(entry: dict[str, Any], names: Iterable[str]) -> float:
    """Return the number under the first of several names that an entry has; NaN where it has none of them."""
    return next((number(entry, name) for name in names if name in entry), math.nan)


def read_logs(results: Path, passed: PassedOver) -> list[Log]:
    """Return the logs in a file or below a folder, by name.

    Raises:
        InputError: when the file is none, or nothing below the folder is one.
    """
    if not results.is_dir():
        return [_one(results)]
    # In a folder one file that cannot be read must not hide the others; a folder of none is a mistake.
    logs = []
    for name, path in sorted((name_below(results, path), path) for path in _json_files(results, passed)):
        try:
            log = _log(name, path)
        except (ValueError, OSError) as error:
            passed.add("unreadable", f"{name}, {one_line(str(error))[:120]}")
            continue
        if log is None:
            passed.add("of no known kind", name)
        else:
            logs.append(log)
    if not logs:
        why = passed.text(results) or f"{results}: is empty"
        raise InputError(f"{why}; expected JSON files of results: {', '.join(KINDS)}")
    return logs


def _json_files(folder: Path, passed: PassedOver) -> Iterable[Path]:
    files = []
    for path in walk_files(folder, passed):
        if path.suffix != ".json":
            passed.add("no JSON by its name", name_below(folder, path))
            continue
        files.append(path)
        if len(files) > MAX_FILES:
            raise InputError(f"{folder}: more than {MAX_FILES} JSON files; give the folder of one evaluation")
    return files


def _one(path: Path) -> Log:
    try:
        log = _log(path.name, path)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected a JSON file of results") from None
    if log is None:
        raise InputError(f"{path}: no results that are known here; expected {', '.join(KINDS)}")
    return log


def _log(name: str, path: Path) -> Log | None:
    """Return the log in a file; None where it is of no known kind.

    Raises:
        ValueError: when it is no JSON, or too large.
    """
    value = read_json(path, MAX_BYTES)
    entries = _entries(value)
    kind = next((kind for kind, keys in KINDS.items() if entries and all(keys <= e.keys() for e in entries)), None)
    return None if kind is None else Log(name, path, kind, entries)


def _entries(value: Any) -> tuple[dict[str, Any], ...]:
    """Return the entries of a list, of an object by bin numbers, or one object as the only one."""
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        if all(key.isdecimal() for key in value):
            value = [value[key] for key in sorted(value, key=lambda key: (len(key), key))]
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} entries")
    return tuple(entries) if all(isinstance(entry, dict) for entry in entries) else ()

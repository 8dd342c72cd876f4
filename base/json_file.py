"""Reads JSON that somebody else may have written: whatever the bytes, there is a plain value or one kind of error.

In: a file or its bytes. Out: values without lone surrogates or doubled keys, nested at most `MAX_DEPTH` deep, and
unless they are asked for without NaN and infinity.
"""

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 2**26
MAX_DEPTH = 64


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, finite: bool = True) -> Any:
    """Return the value in a regular file.

    Raises:
        ValueError: saying what is wrong with it.
        OSError: when it cannot be read.
    """
    return parse_json(read_regular(path, max_bytes), finite)


def read_regular(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        ValueError: when it is none, or too large.
        OSError: when it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer for ever
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):  # before `open`, which would call a folder by its descriptor
        os.close(descriptor)
        raise ValueError("no regular file")
    with open(descriptor, "rb") as file:
        # A read of a stated size takes that memory at once: the bound of a large index would be a gigabyte for any.
        data = file.read() if state.st_size <= max_bytes else b""
    if max(len(data), state.st_size) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes, the most that is read")
    return data


def parse_json(data: bytes | str, finite: bool = True) -> Any:
    """Return the value in UTF-8 JSON, after a byte order mark or without; ``finite`` refuses numbers that are not.

    Raises:
        ValueError: saying what is wrong.
    """
    text = (data if isinstance(data, str) else data.decode()).removeprefix("\ufeff")
    try:
        how: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite} if finite else {}
        value = json.loads(text, object_pairs_hook=_unique, **how)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check_depth(value)
    if "\\ud" in text or "\\uD" in text:  # half a character by its escape: it could be neither printed nor stored
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in an object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [child for children in inner for child in children]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises:
        ValueError: for NaN and infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Return JSON with sorted keys for people to read, one space of indent, a newline at the end."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

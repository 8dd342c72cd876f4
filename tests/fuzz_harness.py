"""Feeds every reader of files with damaged and hostile ones; whatever the bytes, only our own errors may come out.

    python tests/fuzz_harness.py SEED EXAMPLES [TARGET ...]

Each example takes a valid file and changes it: bits, cuts, repeated pieces, words of the format, or single JSON values,
with the checksums around it made right again. Prints JSON: per target the examples, how many were read and how many
refused, and the first examples that ended in anything else than a value or a `SynclonesError`. The process has little
memory, and an example that takes long is stopped by an alarm; both are failures too.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_targets import NAIVE, TARGETS

from synclones.base.errors import as_synclones_error

MEMORY, SECONDS = 3 * 2**30, 20
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**400, 0.0, -0.5, 1e300, "", "x", "../../etc/passwd"),
    *("/etc/passwd", "train-00000", "\x00", "a\nb", "\u202e", "\ud800", "{}%s$(x)", "x" * 5000, [], {}, [[]], [None]),
    *({"a": {"b": []}}, ["x", "y"], [0], float("nan"), float("inf"), json.loads("[" * 60 + "]" * 60)),
]
TOKENS = [
    *(b"\x00", b"\xff", b"\n", b"\r\n", b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"\t", b"../", b"\\ud800"),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 500,
        b"[" * 3000,
        b'{"a":' * 3000,
        b"- " * 300,
        b"&a [*a,*a]",
        b"!!python",
    ),
    *(
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"ustar\x0000",
        b"PAR1",
        b"\x80\x00\x00\x00",
        b"\xff" * 12,
        bytes(512),
        b"!!python",
    ),
]


def mutated(data: bytes, dice: random.Random) -> bytes:
    """``data`` after one to four small damages."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        at, n = dice.randrange(len(made) + 1), dice.choice((1, 1, 2, 8, 64, 512))
        damage = dice.randrange(7)
        if damage == 0 and at < len(made):
            made[at] ^= 1 << dice.randrange(8)
        elif damage == 1:
            made[at : at + n] = dice.randbytes(n)
        elif damage == 2:
            del made[at:]
        elif damage == 3:
            del made[at : at + n]
        elif damage == 4:
            made[at:at] = made[at : at + n] * dice.choice((1, 2, 50))
        elif damage == 5:
            made[at:at] = dice.choice(TOKENS)
        else:
            token = dice.choice(TOKENS)
            made[at : at + len(token)] = token
    return bytes(made)


def swapped(value: Any, dice: random.Random) -> Any:
    """A JSON value with one of its parts replaced, left out or nested."""
    if isinstance(value, dict | list) and value and dice.random() < 0.85:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = dice.choice(list(copy)) if isinstance(copy, dict) else dice.randrange(len(copy))
        if dice.random() < 0.15:
            del copy[key]
        else:
            copy[key] = swapped(copy[key], dice)
        return copy
    return dice.choice((*HOSTILE, [value], {"x": value}))


def swapped_json(data: bytes, dice: random.Random) -> bytes:
    return json.dumps(swapped(json.loads(data), dice), ensure_ascii=dice.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def swapped_lines(data: bytes, dice: random.Random) -> bytes:
    """JSON lines with one of them swapped; a line with a checksum gets the right one."""
    lines = data.splitlines()
    at = dice.randrange(len(lines))
    record = json.loads(lines[at])
    if "line_crc32" in record:
        record["line"] = swapped(record["line"], dice)
        with contextlib.suppress(ValueError):
            text = json.dumps(
                record["line"], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
            )
            record["line_crc32"] = zlib.crc32(text.encode())
    else:
        record = swapped(record, dice)
    lines[at] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"\n".join(lines) + b"\n"


def swapped_table(data: bytes, dice: random.Random) -> bytes:
    """Parquet with a column that is missing, of another type, or with one other value."""
    table = pq.read_table(io.BytesIO(data))
    at = dice.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    values = column.to_pylist()
    choice = dice.randrange(5)
    if choice == 0:
        table = table.remove_column(at)
    elif choice == 1:
        table = table.rename_columns([dice.choice(("x", name)) if n == name else n for n in table.column_names])
    elif choice == 2:
        raw = pa.array([dice.choice((b"\xff", b"ok", b"x" * 9000)) for _ in values], pa.binary())
        text = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
        table = table.set_column(at, name, text)
    elif values:
        values[dice.randrange(len(values))] = dice.choice(HOSTILE[:24])
        with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeError):
            kind = column.type if choice == 3 else None
            table = table.set_column(at, pa.field(name, kind, nullable=False) if kind else name, pa.array(values, kind))
    if dice.random() < 0.3 and table.schema.metadata:
        facts = {k: swapped_json(v, dice) if v[:1] == b"{" else v for k, v in table.schema.metadata.items()}
        table = table.replace_schema_metadata(facts)
    out = io.BytesIO()
    try:
        pq.write_table(table, out, compression=dice.choice(("none", "zstd")))
    except pa.ArrowException:  # the writer does not write such a table
        return mutated(data, dice)
    return out.getvalue()


STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": swapped_json,
    ".jsonl": swapped_lines,
    ".parquet": swapped_table,
}


@dataclass
class Found:
    examples: int
    outcomes: Counter[str]
    failures: list[str]


def fuzz(name: str, seed: int, examples: int, folder: Path) -> Found:
    """Run one target; the same seed gives the same examples."""
    target, dice = (TARGETS | NAIVE)[name], random.Random(f"{name} {seed}")
    valid = folder / "valid"
    valid.mkdir(parents=True)
    paths = target.make(valid)
    found = Found(examples, Counter(), [])
    for number in range(-1, examples):
        place = folder / "case"
        shutil.copytree(valid, place)
        victim = place / dice.choice(paths)
        if number >= 0:  # the first is the valid one, which must be read
            harm(victim, dice)
            if target.mend is not None and dice.random() < 0.7:
                target.mend(place)
        harmed = victim.read_bytes()[:60]
        said = outcome(target.read, place)
        kind = said.partition(":")[0]
        found.outcomes[kind] += number >= 0
        if (kind == "failed" or (number < 0 and kind != "read")) and len(found.failures) < 5:
            found.failures.append(f"example {number}, {victim.name} {harmed!r}: {said}")
        shutil.rmtree(place)
    return found


def harm(path: Path, dice: random.Random) -> None:
    """Change a file in one of the ways that its kind can be changed."""
    structured = STRUCTURED.get(path.suffix)
    change = structured if structured and dice.random() < 0.6 else mutated
    path.write_bytes(change(path.read_bytes(), dice))


def outcome(read: Callable[[Path], object], place: Path) -> str:
    """``read``, ``refused: why``, or ``failed:`` with the traceback of what should not have happened."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read(place)
    except BaseException as error:  # noqa: BLE001 - also the alarm and the end of memory
        known = as_synclones_error(error)
        if known is None or isinstance(error, MemoryError) or not str(known):
            return f"failed: {traceback.format_exc(limit=-6)[-1500:]}"
        return f"refused: {known}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def main() -> None:
    seed, examples = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    np.seterr(all="ignore")
    os.fsync = lambda descriptor: None  # a thousand examples need not outlive a power failure

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    report = {}
    for name in sys.argv[3:] or TARGETS:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # of making valid files
            found = fuzz(name, seed, examples, Path(folder))
        report[name] = {"examples": found.examples, **found.outcomes, "failures": found.failures}
    print(json.dumps(report))


if __name__ == "__main__":
    main()

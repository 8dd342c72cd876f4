"""Where the lines for people go, and how many: results on standard output, what happens meanwhile on standard error.

In: ``--quiet``, ``--verbose`` and ``--json`` of a command. Out: `say` for lines on the way, `print_json` for the one
value that ``--json`` promises: nothing else reaches standard output then, whoever prints it.
"""

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from synclones.base.errors import as_synclones_error
from synclones.base.json_file import pretty_json


@dataclass(frozen=True)
class _Shape:
    """What the running command was asked for."""

    quiet: bool = False
    verbose: bool = False
    json: TextIO | None = None
    """The standard output that takes the JSON."""


_SHAPE = [_Shape()]
"""The last one holds."""
bars: set[object] = set()
"""What draws a bar on the terminal now."""


class _Warnings(io.TextIOBase):
    """Standard error of a quiet command: of all that is written, the warnings pass."""

    def __init__(self, stream: TextIO):
        self._stream, self._rest = stream, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            for line in lines:
                if line.startswith("synclones: warning: "):
                    self._stream.write(f"{line}\n")
        return len(text)


@contextlib.contextmanager
def shaped(quiet: bool = False, verbose: bool = False, json: bool = False) -> Iterator[None]:
    """Run the block with fewer or more lines on standard error, or with JSON alone on standard output."""
    output, errors = sys.stdout, sys.stderr
    _SHAPE.append(_Shape(quiet, verbose, output if json else None))
    if quiet:
        sys.stderr = _Warnings(errors)
    if json:
        sys.stdout = sys.stderr
    try:
        yield
    except Exception as error:
        if verbose and as_synclones_error(error) is not None:  # of another one Python shows it anyhow
            traceback.print_exception(error)
        raise
    finally:
        _SHAPE.pop()
        if quiet:
            sys.stderr = errors
        if json:
            sys.stdout = output


def is_quiet() -> bool:
    """Return whether only results, warnings and errors are wanted."""
    return _SHAPE[-1].quiet


def is_verbose() -> bool:
    """Return whether more is wanted: progress every few seconds, and tracebacks of errors."""
    return _SHAPE[-1].verbose


def wants_json() -> bool:
    """Return whether the result is wanted as JSON."""
    return _SHAPE[-1].json is not None


def print_json(value: Any) -> None:
    """Print the result as JSON on standard output, with sorted keys."""
    output = _SHAPE[-1].json or sys.stdout
    try:
        text = pretty_json(value).decode()
    except UnicodeEncodeError:  # a path that is not UTF-8, by escapes that Python's own reader gives back
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    output.write(text)
    output.flush()


def say(text: str) -> None:
    """Print a line on standard error, above a bar where there is one; nothing when the command is to be quiet."""
    if not is_quiet():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

"""Finds the layouts of image sets: every file of ``evaluate/sets/`` is one, so adding a layout is adding a file.

A layout file has a docstring (what lies where, its source and licence), the ``ROLE`` its sets have unless a suite says
otherwise, ``OPTIONS`` (name -> type) that a suite may give, ``open_parts(path, options, class_ids)``, which opens the
images, and ``inspect(path, options, class_ids)``, which looks at names, counts and sizes before any model is loaded;
its options also hold ``images``, how many one part should have, where that is known, and the set's ``role``. ``TREE``
says what lies below the path.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synclones.base.errors import InputError

if TYPE_CHECKING:  # importing it would load Arrow to explain a metric
    from synclones.evaluate.test_set import TestSet

SETS = Path(__file__).resolve().parent / "sets"
ROLES = ("reference", "shifted", "outliers", "corrupted", "shape", "background", "context")
_KINDS = {list: "a list", dict: "a mapping", str: "a text", int: "a whole number", bool: "true or false"}
Role = Literal["reference", "shifted", "outliers", "corrupted", "shape", "background", "context"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the image sets that a layout holds: of ImageNet-C one corruption at one severity, of IN-9 one variant."""

    name: str = ""
    """Within the set, such as fog/3 or mixed_same; empty where the set is one."""
    test_set: "TestSet"
    settings: dict[str, Any] = field(default_factory=dict)
    """What it is, JSON-able, such as corruption and severity."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a look at a set's files found out."""

    kind: Literal["fault", "warning", "note"]
    """fault: it cannot be evaluated as it is; warning: numbers would differ from those of the whole set."""
    text: str
    """One line: what is there, what is expected, what to do."""


@dataclass(frozen=True)
class Layout:
    """One file of ``evaluate/sets/``."""

    name: str
    role: Role
    options: dict[str, type]
    open_parts: Callable[[Path, dict[str, Any], tuple[str, ...]], list[Part]]
    """(path, options, ids of the suite's classes) -> its parts, in the order of reading."""
    inspect: Callable[[Path, dict[str, Any], tuple[str, ...]], Iterator[Finding]]
    tree: str = ""
    """What lies below the path, in short."""


@cache
def layouts() -> dict[str, Layout]:
    """Return all layouts by name."""
    loaded = {}
    for path in sorted(SETS.glob("*.py")):
        module = import_module(f"synclones.evaluate.sets.{path.stem}")
        loaded[path.stem] = Layout(
            path.stem, module.ROLE, module.OPTIONS, module.open_parts, module.inspect, module.TREE
        )
    return loaded


def check_options(layout: Layout, options: Mapping[str, Any]) -> None:
    """Refuse options that a layout does not have, or values of another kind.

    Raises:
        InputError: naming the key and what is expected.
    """
    for key, value in options.items():
        if key not in layout.options:
            known = ", ".join(layout.options)
            raise InputError(f"{key}: a set of layout {layout.name} has no such option; expected some of {known}")
        kind = layout.options[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            shown = f"{value!r}"[:80]
            raise InputError(f"{key}: {shown} was given, expected {_KINDS.get(kind, kind.__name__)}")

"""The formats of published checkpoints: every file of ``models/formats/`` is one, so adding a format is adding a file.

A format file has a docstring, with who published the weights and where that is written down, and a ``FORMAT``: tables
of names and shapes as they were published, how a network is built of them, and how images are prepared for it.

In: a `Checkpoint`. Out: the `Match` of the one format whose table it fits, name by name and shape by shape.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.checkpoint import Checkpoint
from synclones.models.network import Preprocessing

FOLDER = Path(__file__).resolve().parent / "formats"
CLASSES = -1
"""Stands in shapes for the number of classes."""
PROBES = "linear_classifiers"
"""The entry beside the weights that makes a checkpoint one of probes (see linear_probe.py)."""
COUNTER = "num_batches_tracked"
"""Ends the names of counters in normalisations: nothing is evaluated by them."""
NAMES_SHOWN, PARTS_SHOWN = 4, 20

Shape = tuple[int, ...]
Table = dict[str, Shape]
"""Names -> shapes; ``blocks.0-11.`` stands for twelve blocks."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One architecture of a format."""

    name: str
    """As people say it: ViT-B/16."""
    table: Table
    """What is used, by its names behind a prefix."""
    build: Callable[[Tensors, int], nn.Module]
    """(tensors by the table's names, number of classes) -> the network with these weights."""
    prefixes: tuple[str, ...] = ("",)
    """Of which one stands before every name of the table."""
    left_out: tuple[str, ...] = ()
    """Patterns of other names that such files hold."""
    needed: tuple[str, ...] = ()
    """Patterns of names that are left out and yet tell this format from others: each matches one."""
    containers: tuple[str, ...] = ("", "state_dict", "model", "teacher")
    """In which the weights may lie."""
    wrapped: bool | None = None
    """Whether the file says ``module.`` before every name; None where both occur."""
    role: Literal["classifier", "backbone", "image-text", "probed"] = "classifier"
    """What ``build`` returns: logits, features for a head of another file, two towers, or a backbone with probes."""
    head_inputs: tuple[int, ...] = (1,)
    """Of a backbone: how many vectors of its width a head may read (see heads.py)."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """A format of published checkpoints."""

    title: str
    source: str
    """Who published the weights, and what they are described in."""
    preprocessing: Preprocessing
    """As the authors evaluate."""
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Match:
    """A checkpoint that fits a format."""

    name: str
    """Of the format: its file's stem."""
    form: CheckpointFormat
    variant: Variant
    tensors: Tensors
    """By the table's names."""
    num_classes: int
    dropped: tuple[str, ...]
    """What the file holds beside them, in words."""

    @property
    def title(self) -> str:
        """Format and architecture, for people."""
        return f"{self.form.title}, {self.variant.name}"


@dataclass(frozen=True)
class _Comparison:
    """A checkpoint beside a variant's table: what is wrong, and how much is right."""

    name: str
    label: str
    wrapping: tuple[str, ...]
    """What is wrong with the entry and the prefix that the weights lie behind."""
    faults: tuple[str, ...]
    """What is wrong with names and shapes."""
    distance: float
    """How many of them, for each that there should be."""
    match: Match | None = None


@cache
def formats() -> dict[str, CheckpointFormat]:
    """Return all formats by name."""
    stems = sorted(path.stem for path in FOLDER.glob("*.py"))
    return {stem: import_module(f"synclones.models.formats.{stem}").FORMAT for stem in stems}


def expanded(table: Table) -> Table:
    """Return a table with a row for each name: ``blocks.0-11.`` and the like written out."""
    rows: Table = {}
    for name, shape in table.items():
        span = re.search(r"(?<=\.)(\d+)-(\d+)(?=\.)", name)
        if span is None:
            rows[name] = shape
            continue
        first, last = int(span[1]), int(span[2])
        names = (f"{name[: span.start()]}{number}{name[span.end() :]}" for number in range(first, last + 1))
        rows |= expanded(dict.fromkeys(names, shape))
    return rows


def filled(network: nn.Module, tensors: Tensors) -> nn.Module:
    """Return ``network`` with exactly these weights, as 32-bit numbers.

    Raises:
        RuntimeError: they are not its own; a table that was matched before keeps this from happening.
    """
    whole = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network.load_state_dict(whole, strict=True)
    return network


def recognise(checkpoint: Checkpoint, asked: str = "") -> Match:
    """Return how a checkpoint is to be read; ``asked``: the name of the format, where somebody says it.

    Raises:
        InputError: it fits no format, naming what is missing, surplus or of another shape; or several.
    """
    known = {asked: formats()[asked]} if asked else formats()
    compared = [
        _compare(checkpoint, name, form, variant, prefix, strict=not asked)
        for name, form in known.items()
        for variant in form.variants
        for prefix in variant.prefixes
    ]
    matches = [item.match for item in compared if item.match is not None]
    if not matches:
        raise _misfit(checkpoint, compared)
    names = sorted({match.name for match in matches})
    if len(names) > 1:
        raise InputError(f"{checkpoint.path}: could be {' or '.join(names)}; say which: {names[0]}:{checkpoint.path}")
    return matches[0]


def _misfit(checkpoint: Checkpoint, compared: list[_Comparison]) -> InputError:
    """Return what is wrong with a checkpoint that fits no format."""
    nearest = min(compared, key=lambda item: (item.distance, len(item.wrapping)))
    faults = "; ".join((*nearest.faults, *nearest.wrapping))
    if nearest.faults:
        return InputError(
            f"{checkpoint.path}: fits no known format of checkpoints; nearest is {nearest.label}: {faults}"
        )
    names = sorted({item.name for item in compared if not item.faults and len(item.wrapping) == len(nearest.wrapping)})
    return InputError(
        f"{checkpoint.path}: has the names and shapes of {' and '.join(names)}, but {faults}; if it is one of them, "
        f"say so: {names[0]}:{checkpoint.path}"
    )


def _compare(
    checkpoint: Checkpoint, name: str, form: CheckpointFormat, variant: Variant, prefix: str, strict: bool
) -> _Comparison:
    """Return whether names and shapes are those of the variant; ``strict``: and so is what they are wrapped in."""
    table, label = expanded(variant.table), f"{name} ({variant.name})"
    given = {full.removeprefix(prefix): t for full, t in checkpoint.tensors.items() if full.startswith(prefix)}
    counted = [full for full in checkpoint.tensors if not full.endswith(COUNTER)]
    others = [full for full in counted if not (full.startswith(prefix) and full.removeprefix(prefix) in table)]
    # What the file is wrapped in tells formats apart whose names and shapes are equal.
    wrapping = tuple(_wrapping_faults(checkpoint, variant)) if strict else ()
    missing = [f"{prefix}{row}" for row in table if row not in given]
    surplus = [full for full in others if not _fits_one(full, variant.left_out)]
    faults = [f"{kind} {_some(names)}" for kind, names in (("without", missing), ("with unknown", surplus)) if names]
    faults += [f"without {pattern}" for pattern in variant.needed if not any(fnmatchcase(n, pattern) for n in others)]
    if (variant.role == "probed") != (PROBES in checkpoint.beside):
        faults.append(f"{'without' if variant.role == 'probed' else 'with'} the entry {PROBES}")
    # A dimension that stands for the classes has one value throughout.
    wrong, sizes = _shape_faults({row: given[row] for row in table if row in given}, table)
    faults += wrong
    if faults or wrapping:
        distance = (len(missing) + len(surplus) + len(faults)) / len(table) if faults else 0
        return _Comparison(name, label, wrapping, tuple(faults), distance)
    tensors = {row: given[row] for row in table}
    entries = [f"{entry[:100]} (entry)" for entry in checkpoint.beside if entry != PROBES][:PARTS_SHOWN]
    dropped = (*_summed(others), *entries)
    match = Match(name, form, variant, tensors, sizes.pop() if sizes else 0, dropped)
    return _Comparison(name, label, (), (), 0, match)


def _wrapping_faults(checkpoint: Checkpoint, variant: Variant) -> list[str]:
    faults = []
    if checkpoint.container not in variant.containers:
        expected = " or ".join(repr(name) if name else "no entry" for name in variant.containers)
        faults.append(f"its weights in {checkpoint.container or 'no entry'!r}, expected {expected}")
    if variant.wrapped is not None and variant.wrapped != ("module." in checkpoint.wrapper):
        faults.append(f"{'without' if variant.wrapped else 'with'} 'module.' before its names")
    return faults


def _shape_faults(given: Tensors, table: Table) -> tuple[list[str], set[int]]:
    """Return what is wrong with shapes and types, and the numbers of classes that they say."""
    wrong, sizes = [], set[int]()
    for row, tensor in given.items():
        shape, expected = tuple(tensor.shape), table[row]
        fits = len(shape) == len(expected) and all(e in (CLASSES, s) for s, e in zip(shape, expected, strict=True))
        if not fits or (CLASSES in expected and 0 in shape):
            wrong.append(f"{row} {_text(shape)} instead of {_text(expected)}")
        elif tensor.is_complex() or tensor.is_quantized or tensor.is_sparse:
            wrong.append(f"{row} as {tensor.dtype} {tensor.layout}")
        else:
            sizes |= {s for s, e in zip(shape, expected, strict=True) if e == CLASSES}
    if len(sizes) > 1:
        wrong.append(f"heads of {' and '.join(map(str, sorted(sizes)))} classes")
    return ([_some(wrong)] if wrong else []), sizes


def _text(shape: Shape) -> str:
    return f"({', '.join('classes' if side == CLASSES else str(side) for side in shape)})"


def _fits_one(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: Sequence[Any]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(str(name)[:100] for name in names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _summed(names: Sequence[str]) -> list[str]:
    """Return names by their first part, with how many tensors each has."""
    parts = Counter(name.partition(".")[0] for name in names)
    shown = [f"{part[:100]} ({count} tensor{'s' * (count > 1)})" for part, count in list(parts.items())[:PARTS_SHOWN]]
    rest = len(parts) - PARTS_SHOWN
    return [*shown, f"{rest} more"] if rest > 0 else shown

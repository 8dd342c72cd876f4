"""``synclones evaluate doctor``: looks at all image sets of a suite and says what to do, before any model is loaded.

In: the sets of a suite, and the folder below which they lie. Out: an `Examined` each; faults (it cannot be evaluated),
warnings (numbers would differ) and notes. Every set is looked at, whatever is wrong with others.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from synclones.base import machine
from synclones.base.errors import InputError, SynclonesError, VerificationError, one_line
from synclones.evaluate.checks.doctor_settings import DoctorConfig
from synclones.evaluate.layout import Finding, Layout, layouts
from synclones.evaluate.opening.image_tree import fault, note
from synclones.evaluate.suite import Member
from synclones.evaluate.test_set import TestSet

_NAMED, _AT_ONCE = 3, 1024
_MARKS = {"fault": "FAULT  ", "warning": "warning", "note": "       "}


@dataclass(frozen=True)
class Examined:
    """What a look at one set says."""

    name: str
    path: Path
    findings: tuple[Finding, ...]

    @property
    def can_be_evaluated(self) -> bool:
        """Whether nothing is at fault."""
        return all(finding.kind != "fault" for finding in self.findings)


def run_doctor(config: DoctorConfig, sets: Sequence[Member], class_ids: tuple[str, ...]) -> None:
    """Look at all sets and print what was seen.

    Raises:
        InputError: a set cannot be evaluated as it is; names them.
    """
    examined = examine(sets, config.data_root, class_ids, decode=config.decode)
    print("\n".join(report(examined)))
    bad = [item.name for item in examined if not item.can_be_evaluated]
    if bad:
        raise InputError(
            f"--data-root {config.data_root}: {len(bad)} of {len(examined)} sets of {config.suite} cannot be evaluated "
            f"as they are ({', '.join(bad)}); mend them, or leave them out by --sets"
        )


def examine(
    sets: Sequence[Member], data_root: Path, class_ids: tuple[str, ...], *, decode: bool = False
) -> list[Examined]:
    """Look at all sets of a suite; nothing is written but indexes, and these only where images have to be read.

    Args:
        class_ids: of the suite.
        decode: whether every image is decoded, not the headers of a few.

    Raises:
        InputError: the folder of data is missing.
    """
    if not data_root.is_dir():
        raise InputError(f"--data-root {data_root}: no such folder; give the one below which the sets lie")
    return [_examined(item, data_root / item.path, class_ids, decode) for item in sets]


def report(examined: Sequence[Examined]) -> list[str]:
    """Return the lines that tell people: a heading for each set, a line for each finding, and a summary."""
    lines = []
    for item in examined:
        lines += ["", one_line(f"{item.name}  ({'can' if item.can_be_evaluated else 'CANNOT'} be evaluated)")]
        lines += [f"  {_MARKS[finding.kind]}  {finding.text}" for finding in item.findings]
    kinds = [finding.kind for item in examined for finding in item.findings]
    able = sum(item.can_be_evaluated for item in examined)
    faults, warnings = kinds.count("fault"), kinds.count("warning")
    return [*lines[1:], "", f"{able} of {len(examined)} sets can be evaluated; {faults} faults, {warnings} warnings"]


def _examined(stated: Member, path: Path, class_ids: tuple[str, ...], decode: bool) -> Examined:
    layout = layouts()[stated.layout]
    if state := _nothing_there(path):
        text = f"{path}: {state}, expected {_expected(stated, layout)}; fetch it and unpack it there"
        return Examined(stated.name, path, (fault(text),))
    options = {**stated.options, "role": stated.role}
    if stated.images is not None:
        options["images"] = stated.images
    findings = list(_caught(path, layout.inspect(path, options, class_ids)))
    if decode and all(finding.kind != "fault" for finding in findings):
        findings += _caught(path, _decoded(stated, path, layout, class_ids))
    if stated.url and any(finding.kind == "fault" for finding in findings):
        findings.append(note(f"{path}: the whole set is {_expected(stated, layout)}"))
    return Examined(stated.name, path, tuple(findings))


def _nothing_there(path: Path) -> str:
    """Return "missing" or "empty"; nothing where there is something, or what cannot be looked into."""
    if not path.exists():
        return "missing"
    with contextlib.suppress(OSError):  # the layout's own look says why
        return "empty" if path.is_dir() and not any(path.iterdir()) else ""
    return ""


def _expected(stated: Member, layout: Layout) -> str:
    """Return how many images lie there and how, where they are from, and under which licence."""
    of_each = " in each part" if stated.images and layout.name in ("corrupted", "backgrounds") else ""
    many = f"{stated.images:,} images{of_each}" if stated.images else "images"
    source = f"; it is from {stated.url}" if stated.url else ""
    licence = f" (licence: {stated.licence})" if stated.licence else ""
    return f"{many} as {layout.tree}{source}{licence}"


def _caught(path: Path, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings; what a layout refuses is a fault of this set, and others are looked at all the same."""
    try:
        yield from findings
    except SynclonesError as error:
        yield fault(str(error))
    except OSError as error:
        yield fault(f"{error.filename or path}: {error.strerror or error}; mend its permissions, or fetch it again")


# ------------------------------------------------------------------ every image


def _decoded(stated: Member, path: Path, layout: Layout, class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Decode every image as an evaluation does, and yield how many of them it would refuse."""
    parts = layout.open_parts(path, dict(stated.options), class_ids)
    total, bad = 0, list[str]()
    for part in parts:
        total += len(part.test_set)
        bad += _refused(part.test_set)
    if bad:
        names = "; ".join(bad[:_NAMED])
        yield fault(f"{path}: {len(bad):,} of {total:,} images cannot be decoded ({names}); fetch or mend them")
    else:
        yield note(f"{path}: all {total:,} images were decoded")


def _refused(test_set: TestSet) -> list[str]:
    """Return why images are refused, of those that are."""

    def look(number: int) -> str:
        try:
            test_set[number]
        except VerificationError as error:
            return str(error)
        return ""

    refused: list[str] = []
    with ThreadPoolExecutor(machine.cores(), thread_name_prefix="decode") as pool:
        for start in range(0, len(test_set), _AT_ONCE):  # millions of images would queue as millions of tasks
            refused += filter(None, pool.map(look, range(start, min(start + _AT_ONCE, len(test_set)))))
    return refused

"""Lists the shards of a set that are not complete, so that an array job can draw just these.

In: a dataset folder or a set in a store. Out: their numbers, from 0, one a line; nothing for a complete set.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from synclones.base.errors import InputError
from synclones.shards.index import PLAN, expected_names, planned_shards, present_split
from synclones.shards.mirror import open_set
from synclones.shards.unfinished import resume_arguments
from synclones.shards.write import is_complete


@dataclass(frozen=True, kw_only=True)
class MissingConfig:
    """Print the numbers of the shards that are not complete, one a line, for `synclones generate --shards`."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix."""


def missing_shards(folder: Path) -> list[int]:
    """Return the numbers of planned shards that lack their json, or a file of the size that it states.

    Raises:
        InputError: no plan says how many shards there should be.
        VerificationError: the plan is broken.
    """
    if planned_shards(folder) is None:
        raise InputError(f"{folder}: no {PLAN} that says how many shards it has; give a folder that generate has begun")
    names = expected_names(folder, present_split(folder))
    return [number for number, name in enumerate(names) if not is_complete(folder, name)]


def print_missing(config: MissingConfig) -> None:
    """Print the numbers to standard output; to standard error what they are, and what draws them."""
    with open_set(config.folder) as opened:
        numbers, total = missing_shards(opened.folder), planned_shards(opened.folder)
        location = opened.named(str(opened.folder))
        only = "--shards NUMBER added" if resume_arguments(opened.folder)[:1] == ["generate"] else "all of them"
        step = f"draw them ({only}) with: {opened.resume_command()}"
    note = (
        f"{len(numbers)} of {total} shards are not complete; {step}" if numbers else f"all {total} shards are complete"
    )
    print(f"{location}: {note}", file=sys.stderr)
    for number in numbers:
        print(number)

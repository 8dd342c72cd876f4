"""Says of a set that is not finished how far it is, and by which command it goes on.

In: a dataset folder. Out: words. A set that was begun has ``plan.json``; one that was finished also has its indexes,
``info.json`` the first of them and ``manifest.json`` the last. What lies between is neither damaged nor to be used.
"""

from pathlib import Path

from synclones.base.errors import VerificationError
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.resume import by_settings, going_on
from synclones.shards.index import INFO, PLAN, SUMS, expected_names, present_split, read_plan
from synclones.shards.write import is_complete

MADE_BY = "made_by"
"""What the plan of a set made of other sets' samples states: the verb of `synclones shards` that makes it."""
MAKERS = ("subset", "merge")


def is_unfinished(folder: Path) -> bool:
    """Return whether the set was begun and never finished; not of one that has lost a file since."""
    later = (INFO, SUMS, MANIFEST_FILE)
    return (folder / PLAN).is_file() and not any((folder / name).exists() for name in later)


def how_far(folder: Path, split: str | None = None) -> str:
    """Return how many shards of an unfinished set are complete, in words; of its ``split``, by default the present."""
    names = expected_names(folder, split or present_split(folder))
    complete = sum(is_complete(folder, name) for name in names)
    return f"{complete} of {len(names)} shards are complete"


def resume_arguments(folder: Path) -> list[str]:
    """Return what `synclones` makes the rest of a set with, from the settings that it was begun with.

    Nothing is returned when these settings are not in the folder.
    """
    return by_settings(_maker(folder), folder)


def _maker(folder: Path) -> list[str]:
    """Return stage and verb that make a set."""
    try:
        maker = read_plan(folder).get(MADE_BY)
    except VerificationError:  # which is told by whoever reads the plan
        maker = None
    return ["shards", str(maker)] if maker in MAKERS else ["generate"]


def resume_command(folder: Path) -> str:
    """Return the command that makes the rest of a set, from the settings that it was begun with."""
    return going_on(_maker(folder), folder) or f"the generate command that began {folder}"

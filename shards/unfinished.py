"""Says of a set that is not finished how far it is, and by which command it goes on.

In: a dataset folder. Out: words. A set that was begun has ``plan.json``; one that was finished also has its indexes,
``info.json`` the first of them and ``manifest.json`` the last. What lies between is neither damaged nor to be used.
"""

import os
import shlex
from pathlib import Path

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.yaml_file import read_yaml
from synclones.shards.index import INFO, PLAN, SUMS, expected_names, present_split, read_plan
from synclones.shards.stores.store import store_url
from synclones.shards.write import is_complete

CONFIG = "config.yaml"
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
    config = folder / CONFIG
    if not config.is_file():
        return []
    try:
        maker = read_plan(folder).get(MADE_BY)
    except VerificationError:  # which is told by whoever reads the plan
        maker = None
    command = ["shards", str(maker)] if maker in MAKERS else ["generate"]
    command += ["--config", str(config)]
    return [*command, "--out", str(folder)] if _has_moved(folder, config) else command


def resume_command(folder: Path) -> str:
    """Return the command that makes the rest of a set, from the settings that it was begun with."""
    arguments = resume_arguments(folder)
    return shlex.join(["synclones", *arguments]) if arguments else f"the generate command that began {folder}"


def _has_moved(folder: Path, config: Path) -> bool:
    """Whether the folder that the settings name, from here, is another one: then it must be named again."""
    try:
        out = str(read_yaml(config)["out"].value)
    except (InputError, KeyError):
        return True
    return store_url(Path(out)) is None and os.path.realpath(out) != os.path.realpath(folder)

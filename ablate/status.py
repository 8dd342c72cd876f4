"""How far the grids of a store are: steps done, failed and held, of all runs that were begun into it.

In: the folder that ``synclones ablate run`` writes into. Out: a `Status`, or None for others' folders.
"""

from dataclasses import replace
from pathlib import Path

from synclones.ablate.costs import left_steps
from synclones.ablate.planned import planned, remembered_files, remembered_in, run_words
from synclones.ablate.steps import COMMANDS, Step
from synclones.ablate.store import FAILURE, RECORD, Store
from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import read_json
from synclones.base.resume import typed
from synclones.base.status import Holder, State, Status
from synclones.shards.lock import holders


def status(path: Path) -> Status | None:
    """Return how far the grids of a store are."""
    folders = [path / "steps" / kind for kind in sorted({command.kind for command in COMMANDS.values()})]
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        return None
    store, held = Store(path), [held for folder in folders for held in _held(folder)]
    recorded, failed = set(_by_key(folders, RECORD)), _by_key(folders, FAILURE)
    wanted, commands, problems = dict[str, str](), list[str](), list[str]()
    for file in remembered_files(path):
        try:
            config = remembered_in(file, path)
            plan, _ = planned(config)
        except InputError as error:  # of this run: the others are told of all the same
            problems.append(str(error))
            continue
        done = {key for key, step in plan.steps.items() if _is_done(store, step, problems)}
        wanted |= {key: step.name for key, step in plan.steps.items()}
        recorded -= plan.steps.keys() - done
        commands += [typed(run_words(config))] if left_steps(plan, done) else []
    of_plans = recorded & wanted.keys() if wanted else recorded
    left = len(wanted.keys() - recorded)
    failures = {key: file for key, file in failed.items() if key not in recorded and (not wanted or key in wanted)}
    state: State = "running" if held else "damaged" if problems else "unfinished" if commands else "finished"
    return Status(
        kind="grids",
        path=str(path),
        state=state,
        unit="steps",
        planned=len(of_plans) + left if wanted else None,
        done=len(of_plans),
        failed=len(failures),
        holders=[replace(one, what=wanted.get(one.what, one.what)) for one in held],
        problems=[*problems, *(f"{key}: {_line(file)}" for key, file in list(failures.items())[:5])],
        next=commands[0] if commands and not held else "",
    )


def _by_key(folders: list[Path], suffix: str) -> dict[str, Path]:
    """Return the files of one kind by the key of their step."""
    files = (file for folder in folders for file in sorted(folder.glob(f"*{suffix}")))
    return {f"{file.parent.name}/{file.name.removesuffix(suffix)}": file for file in files}


def _held(folder: Path) -> list[Holder]:
    """Return who makes the steps of one kind; readers of an output that grows are none."""
    own = (held for held in holders(folder) if not held.what.endswith(".readers"))
    return [replace(held, what=f"{folder.name}/{held.what}") for held in own]


def _is_done(store: Store, step: Step, problems: list[str]) -> bool:
    try:
        return store.is_done(step)
    except VerificationError as error:
        problems.append(str(error))
        return False


def _line(file: Path) -> str:
    try:
        return str(read_json(file)["line"])
    except (OSError, ValueError, KeyError, TypeError):
        return "failed"

"""How far a training is, from its run folder alone: no torch is loaded.

In: a folder that ``synclones train`` began. Out: a `Status`, or None for others' folders.
"""

import contextlib
import math
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import parse_json, read_json
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.resume import going_on, typed
from synclones.base.status import State, Status, pace
from synclones.lab.world import lab_classes
from synclones.shards.lock import holders
from synclones.train.progress import read_metrics
from synclones.train.recovery.folder_names import CHECKPOINTS, EXPORT, METRICS, PLAN, list_checkpoints

_SHOWN = ("loss", "accuracy")


def status(path: Path) -> Status | None:
    """Return how far the training of a folder is."""
    is_run = (path / PLAN).is_file() and ((path / METRICS).exists() or (path / CHECKPOINTS).is_dir())
    plan, problem = _read_plan(path)
    if not is_run and "architecture" not in plan:
        return None
    known, now, held = _manifest(path), pace(path), holders(path)
    kept = [step for step, _ in list_checkpoints(path / CHECKPOINTS)]
    lines, problems = _last_lines(path)
    problems = [*([problem] if problem else []), *problems]
    step = lines.get("step", 0)
    done = max([*kept, step if type(step) is int else 0])
    planned = _planned(plan, known) or (now.last.total if now.last else None)
    state: State = "unfinished" if done else "planned"
    if held or now.is_running:
        state = "running"
        done = max(done, now.last.done if now.last and now.is_running else 0)
    elif known:
        state, done = "finished", planned or done
    elif problem:
        state = "damaged"
    facts: dict[str, Any] = {"checkpoint": f"step {kept[-1]:,}" if kept else "none yet"}
    facts |= {name: f"{value:.4g}" for name, value in lines.items() if name.partition("/")[0] in _SHOWN}
    if now.last is not None and not now.is_running:
        facts["last"] = f"step {now.last.done:,}, {now.last.note}"
    return Status(
        kind="training",
        path=str(path),
        state=state,
        unit="steps",
        planned=planned,
        done=done,
        rate_per_s=now.rate_per_s,
        eta_s=now.eta_s(None if planned is None else planned - done) if state == "running" else None,
        holders=held,
        facts=facts,
        problems=problems,
        next=_next(path, state, known),
    )


def _next(path: Path, state: State, known: dict[str, Any]) -> str:
    if state == "running":
        return ""
    if state == "finished":
        # On the lab's digits, when nothing is named; which images others' classes are tested on nobody said.
        if list(known.get("classes", [])) == list(lab_classes()):
            return typed(["evaluate", "--model", str(path), "--out", f"results/{path.resolve().name}"])
        return typed(["trace", str(path)])
    return going_on(["train"], path)


def _read_plan(path: Path) -> tuple[dict[str, Any], str]:
    """Return the plan, empty where there is none, and what is wrong with it."""
    try:
        plan = read_json(path / PLAN)
    except FileNotFoundError:
        return {}, ""
    except (ValueError, OSError) as error:
        return {}, f"{path / PLAN}: {error}; restore it, or train into a new folder"
    return (plan, "") if isinstance(plan, dict) else ({}, f"{path / PLAN}: no JSON object; restore it")


def _manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a finished training; nothing where there is none that can be read."""
    with contextlib.suppress(InputError):
        manifest = read_manifest(path) if (path / MANIFEST_FILE).is_file() else {}
        return manifest if manifest.get("stage") == "train" and (path / EXPORT).is_dir() else {}
    return {}


def _planned(plan: dict[str, Any], manifest: dict[str, Any]) -> int | None:
    """Return the steps of the whole training; of a length in epochs alone the plan does not say."""
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        stated = manifest.get("counts", {}).get("steps") or plan["steps"]
        return int(stated or math.ceil(int(plan["samples"]) / int(plan["batch_size"]))) or None
    return None


def _last_lines(path: Path) -> tuple[dict[str, float], list[str]]:
    """Return the newest value of everything logged, and what is wrong with the log."""
    newest: dict[str, float] = {}
    try:
        lines = read_metrics(path / METRICS) if (path / METRICS).exists() else []
    except VerificationError as error:
        return newest, [str(error)]
    except ValueError:
        # Being written, or damaged: what can be read counts.
        lines = []
        for text in (path / METRICS).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(parse_json(text, finite=False))
    for line in lines:
        if isinstance(line, dict):
            newest |= {name: value for name, value in line.items() if type(value) in (int, float)}
    return newest, []

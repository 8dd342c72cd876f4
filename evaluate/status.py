"""How far an evaluation is, from its folder of results alone: no torch is loaded.

In: a folder that ``synclones evaluate`` began. Out: a `Status`, or None for others' folders.
"""

from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.resume import CONFIG, going_on, typed
from synclones.base.status import State, Status, pace
from synclones.base.units import format_count
from synclones.base.yaml_file import read_yaml
from synclones.evaluate.stored.output import LOGITS, REPORT
from synclones.evaluate.stored.results import CELL_NAME, Cell, read_cells
from synclones.shards.lock import holders


def status(path: Path) -> Status | None:
    """Return how far the evaluation of a folder is."""
    if not (path.is_dir() and _is_results(path)):
        return None
    cells, problems = _cells(path)
    now, held, is_begun = pace(path), holders(path), (path / CONFIG).is_file()
    state: State = "finished"
    if held or now.is_running:
        state = "running"
    elif problems:
        state = "damaged"
    elif is_begun or not (path / MANIFEST_FILE).is_file():
        state = "unfinished"
    # Passes are what a running one counts; of a finished one the numbers are what there is.
    counts: dict[str, Any] = {"unit": "results", "planned": len(cells) or None, "done": len(cells)}
    if state in ("running", "unfinished") and now.last is not None:
        counts = {"unit": now.last.unit, "planned": now.last.total, "done": now.last.done}
    left = None if counts["planned"] is None else counts["planned"] - counts["done"]
    return Status(
        kind="results",
        path=str(path),
        state=state,
        rate_per_s=now.rate_per_s,
        eta_s=now.eta_s(left) if state == "running" else None,
        holders=held,
        facts=_facts(cells) | ({"now": now.last.note} if now.last and now.is_running else {}),
        problems=problems,
        next=_next(path, state),
        look=str(path / REPORT) if (path / REPORT).is_file() else "",
        **counts,
    )


def _is_results(path: Path) -> bool:
    """Return whether a folder is one of results: its manifest says so, else what only evaluations leave."""
    if (path / MANIFEST_FILE).is_file():
        try:
            return bool(read_manifest(path)["stage"] == "evaluate")
        except InputError:
            return any(CELL_NAME.fullmatch(file.name) for file in path.glob("*.json"))
    if (path / LOGITS).is_dir() or any(CELL_NAME.fullmatch(file.name) for file in path.glob("*.json")):
        return True
    try:
        return "epsilons_255" in read_yaml(path / CONFIG)
    except InputError:
        return False


def _cells(path: Path) -> tuple[list[Cell], list[str]]:
    try:
        return read_cells(path), []
    except VerificationError as error:
        return [], [str(error)]


def _facts(cells: list[Cell]) -> dict[str, Any]:
    """Return what was measured on what, and each model's accuracy."""
    if not cells:
        return {}
    models, sets = {cell.model_identity for cell in cells}, {cell.dataset_sha256 for cell in cells}
    facts: dict[str, Any] = {"measured": f"{format_count(len(models), 'model')} on {format_count(len(sets), 'set')}"}
    for cell in cells:
        if cell.metric == "accuracy" and cell.value is not None and len(facts) < 8:
            name = f"{cell.model} on {cell.dataset}"
            if name in facts:  # of another set, preprocessing or protocol of the same name
                name = f"{name} ({cell.dataset_sha256[:8]}, {cell.protocol}, {cell.key[:8]})"
            facts[name] = f"accuracy {100 * cell.value:.1f} %"
    return facts


def _next(path: Path, state: State) -> str:
    if state == "unfinished":
        return going_on(["evaluate"], path)  # of a network of one's own, which Python evaluated, there is none
    return typed(["trace", str(path)]) if state == "finished" else ""

"""What a store has of a plan, as the report reads it.

In: a plan and its store. Out: `GridResults`: each cell with its folder of results, or why there is none.
"""

from dataclasses import asdict
from pathlib import Path

from synclones.ablate.cells import Cell, GridResults
from synclones.ablate.costs import done_steps
from synclones.ablate.plan import Plan, PlannedCell
from synclones.ablate.plan_text import cell_state
from synclones.ablate.store import Store
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json

SETS_OF_IMAGES = ("images", "real", "neighbours")


def gather(plan: Plan, store: Store) -> GridResults:
    """Return everything that is known of a grid now."""
    done = done_steps(plan, store)
    return GridResults(
        name=plan.grid.name,
        title=plan.grid.title,
        question=plan.grid.question,
        source=plan.grid.source,
        world=plan.world.name,
        scale=plan.scale,
        axes=plan.axes,
        seeds=plan.seeds,
        columns=plan.grid.columns,
        published=plan.grid.published,
        cells=tuple(_cell(cell, plan, store, done) for cell in plan.cells),
        notes=_notes(plan, store, done),
        scaled=plan.grid.scaled,
    )


def _notes(plan: Plan, store: Store, done: set[str]) -> tuple[str, ...]:
    """Say which libraries differ between the steps behind the cells: an address does not know them."""
    known: dict[str, set[str]] = {}
    for key in sorted(done):
        stated = (store.record(plan.steps[key]) or {}).get("versions")
        for name, version in stated.items() if isinstance(stated, dict) else ():
            known.setdefault(str(name), set()).add(str(version))
    differing = [f"{name} {' and '.join(sorted(several))}" for name, several in known.items() if len(several) > 1]
    if not differing:
        return ()
    return (f"Steps were made by different versions ({'; '.join(differing)}), which may make a difference of its own.",)


def _cell(cell: PlannedCell, plan: Plan, store: Store, done: set[str]) -> Cell:
    state = cell_state(cell, store, done)
    computed = bool(cell.steps) and cell.steps[-1].key in done
    finished = [step for step in cell.steps if step.key in done]
    cost: dict[str, float] = {}
    for step in finished:
        record = store.record(step) or {}
        cost[step.kind] = cost.get(step.kind, 0.0) + float(record.get("process_seconds", 0.0))
    # A set that only an evaluation reads is not one that the cell was trained on.
    trained = [step for step in cell.steps if step.kind != "results"]
    read = {need.key for step in trained for need in step.needs}
    sets = {s.name: Path(s.path(store.out)) for s in finished if s.kind in SETS_OF_IMAGES and s.key in read}
    return Cell(
        values=cell.values,
        seed=cell.seed,
        results=Path(cell.steps[-1].path(store.out)) if computed else None,
        missing="" if computed else state,
        commands=tuple(step.shown(store.out) for step in cell.steps),
        cost=cost,
        images=sets,
    )


def write_cells(results: GridResults, folder: Path) -> None:
    """Write ``cells.json``: what each cell is, where its results are or why there are none, commands and costs."""
    facts = asdict(results) | {"scale": str(results.scale)}
    for cell in facts["cells"]:
        cell["results"] = None if cell["results"] is None else str(cell["results"])
        cell["images"] = {name: str(path) for name, path in cell["images"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "cells.json", pretty_json(facts))


def report_folder(plan: Plan, store: Store) -> Path:
    """Return where the report of a grid in a world at a scale is written."""
    scale = f"{plan.scale.numerator}of{plan.scale.denominator}"
    return store.out / "reports" / f"{plan.grid.name}-{plan.world.name}-{scale}"

"""A plan for people: its cells and their state, what is missing and how to get it, and what the rest costs.

In: a plan and its store. Out: lines for a terminal.
"""

from collections import Counter
from collections.abc import Sequence
from textwrap import shorten

from synclones.ablate.costs import Cost, costs, done_steps, missing_inputs
from synclones.ablate.plan import Plan, PlannedCell
from synclones.ablate.store import Store

MAX_ROWS = 200


def plan_lines(plan: Plan, store: Store, price_per_hour: float, expected: Sequence[tuple[str, ...]] = ()) -> list[str]:
    """Return the whole plan as lines; a negative price means the world's. ``expected``: rows of `foretold`."""
    done = done_steps(plan, store)
    price, source = (plan.world.price, plan.world.price_source) if price_per_hour < 0 else (price_per_hour, "as given")
    return [
        *_head(plan),
        "",
        *_cells(plan, store, done),
        "",
        *_steps(plan, done, price, source),
        *_missing(plan, done),
        *_expected(expected),
    ]


def cell_state(cell: PlannedCell, store: Store, done: set[str]) -> str:
    """Return how far a cell is, in words: computed, failed and why, or what is left of it."""
    if cell.reason:
        return f"cannot be built: {cell.reason}"
    if cell.steps[-1].key in done:
        return "computed"
    left = [step for step in cell.steps if step.key not in done]
    for step in left:
        if line := store.failure(step):
            return f"failed: {step.run}: {line}"
        lacking = next((one for one in step.inputs if one.is_missing), None)
        if lacking is not None:
            return f"missing: {lacking.where_it_lies}"
    return f"to do: {', '.join(step.name for step in left)}"


def _head(plan: Plan) -> list[str]:
    combinations = len(plan.cells) // plan.seeds
    counts = f"{combinations} cells x {plan.seeds} seeds" if plan.seeds > 1 else f"{combinations} cells"
    lines = [f"{plan.grid.name}: {plan.grid.title}, in {plan.world.title} at scale {plan.scale}: {counts}"]
    return [*lines, *([f"  {plan.grid.question}"] if plan.grid.question else [])]


def _cells(plan: Plan, store: Store, done: set[str]) -> list[str]:
    """Return a line per combination, its seeds together, those in one state counted."""
    rows: dict[tuple[str, ...], Counter[str]] = {}
    for cell in plan.cells:
        rows.setdefault(tuple(cell.values.values()), Counter())[cell_state(cell, store, done)] += 1
    lines = [(*plan.axes, "state")]
    for values, states in list(rows.items())[:MAX_ROWS]:
        parts = [state if count == plan.seeds else f"{count} x {state}" for state, count in states.items()]
        lines.append((*values, shorten("; ".join(parts), 160, placeholder=" ...")))
    text = aligned(lines)
    return text + ([f"... and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else [])


def _steps(plan: Plan, done: set[str], price: float, price_source: str) -> list[str]:
    listed = costs(plan, done)
    rows = [
        ("steps", "all", "done", "amount left", "GB", plan.world.unit, "dollars"),
        *(_row(cost, price) for cost in listed),
    ]
    hours = sum(cost.hours or 0.0 for cost in listed)
    size = sum(cost.gigabytes for cost in listed)
    total = ("all", str(len(plan.steps)), str(len(done)), "", f"{size:,.1f}", f"{hours:,.1f}", f"{hours * price:,.0f}")
    sources = [f"  {cost.rate}: {cost.source}" for cost in listed if cost.hours or cost.hours is None]
    dollars = f"dollars at {price:g} an hour ({price_source or 'no price is stated; give --price-per-hour'})"
    return [*aligned([*rows, total], 1), f"{plan.world.unit} by these rates, {dollars}", *sources]


def _row(cost: Cost, price: float) -> tuple[str, ...]:
    hours = "unknown" if cost.hours is None else f"{cost.hours:,.1f}"
    dollars = "unknown" if cost.hours is None else f"{cost.hours * price:,.0f}"
    counts = (str(cost.steps), str(cost.done), f"{cost.amount:,.0f}")
    return (cost.rate, *counts, f"{cost.gigabytes:,.1f}", hours, dollars)


def _missing(plan: Plan, done: set[str]) -> list[str]:
    lacking = missing_inputs(plan, done)
    lines = [f"  {one.name}: {one.where_it_lies}, {one.gigabytes:,.1f} GB: {one.get}" for one in lacking]
    return ["", "missing:", *lines] if lines else []


def _expected(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return what a law expects, sizes of one kind for which it refuses for one reason together."""
    if not rows:
        return []
    refused: dict[tuple[str, ...], list[str]] = {}
    for kind, size, text, source in rows:
        refused.setdefault((kind, text, source), []).append(size)
    lines = [(kind, " ".join(sizes), f"{text}, from {source}") for (kind, text, source), sizes in refused.items()]
    return ["", "expected by a law with a floor, of the mean over seeds:", *(f"  {line}" for line in aligned(lines))]


def aligned(rows: list[tuple[str, ...]], left: int = 99) -> list[str]:
    """Return rows as lines of columns: the first ``left`` begin, the others end, at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines

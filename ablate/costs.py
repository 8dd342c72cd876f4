"""What the steps of a plan that are not done cost: images, bytes, hours, dollars, by the rates that a world states.

In: a plan and its store. Out: `Cost` for each kind of step, with the sources of the rates. Nothing is measured here.
"""

from dataclasses import dataclass

from synclones.ablate.plan import Plan
from synclones.ablate.steps import Step
from synclones.ablate.store import Store
from synclones.ablate.world import Input


@dataclass(frozen=True)
class Cost:
    """Steps of one rate.

    Attributes:
        steps: how many there are.
        done: how many of them are done, or not needed by any cell that has no results.
        amount: what is left to do, in units of the rate.
        hours: process hours of that; None where the world states no rate.
        gigabytes: of what is left to make.
        source: where the rate is from.
    """

    rate: str
    steps: int
    done: int
    amount: float
    hours: float | None
    gigabytes: float
    source: str


def costs(plan: Plan, done: set[str]) -> list[Cost]:
    """Return what is left to do, in the order in which it is done first."""
    by_rate: dict[str, list[Step]] = {}
    for step in plan.steps.values():
        by_rate.setdefault(step.rate, []).append(step)
    waiting = left_steps(plan, done)
    return [_cost(plan, name, steps, waiting) for name, steps in by_rate.items()]


def _cost(plan: Plan, name: str, steps: list[Step], waiting: dict[str, Step]) -> Cost:
    rate = plan.world.rates.get(name)
    left = [step for step in steps if step.key in waiting]
    amount = sum(step.amount for step in left)
    hours = sum(rate.hours(step.amount) for step in left) if rate else None
    size = amount * rate.bytes / 1e9 if rate else 0.0
    source = rate.source if rate else f"the world {plan.world.name} states no rate {name!r}"
    return Cost(name, len(steps), len(steps) - len(left), amount, hours, size, source)


def done_steps(plan: Plan, store: Store) -> set[str]:
    """Return the keys of the steps that are done."""
    return {key for key, step in plan.steps.items() if store.is_done(step)}


def left_steps(plan: Plan, done: set[str]) -> dict[str, Step]:
    """Return the steps that are not done and that a cell without results needs, in order.

    What lies behind a result that is there may have been deleted: it is not made again.
    """
    wanted: set[str] = set()
    waiting = [cell.steps[-1].key for cell in plan.cells if cell.steps]
    while waiting:
        key = waiting.pop()
        if key not in done and key not in wanted:
            wanted.add(key)
            waiting += [need.key for need in plan.steps[key].needs]
    return {key: step for key, step in plan.steps.items() if key in wanted}


def missing_inputs(plan: Plan, done: set[str]) -> list[Input]:
    """Return the inputs that steps which are not done read, and that are not there."""
    wanted = {one.name: one for step in left_steps(plan, done).values() for one in step.inputs}
    return [one for one in wanted.values() if one.is_missing]

"""Finds the axes of robustness: every file of ``evaluate/axes/`` is one, so adding an axis is adding a file.

An axis file has a docstring, its place in the ``ORDER`` of reading, ``METRICS``, ``conditions(config, role)`` under
which it needs predictions on sets of a role, and ``measure(predictions, config)``, which yields a `Measurement` per
number. Interval, paired differences, tables, report and ``synclones evaluate explain`` follow from these.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.layout import Role
from synclones.evaluate.settings import EvaluateConfig

AXES = Path(__file__).resolve().parent / "axes"

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that is measured, and what a reader who has not read the papers needs to know about it."""

    name: str
    """As in files of results."""
    title: str
    """As in text."""
    heading: str
    """Of its column in a table, a format string over the measurement's settings."""
    unit: str
    explanation: str
    """What it says and which way is better."""
    detail: str = ""
    """What a report adds to the title, a format string over the measurement's settings."""
    sources: tuple[str, ...]
    """Where the formula is from."""
    deviations: tuple[str, ...] = ()
    """Where this measurement differs from what others print under the same name."""
    faultless: str = ""
    """What a model without the fault that is measured is called, where even that shows some (see `Measurement`)."""
    compared: bool = True
    """Whether models are compared in it; not where another metric makes the same comparison, or images are too few."""
    alarming: bool = False
    """Whether a note on one of its numbers puts that number in doubt, so that stderr says it as well."""
    better: Literal["more", "less", "neither"] = "more"
    """Which way is better."""
    tabled: bool = True
    """Whether it has a column in the wide tables; files of results and the report hold all the same."""
    scale: float = 100.0
    """What a value is multiplied by where it is printed: fractions are printed in percent."""
    unit_short: str = "%"
    """Of the printed number: %, points, nats; empty for a bare number."""
    decimals: int = 1
    """Of the printed number."""

    def printed(self, value: float) -> str:
        """Return a value as tables print it, without its unit."""
        return f"{self.scale * value:.{self.decimals}f}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number of one model: a statistic of sums of per-image terms, so that resampling images is resampling sums."""

    metric: Metric
    settings: dict[str, Any] = field(default_factory=dict)
    """What distinguishes it from other measurements of the metric, and all that its value depends on."""
    terms: np.ndarray
    """float64[n, k], one row per image."""
    statistic: Statistic
    """Sums of terms float64[..., k] -> the value float64[...], NaN where it is undefined."""
    resample: Callable[[int, int], np.ndarray] | None = None
    """(resamples, seed) -> the value on each resample, float64[resamples], where it is no function of sums: then there
    are no terms (k = 0)."""
    interval: Literal["wilson", "bootstrap", "sequence"] = "bootstrap"
    """Wilson's for a share of images; the bootstrap for everything else; sequence: of a share by which the number of
    images was chosen, as ``on.of.stopped`` has it: the one column of the terms is then right or wrong."""
    counts: Callable[[np.ndarray], tuple[float, float]] | None = None
    """Sums float64[k] -> (successes, trials) where the value is a share: for Wilson's interval, and instead of the
    bootstrap's where every resample gives the same value."""
    bounds: tuple[float, float] = (-np.inf, np.inf)
    """What the value can be; intervals are cut there."""
    faultless: float | None = None
    """What a model without the fault would show on as many images, where that is not 0; it stands beside the value."""
    on: SetPredictions | None = None
    """The set whose images the terms are of; None: the reference."""
    conditions: tuple[Condition, ...] = (CLEAN,)
    """Whose predictions on that set it was computed from."""
    more_logits: tuple[str, ...] = ()
    """Names of the logits of further sets that it was computed from."""
    deviations: tuple[str, ...] = ()
    """Which of the deviations of the papers' code that are followed made a difference to it, such as D4."""
    n: int | None = None
    """How many images the value is of, where not one for each row of the terms."""
    notes: tuple[str, ...] = ()
    """What a reader should know about this one number, a sentence each; no part of what identifies it."""

    @property
    def heading(self) -> str:
        """Its heading in tables."""
        return self.metric.heading.format_map(self.settings)


@dataclass(frozen=True)
class Axis:
    """One file of ``evaluate/axes/``."""

    name: str
    order: int
    metrics: tuple[Metric, ...]
    conditions: Callable[[EvaluateConfig, Role], tuple[Condition, ...]]
    measure: Callable[[ModelPredictions, EvaluateConfig], Iterator[Measurement]]


@cache
def axes() -> tuple[Axis, ...]:
    """Return all axes in the order of reading."""
    loaded = []
    for path in AXES.glob("*.py"):
        module = import_module(f"synclones.evaluate.axes.{path.stem}")
        loaded.append(Axis(path.stem, module.ORDER, module.METRICS, module.conditions, module.measure))
    return tuple(sorted(loaded, key=lambda axis: (axis.order, axis.name)))


def metrics() -> dict[str, Metric]:
    """Return all metrics by name, in the order of reading."""
    return {metric.name: metric for axis in axes() for metric in axis.metrics}


def all_conditions(config: EvaluateConfig, role: Role) -> list[Condition]:
    """Return what some axis needs predictions under on sets of a role, each once, in the order of reading."""
    return list(dict.fromkeys(condition for axis in axes() for condition in axis.conditions(config, role)))

"""The twelve ways in which the code behind the published tables differs from the paper: D1 to D12, as data.

In: ``deviations.yaml``. Out: `Deviation`s; which of them concern a metric, or a number of a table.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from synclones.base.yaml_file import read_yaml
from synclones.evaluate.published.tables import FIGURES

CODE = "visinf/benchmarking-synthetic-clones at a443db5"
_FILE = Path(__file__).with_name("deviations.yaml")


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One difference between what the paper says and what its code does."""

    id: str
    """D1 to D12."""
    title: str
    paper: str
    """What the paper says."""
    code: str
    """What the code does."""
    effect: str
    """What that does to published numbers."""
    tables: tuple[int, ...]
    """Published tables that it touches."""
    metrics: tuple[str, ...]
    """Names of metrics that it touches, as patterns of `fnmatch`."""
    spared: tuple[str, ...] = ()
    """Metrics that match a pattern and are not touched."""
    models: tuple[str, ...] = ("*",)
    """Models whose numbers it touches, as patterns."""
    mends: str
    """What gives the right number: ``logs`` that were published, a ``run`` of the models, or ``none``."""
    switchable: bool
    """Whether the protocols ``paper`` and ``corrected`` differ in it."""
    protocols: str
    """What each protocol does."""
    source: str
    """Where it stands in the code."""

    def concerns(self, metric: str) -> bool:
        """Return whether numbers of a metric, by its name, are touched."""
        return _any(metric, self.metrics) and metric not in self.spared

    def touches(self, table: int, metric: str, model: str) -> bool:
        """Return whether a number of a published table is touched, or of the figures, which show the tables' models."""
        known = table in self.tables or (table == FIGURES and min(self.tables, default=6) <= 5)
        return known and self.concerns(metric) and _any(model, self.models)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@cache
def deviations() -> dict[str, Deviation]:
    """Return all deviations by id, D1 first."""
    loaded = {}
    for name, given in read_yaml(_FILE).items():
        facts: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.plain().items()
        }
        loaded[name] = Deviation(id=name, **facts)
    return loaded


def of_metric(metric: str) -> list[Deviation]:
    """Return the deviations that concern a metric as the house names it, D8 apart, which concerns all alike."""
    return [item for item in deviations().values() if item.concerns(metric) and item.mends != "none"]


def described(item: Deviation) -> str:
    """Return one deviation in full, a fact per line."""
    tables = ", ".join(f"Table {number}" for number in item.tables) or "none; Figure 4 (right)"
    mended = {
        "logs": "yes, from the published logs",
        "run": "no, it needs a run of the models",
        "none": "there is nothing to correct",
    }
    facts = {
        "paper": item.paper,
        "code": item.code,
        "effect": item.effect,
        "tables": tables,
        "models": "all" if item.models == ("*",) else ", ".join(item.models),
        "corrected": mended[item.mends],
        "protocols": f"{item.protocols}{'' if item.switchable else ' (no switch)'}",
        "source": f"{item.source} ({CODE})",
    }
    return "\n".join([f"{item.id}. {item.title}", *(f"{name:<12}{fact}" for name, fact in facts.items())])

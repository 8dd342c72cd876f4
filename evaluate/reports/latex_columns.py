"""The columns of the paper's tables, as far as a folder of results has their numbers.

In: `Cell`s. Out: `Layout`s with their `Column`s.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

from synclones.evaluate.stored.results import Cell


@dataclass(frozen=True)
class Column:
    """A column of numbers: of one cell of a model, or the mean of several."""

    group: str
    """What neighbouring columns have in common."""
    head: str
    metric: str
    chosen: Callable[[Cell], bool]
    of: int = 1
    """How many cells it is the mean of."""

    def cells(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells among those of a model that are shown: the first one, or the first of each set of a mean."""
        own: dict[object, Cell] = {}
        for cell in cells:
            if cell.metric == self.metric and cell.value is not None and self.chosen(cell):
                own.setdefault(cell.settings.get("outliers"), cell)  # of two protocols the one asked for is first
        return list(own.values())[: self.of]

    def value(self, cells: Iterable[Cell]) -> float | None:
        """Return the value for a model, None where it has none, or only some of those of a mean."""
        values = [cell.value for cell in self.cells(cells) if cell.value is not None]
        return fmean(values) if len(values) == self.of else None


@dataclass(frozen=True)
class Layout:
    """A table of the paper."""

    label: str
    caption: str
    columns: Callable[[list[Cell]], list[Column]]
    turned: bool = False
    """Whether models are columns."""


def _settings(cells: list[Cell], metrics: tuple[str, ...], *names: str) -> list[tuple[object, ...]]:
    """Return what settings of these names some metrics have, each once, in their order."""
    own = (tuple(c.settings.get(name) for name in names) for c in cells if c.metric in metrics)
    return list(dict.fromkeys(own))


def _with(**settings: object) -> Callable[[Cell], bool]:
    return lambda cell: all(cell.settings.get(name) == value for name, value in settings.items())


def _outliers(cells: list[Cell]) -> list[Column]:
    """Return AUROC and FPR@95 of each set and score, and their means where there are several sets."""
    both = {"auroc": "AUROC", "fpr95_id_positive": "FPR@95"}
    known, columns = _settings(cells, tuple(both), "outliers", "score"), []
    for score in dict.fromkeys(score for _, score in known):
        sets = [name for name, other in known if other == score]
        for name in sets:
            chosen = _with(outliers=name, score=score)
            columns += [Column(f"{name}, {score}", head, metric, chosen) for metric, head in both.items()]
        if len(sets) > 1:
            chosen = _with(score=score)
            columns += [Column(f"Avg., {score}", head, m, chosen, of=len(sets)) for m, head in both.items()]
    return columns


def _attacks(cells: list[Cell]) -> list[Column]:
    fgsm, pgd = ("accuracy_fgsm", "r_adv"), ("accuracy_pgd", "r_adv_pgd")
    auto = ("accuracy_autoattack", "r_adv_autoattack")
    attacked = [cell for cell in cells if cell.metric in fgsm + pgd + auto]
    columns = [_clean(attacked[0].dataset_sha256)] if attacked else []
    for (epsilon,) in _settings(cells, fgsm, "epsilon_255"):
        columns += _attack(f"FGSM {epsilon:g}/255", fgsm, _with(epsilon_255=epsilon))
    for epsilon, steps, step in _settings(cells, pgd, "epsilon_255", "steps", "step_255"):
        chosen = _with(epsilon_255=epsilon, steps=steps, step_255=step)
        columns += _attack(f"PGD-{steps} {epsilon:g}/255", pgd, chosen)
    for epsilon, size in _settings(cells, auto, "epsilon_255", "batch_size"):
        columns += _attack(f"AutoAttack {epsilon:g}/255", auto, _with(epsilon_255=epsilon, batch_size=size))
    return columns


def _attack(name: str, metrics: tuple[str, str], chosen: Callable[[Cell], bool]) -> list[Column]:
    return [Column(name, head, metric, chosen) for head, metric in zip(("Acc_adv", "R_adv"), metrics, strict=True)]


def _clean(dataset_sha256: str) -> Column:
    return Column("", "Acc_clean", "accuracy", _on(dataset_sha256))


def _corruptions(cells: list[Cell]) -> list[Column]:
    each = _settings(cells, ("accuracy_corruption",), "set", "corruption")
    ratios = [cell for cell in cells if cell.metric == "r_cc"]
    columns = [_clean(ratios[0].dataset_sha256)] if ratios else []
    several = len({name for name, _ in each}) > 1
    for name, corruption in each:
        words = str(corruption).replace("_", " ")
        chosen = _with(set=name, corruption=corruption)
        columns.append(Column(str(name) if several else "", words, "accuracy_corruption", chosen))
    for (name,) in _settings(cells, ("accuracy_corrupted", "r_cc"), "set"):
        group = str(name) if several else ""
        columns.append(Column(group, "Avg. Acc_cc", "accuracy_corrupted", _with(set=name)))
        columns.append(Column(group, "Avg. R_cc", "r_cc", _with(set=name)))
    return columns


def _named(*columns: tuple[str, str]) -> Callable[[list[Cell]], list[Column]]:
    """Return columns of metrics that have one number for each model: (heading, metric)."""
    return lambda cells: [Column("", head, metric, lambda cell: True) for head, metric in columns]


def _calibration(cells: list[Cell]) -> list[Column]:
    columns = []
    for cell in {c.dataset_sha256: c for c in cells if c.metric == "ece"}.values():
        chosen = _on(cell.dataset_sha256)
        columns += [Column(cell.dataset, "Acc.", "accuracy", chosen), Column(cell.dataset, "ECE", "ece", chosen)]
    return columns


def _on(dataset_sha256: str) -> Callable[[Cell], bool]:
    return lambda cell: cell.dataset_sha256 == dataset_sha256


_BACKGROUND = _named(
    ("Original", "accuracy_original"),
    ("Mixed-Same", "accuracy_mixed_same"),
    ("Mixed-Rand", "accuracy_mixed_rand"),
    ("BG-Gap", "bg_gap"),
)
TABLES = (
    Layout("outliers", "Outlier detection, in percent.", _outliers),
    Layout("adversarial", "Adversarial robustness, in percent.", _attacks),
    Layout("corruptions", "Common corruptions, in percent, mean of the severities.", _corruptions, turned=True),
    Layout("context", "Context bias, in percent.", _named(("CB_1", "cb1"), ("CB_2", "cb2"))),
    Layout("background", "Background bias, in percent; the gap in points.", _BACKGROUND),
    Layout("shape", "Shape bias, in percent.", _named(("Shape bias", "shape_bias"))),
    Layout("calibration", "Accuracy and calibration error of every set, in percent.", _calibration),
)

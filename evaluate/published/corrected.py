"""What each published number should have been: its corrected value with its derivation, or the reason there is none.

In: cells of the published tables, and what their authors' logs say: ``corruptions.csv`` (accuracies with the running
mean undone), ``severities.csv`` (the same of one model, set by set), ``context.csv`` and ``ablations.csv``. Out:
`Correction`s. There is no corrected value but by a `Derivation`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from synclones.evaluate.published.deviations import CODE, deviations
from synclones.evaluate.published.tables import COUNT, FIGURES, Cell, read_csv

FORMULAS: dict[str, Callable[[Sequence[float]], float]] = {
    "taken from the logs": lambda v: v[0],
    "mean": fmean,
    "ratio": lambda v: v[0] / v[1],
    "ratio of shares": lambda v: (v[0] / v[1]) / (v[2] / v[3]),
}
TRUNCATED, MISPRINT = "truncated", "misprint"
TEN = (
    *("shot_noise", "motion_blur", "snow", "pixelate", "jpeg_compression"),
    *("near_focus", "far_focus", "fog_3d", "xy_motion_blur", "z_motion_blur"),
)
# Images of FOCUS with 0, 1 and 2 uncommon attributes.
PARTITIONS = (14146, 5974, 674)
_COMPOSITIONS = {"real": "REAL", "synthetic": "Synthetic", "synthetic + real": "Syn_Real"}
_PROMPTS = {"class name": "classname", "captions": "captions", "CLIP templates": "CLIP_templates"}


@dataclass(frozen=True)
class Input:
    """A number that a derivation begins from: a fraction or a count, and where it stands."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class Derivation:
    """How a corrected value follows from published numbers.

    Attributes:
        formula: one of `FORMULAS`, of the inputs in their order.
        recomputable: whether the inputs are all that it takes; not where the logs themselves were read.
    """

    formula: str
    inputs: tuple[Input, ...]
    recomputable: bool
    text: str

    @property
    def value(self) -> float:
        """The corrected value, a fraction."""
        return FORMULAS[self.formula]([item.value for item in self.inputs])


@dataclass(frozen=True)
class Correction:
    """What is known about a published number.

    Attributes:
        derivation: of the corrected value; None where there is none.
        undone: what the corrected value no longer suffers from: deviations, ``truncated``, ``misprint``.
        remains: deviations that only a run of the models can undo.
        identity: D8 where the model is another than the text says, else nothing.
    """

    derivation: Derivation | None
    undone: tuple[str, ...]
    remains: tuple[str, ...]
    identity: str

    @property
    def value(self) -> float | None:
        """The corrected value, a fraction; None where there is none."""
        return None if self.derivation is None else self.derivation.value

    @property
    def code(self) -> str:
        """One of corrected, corrected-in-part, needs-run, as-printed."""
        if self.derivation is not None:
            return "corrected-in-part" if self.remains else "corrected"
        return "needs-run" if self.remains else "as-printed"

    @property
    def reason(self) -> str:
        """Why there is no corrected value; nothing where there is one."""
        if self.derivation is not None:
            return ""
        return f"needs a run ({', '.join(self.remains)})" if self.remains else "as printed"


def correction(cell: Cell) -> Correction:
    """Return the corrected value of a cell with its derivation, or the reason there is none."""
    if cell.column.key == COUNT:
        derived: tuple[Derivation, tuple[str, ...]] | None = None
    else:
        derived = _DERIVATIONS[cell.table](cell)
    derivation, undone = derived or (None, ())
    touching = [d for d in deviations().values() if d.touches(cell.table, cell.column.metric, cell.model)]
    return Correction(
        derivation=derivation,
        undone=undone,
        remains=tuple(d.id for d in touching if d.mends == "run"),
        identity=next((d.id for d in touching if d.mends == "none"), ""),
    )


# ------------------------------------------------------------------ Table 3: the running mean undone


@cache
def _corruptions() -> dict[str, dict[str, float]]:
    return {line["model"]: {key: float(line[key]) / 100 for key in TEN} for line in read_csv("corruptions.csv")}


@cache
def _severities() -> dict[tuple[str, str], tuple[float, ...]]:
    rows = read_csv("severities.csv")
    return {(row["model"], row["corruption"]): tuple(float(row[str(s)]) / 100 for s in range(1, 6)) for row in rows}


@cache
def logs() -> dict[str, str]:
    """Return the name of each model in the authors' logs."""
    return {line["model"]: line["log"] for line in read_csv("models.csv")}


def _table_3(cell: Cell) -> tuple[Derivation, tuple[str, ...]] | None:
    key = cell.column.key
    if key in TEN:
        return _recovered(cell.model, key), ("D1",)
    if key == "accuracy":
        return None
    ten = tuple(Input(name, _corruptions()[cell.model][name], _recovered_source(cell.model, name)) for name in TEN)
    mean = Derivation("mean", ten, True, "mean of the ten recovered accuracies")
    if key == "accuracy_corrupted":
        return mean, ("D1",)
    clean = _printed_accuracy(cell.model)
    ratio = (Input("mean of ten", mean.value, "as above"), clean)
    return Derivation("ratio", ratio, True, "mean of the ten recovered accuracies over clean accuracy"), ("D1",)


def _recovered(model: str, key: str) -> Derivation:
    """Return the accuracy under one corruption: of its five sets where these are stored, else as read from the log."""
    source = _recovered_source(model, key)
    cells = _severities().get((model, key))
    if cells is not None:
        inputs = tuple(Input(f"severity {s}", value, source) for s, value in enumerate(cells, 1))
        return Derivation("mean", inputs, True, "mean of the five recovered accuracies")
    text = (
        "mean over five severities of n * a_n - (n - 1) * a_(n-1), computed from the log; the printed number is a mean "
        "of five running means, from which it does not follow"
    )
    return Derivation("taken from the logs", (Input(key, _corruptions()[model][key], source),), False, text)


def _recovered_source(model: str, key: str) -> str:
    folder = "2DCC" if key in TEN[:5] else "3DCC"
    return f"corruptions/results/{folder}/{logs()[model]}.json of {CODE}, running mean undone"


@cache
def _clean_accuracies() -> dict[str, float]:
    return {line["model"]: float(line["accuracy"]) / 100 for line in read_csv("table3.csv")}


def _printed_accuracy(model: str) -> Input:
    return Input("accuracy", _clean_accuracies()[model], f"Table 3, {model}, accuracy")


# ------------------------------------------------------------------ Table 4: all images of FOCUS


def _table_4(cell: Cell) -> tuple[Derivation, tuple[str, ...]]:
    (line,) = (line for line in read_csv("context.csv") if line["model"] == cell.model)
    k = int(cell.column.key.removeprefix("cb"))
    source = f"context_bias/results/{logs()[cell.model]}/predictions.npy of {CODE}"
    return _context(k, int(line[f"right_p{k}"]), int(line["right_p0"]), source), ("D11",)


def _context(k: int, right_k: int, right_0: int, source: str) -> Derivation:
    counts = {
        f"right in P_{k}": right_k,
        f"images of P_{k}": PARTITIONS[k],
        "right in P_0": right_0,
        "images of P_0": PARTITIONS[0],
    }
    inputs = tuple(Input(name, count, source) for name, count in counts.items())
    return Derivation("ratio of shares", inputs, True, f"accuracy on P_{k} over accuracy on P_0, of all 20,815 images")


# ------------------------------------------------------------------ Tables 6 and 7: the same, units and misprints


@cache
def _ablations() -> dict[str, dict[str, str]]:
    return {f"{line['data']} {line['images']}": line for line in read_csv("ablations.csv")}


def _ablation(cell: Cell) -> tuple[Derivation, tuple[str, ...]] | None:
    """Return what the log of the cell says, where that is not what is printed."""
    line, key = _ablations()[cell.row], cell.column.key
    source = f"{_folder(key)} of {CODE}, {_log_of(line)}"
    points = {name: float(line[name]) / 100 for name in ("accuracy", "accuracy_fgsm", "accuracy_2d", "bg_gap")}
    clean = Input("accuracy", points["accuracy"], f"adversarial_attack/results/fgsm/ablations of {CODE}")
    # What a deviation touches is corrected in every cell.
    if key == "r_cc_2d":
        text = "mean of the 25 recovered accuracies, which is the last running mean, over clean accuracy"
        mean = Input("mean of 25 sets", points["accuracy_2d"], source)
        return Derivation("ratio", (mean, clean), True, text), ("D1",)
    if key == "cb2":
        derivation = _context(2, int(line["right_p2"]), int(line["right_p0"]), source)
        return derivation, ("D11", *_misprint(cell, derivation.value, 2e-4))
    if key == "bg_gap":
        gap = Derivation("taken from the logs", (Input(key, points[key], source),), False, "points of the log over 100")
        return gap, ("D7", *_misprint(cell, 10 * gap.value, 5e-4))
    # The rest is corrected where the page has not what the log has.
    if key == "r_adv_fgsm":
        attacked = Input("accuracy FGSM", points["accuracy_fgsm"], source)
        other, slack = Derivation("ratio", (attacked, clean), True, "accuracy under FGSM over clean accuracy"), 1e-4
    else:
        stated, slack = (points[key], 5e-5) if key in points else (float(line[key]), 5e-4)
        other = Derivation("taken from the logs", (Input(key, stated, source),), False, "as the log has it")
    wrong = _misprint(cell, other.value, slack)
    return (other, wrong) if wrong else None


def _misprint(cell: Cell, right: float, slack: float) -> tuple[str, ...]:
    """Return whether a printed number is the right one but for rounding, cut off in place of rounded, or another.

    ``slack`` is what the right number may be off by, being rounded itself.
    """
    gap = right - cell.value
    if abs(gap) <= cell.step + slack:
        return ()
    return (TRUNCATED,) if 0 < gap < 2 * cell.step + slack else (MISPRINT,)


def _folder(key: str) -> str:
    folders = {
        "r_cc_2d": "corruptions/results/2DCC/ablations",
        "cb2": "context_bias/results/ablations",
        "bg_gap": "background_bias/results/ablations",
        "shape_bias": "shape_bias/results/ablations",
        "fpr95_sun": "ood_detection/results/ablations",
        "ece": "calibration/results/ablations",
    }
    return folders.get(key, "adversarial_attack/results/fgsm/ablations")


def _log_of(line: dict[str, str]) -> str:
    return f"{(_PROMPTS | _COMPOSITIONS)[line['data']]}_{line['images']}"


def _none(cell: Cell) -> None:
    return None


_DERIVATIONS: dict[int, Callable[[Cell], tuple[Derivation, tuple[str, ...]] | None]] = {
    **{FIGURES: _none, 1: _none, 2: _none, 3: _table_3, 4: _table_4},
    **{5: _none, 6: _ablation, 7: _ablation},
}

"""Which published number stands beside a measured one: by the model's name, the metric, the set and the settings.

In: a `Cell` of results. Out: the `Cell` of a table or figure of the paper, or None. Only numbers of the paper's own
sets and models are put beside each other; a name is all that says that the model is the same.
"""

import re
from functools import cache
from typing import Any

from synclones.evaluate.published.corrected import TEN, logs
from synclones.evaluate.published.figures import SETS, figures
from synclones.evaluate.published.tables import FIGURES, Cell, read_csv, tables
from synclones.evaluate.stored.results import Cell as Result

GROUPS = {
    "supervised": ("ResNet50", "SynResNet50", "Swin-B", "ConvNeXt", "DeiT", "ViT-B", "SynViT-B"),
    "self-supervised": ("MAE", "DINOv2", "MOCOv3", "SynCLR"),
    "multi-modal": ("CLIP", "SynCLIP"),
}
_ATTACKS = {
    "accuracy_fgsm": "accuracy_fgsm",
    "r_adv": "r_adv_fgsm",
    "accuracy_pgd": "accuracy_pgd",
    "r_adv_pgd": "r_adv_pgd",
}
_KEYS = {"auroc": "auroc", "fpr95_id_positive": "fpr95"}
_IMAGENET = ("imagenet", "imagenetval", "imagenet1k")
# Both of these stand beside Table 1: the text says the first, the numbers are of the second (D4).
_SCORES = ("max-probability", "entropy")


@cache
def _aliases() -> dict[str, str]:
    """Return the paper's name of every model by each of its names, letters and digits alone."""
    known = {_plain(model): model for model in logs()}
    for line in read_csv("aliases.csv"):
        known[_plain(line["alias"])] = line["model"]
    return known


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def model_of(name: str) -> str | None:
    """Return which of the paper's models a name means, with or without a library before it; None for others."""
    known = _aliases()
    return known.get(_plain(name)) or known.get(_plain(name.partition(":")[2] or name.rpartition("/")[2]))


def is_clone(model: str | None) -> bool:
    """Return whether one of the paper's models is trained on synthetic images."""
    return model is not None and model.startswith("Syn")


def group_of(name: str) -> str:
    """Return supervised, self-supervised or multi-modal; nothing for a model that is none of the paper's."""
    model = model_of(name)
    return next((group for group, models in GROUPS.items() if model in models), "")


def published_for(name: str) -> dict[tuple[int, str], Cell]:
    """Return what tables and figures say of a model, (table, key of the column) -> cell; nothing of other models."""
    model = model_of(name)
    if model is None:
        return {}
    shown: dict[tuple[int, str], Cell] = {(FIGURES, key): cell for key, cell in figures()[model].items()}
    return shown | {(n, key): cell for n in range(1, 6) for key, cell in tables()[n].rows.get(model, {}).items()}


def published_of(name: str, result: Result) -> Cell | None:
    """Return the published number that a result of the model of this name stands beside."""
    key = column_of(result)
    return None if key is None else published_for(name).get(key)


def column_of(result: Result) -> tuple[int, str] | None:
    """Return the table of the paper, or `FIGURES`, and the key of the column that show what a result measures."""
    settings, metric = result.settings, result.metric
    name, on = _plain(str(settings.get("set", ""))), _plain(result.dataset)
    if (figure := _in_figures(metric, on, settings)) is not None:
        return FIGURES, figure
    # On the clean images of ImageNet, or under an attack of Table 2.
    if metric in ("accuracy", *_ATTACKS):
        weak = metric == "accuracy" or (settings.get("epsilon_255") == 1 and settings.get("steps", 20) == 20)
        return (2, _ATTACKS.get(metric, metric)) if on in _IMAGENET and weak else None
    # Under one of the ten corruptions, or the mean of exactly these.
    if metric == "accuracy_corruption" and settings.get("corruption") in TEN:
        whole = list(settings.get("severities", ())) == [1, 2, 3, 4, 5]
        return (3, settings["corruption"]) if whole and name in ("imagenetc", "imagenet3dcc") else None
    if metric in ("accuracy_corrupted", "r_cc"):
        both = name == "imagenetcandimagenet3dcc" and settings.get("corruptions") == len(TEN)
        return (3, metric) if both else None
    # With outliers, in uncommon settings, before other backgrounds.
    if metric in _KEYS and on in _IMAGENET and settings.get("score") in _SCORES:
        others = _plain(str(settings.get("outliers", "")))
        return (1, f"{_KEYS[metric]}_{others}") if others in ("sun", "inaturalist", "places") else None
    if metric in ("cb1", "cb2") and on.startswith("focus"):
        return 4, metric
    if name.startswith(("in9", "imagenet9", "backgrounds")) and metric in _BACKGROUNDS:
        return 5, metric
    return None


_BACKGROUNDS = ("accuracy_original", "accuracy_mixed_same", "accuracy_mixed_rand", "bg_gap")


def _in_figures(metric: str, on: str, settings: dict[str, Any]) -> str | None:
    """Return the key of what Figures 3 and 4 are drawn from; the accuracy on ImageNet is in Table 2, too."""
    on = "imagenet" if on in _IMAGENET else on
    if metric == "accuracy" and on in SETS and on != "imagenet":
        return f"accuracy_{on}"
    if metric == "ece" and on in SETS and settings.get("bins") == 20:
        return f"ece_{on}"
    return "shape_bias" if metric == "shape_bias" and on == "cueconflict" else None

"""The two protocols: ``corrected``, and ``paper``, which does what the papers' code did, wrong turns included.

In: a model and the role of a set. Out: the `Condition` under which the code would have shown the images, and which of
its deviations (D1 to D12, ``evaluate/published/deviations.yaml``) make a difference to this model there.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.evaluate.answers.predictions import CLEAN, Condition
from synclones.evaluate.answers.prepared import Prepared
from synclones.evaluate.layout import Role
from synclones.evaluate.published.deviations import deviations

if TYPE_CHECKING:  # importing it would load torch for --help
    from synclones.models.network import Classifier

PROTOCOLS = ("corrected", "paper")
LOGIT_SCALE = 100.0
"""By which the papers' code multiplies cosines (D12)."""
_MARGIN = 256 / 224  # the shorter side of a resized image over the crop's


def followed(protocol: str, only: Iterable[str] = ()) -> frozenset[str]:
    """Return the deviations that a protocol follows: none, or all that can be switched, or ``only`` these.

    Raises:
        InputError: one is not known, or cannot be switched.
    """
    switchable = {name for name, deviation in deviations().items() if deviation.switchable}
    for name in only:
        if name not in switchable:
            raise InputError(f"--deviations: {name!r} was given, expected some of {', '.join(sorted_ids(switchable))}")
    if protocol == "corrected":
        return frozenset()
    return frozenset(only) or frozenset(switchable)


def sorted_ids(names: Iterable[str]) -> list[str]:
    """Return D1 to D12 in the order of their numbers."""
    return sorted(names, key=lambda name: (int(name[1:]) if name[1:].isdigit() else 0, name))


def seen(
    condition: Condition, role: Role, classifier: "Classifier", deviations: frozenset[str]
) -> tuple[Condition, tuple[str, ...]]:
    """Return a condition as the papers' code would show it, and which deviations differ from the model's own way.

    Args:
        condition: as a metric asks for it.
        role: of the set.
        classifier: whose own way is the other one.
        deviations: those that are followed.

    Raises:
        InputError: the model's input is not square.
    """
    own, names = _own(classifier), []
    prepared = own
    for name, change in _changes(role, classifier).items():
        changed = replace(prepared, **change)
        # D2 resizes even images that have the size of the crop, which the model's own way takes as they are.
        if name in deviations and (changed != prepared or name == "D2"):
            prepared = changed
            names.append(name)
    if not names:
        return condition, ()
    height, width = classifier.preprocessing.input_px
    if height != width:
        raise InputError(
            f"--protocol paper: its input is {height} x {width} px; the papers' code has square ones alone"
        )
    settings = condition.settings | {"prepared": asdict(prepared)}
    name = "prepared" if condition == CLEAN else condition.name
    return replace(condition, name=name, settings=settings, prepared=prepared), tuple(names)


def _own(classifier: "Classifier") -> Prepared:
    """Return the model's own way in these terms; of inputs that are not square the height stands for both."""
    own = classifier.preprocessing
    size = own.input_px[0]
    shorter = round(size / own.crop_fraction)
    return Prepared(
        shorter_px=shorter,
        size_px=size,
        interpolation=own.interpolation,
        mean=tuple(own.mean),
        std=tuple(own.std),
        logit_scale=logit_scale(classifier),
    )


def _changes(role: Role, classifier: "Classifier") -> dict[str, dict[str, Any]]:
    """Return what each deviation changes about the images of a role, in the order in which they add up."""
    from synclones.models.network import PIXELS

    size = classifier.preprocessing.input_px[0]
    imagenet: dict[str, Any] = dict(zip(("mean", "std"), PIXELS["imagenet"], strict=True))
    stats: dict[str, Any] = (
        dict(zip(("mean", "std"), PIXELS["clip"], strict=True)) if is_zero_shot(classifier) else imagenet
    )
    cropped: dict[str, Any] = {"shorter_px": round(size * _MARGIN), "interpolation": "bilinear"}
    whole: dict[str, Any] = {"shorter_px": size, "interpolation": "bicubic" if is_zero_shot(classifier) else "bilinear"}
    changes: dict[Role, dict[str, dict[str, Any]]] = {
        "reference": {"D9": cropped | stats},
        "shifted": {"D9": cropped | stats},
        "outliers": {"D5": {"shorter_px": size, "interpolation": "bicubic"}, "D9": stats},
        "corrupted": {"D2": cropped | imagenet},
        "shape": {"D9": whole | stats},
        "context": {"D9": whole | stats},
        "background": {"D6": {"shorter_px": 0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}},
    }
    if not is_zero_shot(classifier) or role in ("corrupted", "background", "context"):
        return changes[role]  # there only the largest logit counts, whatever the scale
    return changes[role] | {"D12": {"logit_scale": LOGIT_SCALE}}


def is_zero_shot(classifier: "Classifier") -> bool:
    """Return whether the model classifies by texts, which the papers' code treats as CLIP."""
    return hasattr(classifier.network, "logit_scale")


def logit_scale(classifier: "Classifier") -> float | None:
    """Return by what a zero-shot model multiplies cosines, to three decimals; None for another model."""
    # In 32 bits exp(log(100)) is not quite 100.
    return round(float(classifier.network.logit_scale.detach().exp()), 3) if is_zero_shot(classifier) else None

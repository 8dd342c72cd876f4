"""Adversarial robustness: what is left of the accuracy when every pixel moves a little against the model."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.layout import Role
from synclones.evaluate.methods.auto_attack import PASSES, auto_attack, library
from synclones.evaluate.settings import EvaluateConfig

if TYPE_CHECKING:  # importing them would load torch to explain a metric
    from torch import Tensor

    from synclones.models.network import Classifier

ORDER = 30

FGSM = "Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples, arXiv 1412.6572, section 4"
R_ADV = Metric(
    name="r_adv",
    title="R_adv",
    heading="R_adv {epsilon_255:g}/255",
    unit="accuracy under attack over clean accuracy, 0 and up",
    explanation="Relative adversarial robustness: of the accuracy on clean images, the share that is left when every "
    "pixel may change by at most the stated amount, in the direction that hurts this model most (FGSM, one step). "
    "More is better; a model that was rarely right cannot lose much, so read it beside the accuracy.",
    sources=(FGSM,),
)
ACCURACY_FGSM = Metric(
    name="accuracy_fgsm",
    title="accuracy under attack",
    heading="accuracy under FGSM {epsilon_255:g}/255",
    unit="fraction of the test images, 0..1",
    explanation="The accuracy on those attacked images itself. More is better.",
    sources=(FGSM,),
    compared=False,
)
MADRY = (
    "Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv 1706.06083, section 2.1"
)
STEPS_DIFFER = (
    "steps of a quarter of epsilon; torchattacks' are 2/255 whatever epsilon is, and those of the paper's code 2/225 "
    "(attack pgd_last: all of its steps are done and the last image counts)",
    "an image counts as wrong when any of the steps fools the model, not only the last one",
    "random starts are drawn for each image from the seed, so that they do not depend on batches",
)
R_ADV_PGD = Metric(
    name="r_adv_pgd",
    title="R_adv of PGD",
    heading="R_adv PGD-{steps} {epsilon_255:g}/255",
    unit=R_ADV.unit,
    explanation="The same under an attack of many small steps (PGD), which searches everything within the stated "
    "amount and finds what one step misses. More is better; read it beside the accuracy.",
    detail="{steps} steps of {step_255:.3g}/255",
    sources=(MADRY,),
    deviations=STEPS_DIFFER,
)
ACCURACY_PGD = Metric(
    name="accuracy_pgd",
    title="accuracy under PGD",
    heading="accuracy under PGD-{steps} {epsilon_255:g}/255",
    unit=ACCURACY_FGSM.unit,
    explanation="The accuracy on images attacked by PGD itself. More is better. It cannot be above that under FGSM of "
    "the same strength but by chance: where it is, the model hides its gradients.",
    sources=(MADRY,),
    deviations=STEPS_DIFFER,
    compared=False,
    alarming=True,
)
CROCE = (
    "Croce and Hein 2020, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free "
    "Attacks, arXiv 2003.01690; the code is the library's"
)
BATCHES_DIFFER = (
    "the library draws for a batch as a whole, so that numbers of two batch sizes differ by chance; batch size, seed "
    "and version of the library are part of the result",
    "of models with fewer than ten classes all others are targets; with fewer than four it cannot be measured",
    "an image counts by what is answered when it is shown once more, in its whole batch",
)
R_ADV_AUTO = Metric(
    name="r_adv_autoattack",
    title="R_adv of AutoAttack",
    heading="R_adv AutoAttack {epsilon_255:g}/255",
    unit=R_ADV.unit,
    explanation="The same under four attacks of which none has settings (AutoAttack, standard version: two of many "
    "steps, one along the nearest boundary, one that needs no gradients); an image must withstand all of them. More is "
    "better; read it beside the accuracy.",
    detail="{library}, batches of {batch_size}",
    sources=(CROCE,),
    deviations=BATCHES_DIFFER,
)
ACCURACY_AUTO = Metric(
    name="accuracy_autoattack",
    title="accuracy under AutoAttack",
    heading="accuracy under AutoAttack {epsilon_255:g}/255",
    unit=ACCURACY_FGSM.unit,
    explanation="The accuracy on images attacked by AutoAttack itself, which others call robust accuracy. More is "
    "better. It cannot be above that under FGSM or PGD of the same strength but by chance.",
    sources=(CROCE,),
    deviations=BATCHES_DIFFER,
    compared=False,
    alarming=True,
)
METRICS = (R_ADV, ACCURACY_FGSM, R_ADV_PGD, ACCURACY_PGD, R_ADV_AUTO, ACCURACY_AUTO)


CHANCE = 0.004
"""By how much the random starts of one attack move an accuracy at most (the papers' logs of one model)."""
PAPERS_STEP_255 = 2 / 225 * 255
"""The step of the papers' code, in 1/255, whatever the strength (D3)."""


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the clean images, and every attack of each strength; those of the papers' code where it is followed."""
    if role != "reference":
        return ()
    attacks = [attack for papers in _steps(config) for attack in _attacks(config, papers)]
    return tuple(dict.fromkeys([CLEAN, *(condition for condition, *_ in attacks)]))


def _steps(config: EvaluateConfig) -> list[bool]:
    """Return whose steps are needed: False: ours, True: those of the papers' code."""
    follows = "D3" in config.deviations or not config.deviations
    return sorted({name == "paper" and follows for name in config.protocol})


def _attacks(config: EvaluateConfig, papers: bool) -> Iterator[tuple[Condition, Metric, Metric]]:
    """Yield each attack with what is measured by it: relative to clean accuracy, and by itself."""
    for epsilon in config.epsilons_255 if "fgsm" in config.attacks else ():
        yield fgsm_condition(epsilon), R_ADV, ACCURACY_FGSM
    for epsilon in config.epsilons_255 if "pgd" in config.attacks else ():
        attack = papers_pgd_condition if papers else pgd_condition
        yield attack(epsilon, config.pgd_steps, config.seed, config.pgd_precision), R_ADV_PGD, ACCURACY_PGD
    for epsilon in config.epsilons_255 if "autoattack" in config.attacks else ():
        yield auto_attack_condition(epsilon, config.batch_size, config.seed), R_ADV_AUTO, ACCURACY_AUTO


def fgsm_condition(epsilon_255: float) -> Condition:
    """Return FGSM of a strength in 1/255; an attack costs a forward and a backward pass besides the prediction."""
    return Condition("fgsm", {"epsilon_255": epsilon_255}, partial(_fgsm, epsilon_255=epsilon_255), passes=3)


def pgd_condition(epsilon_255: float, steps: int, seed: int, precision: str = "fp32") -> Condition:
    """Return PGD of a strength in 1/255, in steps of a quarter of it; it costs a pass back and forth for each step."""
    settings, change = _pgd_settings(epsilon_255, steps, epsilon_255 / 4, seed, precision)
    return Condition("pgd", settings, change, passes=2 * steps + 2, only_if=("D3", False))


def papers_pgd_condition(epsilon_255: float, steps: int, seed: int, precision: str = "fp32") -> Condition:
    """Return PGD as the papers' code has it (D3): steps of 2/225, all of them done, and the last image counts."""
    settings, change = _pgd_settings(epsilon_255, steps, PAPERS_STEP_255, seed, precision)
    return Condition("pgd_last", settings, partial(change, to_the_end=True), passes=2 * steps + 1, only_if=("D3", True))


def _pgd_settings(
    epsilon_255: float, steps: int, step_255: float, seed: int, precision: str
) -> tuple[dict[str, Any], Callable[..., "Tensor"]]:
    """Return what identifies an attack, and the attack; gradients in 16 bits are another one, those in 32 as ever."""
    settings: dict[str, Any] = {"epsilon_255": epsilon_255, "steps": steps, "step_255": step_255, "seed": seed}
    bf16 = precision == "bf16"
    return settings | ({"gradients": precision} if bf16 else {}), partial(_pgd, **settings, bf16=bf16)


def auto_attack_condition(epsilon_255: float, batch_size: int, seed: int) -> Condition:
    """Return AutoAttack of a strength in 1/255; what it finds belongs to the batch and to the library's version.

    Raises:
        InputError: the library is not installed.
    """
    settings = {"epsilon_255": epsilon_255, "batch_size": batch_size, "library": library(), "seed": seed}
    change = partial(_auto_attack, epsilon_255=epsilon_255, seed=seed)
    return Condition("autoattack", settings, change, passes=PASSES + 1)


def _fgsm(
    classifier: "Classifier", pixels: "Tensor", labels: "Tensor", index: np.ndarray, *, epsilon_255: float
) -> "Tensor":
    from synclones.evaluate.methods.attacks import fgsm

    return fgsm(classifier, pixels, labels, epsilon_255 / 255)


def _pgd(
    classifier: "Classifier",
    pixels: "Tensor",
    labels: "Tensor",
    index: np.ndarray,
    *,
    epsilon_255: float,
    steps: int,
    step_255: float,
    seed: int,
    to_the_end: bool = False,
    bf16: bool = False,
) -> "Tensor":
    from synclones.evaluate.methods.attacks import pgd

    sizes = {"epsilon": epsilon_255 / 255, "step": step_255 / 255}
    return pgd(classifier, pixels, labels, index, steps=steps, seed=seed, to_the_end=to_the_end, bf16=bf16, **sizes)


def _auto_attack(
    classifier: "Classifier", pixels: "Tensor", labels: "Tensor", index: np.ndarray, *, epsilon_255: float, seed: int
) -> "Tensor":
    return auto_attack(classifier, pixels, labels, epsilon_255 / 255, seed)


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield R_adv and the accuracy itself under each attack and strength."""
    n, papers = len(predictions.clean), "D3" in predictions.deviations
    for condition, relative, absolute in _attacks(config, papers):
        settings = {name: value for name, value in condition.settings.items() if name != "seed"}  # the cell's own
        settings = {"attack": condition.name, **settings}
        # Both columns are of the same images, so that a resample keeps an image's two answers together.
        pair = (predictions.clean.correct, predictions[condition].correct)
        terms = np.stack(pair, 1).astype(np.float64)
        changed = ("D3",) if condition.name == "pgd_last" else ()
        yield Measurement(
            metric=relative,
            settings=settings,
            terms=terms,
            statistic=relative_robustness,
            counts=lambda sums: (sums[1], sums[0]),
            bounds=(0.0, np.inf),
            conditions=(CLEAN, condition),
            deviations=changed,
        )
        yield Measurement(
            metric=absolute,
            settings=settings,
            terms=terms[:, 1:],
            statistic=lambda sums: sums[..., 0] / n,
            interval="wilson",
            counts=lambda sums: (sums[0], n),
            conditions=(condition,),
            deviations=changed,
            notes=(
                *_coarse(condition),
                *_hidden(predictions, config, condition, absolute.heading.format_map(settings)),
            ),
        )


def _coarse(condition: Condition) -> tuple[str, ...]:
    return ("PGD followed gradients in bf16; answers are in fp32",) if "gradients" in condition.settings else ()


def _hidden(
    predictions: ModelPredictions, config: EvaluateConfig, condition: Condition, heading: str
) -> tuple[str, ...]:
    """Return a sentence where an attack of many steps leaves clearly more than one step of the same strength."""
    if "fgsm" not in config.attacks or condition.name == "fgsm":
        return ()
    single = fgsm_condition(condition.settings["epsilon_255"])
    many, one = (float(predictions[attack].correct.mean()) for attack in (condition, single))
    if many <= one + CHANCE:
        return ()
    return (
        f"{heading} is {100 * many:.1f} %, under one step of that strength (FGSM) {100 * one:.1f} %: the model hides "
        "its gradients, or the attack is broken",
    )


def relative_robustness(sums: np.ndarray) -> np.ndarray:
    """Return R_adv, attacked over clean accuracy, of sums [..., 2] (clean, attacked); NaN where clean is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(sums[..., 0] > 0, sums[..., 1] / sums[..., 0], np.nan)
    return ratio

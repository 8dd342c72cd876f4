"""Attacks in sets with roles: conditions as they were, and PGD as the papers' code has it where D3 is followed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from answered_sets import by_metric, of_model, value, with_logits
from torch import nn

from synclones.evaluate.answers.predictions import CLEAN
from synclones.evaluate.axes.adversarial import (
    conditions,
    fgsm_condition,
    measure,
    papers_pgd_condition,
    pgd_condition,
)
from synclones.evaluate.methods.attacks import START, pgd
from synclones.evaluate.settings import EvaluateConfig


class Slope(nn.Module):
    """Two classes by the sum of a few pixels, bent so that an attack may overshoot."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 3 * 4 * 4))

    def forward(self, pixels):
        return torch.sin(8 * pixels.flatten(1)) @ self.weight.T


@pytest.fixture(scope="module")
def answered_pixels():
    classifier = Slope().requires_grad_(False)
    pixels = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    return classifier, pixels, classifier(pixels).argmax(1), np.arange(40) + 7


def test_attacks_are_of_the_reference_alone_and_keep_what_identifies_them():
    config = EvaluateConfig(attacks=("fgsm", "pgd"), epsilons_255=(8.0,), pgd_steps=3, seed=5)
    assert conditions(config, "reference") == (CLEAN, fgsm_condition(8.0), pgd_condition(8.0, 3, 5))
    assert pgd_condition(8.0, 3, 5).settings == {"epsilon_255": 8.0, "steps": 3, "step_255": 2.0, "seed": 5}
    assert conditions(config, "corrupted") == conditions(config, "shifted") == ()


class Coarse(Slope):
    """Answers the other way round in 16 bits, and counts how many images it was asked about there."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, pixels):
        logits = super().forward(pixels)
        if not torch.is_autocast_enabled("cpu"):
            return logits
        self.asked.append(len(pixels))
        return logits.flip(1)


def test_gradients_in_16_bits_are_another_attack_and_answers_stay_in_32(answered_pixels):
    settings = pgd_condition(8.0, 3, 5, "bf16").settings
    assert settings == pgd_condition(8.0, 3, 5).settings | {"gradients": "bf16"}
    config = EvaluateConfig(attacks=("pgd",), epsilons_255=(8.0,), pgd_steps=3, seed=5, pgd_precision="bf16")
    assert conditions(config, "reference")[1].settings == settings
    _, pixels, _, index = answered_pixels
    model = Coarse().requires_grad_(False)
    labels = model(pixels).argmax(1)
    # Steps of which none makes an answer wrong, whatever 16 bits say: no image is left before the end.
    attacked = pgd(model, pixels, labels, index, epsilon=0.01, steps=5, step=0.0025, seed=0, bf16=True)
    assert (model(attacked).argmax(1) == labels).all() and model.asked == [40] * 5
    near = pgd(model, pixels, labels, index, epsilon=0.01, steps=5, step=0.0025, seed=0)
    assert not torch.equal(attacked, near)


def test_where_the_papers_code_is_followed_its_attack_is_another_condition():
    given = {"epsilons_255": (1.0,), "attacks": ("pgd",), "pgd_steps": 20, "pgd_precision": "fp32", "seed": 0}
    ours, papers = pgd_condition(1.0, 20, 0), papers_pgd_condition(1.0, 20, 0)
    assert papers != ours and papers.settings["step_255"] / 255 == pytest.approx(2 / 225)
    for protocol, only, expected in (
        (("corrected",), (), (ours,)),
        (("paper",), (), (papers,)),
        (("corrected", "paper"), (), (ours, papers)),
        (("paper",), ("D4",), (ours,)),
        (("paper",), ("D3",), (papers,)),
    ):
        config = SimpleNamespace(**given, protocol=protocol, deviations=only)
        assert conditions(config, "reference") == (CLEAN, *expected)
    both = SimpleNamespace(**given | {"attacks": ("fgsm",)}, protocol=("corrected", "paper"), deviations=())
    assert conditions(both, "reference") == (CLEAN, fgsm_condition(1.0)), "one that both share is computed once"


def test_the_papers_steps_are_all_done_for_every_image_and_projected_back(answered_pixels):
    """Torchattacks' loop written out: a random start, steps of 2/225 along the sign, back into the box each time."""
    classifier, pixels, labels, index = answered_pixels
    labels = torch.cat([labels[:30], 1 - labels[30:]])  # ten are answered wrongly from the beginning
    epsilon, step = 1 / 255, 2 / 225
    attacked = pgd(classifier, pixels, labels, index, epsilon=epsilon, steps=4, step=step, seed=3, to_the_end=True)
    draws = [np.random.default_rng([3, START, int(i)]).random((3, 4, 4), dtype=np.float32) for i in index]
    x = (pixels + epsilon * (2 * torch.from_numpy(np.stack(draws)) - 1)).clamp(0, 1)
    for _ in range(4):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(classifier(x), labels), x)
        delta = (x.detach() + step * gradient.sign() - pixels).clamp(-epsilon, epsilon)
        x = (pixels + delta).clamp(0, 1)
    assert torch.allclose(attacked, x, atol=1e-6)
    assert not torch.equal(attacked[30:], pixels[30:]), "what is answered wrongly is attacked as well"
    assert (attacked - pixels).abs().max() <= epsilon + 1e-6


def test_the_last_image_may_be_answered_rightly_where_one_before_was_not(answered_pixels):
    classifier, pixels, labels, index = answered_pixels
    sizes = {"epsilon": 0.3, "step": 0.3 / 4, "seed": 0, "steps": 20}
    any_wrong = classifier(pgd(classifier, pixels, labels, index, **sizes)).argmax(1) == labels
    last = classifier(pgd(classifier, pixels, labels, index, **sizes | {"step": 0.68}, to_the_end=True)).argmax(1)
    assert any_wrong.float().mean() <= (last == labels).float().mean(), "steps beyond the box find less"


def test_numbers_of_the_papers_attack_say_so():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 1, (20, 4)), rng.integers(0, 4, 20)
    ours, papers = pgd_condition(1.0, 20, 0), papers_pgd_condition(1.0, 20, 0)
    shown = {ours: rng.normal(0, 1, (20, 4)), papers: rng.normal(0, 1, (20, 4))}
    item = with_logits("reference", logits, labels, more=shown)
    config = EvaluateConfig(attacks=("pgd",), epsilons_255=(1.0,))
    corrected, paper = (by_metric(measure(of_model(item, deviations=d), config)) for d in ((), {"D3"}))
    for found, condition, names in ((corrected, ours, ()), (paper, papers, ("D3",))):
        (under,) = found["accuracy_pgd"]
        assert under.deviations == names and value(under) == (shown[condition].argmax(1) == labels).mean()
        assert under.conditions == (condition,) and under.settings["attack"] == condition.name
    assert corrected["accuracy_pgd"][0].settings == {"attack": "pgd", "epsilon_255": 1.0, "steps": 20, "step_255": 0.25}

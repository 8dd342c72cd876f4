"""Modules and functions of others as models under test."""

import numpy as np
import pytest
import torch
from torch import nn

from synclones.base.errors import InputError
from synclones.evaluate.foreign import from_callable, gives_gradient, module_sha256, normalised, pixels
from synclones.evaluate.methods.attacks import fgsm
from synclones.models.network import Preprocessing

CLASSES = ("cat", "dog", "frog")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class Somebodys(nn.Module):
    """A network that is nobody's library's."""

    def __init__(self, activation=nn.ReLU, stride=2, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=stride), nn.BatchNorm2d(4), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(4, len(CLASSES))

    def forward(self, x):
        return self.head(self.dropout(self.layers(x)))


def network(**arguments) -> nn.Module:
    torch.manual_seed(0)
    return Somebodys(**arguments).eval()


def opened(model, **given):
    asked = {"preprocessing": pixels(8), "class_ids": CLASSES, "name": "theirs"} | given
    return from_callable(model, **asked)


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_module_s_logits_are_its_own_bit_for_bit():
    theirs = network()
    ours = opened(theirs).classifier
    assert torch.equal(ours(images()), theirs(images()))
    assert ours.class_ids == CLASSES and not ours.training


def test_a_network_behind_its_normalisation_takes_pixels():
    theirs = network()
    ours = opened(normalised(theirs, MEAN, STD)).classifier
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert torch.equal(ours(images()), theirs((images() - mean) / std))


def test_attacks_change_a_foreign_model_s_pixels_by_exactly_epsilon():
    ours = opened(normalised(network(), MEAN, STD)).classifier
    attacked = fgsm(ours, images(), torch.zeros(4, dtype=torch.long), 2 / 255)
    moved = (attacked - images()).abs()
    inside = (attacked > 0) & (attacked < 1)
    assert moved.max() <= 2 / 255 + 1e-7 and torch.allclose(moved[inside & (moved > 0)], torch.tensor(2 / 255))


@pytest.mark.parametrize(
    "change", ["weight", "buffer", "kept out of the state", "activation", "stride", "mean", "type"]
)
def test_what_decides_answers_is_in_the_identity(change):
    model = normalised(network(), MEAN, STD)
    before = module_sha256(model)
    assert module_sha256(normalised(network(), MEAN, STD)) == before
    if change == "weight":
        with torch.no_grad():
            model.network.head.bias[0] += 1e-6
    elif change == "buffer":
        model.network.layers[1].running_mean += 1e-3
    elif change == "kept out of the state":
        model.register_buffer("scale", torch.ones(1), persistent=False)
    elif change == "activation":
        model = normalised(network(activation=nn.GELU), MEAN, STD)
    elif change == "stride":
        model = normalised(network(stride=1), MEAN, STD)
    elif change == "mean":
        model = normalised(network(), STD, STD)
    else:
        model = nn.Sequential(model)
    assert module_sha256(model) != before


def test_the_identity_is_of_numbers_and_names_whatever_holds_them():
    model = network()
    sums = {module_sha256(model), module_sha256(model.to(memory_format=torch.channels_last))}
    model.act = nn.Identity()
    model.act.extra_repr = lambda: f"{object()}"  # its text has an address
    assert len(sums) == 1 and module_sha256(model) == module_sha256(model)
    half = network().to(torch.bfloat16)
    assert module_sha256(half) not in sums  # other types are other models


def test_a_function_is_known_by_what_its_caller_says():
    theirs = network()
    function = lambda x: theirs(x)  # noqa: E731
    with pytest.raises(InputError, match="a function without identity"):
        opened(function)
    one, same, other = (opened(function, identity=text).weights_sha256 for text in ("v1", "v1", "v2"))
    assert one == same != other and len(one) == 64
    assert opened(theirs).weights_sha256 == module_sha256(theirs)
    assert opened(theirs, identity="forward changed").weights_sha256 not in (one, module_sha256(theirs))


def test_a_model_in_training_mode_is_refused_whichever_part_is():
    model = network()
    model.layers[1].train()
    with pytest.raises(InputError, match=r"layers\.1 is in training mode"):
        opened(model)
    with pytest.raises(InputError, match="Somebodys is in training mode"):
        opened(network().train())


def test_a_function_that_answers_by_chance_or_by_its_batch_is_refused():
    # Nobody sees a function's mode; its answers show it.
    dropping, of_batch = network(dropout=0.5).train(), network()
    dropping.layers.eval()
    of_batch.layers[1].train()
    with pytest.raises(InputError, match="answers otherwise when it is asked again"):
        opened(lambda x: dropping(x), identity="a")
    with pytest.raises(InputError, match="answers otherwise without others beside it"):
        opened(lambda x: of_batch(x), identity="a")


@pytest.mark.parametrize(
    "function, given",
    [
        (lambda x: x.mean((2, 3))[:, :2], r"torch.float32 \[2, 2\]"),
        (lambda x: x.mean((2, 3))[0], r"torch.float32 \[3\]"),
        (lambda x: x.mean((2, 3)).argsort(1), r"torch.int64 \[2, 3\]"),
        (lambda x: (x.mean((2, 3)),), "gives tuple"),
    ],
)
def test_what_gives_no_logits_is_refused(function, given):
    with pytest.raises(InputError, match=given) as error:
        opened(function, identity="a")
    assert "\n" not in str(error.value)


def test_a_preprocessing_that_normalises_is_refused():
    # Given silently, images would be normalised twice, or not at all.
    with pytest.raises(InputError, match=r"put yours into normalised\(model, mean, std\)"):
        opened(network(), preprocessing=Preprocessing(size_px=8))


def test_half_precision_and_logits_that_are_not_finite_are_left_to_the_evaluation():
    assert opened(lambda x: x.mean((2, 3)).half(), identity="a").classifier(images()).dtype == torch.float16
    assert opened(lambda x: x.mean((2, 3)) * np.nan, identity="a")


def test_whether_attacks_can_follow_a_gradient_is_known_beforehand():
    theirs = network()

    def without(x):
        with torch.no_grad():
            return theirs(x)

    assert gives_gradient(opened(theirs)) and gives_gradient(opened(lambda x: theirs(x), identity="a"))
    assert not gives_gradient(opened(without, identity="b"))


def test_images_are_fitted_as_asked():
    prepared = opened(network(), preprocessing=pixels(8, 0.8, "bicubic")).classifier.preprocessing
    assert prepared.fit(np.zeros((30, 20, 3), np.uint8)).shape == (8, 8, 3)
    assert (prepared.interpolation, prepared.crop_fraction) == ("bicubic", 0.8)

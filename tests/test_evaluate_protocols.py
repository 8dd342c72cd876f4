"""How images are shown and answers are read: among a set's own classes, and in the paper's way where that is asked."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from synclones.base.errors import InputError
from synclones.evaluate.answers.predictions import CLEAN, EvaluatedModel, Predictions
from synclones.evaluate.answers.reading import check_classes, columns_of, read_as
from synclones.evaluate.axes.adversarial import fgsm_condition
from synclones.evaluate.layout import ROLES
from synclones.evaluate.predict import _predict_batch
from synclones.evaluate.protocols import followed, seen
from synclones.evaluate.test_set import TestSet
from synclones.models.network import PIXELS, Classifier, Preprocessing

CLASSES = tuple("abcd")


class Mean(nn.Module):
    """Four logits: the mean of each channel as the network sees it, and their sum."""

    def forward(self, pixels):
        means = pixels.mean((2, 3))
        return torch.cat([means, means.sum(1, keepdim=True)], 1)


class ZeroShot(nn.Module):
    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(20.0).log(), requires_grad=False)

    def forward(self, pixels):
        return self.logit_scale.exp() * Mean()(pixels) / 100


def _model(network=None, **preprocessing) -> EvaluatedModel:
    prepared = Preprocessing(**({"size_px": 14} | preprocessing))
    return EvaluatedModel("m", Classifier(network or Mean(), prepared, CLASSES).eval(), "0" * 64)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)).save(
                tmp_path / "set" / name / f"{i}.png"
            )
    return tmp_path / "set"


# ------------------------------------------------------------------ reading


def test_of_a_set_with_some_of_the_classes_only_their_logits_count(folder):
    some = TestSet(folder, class_ids=("d", "b"), labels=np.array([1, 1, 0, 0]), positions=np.array([2, 3, 6, 7]))
    logits = np.array([[9, 3, 0, 2], [9, 0, 0, 2], [9, 3, 0, 2], [9, 0, 9, 2]], np.float32)
    read = read_as(Predictions(logits, some.labels, np.arange(4)), some, CLASSES)
    assert read.answers.tolist() == [1, 0, 1, 0] and read.correct.tolist() == [True, False, False, True]
    assert read.confidence[0] == pytest.approx(1 / (1 + np.exp(-1)))  # a softmax over two


def test_a_class_with_members_is_answered_by_the_largest_logit_or_by_the_mean_probability(folder):
    members = {"one": ("a",), "many": ("b", "c")}
    logits = np.log(np.array([[0.4, 0.35, 0.2, 0.05], [0.3, 0.35, 0.34, 0.01], [0.1, 0.1, 0.2, 0.6]])).astype(
        np.float32
    )
    kept = Predictions(logits, np.array([0, 1, 1]), np.arange(3))
    read = {}
    for decision in ("top1", "mean"):
        test_set = TestSet(
            folder, class_ids=("one", "many"), labels=np.zeros(8, int), members=members, decision=decision
        )
        read[decision] = read_as(kept, test_set, CLASSES)
    assert read["top1"].answers.tolist() == [0, 1, -1], "d is a member of neither"
    assert read["mean"].answers.tolist() == [0, 1, 1]
    assert read["mean"].confidence == pytest.approx([0.4, 0.345, 0.15], abs=1e-6)


def test_chosen_images_keep_labels_facts_and_pixels_and_are_another_set(folder):
    whole = TestSet(folder, facts={"number": np.arange(8)})
    chosen = whole.choose(np.array([1, 6])).choose(np.array([1]))
    assert len(chosen) == 1 and chosen.label(0) == whole.label(6) == 3 and chosen.facts["number"].tolist() == [6]
    assert np.array_equal(chosen[0].pixels, whole[6].pixels) and chosen.file_name(0) == whole.file_name(6)
    assert chosen.labels.tolist() == [3] and chosen.content_hash != whole.content_hash
    assert whole.content_hash == whole.source.content_hash(), "what is evaluated whole keeps the name of its logits"


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        ({"class_ids": ("a", "e"), "labels": np.zeros(8, int)}, "'e'"),
        ({"members": {k: ("a", "x") for k in CLASSES}}, "'x'"),
    ],
)
def test_a_model_that_lacks_a_class_is_refused_by_its_name(folder, kind, lacking):
    with pytest.raises(InputError, match=f"has no class {lacking}"):
        check_classes("m", CLASSES, TestSet(folder, **kind), all_of_them=False)
    check_classes("m", (*CLASSES, "more"), TestSet(folder), all_of_them=False)
    with pytest.raises(InputError, match="has 5 classes"):
        check_classes("m", (*CLASSES, "more"), TestSet(folder), all_of_them=True)
    assert columns_of(TestSet(folder), CLASSES) is None


# ------------------------------------------------------------------ the paper's protocol


def test_the_corrected_protocol_shows_images_as_the_model_says():
    for role in ROLES:
        assert seen(CLEAN, role, _model().classifier, followed("corrected")) == (CLEAN, ())


@pytest.mark.parametrize(
    ("role", "names", "resized", "pixels"),
    [
        ("reference", ("D9",), (16, "bilinear"), "imagenet"),
        ("shifted", ("D9",), (16, "bilinear"), "imagenet"),
        ("outliers", ("D5", "D9"), (14, "bicubic"), "imagenet"),
        ("corrupted", ("D2",), (16, "bilinear"), "imagenet"),
        ("shape", ("D9",), (14, "bilinear"), "imagenet"),
        ("context", ("D9",), (14, "bilinear"), "imagenet"),
    ],
)
def test_the_papers_code_has_one_way_for_all_models(role, names, resized, pixels):
    own = _model(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_fraction=0.95).classifier
    shown, changed = seen(CLEAN, role, own, followed("paper"))
    assert changed == names and (shown.prepared.shorter_px, shown.prepared.interpolation) == resized
    assert (shown.prepared.mean, shown.prepared.std) == PIXELS[pixels]
    assert shown != CLEAN and shown.settings["prepared"]["shorter_px"] == resized[0]


def test_what_makes_no_difference_to_a_model_is_not_said_to(folder):
    same = _model(crop_fraction=14 / 16).classifier
    assert seen(CLEAN, "reference", same, followed("paper")) == (CLEAN, ())
    shown, names = seen(CLEAN, "corrupted", same, followed("paper"))
    assert names == ("D2",), "images of the right size are taken as they are, but for the papers' code"
    image = np.random.default_rng(0).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    assert np.array_equal(same.preprocessing.fit(image), image) and not np.array_equal(shown.prepared.fit(image), image)
    assert seen(CLEAN, "corrupted", same, followed("paper", ["D1"])) == (CLEAN, ())


def test_the_backgrounds_are_not_normalised_and_the_model_is_left_as_it_was(folder):
    model, test_set = _model(), TestSet(folder)
    shown, names = seen(CLEAN, "background", model.classifier, followed("paper"))
    assert names == ("D6",)
    logits, _, _ = _predict_batch(model, test_set, range(3), shown)
    raw = np.stack([test_set[i].pixels for i in range(3)]).astype(np.float32) / 255
    assert logits[:, :3] == pytest.approx(raw.mean((1, 2)), abs=1e-6)
    own, _, _ = _predict_batch(model, test_set, range(3), CLEAN)
    mean, std = (np.array(values, np.float32) for values in PIXELS["imagenet"])
    assert own[:, :3] == pytest.approx((raw.mean((1, 2)) - mean) / std, abs=1e-5)


def test_the_scale_of_an_image_text_model_is_100_in_the_papers_code(folder):
    model, test_set = (
        _model(ZeroShot(), mean=PIXELS["clip"][0], std=PIXELS["clip"][1], crop_fraction=14 / 16),
        TestSet(folder),
    )
    shown, names = seen(CLEAN, "reference", model.classifier, followed("paper"))
    assert names == ("D12",), "prepared as CLIP is"
    own, papers = (_predict_batch(model, test_set, range(8), how)[0] for how in (CLEAN, shown))
    # The image is resized to 16 and cropped to 14 in the papers' code even where it has 14 already.
    assert float(model.classifier.network.logit_scale.exp()) == pytest.approx(20)
    assert np.abs(papers).mean() / np.abs(own).mean() == pytest.approx(5, rel=0.2)
    attack, names = seen(fgsm_condition(1), "reference", model.classifier, followed("paper", ["D12"]))
    assert attack.name == "fgsm" and attack.settings["epsilon_255"] == 1 and names == ("D12",)


def test_what_cannot_be_followed_is_refused():
    for name in ("D7", "D13"):
        with pytest.raises(InputError, match=f"'{name}' was given, expected some of D1, D2, D3"):
            followed("paper", [name])
    with pytest.raises(InputError, match="square"):
        seen(CLEAN, "reference", _model(size_px=(14, 28)).classifier, followed("paper"))
    shown, _ = seen(CLEAN, "background", _model().classifier, followed("paper"))
    with pytest.raises(InputError, match="leave D6 out"):
        shown.prepared.fit(np.zeros((20, 20, 3), np.uint8))

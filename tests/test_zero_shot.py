"""Zero-shot classification: the head of Radford et al. 2021, and an exported CLIP model evaluated as a classifier."""

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from safetensors.numpy import load_file
from test_clip import SMALL, export, fresh

from synclones.base.errors import InputError, VerificationError
from synclones.evaluate.methods.attacks import fgsm
from synclones.evaluate.predict import TestSet
from synclones.evaluate.run import main
from synclones.evaluate.stored.results import read_cells
from synclones.models.load import find_model, load_model
from synclones.models.tokenizer import tokenizer_for
from synclones.models.zero_shot import (
    ZeroShotTexts,
    imagenet_templates,
    read_zero_shot,
    write_zero_shot,
    zero_shot_head,
)
from synclones.shards.read import ShardFolder

TEMPLATES = ("a photo of a {}.", "the {} in the snow", "{}")
NAMES = ("cat", "dog {}", "red panda", "sea")


@pytest.fixture(scope="module")
def texts(dataset):
    ids = TestSet(dataset).class_ids
    return ZeroShotTexts(ids, tuple(f"digit {name}" for name in ids), TEMPLATES)


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory):
    return export(tmp_path_factory.mktemp("clips") / "zero-shot", zero_shot=texts)


def test_the_head_is_the_normalised_mean_of_normalised_texts():
    clip = fresh(SMALL)
    head = zero_shot_head(clip, tokenizer_for(24), NAMES, TEMPLATES)
    by_hand = []
    for name in NAMES:
        tokens = open_clip.SimpleTokenizer()([template.replace("{}", name) for template in TEMPLATES], 24)
        with torch.no_grad():
            vectors = clip.encode_text(tokens)
        mean = (vectors / vectors.norm(dim=1, keepdim=True)).mean(0)
        by_hand.append(mean / mean.norm())
    assert head.shape == (4, 8) and head.dtype == torch.float32 and not head.is_inference()
    assert torch.allclose(head, torch.stack(by_hand), atol=1e-6)


def test_the_head_is_open_clip_s(monkeypatch):
    clip, names = fresh(SMALL), [name for name in NAMES if "{" not in name]
    theirs = open_clip.build_zero_shot_classifier(clip, tokenizer_for(24), names, imagenet_templates(), None).T
    assert torch.allclose(zero_shot_head(clip, tokenizer_for(24), names, imagenet_templates()), theirs, atol=1e-6)
    many = tuple(f"{n} {{}}" for n in range(300))  # more templates than texts of one pass
    theirs = open_clip.build_zero_shot_classifier(clip, tokenizer_for(24), names, many, None).T
    assert torch.allclose(zero_shot_head(clip, tokenizer_for(24), names, many), theirs, atol=1e-6)


def test_the_templates_are_the_80_of_open_clip():
    assert len(imagenet_templates()) == 80 and imagenet_templates()[0] == "a bad photo of a {}."


def test_an_exported_clip_is_evaluated_as_a_classifier(model, texts, dataset, tmp_path):
    out = tmp_path / "results"
    main(["--model", str(model), "--data", str(dataset), "--out", str(out), "--torch-threads", "1"])
    classifier, identity = load_model(model)
    cells = read_cells(out)
    assert {cell.metric for cell in cells} == {"accuracy", "ece", "accuracy_fgsm", "r_adv"}
    assert {cell.weights_sha256 for cell in cells} == {identity}
    # By hand: plain open_clip on every image, its scale times the cosines.
    plain, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{model}")
    plain.eval()
    head = open_clip.build_zero_shot_classifier(
        plain, open_clip.get_tokenizer(f"local-dir:{model}"), texts.class_names, TEMPLATES
    )
    test_set = TestSet(dataset)
    pixels = torch.from_numpy(np.stack([test_set[i].pixels for i in range(len(test_set))])).permute(0, 3, 1, 2) / 255
    mean, std = (getattr(classifier, name) for name in ("mean", "std"))
    with torch.no_grad():
        expected = plain.logit_scale.exp() * plain.encode_image((pixels - mean) / std, normalize=True) @ head
    labels = torch.tensor([sample.label for sample in ShardFolder(dataset).sequential()])
    accuracy = next(cell for cell in cells if cell.metric == "accuracy")
    assert accuracy.value == pytest.approx(float((expected.argmax(1) == labels).float().mean()))
    stored = [load_file(out / "logits" / f"{name}.safetensors")["logits"] for name in accuracy.logits]
    assert np.abs(stored[0] - expected.numpy()).max() < 1e-4


def test_attacks_take_gradients_through_a_head_made_in_inference(model):
    classifier, _ = load_model(model)
    classifier.requires_grad_(False)
    pixels = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        classifier(pixels)
    assert not torch.equal(fgsm(classifier, pixels, torch.arange(4), 1 / 255), pixels)


def test_other_texts_are_other_results_of_the_same_weights(model, texts, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    write_zero_shot(other, ZeroShotTexts(texts.class_ids, texts.class_names, ("{}",)))
    assert load_model(other)[1] != load_model(model)[1]
    assert not torch.equal(load_model(other)[0].head, load_model(model)[0].head)


def test_a_run_s_export_is_the_model(model, tmp_path):
    shutil.copytree(model, tmp_path / "run" / "export")
    assert find_model(tmp_path / "run") == tmp_path / "run" / "export"


def test_a_clip_without_classes_is_refused_with_what_to_give(tmp_path, dataset):
    folder = export(tmp_path / "m")
    with pytest.raises(InputError, match=r"without zero_shot.json.*give class_ids, class_names and templates"):
        main(["--model", str(folder), "--data", str(dataset), "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


def test_classes_of_another_set_are_refused(tmp_path, dataset):
    folder = export(tmp_path / "m", zero_shot=ZeroShotTexts(("a", "b"), ("a", "b"), TEMPLATES))
    with pytest.raises(InputError, match="has 2 classes"):
        main(["--model", str(folder), "--data", str(dataset), "--out", str(tmp_path / "x")])


def test_texts_are_read_back_and_a_flipped_bit_is_noticed(model, texts, tmp_path):
    assert read_zero_shot(model) == texts
    folder = shutil.copytree(model, tmp_path / "m")
    path = folder / "zero_shot.json"
    path.write_text(path.read_text().replace("digit", "dagit", 1))
    with pytest.raises(VerificationError, match="differs from its own checksum"):
        read_zero_shot(folder)


@pytest.mark.parametrize(
    "value, message",
    [
        ([], "names no classes"),
        ({"class_ids": ["a"], "class_names": ["a"]}, "templates"),
        ({"class_ids": ["a"], "class_names": ["a", "b"], "templates": ["{}"]}, "1 ids and 2 names"),
        ({"class_ids": [], "class_names": [], "templates": ["{}"]}, "at least one class"),
        ({"class_ids": ["a", "a"], "class_names": ["a", "b"], "templates": ["{}"]}, "appears twice"),
        ({"class_ids": ["a"], "class_names": ["a"], "templates": ["x"]}, "has 0 slots"),
        ({"class_ids": ["a"], "class_names": ["a"], "templates": ["{} {}"]}, "has 2 slots"),
        ({"class_ids": [1], "class_names": ["a"], "templates": ["{}"]}, "class_ids.0"),
    ],
)
def test_texts_that_make_no_head_are_refused(tmp_path, value, message):
    (tmp_path / "zero_shot.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        read_zero_shot(tmp_path)
    (tmp_path / "zero_shot.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_zero_shot(tmp_path)


def test_a_written_file_needs_no_checksum(tmp_path):
    value = {"class_ids": ["a"], "class_names": ["an a"], "templates": ["{}"]}
    (tmp_path / "zero_shot.json").write_text(json.dumps(value))
    assert read_zero_shot(tmp_path) == ZeroShotTexts(("a",), ("an a",), ("{}",))


def test_two_models_with_the_same_classes_in_another_order_are_not_compared(model, texts, dataset, tmp_path):
    turned = ZeroShotTexts(texts.class_ids[::-1], texts.class_names[::-1], texts.templates)
    folder = shutil.copytree(model, tmp_path / "turned")
    write_zero_shot(folder, turned)
    with pytest.raises(InputError, match="has the classes of .* in another order; number 0 is '9' and '0'"):
        main(["--model", str(model), str(folder), "--data", str(dataset), "--out", str(tmp_path / "results")])

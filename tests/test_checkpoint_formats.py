"""Published checkpoints: each format's file of random weights gives the logits that other libraries compute of it."""

import json
from dataclasses import replace

import pytest
import torch
from published import CASES, CLIPS, Case, random_tensors

from synclones.models import checkpoint_format
from synclones.models.checkpoint_format import formats
from synclones.models.imagenet import imagenet_ids
from synclones.models.open_model import open_models
from synclones.models.tokenizer import tokenizer_for

TEXTS = {
    "class_ids": ["a", "b", "c"],
    "class_names": ["cat", "red panda", "sea"],
    "templates": ["a photo of a {}.", "{} in the snow"],
}
TOLERANCE = 1e-5


def stem(case: Case) -> str:
    return case.module.__name__.rpartition(".")[2]


@pytest.fixture
def only(monkeypatch):
    """Let a format know one more size, which no author published."""

    def know(case: Case, size) -> None:
        form = replace(case.module.FORMAT, variants=(case.variant(size),))
        monkeypatch.setattr(checkpoint_format, "formats", lambda: formats() | {stem(case): form})

    return know


def opened(case: Case, size, folder, extra=()):
    """What the door makes of the file as its authors write it, with the weights in it."""
    tensors = random_tensors(case.variant(size).table)
    path = folder / "checkpoint.pth"
    torch.save(case.file(tensors, size), path)
    return open_models("+".join([str(path), *map(str, extra)]))[0], tensors


def agree(case: Case, size, folder) -> None:
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    head = case.head(size) if case.head else None
    if head is not None:
        torch.save(head, folder / "head.pth")
    model, tensors = opened(case, size, folder, [folder / "head.pth"] if head else [])
    prepared = model.classifier.preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (prepared.mean, prepared.std))
    with torch.inference_mode():
        logits = model.classifier(pixels)
        reference = case.reference(tensors, size) if head is None else case.with_head(tensors, size, head)
        expected = reference((pixels - mean) / std)
    assert logits.shape == (2, 1000) and 0.1 < expected.std() < 20
    assert (logits - expected).abs().max() < TOLERANCE * max(1, expected.abs().max())
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "images make no difference to the reference"
    assert model.classifier.class_ids == imagenet_ids() and not model.classifier.training


def agree_clip(case: Case, sizes, folder) -> None:
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    model, tensors = opened(case, sizes, folder, [folder / "texts.json"])
    prepared, pixels = (
        model.classifier.preprocessing,
        torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)),
    )
    pixels = torch.stack([pixels[0] * 0.2, pixels[1] * 0.3 + 0.7])  # by night and by day: of mere noise all look alike
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (prepared.mean, prepared.std))
    sentences = [[t.replace("{}", name) for t in TEXTS["templates"]] for name in TEXTS["class_names"]]
    tokens = torch.stack([tokenizer_for(77)(group) for group in sentences])
    with torch.inference_mode():
        logits = model.classifier(pixels)
        expected = case.reference(tensors, sizes)((pixels - mean) / std, tokens)
    assert logits.shape == (2, 3) and model.classifier.class_ids == ("a", "b", "c")
    assert (logits - expected).abs().max() < TOLERANCE * max(1, expected.abs().max())
    assert expected.std() > 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_small_network_of_the_format_gives_the_reference_logits(case, only, tmp_path):
    only(case, case.small)
    agree(case, case.small, tmp_path)


@pytest.mark.parametrize("case", CLIPS, ids=lambda case: case.name)
def test_a_small_pair_of_towers_gives_the_reference_logits(case, only, tmp_path):
    only(case, case.small)
    agree_clip(case, case.small, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.full], ids=lambda case: case.name)
def test_the_published_network_gives_the_reference_logits(case, tmp_path):
    agree(case, case.full, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CLIPS, ids=lambda case: case.name)
def test_the_published_towers_give_the_reference_logits(case, tmp_path):
    agree_clip(case, case.full, tmp_path)

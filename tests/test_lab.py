"""The lab: fixed splits of real digits, pictures that show what captions say, a generator that can be trained again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import GENERATOR, ROOT, run_command

from synclones.lab.architecture import load_tokenizer
from synclones.lab.attributes import ATTRIBUTES, caption, read_attribute
from synclones.lab.captions import draw_caption, look_of
from synclones.lab.digits import DIGIT_NAMES, SPLIT_OF_REMAINDER, load_split
from synclones.lab.render import EFFECTS, Look, render
from synclones.prompts.recipes.clip_templates import templates


def test_the_splits_are_disjoint_whole_and_balanced():
    splits = {name: load_split(name) for name in SPLIT_OF_REMAINDER}
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "generator-train": 720,
        "classifier-train": 540,
        "test": 537,
    }
    everything = [digit.tobytes() for strokes, _ in splits.values() for digit in strokes]
    assert len(everything) == 1797
    seen = {digit.tobytes() for digit in splits["generator-train"][0]}
    assert not any(digit.tobytes() in seen for digit in splits["test"][0])
    with pytest.raises(ValueError, match="'train' is unknown"):
        load_split("train")


def test_a_picture_is_a_function_of_digit_look_and_generator():
    strokes, _ = load_split("test")
    looks = [Look(effect=effect) for effect in EFFECTS]
    first, second = (render(strokes[: len(looks)], looks, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (len(looks), 3, 32, 32)
    assert first.min() >= 0 and first.max() <= 1
    with pytest.raises(ValueError, match="effect 'sparkling' cannot be rendered"):
        Look(effect="sparkling")


def test_every_attribute_can_be_read_off_rendered_pictures():
    """The statistics themselves: on real digits they separate each attribute from the plain look."""
    strokes, _ = load_split("test")
    half = len(strokes) // 2
    for name, look in ATTRIBUTES.items():
        with_it, plain = (render(strokes, [x] * len(strokes), np.random.default_rng(1)) for x in (look, Look()))
        values, threshold = read_attribute(name, with_it[half:], with_it[:half], plain[:half])
        others, _ = read_attribute(name, plain[half:], with_it[:half], plain[:half])
        assert (values > threshold).float().mean() > 0.9, name
        assert (others <= threshold).float().mean() > 0.9, name


def test_captions_ask_for_the_look_that_is_drawn():
    assert look_of("a blurry photo of the red three.") == Look(effect="blurry", colour="red")
    assert look_of("three, digit inside temple") == Look(place="temple")
    assert look_of("itap of my nine.") == Look()
    for name, look in ATTRIBUTES.items():
        assert look_of(caption(name, "four")) == look
    rng = np.random.default_rng(0)
    drawn = [draw_caption(3, rng) for _ in range(300)]
    assert all("three" in text for text, _ in drawn) and len({text for text, _ in drawn}) > 100


def test_each_word_of_the_captions_is_one_token():
    tokenizer = load_tokenizer()
    words = {word for t in templates() for word in t.replace("{}", "").replace(".", "").replace("-", " ").split()}
    assert [w for w in {*words, *DIGIT_NAMES, "temple", "inside"} if len(tokenizer.tokenize(w)) != 1] == []
    assert tokenizer("straße 42 \u00e9").input_ids[-1] == tokenizer.eos_token_id


def test_the_generator_is_small_and_safe():
    weights = list(GENERATOR.rglob("*.safetensors"))
    assert len(weights) == 3 and sum(path.stat().st_size for path in weights) <= 6_000_000
    assert not [path for path in GENERATOR.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py")]


TRAINING = ("--vae-steps", "6", "--diffusion-steps", "6", "--decoder-steps", "4", "--checkpoint-every", "2")
TINY = (*TRAINING, "--vae-batch", "4", "--diffusion-batch", "4")


def _weights(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_killed_anywhere_gives_the_weights_of_an_uninterrupted_one(tmp_path, kills):
    script = [sys.executable, str(ROOT / "lab" / "train_generator.py"), *TINY]
    whole = run_command(*script, "--out", "whole/model", "--work", "whole/work", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = [*script, "--out", "killed/model", "--work", "killed/work"]
    for _ in range(kills):
        before = _newest(tmp_path / "killed" / "work")
        process = subprocess.Popen(killed, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while _newest(tmp_path / "killed" / "work") == before and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _newest(tmp_path / "killed" / "work") > 0, "it must have got as far as a checkpoint"
    assert run_command(*killed, cwd=tmp_path).returncode == 0
    assert _weights(tmp_path / "killed" / "model") == _weights(tmp_path / "whole" / "model")


def _newest(folder) -> float:
    return max((path.stat().st_mtime for path in folder.glob("*.safetensors")), default=0.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a CPU without 16-bit instructions draws its 5,500 images in seven minutes
def test_the_generator_does_what_its_card_says(tmp_path):
    out = tmp_path / "quality.json"
    script = (sys.executable, str(ROOT / "lab" / "measure_generator.py"), "--model", str(GENERATOR), "--out", str(out))
    done = run_command(*script, cwd=tmp_path, timeout_s=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(out.read_text())
    assert figures["recognised_as_prompted"] >= 0.95
    assert figures["spread_over_real"] >= 0.7
    # Not memorised: what is drawn lies no nearer to the digits seen in training than real digits never seen do.
    for drawn in ("nearest_seen_digit", "nearest_seen_digit_unguided"):
        assert figures[drawn][2] >= figures["nearest_seen_digit_of_real_test"][1]
    for name in ATTRIBUTES:
        row = figures["attributes"][name]
        assert row["recovered"] >= 0.9 and row["plain_rejected"] >= 0.9 and row["sd_from_plain"] >= 2, (name, row)
    card = (GENERATOR / "README.md").read_text()
    assert f"{figures['recognised_as_prompted']:.1%}" in card, "the card quotes another figure; measure it again"
    assert os.path.exists(GENERATOR / "quality.json")

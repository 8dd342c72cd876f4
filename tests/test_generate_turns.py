"""The workers of one GPU: one draws while the other encodes and writes; tried on the CPU with the same lock."""

import threading

import numpy as np
import pytest
import torch
from conftest import QUICK, identity

import synclones.generate.batch as batch
import synclones.generate.workers as draw
from synclones.generate.run import main
from synclones.generate.sampling.pixels import _round, round_images, to_host
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.settings import GenerateConfig, num_workers


def test_a_gpu_gets_two_workers_that_take_turns():
    assert num_workers(GenerateConfig(), "cuda:0") == 2
    assert num_workers(GenerateConfig(workers=3), "cuda:0") == 3
    turn = draw._gpu_lock("cuda:0")
    assert turn.acquire(blocking=False) and not turn.acquire(blocking=False)
    with draw._gpu_lock("cpu"), draw._gpu_lock("cpu"):
        pass


@pytest.fixture
def watched(monkeypatch):
    """Counts who draws at once, and whether anybody draws while another worker's first picture is encoded."""
    seen = {"most": 0, "now": 0, "meanwhile": None}
    real_draw, real_store, encoding, drawing = (
        Sampler._draw_once,
        batch._to_sample,
        threading.Event(),
        threading.Event(),
    )
    counting = threading.Lock()

    def draw_once(self, *args):
        with counting:
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
        if encoding.is_set():
            drawing.set()
        try:
            return real_draw(self, *args)
        finally:
            with counting:
                seen["now"] -= 1

    def to_sample(*args):
        with counting:
            first = not encoding.is_set()
            encoding.set()
        if first:
            seen["meanwhile"] = drawing.wait(2)
        return real_store(*args)

    monkeypatch.setattr(Sampler, "_draw_once", draw_once)
    monkeypatch.setattr(batch, "_to_sample", to_sample)
    return seen


def test_one_worker_draws_while_the_other_encodes_and_the_bytes_stay(prompts, dataset, tmp_path, monkeypatch, watched):
    monkeypatch.setattr(draw, "_gpu_lock", lambda device: threading.Lock())
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--workers", "2"])
    assert watched["most"] == 1, "two drew at once"
    assert watched["meanwhile"] is True
    assert identity(tmp_path / "x") == identity(dataset)


def test_a_single_worker_draws_nothing_meanwhile(prompts, tmp_path, watched):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--num-images", "20", "--workers", "1"])
    assert watched["meanwhile"] is False


def test_pictures_rounded_at_once_are_those_rounded_one_by_one():
    torch.manual_seed(0)
    pixels = torch.randn(7, 3, 16, 16) * 2
    pixels[2, 0, 3, 3], pixels[3, 1, 0, 0], pixels[4] = float("nan"), float("inf"), 0.25
    pixels[5] = 1.0
    at_once, ranges = _round(pixels, 127.5, 127.5)
    images, reasons = to_host([(at_once.to(torch.uint8), ranges)])
    parts = [round_images(part, 127.5, 127.5, 16) for part in pixels.split(3)]
    apart, found = to_host(parts)
    assert (images == apart).all() and reasons == found
    assert found == ["", "", "not finite", "not finite", "blank picture", "blank picture", ""]
    expected = ((pixels[0].double() * 127.5 + 127.5).clamp(0, 255).permute(1, 2, 0).numpy()).round()
    assert np.abs(images[0] - expected).max() <= 1 and (images[5] == 255).all()

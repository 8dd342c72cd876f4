"""Attention kernels and compiled networks: the same pictures but for rounding, recorded in the plan."""

import numpy as np
import pytest
from conftest import QUICK

from synclones.base.errors import InputError
from synclones.generate.generators.kernels import check_speed
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image


def _draw(prompts, out, *more):
    main(["--prompts", str(prompts), "--out", str(out), *QUICK, "--num-images", "5", "--dtype", "float32", *more])
    return np.stack([decode_image(ShardFolder(out).get(index).jpg) for index in range(5)]).astype(float)


@pytest.fixture(autouse=True)
def _all_kernels_again():
    yield
    import torch

    for kernel in ("math", "mem_efficient", "flash", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(True)


def test_an_attention_kernel_is_used_and_recorded(prompts, tmp_path, monkeypatch):
    import torch

    used, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watched(*args, **more):
        used.append((torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))
        return attend(*args, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    plain = _draw(prompts, tmp_path / "auto")
    assert set(used) == {(True, True)}
    used.clear()
    chosen = _draw(prompts, tmp_path / "math", "--attention", "math", "--workers", "1")
    assert set(used) == {(True, False)}
    assert np.abs(plain - chosen).mean() < 0.5
    assert read_plan(tmp_path / "math").attention == "math"
    with pytest.raises(InputError, match="attention 'auto' there, 'math' asked"):
        _draw(prompts, tmp_path / "auto", "--attention", "math")


def test_a_kernel_that_is_not_there_is_refused_before_a_model_loads(prompts, tmp_path):
    with pytest.raises(InputError, match="--attention cudnn: needs a GPU"):
        _draw(prompts, tmp_path / "x", "--attention", "cudnn")
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="pip install 'synclones\\[xformers\\]'"):
        check_speed("xformers", "cuda:0")


@pytest.mark.slow
def test_a_compiled_network_draws_the_same_pictures(prompts, tmp_path):
    plain, compiled = (
        _draw(prompts, tmp_path / n, *more) for n, more in (("a", ()), ("b", ("--compile", "--workers", "1")))
    )
    assert np.abs(plain - compiled).mean() < 1
    assert np.abs(np.roll(plain, 1, 0) - compiled).mean() > 5
    assert read_plan(tmp_path / "b").compiled

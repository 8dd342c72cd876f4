"""Step caching: full steps are the plain UNet's to the bit, batches and workers keep to themselves, plans record it."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import GENERATOR, QUICK, identity
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.options import GeneratorOptions
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.denoise import Denoiser
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.step_cache import StepCache
from synclones.shards.read import ShardFolder

PROMPTS, SEEDS, OTHERS = ["a photo of two.", "a two"], [1, 2], ["two", "a photo"]


@pytest.fixture(scope="module", params=["sd float32", "sdxl bfloat16", "lab bfloat16"])
def pipeline(request, tmp_path_factory):
    """The last layer of the lab's network attends, as in the real SD; that of the tiny ones does not, as in SDXL."""
    torch.set_num_threads(1)
    family, dtype = request.param.split()
    made = tmp_path_factory.mktemp("model") / family
    model = GENERATOR if family == "lab" else write_pipeline(made, family)
    return load_pipeline(make_generator(find_model(str(model))), "DDIMScheduler", dtype, "cpu")


@pytest.fixture
def plan(dataset):
    seven = {"num_inference_steps": 7, "guidance_scale": 2.0, "drawn_px": 32, "stored_px": 32}
    return dataclasses.replace(read_plan(dataset), step_cache=3, **seven)


@torch.inference_mode()
def _draw(denoiser, prompts=PROMPTS, seeds=SEEDS):
    return denoiser.draw(prompts, seeds)


class Beside:
    """A `StepCache` that notes which of its answers are those of the plain UNet."""

    def __init__(self, cache, unet):
        self.cache, self.unet, self.alike = cache, unet, []

    def restart(self):
        self.cache.restart()

    def __call__(self, *args, **more):
        answer = self.cache(*args, **more)
        self.alike.append(torch.equal(answer[0], self.unet(*args, **more)[0]))
        return answer


def _full_steps(pipeline, plan):
    denoiser = Denoiser(pipeline, plan)
    denoiser._cache = Beside(denoiser._cache, pipeline.unet)
    _draw(denoiser)
    return [number for number, alike in enumerate(denoiser._cache.alike) if alike]


def test_every_nth_step_is_the_plain_network_and_the_others_are_not(pipeline, plan):
    assert _full_steps(pipeline, plan) == [0, 3, 6]
    assert _full_steps(pipeline, dataclasses.replace(plan, step_cache=2)) == [0, 2, 4, 6]
    assert Denoiser(pipeline, dataclasses.replace(plan, step_cache=1))._cache is None


def test_a_change_of_guidance_is_a_full_step(pipeline, plan):
    switched = dataclasses.replace(plan, guidance_start=1 / 7, guidance_stop=3 / 7)
    assert _full_steps(pipeline, switched) == [0, 1, 3, 6], "guided are 1 and 2; the features of 3 serve until 6"


@pytest.mark.parametrize("side", [16, 15])
@torch.inference_mode()
def test_the_last_layer_with_features_of_its_own_step_is_the_whole_network(pipeline, side):
    unet = pipeline.unet
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 4, side, side, dtype=unet.dtype)
    states = (torch.randn(2, 16, unet.config.cross_attention_dim, dtype=unet.dtype),)
    more = {}
    if unet.config.addition_embed_type:
        pooled, sizes = torch.randn(2, 32, dtype=unet.dtype), torch.full((2, 6), 32, dtype=unet.dtype)
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}

    def ask(network, latents, time):
        return network(latents, torch.tensor(time), *states, return_dict=False, **more)[0]

    cache = StepCache(unet, 9, False)
    assert torch.equal(ask(cache, first, 700), ask(unet, first, 700))
    assert torch.equal(ask(cache, first, 700), ask(unet, first, 700)), "now from kept features"
    later, wanted, old = ask(cache, second, 300), ask(unet, second, 300), ask(unet, first, 700)
    assert not torch.equal(later, wanted) and not torch.equal(later, old), "the step's own latents are seen"
    cache.restart()
    assert torch.equal(ask(cache, second, 300), wanted)
    shared = {weight.data_ptr() for weight in unet.parameters()}
    assert all(w.data_ptr() in shared for part in (cache._deep, cache._last) for w in part.parameters())


def test_a_batch_does_not_depend_on_what_was_drawn_before(pipeline, plan, monkeypatch):
    alone, used = _draw(Denoiser(pipeline, plan)), Denoiser(pipeline, plan)
    _draw(used, OTHERS, [3, 4])
    assert torch.equal(_draw(used), alone)
    monkeypatch.setattr(StepCache, "restart", lambda _: None)  # the naive twin
    _draw(used, OTHERS, [3, 4])
    assert not torch.equal(_draw(used), alone)


def test_workers_that_share_a_network_do_not_meet(pipeline, plan):
    alone = [_draw(Denoiser(pipeline, plan)), _draw(Denoiser(pipeline, plan), OTHERS, [3, 4])]
    unet, plain = pipeline.unet, pipeline.unet.forward
    caches = [Denoiser(pipeline, plan)._cache for _ in range(2)]
    latents = torch.randn(2, 2, 4, 16, 16, dtype=unet.dtype, generator=torch.Generator().manual_seed(0))
    states = torch.zeros(2, 16, unet.config.cross_attention_dim, dtype=unet.dtype)
    more = {}
    if unet.config.addition_embed_type:
        more = {"text_embeds": torch.zeros(2, 32, dtype=unet.dtype), "time_ids": torch.zeros(2, 6, dtype=unet.dtype)}

    @torch.inference_mode()
    def turns(*of):
        """Two workers' calls, one after the other, each with its own latents: first whole, then with what is kept."""
        return torch.stack(
            [ask(x, 500, states, added_cond_kwargs=more)[0] for ask, x in zip(of, [*latents] * 2, strict=True)]
        )

    wanted = turns(*[unet] * 4)
    assert torch.equal(turns(*caches * 2), wanted)
    assert not torch.equal(turns(*caches[:1] * 4), wanted), "the naive twin: one cache for both"
    assert unet.forward == plain and not unet._forward_hooks and len(unet.down_blocks) == 2, "and it is left as it was"
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_draw, Denoiser(pipeline, plan), *batch) for batch in ((PROMPTS, SEEDS), (OTHERS, [3, 4]))]
        assert all(torch.equal(job.result(), drawn) for job, drawn in zip(jobs, alone, strict=True))


def _command(prompts, out, *more):
    main(["--prompts", str(prompts), "--out", str(out), *QUICK[:-1], "4", "--num-images", "40", *more])


def test_the_command_records_it_and_bytes_do_not_depend_on_workers(prompts, tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    _command(prompts, a, "--step-cache", "2", "--workers", "2")
    _command(prompts, b, "--step-cache", "2", "--workers", "1", "--num-images", "20")
    _command(prompts, b, "--step-cache", "2", "--workers", "1", "--extend")
    assert identity(a) == identity(b)
    main(["redraw", str(a), "--index", "7"])
    assert json.loads((a / "plan.json").read_text())["step_cache"] == 2
    assert "| step caching | the whole UNet every 2 steps" in (a / "README.md").read_text()
    with pytest.raises(InputError, match="made by another plan: step_cache 2 there, 3 asked"):
        _command(prompts, a, "--step-cache", "3")
    _command(prompts, tmp_path / "c", "--step-cache", "3", "--dry-run")
    assert "whole UNet every 3 steps" in capsys.readouterr().out
    _command(prompts, tmp_path / "d", "--plan-only", "--step-cache", "1")
    assert "step_cache" not in (tmp_path / "d" / "plan.json").read_text(), "a set without it has the bytes it had"
    assert read_plan(tmp_path / "d").plan_id not in (read_plan(a).plan_id, "")


def test_a_retry_draws_with_it(prompts, tmp_path, monkeypatch):
    real = Sampler._draw_once

    def some_broken(self, prompts, seeds, *more):
        return real(self, prompts, seeds, *more)[0], ["blank picture" if seed % 4 == 0 else "" for seed in seeds]

    monkeypatch.setattr(Sampler, "_draw_once", some_broken)
    flags = ["--step-cache", "2", "--num-images", "20", "--max-attempts"]
    _command(prompts, tmp_path / "v1", *flags, "1")
    main(["--retry", "failed", "--parent", str(tmp_path / "v1"), "--out", str(tmp_path / "v2"), "--max-attempts", "2"])
    _command(prompts, tmp_path / "once", *flags, "3")
    assert read_plan(tmp_path / "v2").step_cache == 2
    pictures = [ShardFolder(tmp_path / name).sequential() for name in ("v1", "v2", "once")]
    before, retried, at_once = ([sample.jpg for sample in samples] for samples in pictures)
    assert retried == at_once and len(before) < len(retried)


def test_it_is_refused_where_it_would_do_nothing_or_harm(prompts, plan, tmp_path):
    def refused(told, *flags, model="lab"):
        with pytest.raises(InputError, match=told):
            main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), "--model", str(model), *flags])
        assert not (tmp_path / "x").exists()

    refused("--step-cache: 3 is above the 2 steps", "--step-cache", "3", "--num-inference-steps", "2")
    refused("--step-cache: 0 was given, expected 1 to", "--step-cache", "0")
    for family, kind in (("flux", "FluxPipeline"), ("lcm", "LatentConsistencyModelPipeline")):
        model = write_pipeline(tmp_path / family, family)
        refused(f"--step-cache: only for .* this is a {kind}", "--step-cache", "2", model=model)
    half = load_pipeline(
        make_generator(find_model(str(write_pipeline(tmp_path / "xl", "sdxl")))), "DDIMScheduler", "float16", "cpu"
    )
    with pytest.raises(InputError, match="--step-cache: this model's steps are not ours"):
        Sampler(half, plan)


@pytest.mark.slow
def test_compiled_parts_draw_the_same_but_for_rounding(plan):
    model = make_generator(find_model(str(GENERATOR)), GeneratorOptions(token_merging=0.5))
    pipeline = load_pipeline(model, "DDIMScheduler", "float32", "cpu")
    plain = _draw(Denoiser(pipeline, plan))
    compiled = _draw(Denoiser(pipeline, dataclasses.replace(plan, compiled=True)))
    assert (plain - compiled).abs().max() < 1e-3 * plain.abs().max()
    assert (plain - compiled.roll(1, 0)).abs().max() > 1e-1 * plain.abs().max()

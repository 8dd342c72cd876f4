"""Token merging: exact for tokens that are equal, as many fewer as promised, each picture by itself, on the record."""

import dataclasses
import json

import pytest
import torch
from conftest import GENERATOR, identity
from test_step_cache import PROMPTS, SEEDS, _command
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.generators.token_merging import MergedAttention, assign, merge, num_merged, unmerge
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.denoise import Denoiser
from synclones.generate.settings import GenerateConfig
from synclones.shards.read import ShardFolder


def _alike_in_cells(side=8, width=16, count=3):
    """Every 2x2 tokens are equal, in whole numbers, so that means are exact."""
    cells = torch.randint(-9, 10, (count, side // 2, side // 2, width), generator=torch.Generator().manual_seed(0))
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2).float()


def _random(side=8, width=16, count=3):
    return torch.randn(count, side * side, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_merging_and_its_reverse_are_exact_for_equal_tokens(share):
    tokens = _alike_in_cells()
    place = assign(tokens, share)
    merged = merge(tokens, place, share)
    assert merged.shape == (3, 64 - int(64 * share), 16)
    assert torch.equal(unmerge(merged, place), tokens)
    other = _random()
    assert not torch.equal(unmerge(merge(other, place, share), place), other), "tokens that are not equal lose by it"


@pytest.mark.parametrize("side, share", [(8, 0.5), (8, 0.75), (7, 0.5), (7, 0.75), (5, 0.01)])
def test_every_place_is_taken_by_tokens_that_may_meet(side, share):
    place, total = assign(_random(side), share), side * side
    staying = ((side + 1) // 2) ** 2
    assert num_merged(total, share) == min(int(total * share), total - staying)
    grid = place.view(3, side, side)
    for picture in place:
        assert picture.unique().tolist() == list(range(total - num_merged(total, share)))
        assert (picture.bincount()[staying:] == 1).all(), "only tokens that stay are joined by others"
    upper_left = grid[:, ::2, ::2].flatten(1)
    assert torch.equal(upper_left, torch.arange(staying).expand(3, -1)), "always the same ones stay"


def test_the_most_alike_are_merged_and_with_what_they_are_like():
    tokens = _random()
    tokens[:, 1], tokens[:, 63] = tokens[:, 36] * 2, tokens[:, 0] * 3  # 36 and 0 stay; cosines know no lengths
    place = assign(tokens, 2 / 64)
    assert torch.equal(place[:, 1], place[:, 36]) and torch.equal(place[:, 63], place[:, 0])


def _attention():
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(2)
    return Attention(16, heads=2, dim_head=8).eval()


@torch.inference_mode()
def test_attention_over_merged_tokens_is_attention_when_all_are_repeated_as_often():
    attention, tokens = _attention(), _alike_in_cells()
    exact = attention(tokens)
    torch.testing.assert_close(MergedAttention(attention, 0.75)(tokens), exact, rtol=0, atol=1e-5)
    # With fewer merged, some count once and others four times: as in the paper, keys are not weighted by their number.
    assert (MergedAttention(attention, 0.3)(tokens) - exact).abs().max() > 1e-3
    assert (MergedAttention(attention, 0.75)(_random()) - attention(_random())).abs().max() > 1e-2


@pytest.fixture(scope="module", params=["sd", "sdxl", "lab"])
def model(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("model") / request.param
    return str(GENERATOR if request.param == "lab" else write_pipeline(made, request.param))


def _pipeline(model, share):
    torch.set_num_threads(1)
    config = GenerateConfig(model=model, token_merging=share)
    return load_pipeline(make_generator(find_model(model), config), "DDIMScheduler", "bfloat16", "cpu")


@torch.inference_mode()
def _latents(pipeline, plan, prompts=PROMPTS, seeds=SEEDS):
    return Denoiser(pipeline, plan).draw(prompts, seeds)


@pytest.fixture
def plan(dataset):
    return dataclasses.replace(read_plan(dataset), num_inference_steps=3, guidance_scale=2.0, drawn_px=32)


def test_the_largest_self_attentions_see_as_many_tokens_as_promised(model, plan):
    pipeline, seen = _pipeline(model, 0.5), []
    wrapped = {name for name, part in pipeline.unet.named_modules() if isinstance(part, MergedAttention)}
    for part in pipeline.unet.modules():
        if isinstance(part, MergedAttention):
            part.attention.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    _latents(pipeline, plan)
    index = 0 if model == str(GENERATOR) else 1  # the tiny ones' first block does not attend
    side = plan.drawn_px // pipeline.vae_scale_factor // 2**index
    assert seen and set(seen) == {side**2 // 2}
    assert all(name.startswith((f"down_blocks.{index}.", f"up_blocks.{1 - index}.")) for name in wrapped)
    assert {name.partition(".")[0] for name in wrapped} == {"down_blocks", "up_blocks"}
    assert len(seen) == plan.num_inference_steps * len(wrapped)


def test_pictures_do_not_depend_on_their_companions(model, plan):
    pipeline = _pipeline(model, 0.5)
    first, second = (
        _latents(pipeline, plan, ["a photo of two.", other], [1, seed]) for other, seed in (("a", 7), ("two", 8))
    )
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])
    plain = _latents(_pipeline(model, 0.0), plan)
    assert torch.equal(
        plain, _latents(load_pipeline(make_generator(find_model(model)), "DDIMScheduler", "bfloat16", "cpu"), plan)
    )
    assert not torch.equal(_latents(pipeline, plan), plain)
    cached = _latents(pipeline, dataclasses.replace(plan, step_cache=2))
    assert not torch.equal(cached, _latents(pipeline, plan)), "both shortcuts at once"
    assert torch.equal(cached, _latents(pipeline, dataclasses.replace(plan, step_cache=2)))


def test_the_command_records_it_and_bytes_do_not_depend_on_workers(prompts, tmp_path, capsys):
    a, b, flags = tmp_path / "a", tmp_path / "b", ("--token-merging", "0.5")
    _command(prompts, a, *flags, "--workers", "2")
    _command(prompts, b, *flags, "--workers", "1", "--num-images", "20")
    _command(prompts, b, *flags, "--workers", "1", "--extend")
    assert identity(a) == identity(b)
    main(["redraw", str(a), "--index", "7"])
    assert json.loads((a / "plan.json").read_text())["token_merging"] == 0.5
    assert "| token merging | 50% of the tokens" in (a / "README.md").read_text()
    with pytest.raises(InputError, match=r"made by another plan: token_merging 0.5 there, 0.25 asked"):
        _command(prompts, a, "--token-merging", "0.25")
    _command(prompts, tmp_path / "c", *flags, "--step-cache", "2", "--dry-run")
    printed = capsys.readouterr().out
    assert "whole UNet every 2 steps" in printed and "50% of the tokens" in printed
    _command(prompts, tmp_path / "d", "--num-images", "4")
    assert "token_merging" not in (tmp_path / "d" / "plan.json").read_text(), "a set without it has the bytes it had"
    assert ShardFolder(tmp_path / "d").get(0).jpg != ShardFolder(a).get(0).jpg


def test_it_is_refused_where_there_is_no_unet(prompts, tmp_path):
    def refused(told, share, model="lab"):
        with pytest.raises(InputError, match=told):
            main(
                [
                    "--prompts",
                    str(prompts),
                    "--out",
                    str(tmp_path / "x"),
                    "--model",
                    str(model),
                    "--token-merging",
                    share,
                ]
            )
        assert not (tmp_path / "x").exists()

    refused("--token-merging: 0.8 was given, expected 0 to 0.75", "0.8")
    refused("only for models with a UNet, this is a FluxPipeline", "0.5", write_pipeline(tmp_path / "flux", "flux"))


def test_pipelines_that_draw_by_their_own_loop_merge_too(prompts, tmp_path):
    lcm = ("--model", str(write_pipeline(tmp_path / "lcm", "lcm")), "--size-px", "32", "--num-images", "4")
    _command(prompts, tmp_path / "plain", *lcm)
    _command(prompts, tmp_path / "merged", *lcm, "--token-merging", "0.5")
    assert ShardFolder(tmp_path / "plain").get(0).jpg != ShardFolder(tmp_path / "merged").get(0).jpg

"""Our loop over denoising steps: the latents of diffusers' pipelines, each prompt encoded once."""

import dataclasses

import pytest
import torch
from conftest import GENERATOR
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.denoise import CACHE_BYTES, Denoiser, can_denoise
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators
from synclones.generate.sampling.solvers import step_as_sum
from synclones.shards.read import ShardFolder

SCHEDULERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",  # noise in every step, from each picture's own generator
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",  # two networks a step
    "UniPCMultistepScheduler",
    "LCMScheduler",
)
PROMPTS, SEEDS = ["a photo of two.", "a two", "a photo of two."], [1, 2, 3]


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def folder(request, tmp_path_factory):
    return find_model(str(write_pipeline(tmp_path_factory.mktemp("model") / request.param, request.param)))


@pytest.fixture
def plan(dataset):
    """A plan to vary; the dataset's own is the lab's."""
    return dataclasses.replace(read_plan(dataset), num_inference_steps=7, drawn_px=32, stored_px=32)


def _theirs(pipeline, plan, **more):
    torch.set_num_threads(1)
    return pipeline(
        PROMPTS,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=plan.guidance_scale,
        negative_prompt=[plan.negative_prompt] * 3 if plan.negative_prompt else None,
        height=plan.drawn_px,
        width=plan.drawn_px,
        generator=noise_generators(SEEDS),
        output_type="latent",
        **more,
    ).images


@torch.inference_mode()
def _ours(pipeline, plan):
    torch.set_num_threads(1)
    return Denoiser(pipeline, plan).draw(PROMPTS, SEEDS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("guidance, negative", [(1.0, ""), (2.0, ""), (2.0, "blurry")])
def test_latents_are_those_of_the_pipeline(folder, plan, scheduler, guidance, negative):
    pipeline = load_pipeline(make_generator(folder), scheduler, "float32", "cpu")
    plan = dataclasses.replace(plan, guidance_scale=guidance, negative_prompt=negative)
    assert can_denoise(pipeline)
    if (
        scheduler == "DDIMScheduler"
    ):  # clipping at 1 would hide differences of latents in the hundreds, or show them all
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, clip_sample=False)
    theirs, ours = _theirs(pipeline, plan), _ours(pipeline, plan)
    scale = theirs.abs().max()
    assert (ours - theirs).abs().max() <= 2e-6 * scale, "random weights let latents grow to hundreds"
    assert (ours - theirs.roll(1, 0)).abs().max() > 1e-2 * scale, "another picture is far away"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_the_step_of_ddim_is_one_sum(prediction, spacing):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        clip_sample=False, prediction_type=prediction, timestep_spacing=spacing, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.set_timesteps(9)
    advance = step_as_sum(scheduler)()
    for number, time in enumerate(scheduler.timesteps):
        latents, predicted = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(number))
        expected = scheduler.step(predicted, time, latents).prev_sample
        torch.testing.assert_close(advance(number, predicted, latents), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 9, 20])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_karras_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"timestep_spacing": "trailing"},
    ],
    ids=str,
)
def test_the_step_of_dpm_solver_is_a_sum(prediction, steps, more):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(beta_schedule="scaled_linear", prediction_type=prediction, **more)
    scheduler.set_timesteps(steps)
    begin = step_as_sum(scheduler)
    for batch in range(2):
        scheduler.set_timesteps(steps)  # forgets the batch before
        advance, latents = begin(), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(batch))
        for number, time in enumerate(scheduler.timesteps):
            predicted = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(100 * batch + number))
            expected = scheduler.step(predicted, time, latents).prev_sample
            found = advance(number, predicted, latents)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
            latents = expected


@pytest.mark.parametrize(
    "name, more",
    [
        ("DDIMScheduler", {"clip_sample": True}),
        ("DDIMScheduler", {"clip_sample": False, "thresholding": True}),
        ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
        ("DPMSolverMultistepScheduler", {"thresholding": True}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", {"variance_type": "learned"}),
        ("EulerDiscreteScheduler", {}),
        ("LCMScheduler", {}),
    ],
)
def test_a_sampler_that_does_more_keeps_its_own_step(name, more):
    import diffusers

    scheduler = getattr(diffusers, name)(**more)
    scheduler.set_timesteps(4)
    assert step_as_sum(scheduler) is None


def test_every_prompt_is_encoded_once_and_the_oldest_is_forgotten(folder, plan, monkeypatch):
    pipeline, calls = load_pipeline(make_generator(folder), "DDIMScheduler", "float32", "cpu"), []
    encode = type(pipeline).encode_prompt

    def counted(self, prompt, **more):
        calls.append(prompt[0])
        return encode(self, prompt, **more)

    monkeypatch.setattr(type(pipeline), "encode_prompt", counted)
    denoiser = Denoiser(pipeline, dataclasses.replace(plan, guidance_scale=2.0))
    with torch.inference_mode():
        first = denoiser.draw(PROMPTS, SEEDS)
        again = denoiser.draw(PROMPTS, SEEDS)
        assert sorted(calls) == ["", "a photo of two.", "a two"], "the unguided text too"
        assert torch.equal(first, again)
        monkeypatch.setitem(CACHE_BYTES, "cpu", 1)
        small = Denoiser(pipeline, dataclasses.replace(plan, guidance_scale=2.0))
        assert torch.equal(small.draw(PROMPTS, SEEDS), first), "a cache of one prompt draws the same"
    assert calls.count("a photo of two.") == 3 and len(small.texts._kept) == 1


def test_an_interval_guides_only_its_steps(folder, plan):
    pipeline = load_pipeline(make_generator(folder), "DPMSolverMultistepScheduler", "float32", "cpu")
    guided = dataclasses.replace(plan, guidance_scale=3.0)
    whole, middle, never = (
        _ours(pipeline, dataclasses.replace(guided, guidance_start=start, guidance_stop=stop))
        for start, stop in ((0.0, 1.0), (0.3, 0.7), (0.99, 1.0))
    )
    unguided = _ours(pipeline, dataclasses.replace(plan, guidance_scale=1.0))
    assert torch.equal(never, unguided), "seven steps begin at 0, 1/7, ... 6/7"
    assert not torch.equal(middle, whole) and not torch.equal(middle, unguided)
    # diffusers' own switch: stop guiding after a step
    stopped = _ours(pipeline, dataclasses.replace(guided, guidance_stop=3 / 7))

    def switch_off(pipe, step, time, kept):
        if step == 2:
            pipe._guidance_scale = 1.0
            kept = {name: value.chunk(2)[-1] for name, value in kept.items() if name != "latents"}
        return kept

    names = ["prompt_embeds"] + (["add_text_embeds", "add_time_ids"] if folder.path.name == "sdxl" else [])
    theirs = _theirs(pipeline, guided, callback_on_step_end=switch_off, callback_on_step_end_tensor_inputs=names)
    assert (stopped - theirs).abs().max() <= 2e-6 * theirs.abs().max()


def test_an_interval_is_refused_where_it_would_do_nothing(prompts, tmp_path):
    def refused(*flags, model=str(GENERATOR)):
        with pytest.raises(InputError) as error:
            main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), "--model", model, *flags])
        return str(error.value)

    assert "no effect without guidance" in refused("--guidance-start", "0.5", "--guidance-scale", "1")
    assert "not below --guidance-stop 0.5; no step is guided" in refused(
        "--guidance-start", "0.5", "--guidance-stop", "0.5"
    )
    flux = str(write_pipeline(tmp_path / "flux", "flux"))
    assert "this is a FluxPipeline" in refused("--guidance-stop", "0.5", model=flux)


def test_the_interval_is_part_of_the_plan(prompts, tmp_path):
    flags = ["--prompts", str(prompts), "--model", "lab", "--num-images", "5", "--num-inference-steps", "3"]
    for name, more in (("a", []), ("b", ["--guidance-stop", "0.5"])):
        main([*flags, "--out", str(tmp_path / name), *more])
    assert read_plan(tmp_path / "b").guidance_stop == 0.5
    assert ShardFolder(tmp_path / "a").get(0).jpg != ShardFolder(tmp_path / "b").get(0).jpg


def test_networks_that_take_guidance_as_an_input_are_left_to_their_pipeline(plan, tmp_path):
    pipeline = load_pipeline(
        make_generator(find_model(str(write_pipeline(tmp_path / "lcm", "lcm")))), "LCMScheduler", "float32", "cpu"
    )
    assert not can_denoise(pipeline)
    with pytest.raises(InputError, match="not ours to switch"):
        Sampler(pipeline, dataclasses.replace(plan, guidance_stop=0.5))

"""The tiny autoencoder: what plain diffusers decodes with it, recorded in the plan, refused where it does not fit."""

import json

import diffusers
import numpy as np
import pytest
import torch
from conftest import identity
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators
from synclones.generate.settings import GenerateConfig
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder

QUICK = ("--batch-size", "4", "--images-per-shard", "4", "--num-inference-steps", "2", "--size-px", "32")


def write_tiny_vae(folder, stride=2, channels=4):
    torch.manual_seed(2)
    blocks = stride.bit_length()
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(16,) * blocks,
        decoder_block_out_channels=(16,) * blocks,
        num_encoder_blocks=(1,) * blocks,
        num_decoder_blocks=(1,) * blocks,
        latent_channels=channels,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "taesd")


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3", "lcm", "pixart"])
def model(request, tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("models") / request.param, request.param)


def _draw(model, prompts, out, *more):
    main(["--model", str(model), "--prompts", str(prompts), "--out", str(out), "--num-images", "8", *QUICK, *more])
    return ShardFolder(out)


def test_plain_diffusers_decodes_the_same_with_it(model, tiny, prompts, tmp_path):
    drawn = _draw(model, prompts, tmp_path / "a", "--tiny-vae", str(tiny), "--dtype", "float32")
    config = GenerateConfig(model=str(model), tiny_vae=str(tiny))
    plan = read_plan(tmp_path / "a")
    ours = Sampler(
        load_pipeline(make_generator(find_model(str(model)), config), plan.scheduler, "float32", "cpu"), plan
    )
    plain = diffusers.DiffusionPipeline.from_pretrained(model)
    plain.vae = diffusers.AutoencoderTiny.from_pretrained(tiny)
    plain.set_progress_bar_config(disable=True)
    torch.set_num_threads(1)
    samples = [drawn.get(n) for n in range(4)]
    rows = PromptTable(prompts).rows(0, 4)
    made = np.stack([record.image for record in ours.draw(rows)]).astype(int)
    more = {"clean_caption": False, "use_resolution_binning": False} if model.name == "pixart" else {}
    images = plain(
        [sample.txt for sample in samples],
        generator=noise_generators([sample.seed for sample in samples]),
        num_inference_steps=2,
        guidance_scale=2.0,
        height=32,
        width=32,
        output_type="np",
        **more,
    ).images
    assert np.abs(made - (images * 255).round()).max() <= 1
    own = _draw(model, prompts, tmp_path / "b", "--dtype", "float32")
    assert all(own.get(n).jpg != drawn.get(n).jpg for n in range(8)), "the naive twin: the model's own decoder"


def test_it_is_part_of_the_plan_and_bytes_do_not_depend_on_how_it_is_run(tiny, prompts, tmp_path):
    model = write_pipeline(tmp_path / "sd", "sd")
    flags = ("--tiny-vae", str(tiny))
    _draw(model, prompts, tmp_path / "a", *flags, "--workers", "2")
    for part in ("2/2", "1/2"):
        _draw(model, prompts, tmp_path / "b", *flags, "--workers", "1", "--part", part)
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    main(["redraw", str(tmp_path / "a"), "--index", "5"])
    plan = read_plan(tmp_path / "a")
    assert plan.tiny_vae == "taesd" and len(plan.tiny_vae_sha256) == 64
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert [parent["name"] for parent in manifest["parents"]] == ["prompts", "generator", "tiny_vae"]
    assert "| decoder | `taesd`, sha256" in (tmp_path / "a" / "README.md").read_text()
    with pytest.raises(InputError, match="made by another plan: tiny_vae 'taesd' there, '' asked"):
        _draw(model, prompts, tmp_path / "a")
    assert read_plan(_draw(model, prompts, tmp_path / "c").folder).tiny_vae == "", "off by default"


def test_one_that_does_not_fit_is_refused_before_a_model_loads(tiny, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    model = write_pipeline(tmp_path / "sd", "sd")

    def refused(told, given, model=model):
        with pytest.raises(InputError, match=told):
            _draw(model, prompts, tmp_path / "a", "--tiny-vae", str(given))
        assert not (tmp_path / "a").exists()

    refused(
        "4 channels at a stride of 4 px, those of sd 4 channels at a stride of 2", write_tiny_vae(tmp_path / "x", 4)
    )
    refused("have 16 channels at", write_tiny_vae(tmp_path / "y", channels=16))
    refused("is of class AutoencoderKL, expected an AutoencoderTiny", model / "vae")
    refused("a SanaPipeline has no tiny autoencoder", tiny, write_pipeline(tmp_path / "sana", "sana"))
    refused("config.json is missing", model)
    refused("--tiny-vae: no folder", tmp_path / "none")
    weights = tmp_path / "x" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused("cut short", tmp_path / "x")

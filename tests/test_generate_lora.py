"""LoRAs: what plain diffusers draws with them, in the key styles of the field; one that does not fit is refused."""

import importlib.util
import json

import diffusers
import numpy as np
import pytest
import torch
from conftest import identity
from safetensors.torch import save_file
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
LAYERS = {
    "unet": ("to_q", "to_out.0", "proj_in", "conv1", "time_emb_proj", "conv_shortcut"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
RANK = 3


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request, tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("models") / "sd", "sd")


def _layers(model, style):
    """Random LoRA tensors for layers of unet and text encoder, keyed as peft or as kohya's trainer writes them."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    random = torch.Generator().manual_seed(1)
    tensors = {}
    for part, ends in LAYERS.items():
        for name, module in getattr(pipeline, part).named_modules():
            if not name.endswith(ends):
                continue
            out, into, *kernel = module.weight.shape
            name = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
            down = torch.randn(RANK, into, *kernel, generator=random)
            up = torch.randn(out, RANK, *(1 for _ in kernel), generator=random) * 0.1
            if style == "peft":
                tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
            else:
                stem = ("lora_unet_" if part == "unet" else "lora_te_") + name.replace(".", "_")
                tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
                tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


def write_lora(model, folder, style="peft", name="pytorch_lora_weights.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file(_layers(model, style), folder / name)
    return folder


def _draw(model, prompts, out, *more):
    main(["--model", str(model), "--prompts", str(prompts), "--out", str(out), "--num-images", "8", *QUICK, *more])
    return ShardFolder(out)


@pytest.mark.parametrize("style", ["peft", "kohya"])
def test_plain_diffusers_draws_the_same_with_the_same_lora(model, prompts, tmp_path, style):
    lora = write_lora(model, tmp_path / "lora", style)
    flags = ("--dtype", "float32", "--lora", str(lora), "--lora-scale", "0.7")
    drawn = _draw(model, prompts, tmp_path / "a", *flags)
    config = GenerateConfig(model=str(model), lora=str(lora), lora_scale=0.7)
    plan = read_plan(tmp_path / "a")
    ours = Sampler(
        load_pipeline(make_generator(find_model(str(model)), config), plan.scheduler, "float32", "cpu"), plan
    )
    plain = diffusers.DiffusionPipeline.from_pretrained(model)
    plain.load_lora_weights(lora)
    plain.fuse_lora(lora_scale=0.7)
    plain.set_progress_bar_config(disable=True)
    torch.set_num_threads(1)
    samples = [drawn.get(n) for n in range(4)]
    rows = PromptTable(prompts).rows(0, 4)
    made = np.stack([record.image for record in ours.draw(rows)]).astype(int)
    images = plain(
        [sample.txt for sample in samples],
        generator=noise_generators([sample.seed for sample in samples]),
        num_inference_steps=2,
        guidance_scale=2.0,
        height=32,
        width=32,
        output_type="np",
    ).images
    assert np.abs(made - (images * 255).round()).max() <= 1
    without = _draw(model, prompts, tmp_path / "b", "--dtype", "float32")
    assert all(without.get(n).jpg != drawn.get(n).jpg for n in range(8)), "the naive twin: a LoRA that is passed over"


def test_with_scale_zero_pictures_are_those_of_the_model_alone(model, prompts, tmp_path):
    lora = write_lora(model, tmp_path / "lora")
    zero = _draw(model, prompts, tmp_path / "a", "--lora", str(lora), "--lora-scale", "0")
    alone = _draw(model, prompts, tmp_path / "b")
    assert [s.jpg for s in zero.sequential()] == [s.jpg for s in alone.sequential()]
    plans = read_plan(tmp_path / "a"), read_plan(tmp_path / "b")
    assert [plan.lora for plan in plans] == ["lora:pytorch_lora_weights.safetensors", ""]
    assert "peft" in plans[0].versions and "peft" not in plans[1].versions and plans[0].plan_id != plans[1].plan_id


def test_a_fused_lora_leaves_plain_layers_in_the_layout_that_is_fast(sd, prompts, tmp_path):
    config = GenerateConfig(model=str(sd), lora=str(write_lora(sd, tmp_path / "lora")))
    pipeline = load_pipeline(make_generator(find_model(str(sd)), config), "DDIMScheduler", "bfloat16", "cpu")
    weights = dict(pipeline.unet.named_parameters())
    assert not any(
        "lora" in name for part in (pipeline.unet, pipeline.text_encoder) for name, _ in part.named_modules()
    )
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights.values() if w.ndim == 4)


def test_lora_bytes_do_not_depend_on_how_it_is_run_and_redraw_finds_it(sd, prompts, tmp_path):
    flags = ("--lora", str(write_lora(sd, tmp_path / "lora")))
    _draw(sd, prompts, tmp_path / "a", *flags, "--workers", "2")
    for part in ("2/2", "1/2"):
        _draw(sd, prompts, tmp_path / "b", *flags, "--workers", "1", "--part", part)
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    main(["redraw", str(tmp_path / "a"), "--index", "5"])
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert [p["name"] for p in manifest["parents"]] == ["prompts", "generator", "lora"]
    assert "| LoRA | `lora:pytorch_lora_weights.safetensors` times 1.0" in (tmp_path / "a" / "README.md").read_text()
    write_lora(sd, tmp_path / "lora", "kohya")
    with pytest.raises(InputError, match="made by another plan: lora_sha256"):
        _draw(sd, prompts, tmp_path / "a", *flags)


@pytest.mark.parametrize("preset", ["lcm-lora", "hyper-sd"])
def test_the_presets_of_few_steps_draw_with_their_schedulers(sd, prompts, tmp_path, preset):
    """Their schedulers add noise between steps: each image its own."""
    lora = write_lora(sd, tmp_path / "lora")
    common = (
        "--preset",
        preset,
        "--model",
        str(sd),
        "--prompts",
        str(prompts),
        "--lora",
        str(lora),
        "--num-images",
        "8",
    )
    small = ("--batch-size", "4", "--images-per-shard", "4", "--size-px", "32", "--stored-px", "32")
    main([*common, *small, "--workers", "2", "--out", str(tmp_path / "a")])
    main([*common, *small, "--workers", "1", "--out", str(tmp_path / "b")])
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    plan = read_plan(tmp_path / "a")
    expected = {"lcm-lora": ("LCMScheduler", 4, 1.0), "hyper-sd": ("TCDScheduler", 1, 0.0)}[preset]
    assert (plan.scheduler, plan.num_inference_steps, plan.guidance_scale) == expected
    assert len({sample.jpg for sample in ShardFolder(tmp_path / "a").sequential()}) == 8


def _never(*_):
    pytest.fail("a model was loaded")


@pytest.mark.parametrize("style", ["peft", "kohya"])
def test_a_lora_of_another_model_is_refused_before_a_model_loads(sd, prompts, tmp_path, monkeypatch, style):
    other = write_pipeline(tmp_path / "sdxl", "sdxl")
    lora = write_lora(other, tmp_path / "lora", style)
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", _never)
    with pytest.raises(InputError, match=r"pytorch_lora_weights.safetensors: \d+ of its \d+ layers \(such as unet"):
        _draw(sd, prompts, tmp_path / "a", "--lora", str(lora))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "tensors, told",
    [
        (
            {"unet.mid.lora_A.weight": (3, 8), "unet.mid.lora_B.weight": (8, 3)},
            r"1 of its 1 layers \(such as unet.mid\) have no place in sd",
        ),
        ({"vae.mid.lora_A.weight": (3, 8)}, r"1 of its 1 layers \(such as vae.mid\) have no place"),
        ({"down.processor.to_q_lora.down.weight": (3, 8)}, r"1 of its 1 layers \(such as down.processor"),
        ({"anything": (2,)}, r"1 of its 1 layers \(such as anything"),
        ({}, "0 of its 0 layers have no place"),
        ({"lora_unet_mid.lora_down.weight": (3, 8)}, "its keys are of no known style"),
        ({"lora_unet_mid.dora_scale": (8,)}, "x.safetensors is a DoRA"),
    ],
)
def test_a_lora_that_fits_nothing_is_refused(sd, prompts, tmp_path, monkeypatch, tensors, told):
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", _never)
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=told):
        _draw(sd, prompts, tmp_path / "a", "--lora", str(tmp_path / "x.safetensors"))


def test_one_layer_too_many_is_named(sd, prompts, tmp_path):
    """diffusers would draw on and only log it."""
    tensors = _layers(sd, "peft") | {
        "unet.conv_new.lora_A.weight": torch.ones(3, 8),
        "unet.conv_new.lora_B.weight": torch.ones(8, 3),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="1 of its .* layers .such as unet.conv_new. have no place in sd"):
        _draw(sd, prompts, tmp_path / "a", "--lora", str(tmp_path / "x.safetensors"))


def test_files_are_chosen_by_name_and_pickles_never(sd, prompts, tmp_path):
    folder = write_lora(sd, tmp_path / "lora", name="one.safetensors")
    _draw(sd, prompts, tmp_path / "a", "--lora", str(folder))
    write_lora(sd, folder, "kohya", name="two.safetensors")
    with pytest.raises(InputError, match="no pytorch_lora_weights.safetensors in .*it holds one.safetensors, two"):
        _draw(sd, prompts, tmp_path / "b", "--lora", str(folder))
    _draw(sd, prompts, tmp_path / "b", "--lora", f"{folder}:two.safetensors")
    assert read_plan(tmp_path / "b").lora == "lora:two.safetensors"
    (folder / "two.safetensors").write_bytes((folder / "one.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match="cut short"):
        _draw(sd, prompts, tmp_path / "c", "--lora", f"{folder}:two.safetensors")
    (tmp_path / "old").mkdir()
    torch.save({}, tmp_path / "old" / "pytorch_lora_weights.bin")
    with pytest.raises(InputError, match="pickles are never loaded"):
        _draw(sd, prompts, tmp_path / "c", "--lora", str(tmp_path / "old"))


def test_flags_without_a_use_are_refused(sd, prompts, tmp_path):
    with pytest.raises(InputError, match="--lora-scale: 0.5 was given without --lora"):
        _draw(sd, prompts, tmp_path / "a", "--lora-scale", "0.5")
    with pytest.raises(InputError, match="--lora: a PixArtSigmaPipeline takes none"):
        _draw(write_pipeline(tmp_path / "p", "pixart"), prompts, tmp_path / "a", "--lora", "x/y")
    with pytest.raises(InputError, match="--lora: no folder"):
        _draw(sd, prompts, tmp_path / "a", "--lora", str(tmp_path / "none"))


def test_without_peft_the_extra_to_install_is_named(sd, prompts, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else real(name, *more))
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", _never)
    lora = write_lora(sd, tmp_path / "lora")
    with pytest.raises(InputError, match=r"pip install 'synclones\[lora\]'"):
        _draw(sd, prompts, tmp_path / "a", "--lora", str(lora))

"""Every family of text-to-image models goes through the real entry point, with random weights in the real files."""

import json
import shutil

import numpy as np
import pytest
import simplejpeg
import torch
from conftest import ROOT, identity
from tiny_pipelines import FAMILIES, write_pipeline

from synclones.base.config import load, to_dict
from synclones.base.errors import InputError
from synclones.base.yaml_file import read_yaml
from synclones.generate.generators.families import FAMILIES as RECORDS
from synclones.generate.generators.families import UNKNOWN_LICENCE, licence_note
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import (
    find_model,
)
from synclones.generate.run import main
from synclones.generate.sampling.seeds import noise_generators
from synclones.generate.settings import PRESETS, GenerateConfig, presets
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image

QUICK = ("--batch-size", "4", "--images-per-shard", "4", "--num-inference-steps", "2", "--size-px", "32")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("families") / request.param, request.param)


def _draw(model, prompts, out, *more):
    flags = ("--model", str(model), "--prompts", str(prompts), "--out", str(out), "--num-images", "8", *QUICK, *more)
    main(list(flags))
    return ShardFolder(out)


def test_a_family_draws_the_same_bytes_however_it_is_run(model, prompts, tmp_path):
    drawn = _draw(model, prompts, tmp_path / "a", "--workers", "2")
    _draw(model, prompts, tmp_path / "b", "--workers", "1", "--part", "2/2")
    _draw(model, prompts, tmp_path / "b", "--workers", "1", "--part", "1/2")
    assert drawn.num_samples == 8 and identity(tmp_path / "a") == identity(tmp_path / "b")
    pictures = {sample.jpg for sample in drawn.sequential()}
    assert len(pictures) == 8 and decode_image(next(iter(pictures))).shape == (32, 32, 3)
    main(["redraw", str(tmp_path / "a"), "--index", "5"])


def test_plain_diffusers_redraws_the_pictures_of_a_family(model, prompts, tmp_path):
    found = find_model(str(model))
    kind = json.loads((model / "model_index.json").read_text())["_class_name"]
    led = ("--negative-prompt", "blurry") if RECORDS[kind].negative_prompt else ()
    drawn = _draw(model, prompts, tmp_path / "a", "--dtype", "float32", *led)
    pipeline = load_pipeline(
        make_generator(found), json.loads((tmp_path / "a" / "plan.json").read_text())["scheduler"], "float32", "cpu"
    )
    assert type(pipeline).__name__ == kind
    samples = [drawn.get(index) for index in range(4)]
    more = {"negative_prompt": ["blurry"] * 4} if led else {}
    more |= (
        {"clean_caption": False, "use_resolution_binning": False}
        if kind in ("PixArtSigmaPipeline", "SanaPipeline")
        else {}
    )
    torch.set_num_threads(1)
    images = pipeline(
        [sample.txt for sample in samples],
        num_inference_steps=2,
        guidance_scale=2.0,
        height=32,
        width=32,
        generator=noise_generators([sample.seed for sample in samples]),
        output_type="np",
        **more,
    ).images
    stored = np.stack([decode_image(sample.jpg) for sample in samples]).astype(float)
    again = np.stack([_through_jpeg((image * 255).round().astype(np.uint8)) for image in images]).astype(float)
    error = np.abs(again - stored).mean()
    shifted = np.abs(np.roll(again, 1, axis=0) - stored).mean()
    assert error < 1 and shifted > 5, "another seed and prompt give another picture"


def _through_jpeg(pixels):
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorspace="RGB", colorsubsampling="420")
    return decode_image(data)


def test_a_negative_prompt_that_would_do_nothing_is_refused(model, prompts, tmp_path):
    kind = json.loads((model / "model_index.json").read_text())["_class_name"]
    with pytest.raises(InputError, match="--negative-prompt: no effect without guidance"):
        _draw(model, prompts, tmp_path / "a", "--negative-prompt", "blurry", "--guidance-scale", "1")
    if not RECORDS[kind].negative_prompt:
        with pytest.raises(InputError, match=f"--negative-prompt: a {kind} takes none"):
            _draw(model, prompts, tmp_path / "a", "--negative-prompt", "blurry")
        return
    plain, led = (
        _draw(model, prompts, tmp_path / n, *flags) for n, flags in (("b", ()), ("c", ("--negative-prompt", "x")))
    )
    assert plain.get(3).jpg != led.get(3).jpg, "where it is taken, it changes the picture"


def test_sizes_come_from_the_configurations(model):
    found = find_model(str(model))
    expected = {"flux": (256, 4), "pixart": (16, 4), "sd3": (16, 2)}.get(
        model.name, (16, 8 if (model / "unet").is_dir() else 2)
    )
    assert (found.native_size_px, found.size_step_px) == expected


def test_a_family_without_a_part_it_needs_is_refused(model, prompts, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    index = json.loads((broken / "model_index.json").read_text())
    name = RECORDS[index["_class_name"]].parts[-1]
    (broken / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != name}))
    with pytest.raises(InputError, match=f"has no {name}, which a {index['_class_name']} needs"):
        find_model(str(broken))
    shutil.rmtree(broken / name)
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"the folder {name}/ is missing"):
        find_model(str(broken))


def test_weights_in_several_files_are_checked_one_by_one(prompts, tmp_path):
    model = write_pipeline(tmp_path / "sd", "sd")
    import diffusers

    network = diffusers.UNet2DConditionModel.from_pretrained(model / "unet")
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    network.save_pretrained(model / "unet", max_shard_size="200KB")
    parts = sorted((model / "unet").glob("*-of-*.safetensors"))
    assert len(parts) > 1 and _draw(model, prompts, tmp_path / "a").num_samples == 8
    before = find_model(str(model)).sha256
    data = bytearray(parts[1].read_bytes())
    data[-1] ^= 1
    parts[1].write_bytes(data)
    assert find_model(str(model)).sha256 != before
    parts[1].write_bytes(data[:-10])
    with pytest.raises(InputError, match="cut short"):
        find_model(str(model))


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "generate" / "presets").glob("*.yaml")))
def test_a_preset_is_a_whole_configuration_with_paper_command_cost_and_licence(preset):
    text = (ROOT / "generate" / "presets" / f"{preset}.yaml").read_text()
    config = load(GenerateConfig, ["--preset", preset], "synclones generate", presets=ROOT / "generate" / "presets")
    assert config.model and config.images_per_shard % config.batch_size == 0
    if preset != "lab":
        assert f"--preset {preset} --prompts" in text and "# Cost: " in text and "# Licence of the model: " in text
        assert licence_note(config.model) != UNKNOWN_LICENCE
        (listed,) = [known for known in presets() if known.name == preset]
        assert text.startswith(f"# {listed.summary}\n") and listed.licence == licence_note(config.model)


def test_the_presets_of_the_papers_are_there():
    there = {path.stem for path in (ROOT / "generate" / "presets").glob("*.yaml")}
    wanted = {"scaling-supervised", "scaling-clip", "synclr", "stablerep", "imagenet-sd", "synthclip"}
    assert there == wanted | {"fast", "lcm", "turbo", "sdxl", "unclip", "lcm-lora", "hyper-sd", "lab"}
    guidance = {
        n: load(GenerateConfig, ["--preset", n], "x", presets=ROOT / "generate" / "presets").guidance_scale
        for n in wanted
    }
    assert guidance == {name: 2.0 for name in wanted} | {"scaling-clip": 1.5, "synclr": 2.5}


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_a_preset_repeats_no_default(preset):
    defaults = to_dict(GenerateConfig()) | {"stored_px": 256}  # which 0 means for every model of a preset but the lab's
    given = {key: value.value for key, value in read_yaml(PRESETS / f"{preset}.yaml").items()}
    assert {key: value for key, value in given.items() if value == defaults[key]} == {}

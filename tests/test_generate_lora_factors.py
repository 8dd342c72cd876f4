"""Every layer of a LoRA is added with the factor that its file states, whatever its trainer: alpha over rank, each."""

import json
import math
import re

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import write_pipeline

from synclones.base.errors import InputError
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.lora import find_lora
from synclones.generate.generators.model import find_model
from synclones.generate.settings import GenerateConfig

ENDS = {"unet": ("to_q", "to_v", "to_out.0", "conv1"), "text_encoder": ("q_proj", "fc1", "out_proj")}
RANKS, ALPHAS = (8, 2, 4, 8, 8), (8.0, 2.0, 1.0, 16.0, 8.0, 3.0, 8.0)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request, tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("models") / request.param, request.param)


def _layers(model, parts=tuple(ENDS)):
    """part, module -> (down, up, alpha), with ranks and alphas that differ from layer to layer."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    random, made = torch.Generator().manual_seed(1), {}
    for part in parts:
        for name, module in getattr(pipeline, part).named_modules():
            if name.endswith(ENDS[part]):
                out, into, *kernel = module.weight.shape
                rank, alpha = RANKS[len(made) % len(RANKS)], ALPHAS[len(made) % len(ALPHAS)]
                down = torch.randn(rank, into, *kernel, generator=random)
                up = torch.randn(out, rank, *(1 for _ in kernel), generator=random) * 0.1
                made[part, name] = (down, up, alpha)
    return made


def _by_hand(model, layers, factor):
    """Every weight of the layers with up @ down, times ``factor(alpha, rank)``, added."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    weights = {}
    for (part, name), (down, up, alpha) in layers.items():
        own = getattr(pipeline, part).get_submodule(name).weight.detach()
        added = (up.flatten(1) @ down.flatten(1)).reshape(own.shape)
        weights[part, name] = own + added * factor(alpha, len(down))
    return weights


def _fused(model, given):
    config = GenerateConfig(model=str(model), lora=str(given))
    pipeline = load_pipeline(make_generator(find_model(str(model)), config), "DDIMScheduler", "float32", "cpu")
    return lambda part, name: getattr(pipeline, part).get_submodule(name).weight.detach()


def _assert_fused(model, given, layers, factor=lambda alpha, rank: alpha / rank):
    fused = _fused(model, given)
    for (part, name), weight in _by_hand(model, layers, factor).items():
        torch.testing.assert_close(fused(part, name), weight, msg=lambda text: f"{part}.{name}: {text}")  # noqa: B023


def _kohya(layers, alphas=True):
    tensors = {}
    for (part, name), (down, up, alpha) in layers.items():
        name = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
        stem = ("lora_unet_" if part == "unet" else "lora_te_") + name.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors |= {f"{stem}.alpha": torch.tensor(alpha)} if alphas else {}
    return tensors


def _diffusers(layers):
    tensors = {}
    for (part, name), (down, up, _) in layers.items():
        name = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
        tensors |= {f"{part}.{name}.lora_A.weight": down, f"{part}.{name}.lora_B.weight": up}
    return tensors


def test_ranks_and_alphas_of_a_kohya_file_count_layer_by_layer(model, tmp_path):
    layers = _layers(model)
    save_file(_kohya(layers), tmp_path / "x.safetensors")
    _assert_fused(model, tmp_path / "x.safetensors", layers)


def test_a_layer_without_alpha_counts_once(model, tmp_path):
    layers = _layers(model)
    tensors = _kohya(layers)
    bare = next(key for key in tensors if key.endswith(".alpha"))
    first, (down, up, _) = next(iter(layers.items()))
    del tensors[bare]
    save_file(tensors, tmp_path / "x.safetensors")
    _assert_fused(model, tmp_path / "x.safetensors", layers | {first: (down, up, float(len(down)))})


@pytest.mark.parametrize("style", [_diffusers, lambda layers: _kohya(layers, alphas=False)], ids=["diffusers", "kohya"])
def test_without_alphas_every_layer_counts_once(model, tmp_path, style):
    layers = _layers(model)
    save_file(style(layers), tmp_path / "x.safetensors")
    _assert_fused(model, tmp_path / "x.safetensors", layers, lambda alpha, rank: 1)


def _patterns(layers, part):
    own = {name: (len(down), alpha) for (p, name), (down, _, alpha) in layers.items() if p == part}
    return {
        "r": 8,
        "lora_alpha": 8.0,
        "rank_pattern": {re.escape(name): rank for name, (rank, _) in own.items() if rank != 8},
        "alpha_pattern": {re.escape(name): alpha for name, (_, alpha) in own.items() if alpha != 8.0},
    }


def test_what_diffusers_trainers_state_in_the_header_counts(model, tmp_path):
    layers = _layers(model)
    stated = {f"{part}.{key}": value for part in ENDS for key, value in _patterns(layers, part).items()}
    save_file(_diffusers(layers), tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(stated)})
    _assert_fused(model, tmp_path / "x.safetensors", layers)


@pytest.mark.parametrize("part", list(ENDS))
@pytest.mark.parametrize("rslora", [False, True])
def test_a_folder_of_peft_is_taken_with_its_configuration(model, tmp_path, part, rslora):
    """Written by peft itself, loaded by peft itself, and by us."""
    from peft import LoraConfig, PeftModel, get_peft_model

    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    ends = [end for end in ENDS[part] if "conv" not in end]
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=ends,
        rank_pattern={ends[0]: 2},
        alpha_pattern={ends[0]: 3, ends[1]: 5},
        use_rslora=rslora,
        init_lora_weights=False,
    )
    get_peft_model(getattr(pipeline, part), config).save_pretrained(tmp_path / "peft")
    plain = getattr(diffusers.DiffusionPipeline.from_pretrained(model), part)
    before = {name: module.weight.clone() for name, module in plain.named_modules() if name.endswith(tuple(ends))}
    theirs = PeftModel.from_pretrained(plain, tmp_path / "peft").merge_and_unload()
    fused = _fused(model, tmp_path / "peft")
    assert len(before) >= 2
    for name, unchanged in before.items():
        torch.testing.assert_close(fused(part, name), theirs.get_submodule(name).weight)
        assert not torch.equal(fused(part, name), unchanged)
    by_file = _fused(model, tmp_path / "peft" / "adapter_model.safetensors")
    assert torch.equal(by_file(part, name), fused(part, name))


def _peft(model, folder, **changed):
    """A folder as peft writes it, by hand."""
    layers = _layers(model, ("unet",))
    folder.mkdir()
    tensors = {f"base_model.model.{key.partition('.')[2]}": value for key, value in _diffusers(layers).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "target_modules": [], **_patterns(layers, "unet"), **changed}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return layers


def test_the_configuration_is_part_of_a_peft_loras_identity(model, tmp_path):
    layers = _peft(model, tmp_path / "a")
    _assert_fused(model, tmp_path / "a", layers)
    _peft(model, tmp_path / "b", use_rslora=True)
    _assert_fused(model, tmp_path / "b", layers, lambda alpha, rank: alpha / math.sqrt(rank))
    shas = {
        make_generator(find_model(str(model)), GenerateConfig(model=str(model), lora=str(tmp_path / name))).lora.sha256
        for name in "ab"
    }
    assert len(shas) == 2


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the model's own weights"),
        ({"r": 7}, "has rank 8, its configuration states 7"),
        ({"lora_alpha": "much"}, "'much' as rank or alpha"),
        ({"alpha_pattern": {"(": 2}}, "a pattern that is none"),
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(model, tmp_path, changed, told):
    _peft(model, tmp_path / "a", **changed)
    with pytest.raises(InputError, match=re.escape(told)):
        _fused(model, tmp_path / "a")


def test_a_peft_file_without_its_configuration_is_refused(model, tmp_path):
    _peft(model, tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="adapter_config.json is missing beside it, which states its alpha"):
        _fused(model, tmp_path / "a")


@pytest.mark.parametrize("alpha", [float("nan"), 0.0, float("inf")])
def test_an_alpha_that_is_no_number_is_refused(model, tmp_path, alpha):
    tensors = _kohya(_layers(model, ("unet",)))
    key = next(key for key in tensors if key.endswith(".alpha"))
    save_file(tensors | {key: torch.tensor(alpha)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=f"the alpha of {key.removesuffix('.alpha')} is no number"):
        _fused(model, tmp_path / "x.safetensors")


def test_tensors_that_diffusers_changes_or_passes_over_are_refused(model, tmp_path, monkeypatch):
    layers = _layers(model)
    save_file(_kohya(layers), tmp_path / "x.safetensors")
    kind = getattr(diffusers, json.loads((model / "model_index.json").read_text())["_class_name"])
    load, tensors = kind.load_lora_weights, load_file(tmp_path / "x.safetensors")
    assert len(tensors) > 4
    monkeypatch.setattr(kind, "load_lora_weights", lambda self, state: load(self, {k: v * 2 for k, v in state.items()}))
    with pytest.raises(InputError, match="diffusers loads .* with other weights"):
        _fused(model, tmp_path / "x.safetensors")
    monkeypatch.setattr(kind, "load_lora_weights", lambda self, state: load(self, dict(list(state.items())[:4])))
    with pytest.raises(InputError, match="diffusers passes over"):
        _fused(model, tmp_path / "x.safetensors")


def test_whatever_a_configuration_or_a_header_holds_there_is_a_factor_or_our_own_error(model, tmp_path):
    found, lora = find_model(str(model)), tmp_path / "a"
    _peft(model, lora)
    random = np.random.default_rng(0)
    files = {path: path.read_bytes() for path in sorted(lora.iterdir())}
    refused = 0
    for number in range(120):
        path = list(files)[number % 2]
        data = bytearray(files[path])
        for at in random.integers(0, min(len(data), 2000), random.integers(1, 4)):
            data[at] = random.choice(list(b'{}[]",:0123456789-eNa\x00\xff'))
        path.write_bytes(data)
        try:
            layers = find_lora(str(lora), 1.0, found, found.kind).layers
            assert all(math.isfinite(scale) and scale for scale in layers.scales.values())
        except InputError:
            refused += 1
        path.write_bytes(files[path])
    assert refused > 40

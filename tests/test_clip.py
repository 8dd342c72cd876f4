"""Image-text models: built as open_clip builds them, exported so that it loads them, refused when they are damaged."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from conftest import run_command
from PIL import Image
from safetensors.torch import load_file, save_file

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.models.clip import LAB_CLIP, ClipSpec, build_clip, check_clip, model_config
from synclones.models.clip_folder import export_clip, load_clip
from synclones.models.network import Preprocessing
from synclones.models.tokenizer import VOCABULARY_SIZE, tokenize, tokenizer_identity, vocabulary_sha256

PREPROCESSING = Preprocessing(size_px=32, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TEXTS = ["a photo of a cat.", "", "Ünïcode &amp; <b>", "word " * 60, "7 seven"]
SMALL = replace(LAB_CLIP, embed_dim=24, depth=1, num_heads=2, text_width=16, text_layers=1, joint_dim=8)
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def fresh(spec, seed=0):
    torch.manual_seed(seed)
    return build_clip(spec).eval()


def export(folder, spec=SMALL, card="A model. {hashes}\n", **more):
    export_clip(folder, fresh(spec), spec, PREPROCESSING, card, **more)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return export(tmp_path_factory.mktemp("clips") / "original", card="without hashes")


@pytest.fixture
def model(original, tmp_path):
    return shutil.copytree(original, tmp_path / "m")


# ------------------------------------------------------------------ building


def test_a_seed_gives_the_same_weights_and_another_others():
    first, again, other = fresh(SMALL), fresh(SMALL), fresh(SMALL, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.visual.proj, other.visual.proj)


def test_the_lab_s_towers_have_the_shape_of_their_spec():
    model = fresh(LAB_CLIP)
    assert len(model.visual.transformer.resblocks) == 4 and model.visual.conv1.weight.shape == (96, 3, 8, 8)
    assert model.visual.transformer.resblocks[0].attn.num_heads == 3
    assert model.token_embedding.weight.shape == (49408, 64) and model.positional_embedding.shape == (24, 64)
    assert float(model.logit_scale.exp()) == pytest.approx(1 / 0.07) and model.logit_bias is None


def test_sigmoid_models_begin_with_their_scale_and_bias():
    model = fresh(replace(SMALL, init_logit_scale=float(np.log(10)), init_logit_bias=-10.0))
    assert float(model.logit_scale.exp()) == pytest.approx(10) and float(model.logit_bias) == -10


def test_a_named_model_is_open_clip_s_own_but_for_what_was_asked():
    spec = ClipSpec(model="ViT-S-32", image_size_px=64, context_length=16, quick_gelu=True, patch_dropout=0.5)
    theirs, ours = open_clip.get_model_config("ViT-S-32"), model_config(spec).arguments
    theirs["vision_cfg"] |= {"image_size": 64, "patch_dropout": 0.5}
    theirs["text_cfg"]["context_length"] = 16
    assert ours == theirs | {"quick_gelu": True, "init_logit_scale": spec.init_logit_scale}
    with torch.device("meta"):
        assert isinstance(build_clip(ClipSpec(model="ViT-B-16-quickgelu")), open_clip.CLIP)
        assert isinstance(build_clip(ClipSpec(model="MobileCLIP-B")), open_clip.CustomTextCLIP)


def test_a_check_takes_no_memory_and_no_numbers():
    state = torch.get_rng_state()
    check_clip(ClipSpec(model="ViT-bigG-14"))
    check_clip(replace(LAB_CLIP, depth=4000, text_layers=4000, patch_dropout=0.5))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "spec, message",
    [
        (ClipSpec(), "give patch_size, embed_dim, depth, num_heads, text_width"),
        (ClipSpec(model="ViT-B-61"), "did you mean 'ViT-B-16'"),
        (ClipSpec(model="hf-hub:x/y"), "open_clip has no such model"),
        (ClipSpec(model="ViT-B-16", depth=3), "leave out depth"),
        (ClipSpec(model="ViT-B-16-SigLIP"), "needs the tokenizer 'timm/ViT-B-16-SigLIP'"),
        (ClipSpec(model="roberta-ViT-B-32"), "needs the tokenizer 'roberta-base'"),
        (ClipSpec(model="coca_ViT-B-32"), "CoCa"),
        (ClipSpec(model="ViT-B-16", image_size_px=225), "image_size 225 is no multiple of patch_size 16"),
        (replace(SMALL, patch_size=7), "no multiple of patch_size 7"),
        (replace(SMALL, num_heads=5), "embed_dim 24 is no multiple of num_heads 5"),
        (replace(SMALL, text_heads=3), "text_width 16 is no multiple of text_heads 3"),
        (replace(SMALL, joint_dim=0), "joint_dim is 0, expected 1 to"),
        (replace(SMALL, depth=-1), "depth is -1"),
        (replace(SMALL, context_length=2), "context_length"),
        (replace(SMALL, patch_dropout=1.0), "patch_dropout is 1.0"),
        (replace(SMALL, init_logit_scale=float("inf")), "init_logit_scale is inf"),
        (replace(SMALL, tokenizer="bert"), "needs the tokenizer 'bert'"),
        (replace(SMALL, architecture="resnet10t"), "leave out patch_size"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(spec, message):
    for make in (build_clip, check_clip):
        with pytest.raises(InputError, match=message) as caught:
            make(spec)
        assert "\n" not in str(caught.value)


def timm_tower(architecture, size=32):
    own = dict.fromkeys(("patch_size", "embed_dim", "depth", "num_heads"))
    return replace(SMALL, architecture=architecture, image_size_px=size, **own)


def test_a_timm_tower_is_built_at_the_size_it_can_have():
    assert fresh(timm_tower("resnet10t")).encode_image(torch.zeros(2, 3, 32, 32)).shape == (2, 8)
    with pytest.raises(InputError, match="open_clip builds vit_tiny_patch16_224 for 224 px alone"):
        build_clip(timm_tower("vit_tiny_patch16_224"))
    with pytest.raises(InputError, match="timm has no 'local-dir:x'"):
        build_clip(timm_tower("local-dir:x"))


# ------------------------------------------------------------------ tokens


def test_tokens_are_those_of_open_clip_from_any_thread():
    expected = open_clip.SimpleTokenizer()(TEXTS, 24)
    assert expected.dtype == torch.int64 and torch.equal(tokenize(TEXTS, 24), expected)
    assert tokenize([], 24).shape == (0, 24) and int(expected.max()) == VOCABULARY_SIZE - 1
    words = [f"new{i} words{i * 7}" for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: tokenize(words, 12), range(8)))
    assert all(torch.equal(result, open_clip.SimpleTokenizer()(words, 12)) for result in results)


def test_the_identity_of_the_tokenizer_names_its_vocabulary_and_libraries():
    identity = tokenizer_identity()
    # OpenAI's file, as every copy of it has it.
    assert identity["vocabulary_sha256"] == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    assert set(identity) == {"name", "vocabulary_sha256", "open_clip_torch", "ftfy", "regex"}


def test_half_a_character_is_read_as_the_replacement_character():
    assert torch.equal(tokenize(["a \ud800 b"], 24), tokenize(["a \ufffd b"], 24))


# ------------------------------------------------------------------ folders

IN_ANOTHER_PROCESS = """
import sys, torch, open_clip
from safetensors.torch import save_file
for folder in sys.argv[1:]:
    name = "local-dir:" + folder
    model, preprocess = open_clip.create_model_from_pretrained(name)
    other, _, again = open_clip.create_model_and_transforms(name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    model.eval()
    tokens = open_clip.get_tokenizer(name)(["a photo of a cat.", "a dog"])
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(tokens)
    save_file({"image": image, "text": text, "tokens": tokens}, folder + ".safetensors")
"""


def test_plain_open_clip_loads_exports_with_equal_features_in_a_fresh_process(tmp_path):
    specs = {
        "own": SMALL,
        "sigmoid": replace(SMALL, quick_gelu=True, init_logit_bias=-10.0, patch_dropout=0.5),
        "timm": timm_tower("resnet10t"),
    }
    folders = {kind: export(tmp_path / kind, spec) for kind, spec in specs.items()}
    threads = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = run_command(sys.executable, "-c", IN_ANOTHER_PROCESS, *specs, cwd=tmp_path, **threads)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens = tokenize(["a photo of a cat.", "a dog"], 24)
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    for kind, folder in folders.items():
        theirs = load_file(tmp_path / f"{kind}.safetensors")
        assert torch.equal(theirs["tokens"], tokens)
        for model in (fresh(specs[kind]), load_clip(folder).model):
            with torch.no_grad():
                assert torch.equal(theirs["image"], model.encode_image(pixels)), kind
                assert torch.equal(theirs["text"], model.encode_text(tokens)), kind


def test_a_loaded_model_is_the_one_that_was_exported(model):
    loaded = load_clip(model)
    assert loaded.preprocessing == PREPROCESSING and loaded.context_length == 24 and not loaded.model.training
    assert loaded.weights_sha256 == sha256_file(model / WEIGHTS) and loaded.config_sha256 == sha256_file(model / CONFIG)
    for ours, theirs in zip(loaded.model.parameters(), fresh(SMALL).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_images_are_prepared_as_open_clip_prepares_them(model):
    preprocess = open_clip.create_model_and_transforms(f"local-dir:{model}")[2]
    image = np.random.default_rng(0).integers(0, 256, (90, 71, 3), dtype=np.uint8)
    pixels = torch.from_numpy(load_clip(model).preprocessing.fit(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    assert torch.allclose((pixels - mean) / std, preprocess(Image.fromarray(image)), atol=1e-6)


def test_an_export_is_the_same_bytes_each_time(original, tmp_path):
    export(tmp_path / "again", card="without hashes")
    for name in (CONFIG, WEIGHTS, "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize(
    "wrong", [{"crop_fraction": 0.875}, {"interpolation": "lanczos"}, {"size_px": (32, 48)}, {"size_px": 64}]
)
def test_a_preprocessing_that_open_clip_has_not_is_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(InputError):
        export_clip(tmp_path / "m", fresh(SMALL), SMALL, replace(PREPROCESSING, **wrong), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"model_cfg": None}, "model_cfg"),
        ({"model_cfg__embed_dim": "8"}, "embed_dim"),
        ({"model_cfg__embed_dim": 16}, "do not make a model"),
        ({"model_cfg__cache_dir": "x"}, "cache_dir"),
        ({"model_cfg__multimodal_cfg": {}}, "CoCa"),
        ({"model_cfg__quick_gelu": 1}, "quick_gelu"),
        ({"model_cfg__custom_text": True}, "alone"),
        ({"model_cfg__init_logit_bias": -10}, "logit_bias is in the configuration alone"),
        ({"model_cfg__vision_cfg__layers": 4000}, "4001 blocks, the weights have"),
        ({"model_cfg__vision_cfg__layers": 10**9}, "layers"),
        ({"model_cfg__vision_cfg__width": 60000, "model_cfg__vision_cfg__head_width": 12}, "do not make a model"),
        ({"model_cfg__vision_cfg__head_width": 7}, "no multiple of head_width 7"),
        ({"model_cfg__vision_cfg__image_size": 64}, "preprocess_cfg.size is 32"),
        ({"model_cfg__vision_cfg__timm_model_name": "hf-hub:x/y"}, "timm has no 'hf-hub:x/y'"),
        ({"model_cfg__vision_cfg__timm_model_pretrained": True}, "timm_model_pretrained"),
        ({"model_cfg__text_cfg__hf_tokenizer_name": "x/y"}, "needs the tokenizer 'x/y'"),
        ({"model_cfg__text_cfg__hf_model_name": "x/y"}, "needs the tokenizer 'x/y'"),
        ({"model_cfg__text_cfg__tokenizer_kwargs": {"bpe_path": "x"}}, "tokenizer_kwargs"),
        ({"model_cfg__text_cfg__vocab_size": 10**9}, "vocab_size is 1000000000"),
        ({"model_cfg__text_cfg__context_length": 4000}, "positional_embedding is .24, 16."),
        ({"preprocess_cfg__mean": [0.5]}, "mean"),
        ({"preprocess_cfg__std": [0, 1, 1]}, "std"),
        ({"preprocess_cfg__resize_mode": "squash"}, "resize_mode"),
        ({"preprocess_cfg__interpolation": "random"}, "interpolation"),
        ({"tokenizer__vocabulary_sha256": "0" * 64}, "another vocabulary"),
        ({"tokenizer__name": "other"}, "needs the tokenizer 'other'"),
    ],
)
def test_a_configuration_that_contradicts_itself_or_its_weights_is_refused(model, entries, message):
    value = json.loads((model / CONFIG).read_text())
    for name, entry in entries.items():
        *outer, last = name.split("__")
        target = value
        for part in outer:
            target = target[part]
        target[last] = entry
    (model / CONFIG).write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        load_clip(model)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_cfg": {"embed_dim": NaN}}', "[" * 10**5])
def test_a_configuration_that_is_no_json_object_is_refused(model, text):
    (model / CONFIG).write_text(text)
    with pytest.raises(InputError, match="not the config of an open_clip model"):
        load_clip(model)


def test_other_weights_than_the_model_s_are_refused(model):
    tensors = load_file(model / WEIGHTS)
    for changed, message in (
        ({**tensors, "more": torch.zeros(1)}, "more is in the weights alone"),
        ({k: v for k, v in tensors.items() if k != "ln_final.bias"}, "ln_final.bias is in the configuration alone"),
        ({**tensors, "ln_final.bias": tensors["ln_final.bias"].double()}, "ln_final.bias is torch.float64"),
        ({**tensors, "ln_final.bias": torch.zeros(17)}, "ln_final.bias is .17."),
    ):
        save_file(changed, model / WEIGHTS)
        with pytest.raises(InputError, match=message):
            load_clip(model)
    save_file({k: v.half() for k, v in tensors.items()}, model / WEIGHTS)
    assert load_clip(model).model.ln_final.bias.dtype == torch.float32


def test_weights_that_are_cut_missing_or_pickled_are_refused(model):
    data = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(data[:-10])
    with pytest.raises(InputError, match="cut short"):
        load_clip(model)
    (model / WEIGHTS).unlink()
    (model / "open_clip_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is a pickle"):
        load_clip(model)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_files_are_compared_with_what_the_card_says(tmp_path, name):
    model = export(tmp_path / "m")
    assert load_clip(model).model
    data = bytearray((model / name).read_bytes())
    data[-5] ^= 1
    (model / name).write_bytes(data)
    with pytest.raises(VerificationError, match=rf"{name}: .* README.md says"):
        load_clip(model)


def test_the_vocabulary_is_written_beside_the_model(model):
    assert json.loads((model / CONFIG).read_text())["tokenizer"]["vocabulary_sha256"] == vocabulary_sha256()

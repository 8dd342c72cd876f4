"""Exported classifiers: what their configuration says is checked, and their files are those that are named by hash."""

import json
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_house import ROOT

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import write_manifest
from synclones.models import folder as model_folder
from synclones.models.folder import CONFIG_HASH, export_classifier, load_classifier, stated_hashes
from synclones.models.network import FILTERS, Classifier, Preprocessing, create_network

SHAPE = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
CLASSES = tuple("0123456789")


def export(folder, preprocessing=None, card="card, without hashes", **shape):
    """An untrained classifier on disk."""
    torch.manual_seed(0)
    network = create_network("vit_tiny_patch16_224", 10, 32, SHAPE | shape)
    export_classifier(folder, Classifier(network, preprocessing or Preprocessing(size_px=32), CLASSES), SHAPE, card)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return export(tmp_path_factory.mktemp("models") / "original")


@pytest.fixture
def model(original, tmp_path):
    return shutil.copytree(original, tmp_path / "m")


def change(folder, **entries):
    """Change entries of the configuration; ``a__b`` is entry b of entry a; None removes it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in entries.items():
        *outer, last = name.split("__")
        target = config
        for part in outer:
            target = target[part]
        target[last] = value
    path.write_text(json.dumps(config))


def test_a_loaded_classifier_is_the_one_that_was_exported(model):
    torch.manual_seed(0)
    network = create_network("vit_tiny_patch16_224", 10, 32, SHAPE).eval()
    classifier, digest = load_classifier(model)
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(classifier.network(pixels), network(pixels))
    assert digest == sha256_file(model / "model.safetensors")
    assert classifier.class_ids == CLASSES and classifier.preprocessing == Preprocessing(size_px=32)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"num_classes": 11}, "num_classes is 11, that of model_args is 10"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": 10**9}, "num_classes"),
        ({"num_classes": "10"}, "num_classes"),
        ({"num_classes": 11, "model_args__num_classes": 11}, "that of pretrained_cfg is 10"),
        ({"model_args__num_classes": 11}, "that of model_args is 11"),
        ({"label_names": 7}, "label_names"),
        ({"label_names": list("01234")}, "num_classes is 10, label_names holds 5"),
        ({"label_names": [*"0123456789"] * 2}, "label_names holds 20"),
        ({"label_names": list("0123456788")}, "a name appears twice"),
        ({"label_names": list(range(10))}, "label_names.0"),
        ({"architecture": "local-dir:x"}, "timm has no 'local-dir:x'"),
        ({"architecture": 5}, "architecture"),
        ({"model_args__features_only": True}, "features_only"),
        ({"model_args__device": "meta"}, "device"),
        ({"model_args__pretrained_strict": False}, "pretrained_strict"),
        ({"model_args__checkpoint_path": "x"}, "checkpoint_path"),
        ({"model_args__num_heads": -2}, "num_heads"),
        ({"model_args__num_heads": 5}, "do not make a model"),
        ({"model_args__depth": 4000}, "depth is 4000, the weights reach to"),
        ({"model_args__depth": 10**9}, "depth"),
        ({"model_args__embed_dim": 60000}, "embed_dim is 60000"),
        ({"model_args__embed_dim": 48}, "do not make a model"),
        ({"model_args__img_size": [40, 40]}, "model_args.img_size"),
        ({"model_args__in_chans": 1}, "in_chans"),
        ({"pretrained_cfg__mean": [0.5]}, "mean"),
        ({"pretrained_cfg__mean": [0.5, 0.5, 0.5, 0.5]}, "mean"),
        ({"pretrained_cfg__mean": ["a", "b", "c"]}, "mean"),
        ({"pretrained_cfg__std": [0, 0.5, 0.5]}, "std"),
        ({"pretrained_cfg__crop_pct": 0}, "crop_pct"),
        ({"pretrained_cfg__crop_pct": -1}, "crop_pct"),
        ({"pretrained_cfg__crop_pct": 2}, "crop_pct"),
        ({"pretrained_cfg__crop_pct": "all"}, "crop_pct"),
        ({"pretrained_cfg__crop_mode": "squash"}, "crop_mode"),
        ({"pretrained_cfg__interpolation": "random"}, "interpolation: got 'random'"),
        ({"pretrained_cfg__input_size": [3, 32]}, "input_size"),
        ({"pretrained_cfg__input_size": [3, 64, 64]}, "input_size"),
        ({"pretrained_cfg__input_size": [1, 32, 32]}, "input_size"),
        ({"pretrained_cfg": None}, "pretrained_cfg"),
    ],
)
def test_a_configuration_that_contradicts_itself_or_its_weights_is_refused(model, entries, message):
    change(model, **entries)
    with pytest.raises(InputError, match=message):
        load_classifier(model)


@pytest.mark.parametrize(
    "text", ['{"architecture": NaN}', "[" * 10**5, "\xff", '{"pretrained_cfg": {"mean": [1e999]}}']
)
def test_a_configuration_that_is_no_json_is_refused(model, text):
    (model / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="not the config of a timm model"):
        load_classifier(model)


def test_crop_pct_of_nan_is_refused(model):
    path = model / "config.json"
    path.write_text(path.read_text().replace('"crop_pct": 1.0', '"crop_pct": NaN'))
    with pytest.raises(InputError, match="not the config of a timm model"):
        load_classifier(model)


def test_other_weights_than_the_network_s_are_refused(model):
    path = model / "model.safetensors"
    tensors = load_file(path)
    for changed, message in (
        ({**tensors, "more": torch.zeros(1)}, "more"),
        ({k: v for k, v in tensors.items() if k != "head.bias"}, "head.bias"),
        ({**tensors, "head.bias": tensors["head.bias"].to(torch.int8)}, "head.bias is torch.int8"),
        ({**tensors, "head.bias": tensors["head.bias"].double()}, "head.bias is torch.float64"),
        ({**tensors, "head.weight": torch.zeros(11, 24), "head.bias": torch.zeros(11)}, "head.weight"),
    ):
        save_file(changed, path)
        with pytest.raises(InputError, match=message):
            load_classifier(model)
    save_file({k: v.half() for k, v in tensors.items()}, path)
    assert load_classifier(model)[0].network.head.bias.dtype == torch.float32


# ------------------------------------------------------------------ what is written about it


def flip_a_bit(path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def as_run(folder, **facts):
    write_manifest(folder, "train", {}, [], {}, {}, facts)
    return folder


def test_files_are_compared_with_the_run_s_manifest(tmp_path):
    model = export(tmp_path / "run" / "export")
    digests = {
        "content_hash": sha256_file(model / "model.safetensors"),
        CONFIG_HASH: sha256_file(model / "config.json"),
    }
    run = as_run(tmp_path / "run", **digests)
    assert load_classifier(run)[1] == load_classifier(model)[1] == digests["content_hash"]
    change(model, pretrained_cfg__mean=[0.185, 0.456, 0.406])
    for path in (run, model):
        with pytest.raises(VerificationError, match=r"config.json: its sha256 is \w{16}, manifest.json says"):
            load_classifier(path)
    model = export(tmp_path / "run" / "export")
    flip_a_bit(model / "model.safetensors")
    with pytest.raises(VerificationError, match=r"model.safetensors: its sha256 is \w{16}, manifest.json says"):
        load_classifier(run)
    (run / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not a manifest"):
        load_classifier(run)


def test_an_export_that_went_elsewhere_is_compared_with_its_card(tmp_path):
    model = export(tmp_path / "elsewhere", card="A model. {hashes}\n")
    assert load_classifier(model)[0].class_ids == CLASSES
    change(model, pretrained_cfg__mean=[0.185, 0.456, 0.406])
    with pytest.raises(VerificationError, match=r"config.json: .* README.md says"):
        load_classifier(model)
    model = export(tmp_path / "elsewhere", card="A model. {hashes}\n")
    flip_a_bit(model / "model.safetensors")
    with pytest.raises(VerificationError, match=r"model.safetensors: .* README.md says"):
        load_classifier(model)


def test_a_manifest_of_another_stage_says_nothing_about_a_model(tmp_path):
    export(tmp_path / "x" / "export")
    write_manifest(tmp_path / "x", "generate", {}, [], {}, {}, {"content_hash": "0" * 64})
    assert load_classifier(tmp_path / "x")


def test_runs_of_earlier_versions_say_nothing_about_their_configuration():
    export_of = ROOT / "tests" / "earlier" / "run" / "export"
    assert stated_hashes(export_of)["config.json"] == {}
    assert stated_hashes(export_of)["model.safetensors"] == {
        "manifest.json": sha256_file(export_of / "model.safetensors")
    }
    assert load_classifier(export_of)[0].class_ids == CLASSES


def test_pipes_and_devices_in_place_of_files_end_at_once(model):
    (model / "README.md").unlink()
    os.mkfifo(model / "README.md")
    assert load_classifier(model)
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    with pytest.raises(InputError, match="config.json is missing"):
        load_classifier(model)


def test_a_full_memory_is_the_machine_s_failure_and_not_the_model_s(model, monkeypatch):
    monkeypatch.setattr(model_folder, "as_synclones_error", lambda error: MachineError("out of memory"))
    monkeypatch.setattr(model_folder.timm, "create_model", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("full")))
    with pytest.raises(RuntimeError, match="^full$"):
        load_classifier(model)


# ------------------------------------------------------------------ preprocessing


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32)])
@pytest.mark.parametrize("filter_name", FILTERS)
def test_images_are_resized_as_timm_evaluates(size, filter_name):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    size_px = size[0] if size[0] == size[1] else size
    fitted = Preprocessing(size_px=size_px, crop_fraction=0.8, interpolation=filter_name).fit(pixels)
    transform = timm.data.create_transform((3, *size), interpolation=filter_name, crop_pct=0.8, mean=0.0, std=1.0)
    theirs = (transform(Image.fromarray(pixels)) * 255).round().byte().permute(1, 2, 0).numpy()
    assert fitted.shape == (*size, 3) and np.array_equal(fitted, theirs)
    assert fitted is not pixels and Preprocessing(size_px=(90, 70)).fit(pixels) is pixels


def test_lanczos_and_inputs_that_are_not_square_are_read_back(tmp_path):
    preprocessing = Preprocessing(size_px=(32, 48), crop_fraction=0.9, interpolation="lanczos")
    network = create_network("resnet10t", 10, 32, {})
    export_classifier(tmp_path / "m", Classifier(network, preprocessing, CLASSES), {}, "")
    classifier, _ = load_classifier(tmp_path / "m")
    assert classifier.preprocessing == preprocessing
    with torch.no_grad():
        assert classifier(torch.rand(1, 3, 32, 48)).shape == (1, 10)


def test_a_folder_that_timm_saved_as_a_pickle_says_how_to_save_it(tmp_path):
    network = timm.create_model("test_resnet", num_classes=10)
    timm.models.save_for_hf(network, tmp_path / "timm")
    with pytest.raises(InputError, match=r"pytorch_model.bin: a pickle; .*safe_serialization=True"):
        load_classifier(tmp_path / "timm")

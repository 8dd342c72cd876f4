"""A classifier as an ONNX file answers as torch does, for any number of images; without the extra it is refused."""

import json

import numpy as np
import pytest
import torch
from test_evaluate import _model
from test_evaluate_results import LETTERS

import synclones.train.export.onnx_export as module
from synclones.base.errors import InputError, MachineError
from synclones.models.clip import LAB_CLIP, build_clip
from synclones.models.clip_folder import export_clip
from synclones.models.load import load_model
from synclones.models.network import Preprocessing
from synclones.models.zero_shot import ZeroShotTexts
from synclones.train.run import main


@pytest.fixture
def run(tmp_path):
    _model(tmp_path / "run" / "export", LETTERS)
    return tmp_path / "run"


def _clip(tmp_path):
    torch.manual_seed(0)
    texts = ZeroShotTexts(("0", "1", "2"), ("zero", "one", "two"), ("a {}.", "the {}"))
    prepared = Preprocessing(size_px=LAB_CLIP.image_size_px, interpolation="bicubic")
    export_clip(tmp_path / "clip", build_clip(LAB_CLIP), LAB_CLIP, prepared, "A card. {hashes}", texts)
    return tmp_path / "clip"


@pytest.mark.parametrize("kind", ["classifier", "clip"])
def test_the_file_has_torch_s_answers_classes_and_preparation(run, tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = run if kind == "classifier" else _clip(tmp_path)
    main(["onnx", str(folder), "--out", str(tmp_path / "model.onnx")])
    classifier, sha256 = load_model(folder)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3, 8):
        pixels = torch.rand(count, 3, *(classifier.preprocessing.size_px,) * 2)
        with torch.no_grad():
            expected = classifier(pixels).numpy()
        (logits,) = session.run(None, {"pixels": pixels.numpy()})
        assert logits.dtype == np.float32 and np.abs(logits - expected).max() < 1e-4
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_ids"]) == list(classifier.class_ids) and facts["sha256"] == sha256
    assert json.loads(facts["preprocessing"])["size_px"] == classifier.preprocessing.size_px


def test_a_file_that_answers_otherwise_is_not_written(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(module, "_largest_difference", lambda *_: float("nan"))
    with pytest.raises(MachineError, match="not written, its logits differ from torch's by nan"):
        main(["onnx", str(run), "--out", str(tmp_path / "model.onnx")])
    assert not list(tmp_path.glob("*.onnx*"))


def test_without_the_extra_it_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx is not installed; run: pip install 'synclones\[onnx\]'"):
        main(["onnx", str(run), "--out", str(tmp_path / "model.onnx")])


def test_an_output_that_cannot_be_is_refused_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: True)
    for out, line in ((tmp_path / "none" / "a.onnx", "no folder"), (run, "a folder, where a file is written")):
        with pytest.raises(InputError, match=line):
            main(["onnx", str(tmp_path / "missing"), "--out", str(out)])

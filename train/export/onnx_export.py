"""``synclones train onnx``: a trained classifier as one ONNX file, compared with torch before it has its name.

In: a run, or a model's folder. Out: pixels float32[n, 3, s, s] in 0..1, any n -> logits float32[n, classes]; the
normalisation is inside, classes and preparation of images stand in the metadata. An image-text model is exported as the
zero-shot classifier of the texts that it names.
"""

from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base.errors import InputError, MachineError
from synclones.base.files import refuse_other_kinds, write_atomic
from synclones.base.json_file import canonical_json

if TYPE_CHECKING:  # importing it loads torch
    from synclones.models.network import Classifier

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
MAX_BYTES = 2**31 - 1  # of one protocol buffer
_TRIED = (1, 2, 5)  # images at once


@dataclass(frozen=True, kw_only=True)
class OnnxConfig:
    """Write a trained classifier as an ONNX file, compared with torch's answers first."""

    model: Path = field(kw_only=False)
    """Run, or a model's folder: a timm classifier, or an image-text model that names its classes."""
    out: Path
    """The file, such as model.onnx."""


def write_onnx(config: OnnxConfig) -> str:
    """Write the file and return what was done, in a line.

    Raises:
        InputError: the extra is not installed, no model, or an output that is a folder or has none; nothing is written.
        VerificationError: a file of the model is damaged.
        MachineError: the exported network answers otherwise than torch's, or is too large for one file.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise InputError(f"synclones train onnx: {missing[0]} is not installed; run: pip install 'synclones[onnx]'")
    if not config.out.parent.is_dir():
        raise InputError(f"--out: no folder {str(config.out.parent)!r}; make it, or name another file")
    refuse_other_kinds(config.out.parent, [config.out.name])
    from synclones.models.load import load_model

    classifier, sha256 = load_model(config.model)
    data = _exported(classifier, sha256)
    difference = _largest_difference(classifier, data)
    if not difference <= TOLERANCE:
        raise MachineError(f"{config.out}: not written, its logits differ from torch's by {difference:g}; report this")
    write_atomic(config.out, data)
    return f"{config.out}: {len(classifier.class_ids)} classes, {len(data):,} bytes, logits within {difference:.1g}"


def _exported(classifier: "Classifier", sha256: str) -> bytes:
    """Return the bytes of the file.

    Raises:
        MachineError: they are too many.
    """
    import onnx
    import torch

    pixels = torch.rand(2, 3, *classifier.preprocessing.input_px, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        classifier(pixels)  # texts become a head at the first images
    program = torch.onnx.export(
        classifier,
        (pixels,),
        dynamo=True,
        verbose=False,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    model = program.model_proto
    prepared = canonical_json(asdict(classifier.preprocessing)).decode()
    facts = {"class_ids": canonical_json(list(classifier.class_ids)).decode(), "preprocessing": prepared}
    onnx.helper.set_model_props(model, facts | {"sha256": sha256, "pixels": "RGB in 0..1, normalised inside"})
    if model.ByteSize() > MAX_BYTES:
        raise MachineError(f"{model.ByteSize():,} bytes, at most {MAX_BYTES:,} fit one ONNX file; take a smaller model")
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _largest_difference(classifier: "Classifier", data: bytes) -> float:
    """Return how far logits of the file are from torch's, for several numbers of images."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in _TRIED:
        pixels = torch.rand(
            count, 3, *classifier.preprocessing.input_px, generator=torch.Generator().manual_seed(count)
        )
        with torch.no_grad():
            expected = classifier(pixels)
        (logits,) = session.run(["logits"], {"pixels": pixels.numpy()})
        largest = max(largest, float((torch.from_numpy(logits) - expected).abs().max()))
    return largest

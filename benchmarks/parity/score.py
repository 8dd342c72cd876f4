"""Accuracy on the test images: one function for both sides of a row, from their files, with plain libraries.

In: what ``synclones train`` or a peer's script wrote. Out: points, 0..100.
"""

import io
import json
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
import torch.nn.functional as F
import webdataset
from PIL import Image
from rows import ARCHITECTURE, Settings
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from worlds import SENTENCE, World

FITTED = 10_000  # images on whose features a regression is fitted
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def score(row: str, ours: bool, folder: Path, settings: Settings, world: World) -> float:
    """Return the accuracy that a row compares."""
    with torch.inference_mode():
        return SCORES[row](folder / "export" if ours else folder, ours, settings, world)


def _supervised(folder: Path, ours: bool, settings: Settings, world: World) -> float:
    network = _timm(folder, ours, len(world.classes))
    return _share(_outputs(network, world.test_pixels), world)


def _clip(folder: Path, ours: bool, settings: Settings, world: World) -> float:
    # One description for both: names and shapes of ours must be those that open_clip builds of the peer's.
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"] if ours else _json(folder)
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    model.load_state_dict(load_file(folder / ("open_clip_model.safetensors" if ours else "model.safetensors")))
    tokens = open_clip.SimpleTokenizer(context_length=settings["text_length"])
    texts = model.eval().encode_text(tokens([SENTENCE.format(name) for name in world.classes]), normalize=True)
    images = _outputs(model.visual, world.test_pixels, OPENAI)
    return _share(F.normalize(images, dim=1) @ texts.T, world)


def _multipositive(folder: Path, ours: bool, settings: Settings, world: World) -> float:
    backbone = _timm(folder, ours, 0)
    data = webdataset.WebDataset([str(path) for path in world.shards], shardshuffle=False).to_tuple("jpg", "cls")
    pairs = [(np.asarray(Image.open(io.BytesIO(jpg), formats=("JPEG",))), int(y)) for jpg, y in islice(data, FITTED)]
    train = _outputs(backbone, np.stack([image for image, _ in pairs])).numpy()
    scaler = StandardScaler().fit(train)
    head = LogisticRegression(C=0.1, max_iter=1000, tol=1e-3).fit(scaler.transform(train), [y for _, y in pairs])
    test = _outputs(backbone, world.test_pixels).numpy()
    return 100 * float(head.score(scaler.transform(test), world.test_labels))


def _probe(folder: Path, ours: bool, settings: Settings, world: World) -> float:
    if ours:
        return _share(_outputs(_timm(folder, True, len(world.classes)), world.test_pixels), world)
    head = load_file(folder / "head.safetensors")
    features = _outputs(_timm(Path(settings["weights"]), True, 0), world.test_pixels)
    return _share(features @ head["weight"].T + head["bias"], world)


SCORES = {"supervised": _supervised, "clip": _clip, "multipositive": _multipositive, "probe": _probe}


def _json(folder: Path) -> dict:
    config: dict = json.loads((folder / "model.json").read_text())
    return config


def _timm(folder: Path, ours: bool, outputs: int) -> nn.Module:
    if ours:
        return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=outputs).eval()
    network = timm.create_model(ARCHITECTURE, num_classes=outputs)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()


def _outputs(network: nn.Module, pixels: np.ndarray, stats: tuple = IMAGENET) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in stats)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return torch.cat([network((part.float() / 255 - mean) / std) for part in images.split(500)])


def _share(outputs: Tensor, world: World) -> float:
    return 100 * float((outputs.argmax(1).numpy() == world.test_labels).mean())

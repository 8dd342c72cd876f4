"""The peer of the probe: scikit-learn's logistic regression on features of a frozen network. Knows nothing of ours.

    python peer_probe.py SETTINGS.json OUT

In: a timm folder, shards. Out: ``OUT/head.safetensors``: weight float32[classes, d] and bias of a linear layer. C is
chosen on a held-out share of each class of train, on which nothing is fitted.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import webdataset
from PIL import Image
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def features_of(settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[n, d] and int64[n] of all images of the shards, without augmentation."""
    network = timm.create_model(f"local-dir:{settings['weights']}", pretrained=True, num_classes=0).eval()
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    data = webdataset.WebDataset(settings["shards"], shardshuffle=False).to_tuple("jpg", "cls")
    pairs = [(np.asarray(Image.open(io.BytesIO(jpg), formats=("JPEG",))), int(label)) for jpg, label in data]
    pixels = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        parts = [network((part.float() / 255 - mean) / std) for part in pixels.split(500)]
    return torch.cat(parts).numpy(), np.array([label for _, label in pairs])


def main(settings: dict, out: Path) -> None:
    """Fit and write the head."""
    torch.set_num_threads(1)
    features, labels = features_of(settings)
    scaler = StandardScaler().fit(features)
    split = train_test_split(
        scaler.transform(features), labels, test_size=settings["hold_out"], random_state=0, stratify=labels
    )
    fitted = [LogisticRegression(C=c, max_iter=1000, tol=1e-3).fit(split[0], split[2]) for c in STRENGTHS]
    best = max(fitted, key=lambda head: head.score(split[1], split[3]))
    weight = best.coef_ / scaler.scale_
    out.mkdir(parents=True, exist_ok=True)
    # safetensors 0.8.0 writes an array in Fortran order as if it were in C order, without a word.
    head = {"weight": weight, "bias": best.intercept_ - weight @ scaler.mean_}
    save_file({name: np.ascontiguousarray(x, np.float32) for name, x in head.items()}, out / "head.safetensors")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

"""The peer of multi-positive contrast: StableRep's equation 2 written out, in a plain loop. Knows nothing of ours.

    python peer_multipositive.py SETTINGS.json OUT

In: shards and hyper-parameters. Out: ``OUT/model.safetensors``, the backbone. Of true labels the formula is SupCon's.
"""

import json
import math
import random
import sys
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import webdataset
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loss_of(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of rows float[n, d] of length 1, each against all others."""
    itself = torch.eye(len(features), dtype=torch.bool)
    logits = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    positive = ((labels[:, None] == labels[None]) & ~itself).float()
    target = positive / positive.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1).masked_fill(itself, 0)).sum(1).mean()


def rate(step: int, settings: dict) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine to 0."""
    warm, peak = settings["warmup_steps"], settings["learning_rate"]
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (settings["steps"] - warm)))


def batches(settings: dict):
    """Yield images float[n, views, 3, 32, 32] and labels int64[n], endlessly."""
    crop = [transforms.RandomResizedCrop(32, (settings["crop_scale_min"], 1.0), interpolation=3, antialias=True)]
    flip = [transforms.RandomHorizontalFlip()] if settings["flip"] else []
    transform = transforms.Compose([*crop, *flip, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def several(image) -> Tensor:
        return torch.stack([transform(image) for _ in range(settings["views"])])

    data = webdataset.WebDataset(settings["shards"], shardshuffle=True)
    data = (
        data.shuffle(5000, rng=random.Random(settings["seed"]))
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(several, int)
    )
    while True:
        yield from torch.utils.data.DataLoader(data, settings["batch_size"], num_workers=1, drop_last=True)


def main(settings: dict, out: Path) -> None:
    """Train and write the backbone."""
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    backbone = timm.create_model(settings["architecture"], num_classes=0)
    wide, narrow = settings["projection_hidden"], settings["projection_dim"]
    head = nn.Sequential(
        *(nn.Linear(backbone.num_features, wide), nn.BatchNorm1d(wide), nn.ReLU()),
        *(nn.Linear(wide, wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, narrow)),
    )
    model = nn.ModuleDict({"backbone": backbone, "head": head}).train()
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) is kind], "weight_decay": decay}
        for kind, decay in ((True, settings["weight_decay"]), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, settings["learning_rate"])
    for step, (images, labels) in zip(range(settings["steps"]), batches(settings), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, settings)
        rows = F.normalize(head(backbone(images.flatten(0, 1))), dim=1)
        loss = loss_of(rows, labels.repeat_interleave(settings["views"]), settings["temperature"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimizer.step()
    out.mkdir(parents=True, exist_ok=True)
    save_file(backbone.state_dict(), out / "model.safetensors")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

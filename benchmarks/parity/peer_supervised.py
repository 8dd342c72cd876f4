"""The peer of supervised training: timm's parts, put together in the order of timm's train.py. Knows nothing of ours.

    python peer_supervised.py SETTINGS.json OUT

In: shards and hyper-parameters. Out: ``OUT/model.safetensors``, the averaged weights.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, random_seed
from torch import Tensor
from torch.utils.data import DataLoader


def loader_of(settings: dict) -> DataLoader:
    """Return timm's loader of its WebDataset reader."""
    dataset = create_dataset(
        "wds/parity",
        root=settings["folder"],
        split=settings["split"],
        is_training=True,
        batch_size=settings["batch_size"],
        seed=settings["seed"],
    )
    return create_loader(
        dataset,
        input_size=(3, 32, 32),
        batch_size=settings["batch_size"],
        is_training=True,
        scale=(settings["crop_scale_min"], 1.0),
        hflip=0.5 if settings["flip"] else 0.0,
        color_jitter=None,
        re_prob=settings["erase_probability"],
        re_mode="pixel",
        interpolation="bicubic",
        num_workers=1,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


def batches(settings: dict) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels, epoch after epoch, as often as there are steps."""
    loader, done, epoch = loader_of(settings), 0, 0
    while done < settings["steps"]:
        loader.dataset.set_epoch(epoch)
        for images, labels in loader:
            yield images, labels
            done += 1
            if done == settings["steps"]:
                return
        epoch += 1


def schedule_of(optimizer: torch.optim.Optimizer, settings: dict) -> CosineLRScheduler:
    """Return timm's warm-up and cosine, which step with the updates."""
    return CosineLRScheduler(
        optimizer,
        t_initial=settings["steps"] - settings["warmup_steps"],
        warmup_t=settings["warmup_steps"],
        warmup_lr_init=settings["warmup_from"],
        warmup_prefix=True,
        t_in_epochs=False,
    )


def main(settings: dict, out: Path) -> None:
    """Train and write the average."""
    torch.set_num_threads(1)
    random_seed(settings["seed"])
    model = timm.create_model(settings["architecture"], num_classes=settings["num_classes"])
    decay, rate = settings["weight_decay"], settings["learning_rate"]
    optimizer = create_optimizer_v2(model, "adamw", lr=rate, weight_decay=decay)
    schedule = schedule_of(optimizer, settings)
    mixup = Mixup(
        mixup_alpha=settings["mixup_alpha"],
        cutmix_alpha=settings["cutmix_alpha"],
        switch_prob=settings["mix_switch"],
        label_smoothing=settings["label_smoothing"],
        num_classes=settings["num_classes"],
    )
    average, loss_function = ModelEmaV3(model, decay=settings["ema_decay"]), SoftTargetCrossEntropy()
    model.train()
    for done, (images, labels) in enumerate(batches(settings), start=1):
        mixed, targets = mixup(images, labels)
        loss = loss_function(model(mixed), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimizer.step()
        average.update(model, step=done)
        schedule.step_update(num_updates=done)
    out.mkdir(parents=True, exist_ok=True)
    save_file(average.module.state_dict(), out / "model.safetensors")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

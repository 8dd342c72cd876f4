"""The rows of the parity table: what both sides are given, and how ours is told.

In: a row's name. Out: `Row`, whose ``settings`` are the only place of every hyper-parameter; the peers' scripts read
the same values from a JSON file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARGIN = 0.5
PROBE_MARGIN = 0.3
ARCHITECTURE = "test_resnet"  # timm's smallest residual network with batch normalisation: 0.37 M parameters
OPTIMIZER = {"learning_rate": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0}
# Images are stored at the size of the input; a crop keeps this share of the area at least.
CROPS = {"crop_scale_min": 0.5, "flip": True}

Settings = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    peer: str
    """What the other side is, for the table."""
    script: str
    """The peer's, beside this file."""
    measure: str
    """What is compared, for the table."""
    settings: Settings
    """Of both sides; ``epochs`` by world."""
    ours: Callable[[Settings], list[str]]
    """Settings -> flags of ``synclones train``."""
    margin: float = MARGIN
    after: str = ""
    """Row whose first training of ours this one begins with."""
    peer_seeds: int | None = None
    """How often the peer runs where its seed changes nothing."""

    def for_world(self, world: str, images: int, epochs: int) -> Settings:
        """Return the settings with this world's length, or ``epochs``; digits have no mirror images."""
        epochs = epochs or self.settings["epochs"][world]
        steps = epochs * (images // self.settings["batch_size"])
        settings = self.settings | {"epochs": epochs, "steps": steps, "warmup_steps": steps // 10}
        return settings | ({"flip": False} if world == "lab" and "flip" in settings else {})


def network_flags(settings: Settings) -> list[str]:
    """Return the flags that shape the network and its steps."""
    names = ("architecture", *OPTIMIZER, "crop_scale_min", "batch_size", "steps", "warmup_steps")
    flags = {name: settings[name] for name in names}
    words = ["--image-size-px", "32", "--precision", "fp32"]
    words += ["--flip" if settings["flip"] else "--no-flip"]
    return words + [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _supervised(settings: Settings) -> list[str]:
    words = [*network_flags(settings), "--warmup-from", str(settings["warmup_from"])]
    for name in ("label_smoothing", "mixup_alpha", "cutmix_alpha", "mix_switch", "ema_decay", "erase_probability"):
        words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return words


def _clip(settings: Settings) -> list[str]:
    text = {name: settings[name] for name in ("text_length", "text_width", "text_layers", "text_heads", "joint_dim")}
    words = [*network_flags(settings), "--objective", "clip", "--pixels", "clip", "--beta2", str(settings["beta2"])]
    words += ["--epsilon", str(settings["epsilon"])]
    return words + [word for name, value in text.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _multipositive(settings: Settings) -> list[str]:
    words = [*network_flags(settings), "--objective", "multipositive", "--positives", "label"]
    for name in ("views", "temperature", "projection_hidden", "projection_dim"):
        words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return words


def _probe(settings: Settings) -> list[str]:
    words = ["--objective", "probe", "--architecture", "weights", "--image-size-px", "32", "--precision", "fp32"]
    words += ["--optimizer", "sgd", "--learning-rate", "1", "--weight-decay", "0", "--clip-norm", "1000000"]
    words += ["--crop-scale-min", "1", "--no-flip", "--warmup", "0", "--hold-out", str(settings["hold_out"])]
    words += ["--probe-norm", "--weights", settings["weights"], "--steps", str(settings["steps"])]
    return [*words, "--batch-size", str(settings["batch_size"]), "--probe-rates", *map(str, settings["rates"])]


_COMMON = {"architecture": ARCHITECTURE} | OPTIMIZER | CROPS | {"batch_size": 256}
ROWS = (
    Row(
        name="supervised",
        peer="timm's reader, loader, mixup, AdamW, schedule and average, in the order of its train.py",
        script="peer_supervised.py",
        measure="accuracy of the averaged weights",
        settings=_COMMON
        | {"epochs": {"lab": 12, "cifar10": 4}, "warmup_from": 1e-6, "label_smoothing": 0.1, "ema_decay": 0.98}
        | {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "mix_switch": 0.25, "erase_probability": 0.1},
        ours=_supervised,
    ),
    Row(
        name="clip",
        peer="open_clip_train",
        script="peer_clip.py",
        measure="zero-shot accuracy, one sentence for each class",
        settings=_COMMON
        | {"epochs": {"lab": 10, "cifar10": 4}, "learning_rate": 1e-3, "beta2": 0.98, "epsilon": 1e-6}
        | {"weight_decay": 0.2, "crop_scale_min": 0.9, "flip": False, "joint_dim": 64}
        | {"text_length": 16, "text_width": 64, "text_layers": 2, "text_heads": 2},
        ours=_clip,
    ),
    Row(
        name="multipositive",
        peer="the formula of SupCon and StableRep written out, torchvision's crops, a plain loop",
        script="peer_multipositive.py",
        measure="accuracy of logistic regression on the backbone's features",
        settings=_COMMON
        | {"epochs": {"lab": 5, "cifar10": 2}, "views": 2, "temperature": 0.1}
        | {"projection_hidden": 256, "projection_dim": 64},
        ours=_multipositive,
    ),
    Row(
        name="probe",
        peer="scikit-learn's logistic regression on the same features, its C chosen on a held-out part of train",
        script="peer_probe.py",
        measure="accuracy on features of the first supervised training",
        settings={"batch_size": 512, "epochs": {"lab": 60, "cifar10": 15}, "hold_out": 0.1}
        | {"rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]},
        ours=_probe,
        margin=PROBE_MARGIN,
        after="supervised",
        peer_seeds=1,
    ),
)


def row_named(name: str) -> Row:
    """Return a row."""
    return {row.name: row for row in ROWS}[name]


def script_of(row: Row) -> Path:
    """Return the peer's script."""
    return Path(__file__).resolve().parent / row.script

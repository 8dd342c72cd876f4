"""Linear probe: a frozen backbone, and linear classifiers of several learning rates, the best of which is exported.

The rates, plain SGD with momentum and a cosine are those of StableRep and SynCLR (train/measures/probe.py); the
normalisation of features before the heads is MAE's, as is LARS for a single rate (He et al. 2022, arXiv 2111.06377,
appendix A.1). The head is chosen by its accuracy on images that --hold-out keeps from training; the papers choose on
the validation set, which --probe-select names.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.folder import export_classifier
from synclones.models.network import Classifier, Preprocessing
from synclones.train.measures.named_sets import named_item
from synclones.train.measures.probe import NORM_EPSILON, REFERENCE_BATCH, Heads, folded, head_losses, weighted
from synclones.train.network.learners import Normalising
from synclones.train.network.networks import new_network
from synclones.train.objective import Task
from synclones.train.options.validation import HELD_OUT
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import TrainingBatch

COLUMNS = ("label",)
SETTINGS = ("probe_rates", "probe_norm", "probe_select", "probe_cache")
UNCLIPPED = 1e6


class ProbeLearner(Normalising):
    """A backbone that stays as it is, in evaluation whatever mode the learner is in, and linear heads."""

    def __init__(self, network: nn.ModuleDict, preprocessing: Preprocessing):
        """``network``: ``backbone``, ``heads``, and ``norm`` where features go through one before them."""
        super().__init__(network, preprocessing)
        self.backbone.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """What the probe is of."""
        backbone: nn.Module = self.network["backbone"]
        return backbone

    def train(self, mode: bool = True) -> "ProbeLearner":
        """Set the mode of all but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """Return what the heads see, float32[n, d], of pixels float[n, 3, s, s] in 0..1."""
        with torch.no_grad():
            rows: Tensor = self.backbone(self.normalised(pixels)).float()
        return rows

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[heads, n, classes] of pixels float[n, 3, s, s] in 0..1, or of their `features`."""
        features = self.features(images) if images.dim() > 2 else images
        norm = self.network["norm"] if "norm" in self.network else nn.Identity()
        logits: Tensor = self.network["heads"](norm(features))
        return logits


def check_settings(config: TrainConfig) -> None:
    """Refuse what would not train every head by its own rate, and a choice of the head without images for it.

    Raises:
        InputError: by the flag.
    """
    if not config.probe_rates or not all(0 < rate <= 1000 for rate in config.probe_rates):
        raise InputError(f"--probe-rates: {config.probe_rates} was given, expected rates above 0 and up to 1000")
    is_one = num_heads(config) == 1
    if config.optimizer == "lars" and not is_one:
        raise InputError(
            f"--optimizer lars: steps by the norm of all heads together, and {num_heads(config)} rates were given; "
            "give one with --probe-rates, or take sgd"
        )
    optimizer = "lars" if config.optimizer == "lars" else "sgd"
    wanted: dict[str, str | float] = {"optimizer": optimizer, "weight_decay": 0.0, "clip_norm": UNCLIPPED}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise InputError(
                f"--{name.replace('_', '-')}: {getattr(config, name)} was given, expected {value}: all heads step at "
                "once, each by its own rate; take --recipe probe"
            )
    names = [named_item(text, "--validate")[0] for text in config.validate]
    if config.probe_select and config.probe_select not in names:
        raise InputError(f"--probe-select: {config.probe_select!r} is none of the sets that --validate names")
    if config.probe_select and is_one:
        raise InputError("--probe-select: there is one rate, and nothing to choose; leave it out")
    if not config.probe_select and not config.hold_out and not is_one:
        raise InputError(
            "--objective probe: the head is chosen on images that are not trained on; give --hold-out, as in 0.02, or "
            "name a set of --validate with --probe-select"
        )


def build(task: Task) -> nn.Module:
    """Return a backbone and heads that all begin with the same weights.

    Raises:
        InputError: the architecture's classifier is no linear layer, which the export has to be.
    """
    config = task.config
    with torch.device("meta"):
        head = new_network(config, len(task.class_ids)).get_classifier()
    backbone = new_network(config, 0)
    if not isinstance(head, nn.Linear) or head.in_features != backbone.num_features or head.bias is None:
        raise InputError(
            f"--architecture {config.architecture}: has no linear classifier of its features; take another"
        )
    width = int(backbone.num_features)
    parts = {"backbone": backbone, "heads": Heads(len(config.probe_rates), width, len(task.class_ids))}
    if config.probe_norm:
        parts["norm"] = nn.BatchNorm1d(width, eps=NORM_EPSILON, affine=False)
    return ProbeLearner(nn.ModuleDict(parts), task.preprocessing)


def features(learner: nn.Module, images: Tensor) -> Tensor:
    """Return what the heads see of images, float32[n, d]."""
    rows: Tensor = learner.features(images)
    return rows


def losses(batch: TrainingBatch, learner: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return what is minimised, the sum over heads of rate times cross-entropy, and the share of heads that are right.

    ``head_loss``: the cross-entropy in nats of each image, the mean over heads.
    """
    logits = learner(batch.images)
    each = head_losses(logits, batch.labels)
    right = (logits.detach().argmax(-1) == batch.labels).float().mean(0)
    # LARS forgets how large a gradient is: there the rate is the optimizer's, see `rate_factor`.
    loss = each[0] if config.optimizer == "lars" else weighted(each, config.probe_rates, config.batch_size)
    return {"loss": loss, "head_loss": each.detach().mean(0), "accuracy": right}


# ------------------------------------------------------------------ the choice of a head


def num_heads(config: TrainConfig) -> int:
    """Return how many classifiers are measured."""
    return len(config.probe_rates)


def rate_factor(config: TrainConfig) -> float:
    """Return by what the learning rate of a single head under LARS is multiplied: its own rate, times batch / 256."""
    return config.probe_rates[0] * config.batch_size / REFERENCE_BATCH if config.optimizer == "lars" else 1.0


def chosen_on(config: TrainConfig) -> str:
    """Return the name of the set on which one of them is chosen."""
    return config.probe_select or HELD_OUT


def choose(network: nn.Module, head: int) -> None:
    """Let a head be the one that is exported."""
    network["heads"].chosen = head


def classifier(task: Task, network: nn.Module) -> nn.Module:
    """Return what classifies by weights ``network``: pixels to logits float[heads, n, classes]."""
    return ProbeLearner(network, task.preprocessing)


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write backbone and chosen head as a plain timm classifier, the normalisation folded into the head."""
    parts, heads = learner.network, learner.network["heads"]
    network = new_network(task.config, len(task.class_ids)).to(heads.weight.device)
    head = network.get_classifier()
    network.load_state_dict(parts["backbone"].state_dict(), strict=False)
    norm = parts["norm"] if "norm" in parts else None
    weight, bias = folded(heads.weight[heads.chosen].detach(), heads.bias[heads.chosen].detach(), norm)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    classifier = Classifier(network.eval(), task.preprocessing, task.class_ids)
    return export_classifier(folder, classifier, task.config.model_args(), card)

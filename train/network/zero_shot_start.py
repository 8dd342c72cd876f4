"""A CLIP's image tower as a classifier whose head begins as the texts of the classes: fine-tuning from zero-shot.

In: a configuration of open_clip, classes. Out: a `TowerLearner` of pixels. As in WiSE-FT (Wortsman et al. 2022, arXiv
2109.01903) and Unmet Promise (Geng et al. 2024, arXiv 2406.05184) image features have length 1 and the head begins as
the texts' vectors times the scale of the logits; it has no bias, which theirs has, at 0 to begin with.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.network import Classifier, Preprocessing


class TowerLearner(Classifier):
    """An image tower and a head that is trained; the text tower is kept as it is, for the export."""

    def __init__(self, clip: nn.Module, width: int, preprocessing: Preprocessing, class_ids: tuple[str, ...]):
        """``clip``: an open_clip model; ``width``: of the space in which it compares."""
        clip.requires_grad_(False)
        clip.visual.requires_grad_(True)
        head = nn.Linear(width, len(class_ids), bias=False)
        super().__init__(nn.ModuleDict({"clip": clip, "head": head}), preprocessing, class_ids)

    @property
    def clip(self) -> nn.Module:
        """The open_clip model."""
        clip: nn.Module = self.network["clip"]
        return clip

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits float[n, classes] of pixels float[n, 3, size, size] in 0..1."""
        features = self.clip.encode_image((pixels - self.mean) / self.std, normalize=True)
        logits: Tensor = self.network["head"](features)
        return logits


def build(clip_config: Any, preprocessing: Preprocessing, class_ids: tuple[str, ...]) -> TowerLearner:
    """Return the classifier with fresh weights, on the device of the context; ``clip_config``: a `ClipConfig`.

    Raises:
        InputError: open_clip cannot build it.
    """
    from synclones.models.clip import REFUSALS, build_from_config  # loads open_clip

    model_config = clip_config.model_cfg
    try:
        return TowerLearner(build_from_config(model_config), model_config.embed_dim, preprocessing, class_ids)
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"--weights: open_clip cannot build its model ({reason})") from None


def texts_of(classes: str, templates: str, class_ids: tuple[str, ...]) -> Any:
    """Return the `ZeroShotTexts` of the data's classes, in their order, from a CSV of names and a file of sentences.

    Raises:
        InputError: a file that is missing or no list, or a class that it does not name.
    """
    from synclones.models.zero_shot import ZeroShotTexts, texts_in

    if not classes:
        raise InputError("--head zero-shot: the head begins as texts; name the classes with --zero-shot-classes FILE")
    texts = texts_in(classes, templates)
    by_id = dict(zip(texts.class_ids, texts.class_names, strict=True))
    lacking = [class_id for class_id in class_ids if class_id not in by_id]
    if lacking:
        raise InputError(
            f"--zero-shot-classes: {classes} names no class {lacking[0]!r} of the data ({len(lacking)} are missing); "
            "add them"
        )
    return ZeroShotTexts(class_ids, tuple(by_id[class_id] for class_id in class_ids), texts.templates)


def fill_head(classifier: TowerLearner, texts: Any) -> None:
    """Make the head the classes' vectors times the scale of the logits, on the classifier's device."""
    from synclones.models.tokenizer import tokenizer_for
    from synclones.models.zero_shot import zero_shot_head

    clip, was_training = classifier.clip, classifier.training
    tower = getattr(clip, "text", clip)  # open_clip has the text tower within the model, or beside the image tower
    tokenizer = tokenizer_for(int(tower.context_length))
    clip.eval()
    head = zero_shot_head(clip, tokenizer, texts.class_names, texts.templates)
    with torch.no_grad():
        classifier.network["head"].weight.copy_(clip.logit_scale.exp() * head)
    classifier.train(was_training)


def export(clip_config: Any, texts: Any, learner: nn.Module, folder: Path, card: str) -> str:
    """Write a folder that open_clip loads, with the head beside it; return the sha256 of the model's weights."""
    from synclones.models.clip_folder import export_clip  # loads open_clip

    head = learner.network["head"].weight
    return export_clip(folder, learner.clip, clip_config.model_cfg, learner.preprocessing, card, texts, head)

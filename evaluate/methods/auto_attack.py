"""AutoAttack: four attacks without settings, one after the other on what withstood so far, by the library pyautoattack.

In: a classifier that normalises inside, pixels float32[n, 3, h, w] in 0..1, labels. Out: attacked pixels in 0..1. The
library is the extra ``attacks``, and is loaded by the attack alone.
"""

import logging
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING

from synclones.base.errors import InputError, one_line

if TYPE_CHECKING:  # importing it would load torch to explain a metric
    from torch import Tensor, nn

    from synclones.evaluate.answers.predictions import EvaluatedModel

LIBRARY = "pyautoattack"
LEAST_CLASSES = 4
"""The loss of the targeted attack compares the four largest logits."""
TARGETS = 9
"""Classes that the targeted attacks aim at in the standard version."""
PASSES = 10_000
"""What an image costs that withstands all four, rounded up: 5,000 queries, and gradients of 1,900 steps."""


def library() -> str:
    """Return name and version of the library, which an attack's result depends on.

    Raises:
        InputError: it is not installed.
    """
    try:
        return f"{LIBRARY} {metadata.version(LIBRARY)}"
    except metadata.PackageNotFoundError:
        raise InputError(
            f"--attacks autoattack: needs the library {LIBRARY}, which is not installed; run: "
            "pip install 'synclones[attacks]', or leave it out"
        ) from None


def refuse_few_classes(models: "Iterable[EvaluatedModel]") -> None:
    """Refuse models that AutoAttack cannot attack.

    Raises:
        InputError: one has fewer than four classes.
    """
    for model in models:
        classes = len(model.classifier.class_ids)
        if classes < LEAST_CLASSES:
            raise InputError(
                f"--attacks autoattack: {model.name} has {classes} classes, its targeted loss needs {LEAST_CLASSES}; "
                "take fgsm and pgd"
            )


def auto_attack(classifier: "nn.Module", pixels: "Tensor", labels: "Tensor", epsilon: float, seed: int) -> "Tensor":
    """Attack images by the standard version of AutoAttack, L-infinity; what is answered wrongly stays as it is.

    Source: Croce and Hein 2020, arXiv 2003.01690. The library draws for a batch as a whole: a result belongs to the
    batch as it belongs to the seed. Torch's own numbers go on afterwards as if none had been drawn.

    Args:
        classifier: normalises inside; its parameters are frozen.
        pixels: float32[n, 3, h, w] in 0..1.
        labels: int64[n], of at least four classes.
        epsilon: largest change of a pixel, in 0..1.
        seed: of all that is drawn.

    Returns:
        float32[n, 3, h, w] in 0..1, at most ``epsilon`` from ``pixels``.
    """
    import torch
    from pyautoattack import AutoAttack

    pixels = pixels.contiguous()

    def logits(images: "Tensor") -> "Tensor":
        # The library views gradients as rows; images and gradients of networks may lie in memory with channels last.
        given: Tensor = classifier(images.flatten(1).view(images.shape))
        return given.float()

    attack = AutoAttack(logits, device=pixels.device, eps=epsilon, norm="Linf", seed=seed, version="standard")
    with torch.no_grad():
        classes = logits(pixels[:1]).shape[1]
    # Of fewer than ten classes all others are targets; the library would ask for one that is not there.
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(TARGETS, classes - 1)
    trace, devices = sys.gettrace(), [pixels.device] if pixels.is_cuda else []
    try:
        with _Warnings(), torch.random.fork_rng(devices=devices):
            attacked, _ = attack.run_standard_evaluation(pixels, labels, batch_size=len(pixels))
    finally:
        sys.settrace(trace)  # the library looks for gradients in the model's own code, and leaves no tracer
    result: Tensor = attacked.detach()
    return result


class _Warnings(logging.Handler):
    """Brings the library's warnings to stderr while it works, each kind once, whatever numbers are in it."""

    printed: set[str] = set()

    def __enter__(self) -> None:
        self.logger = logging.getLogger("auto-attack")
        self.before = self.logger.propagate
        self.logger.propagate = False
        self.logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.propagate = self.before

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            return
        text = record.getMessage()
        kind = re.sub(r"[\d.]+", "", text)
        if kind not in self.printed:
            self.printed.add(kind)
            print(one_line(f"AutoAttack, {LIBRARY}: {text}"), file=sys.stderr, flush=True)

"""Metrics from cached logits, and PGD: ours beside torchmetrics, scikit-learn and torchattacks; equality first.

(a) Accuracy, ECE, AUROC and FPR@95 from the logits of 50,000 images of 1,000 classes and of 10,000 outliers: values, no
intervals. The peers are used as documented: torchmetrics takes logits and softmaxes them itself, scikit-learn takes the
largest probabilities of torch's softmax. ECE in their single precision differs by what is printed.

(b) PGD of 20 steps of a quarter of epsilon on 256 images of digits by a vision transformer that was trained on others
for a minute: robust accuracies are compared, then time. Torchattacks does all steps for all images and keeps the last;
ours leaves an image when it is answered wrongly. --width 384 takes a larger transformer, where a processor's 16-bit
instructions count.

Torchmetrics and torchattacks are no dependencies of this project; give them a folder of their own:

    pip install --target peer --no-deps torchmetrics==1.9.0 lightning-utilities torchattacks==3.5.1
    python benchmarks/evaluation.py --peer peer

Times are CPU seconds of the process on one thread, the median of interleaved rounds. Without --peer only ours are
timed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.axes.calibration import calibration_gaps, ece_of_sums
from synclones.evaluate.methods.attacks import pgd
from synclones.evaluate.methods.separation import Separation
from synclones.models.network import Classifier, Preprocessing, create_network

IMAGES, OUTLIERS, CLASSES, BINS, ROUNDS = 50_000, 10_000, 1000, 20, 3
ATTACKED, STEPS, TRAINED, SIZE = 256, 20, 300, 32
Numbers = tuple[float, float, float, float]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that a call takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(names: list[str], works: list[Callable[[], object]]) -> None:
    """Print the median of interleaved rounds, and how many times the first the others take."""
    rounds = [[cpu_seconds(work) for work in works] for _ in range(ROUNDS)]
    times = [median(column) for column in zip(*rounds, strict=True)]
    for name, seconds in zip(names, times, strict=True):
        print(f"{name:44} {seconds:7.3f} s  {seconds / times[0]:5.2f}", flush=True)


# ------------------------------------------------------------------ (a) metrics


def cached() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits of images, their labels, and logits of outliers; about four of five images are answered rightly."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES)
    logits, outliers = (rng.standard_normal((n, CLASSES), dtype=np.float32) for n in (IMAGES, OUTLIERS))
    logits[np.arange(IMAGES), labels] += rng.normal(8, 4, IMAGES).astype(np.float32)
    outliers[np.arange(OUTLIERS), rng.integers(0, CLASSES, OUTLIERS)] += 5
    return logits, labels, outliers


def ours(logits: np.ndarray, labels: np.ndarray, outliers: np.ndarray) -> Numbers:
    """Return accuracy, ECE, AUROC and FPR@95."""
    inside = Predictions(logits, labels, np.arange(len(labels)))
    outside = Predictions(outliers, np.zeros(len(outliers), np.int64), np.arange(len(outliers)))
    error = ece_of_sums(calibration_gaps(inside.confidence, inside.correct, BINS).sum(0), len(labels))
    area, rate, _ = Separation(inside.confidence, outside.confidence).measured()
    return float(inside.correct.mean()), float(error), area, rate


def torchmetrics_and_sklearn(logits: np.ndarray, labels: np.ndarray, outliers: np.ndarray) -> Numbers:
    """Return the same by torchmetrics' functions, and scikit-learn's of the largest probabilities."""
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

    scores, targets = torch.from_numpy(logits), torch.from_numpy(labels)
    accuracy = multiclass_accuracy(scores, targets, CLASSES, average="micro")
    error = multiclass_calibration_error(scores, targets, CLASSES, n_bins=BINS)
    return float(accuracy), float(error), *_sklearn(scores, torch.from_numpy(outliers))


def torchmetrics_alone(logits: np.ndarray, labels: np.ndarray, outliers: np.ndarray) -> Numbers:
    """Return the same by torchmetrics alone; the rate is the least of its curve where 95 % are reached."""
    from torchmetrics.functional.classification import binary_auroc, binary_roc

    scores, others = torch.from_numpy(logits), torch.from_numpy(outliers)
    accuracy, error, _, _ = torchmetrics_and_sklearn(logits, labels, outliers[:1])
    both = torch.cat([x.softmax(1).amax(1) for x in (scores, others)])
    kinds = torch.cat([torch.ones(len(scores)), torch.zeros(len(others))]).long()
    false, true, _ = binary_roc(both, kinds)
    return accuracy, error, float(binary_auroc(both, kinds)), float(false[(true >= 0.95).nonzero()[0, 0]])


def _sklearn(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """Return AUROC and FPR@95, images with a class being positive."""
    both = np.concatenate([x.softmax(1).amax(1).numpy() for x in (inside, outside)])
    kinds = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
    false, true, _ = roc_curve(kinds, both, drop_intermediate=False)
    return float(roc_auc_score(kinds, both)), float(false[(true >= 0.95).argmax()])


def compare_metrics(peer: bool) -> None:
    """Print values and times."""
    given = cached()
    names, functions = ["ours"], [ours]
    if peer:
        names += ["torchmetrics and scikit-learn", "torchmetrics alone"]
        functions += [torchmetrics_and_sklearn, torchmetrics_alone]
    values = np.array([function(*given) for function in functions])
    print(f"{IMAGES} x {CLASSES} logits, {OUTLIERS} outliers: accuracy, ECE, AUROC, FPR@95 are {values[0].round(6)}")
    if peer:
        apart = np.abs(values[1:] - values[0]).max(0)
        print(f"  the peers differ by at most {apart.round(9)}")
        assert (apart < 1e-4).all(), "other numbers"
    compare(names, [partial(function, *given) for function in functions])


# ------------------------------------------------------------------ (b) PGD


def trained(width: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return a vision transformer that was trained on digits, and others' pixels float32[256, 3, 32, 32] and labels."""
    torch.manual_seed(0)
    digits = load_digits()
    pixels = F.interpolate(torch.from_numpy(digits.images).float()[:, None] / 16, (SIZE, SIZE), mode="bilinear")
    pixels, labels = pixels.repeat(1, 3, 1, 1), torch.from_numpy(digits.target)
    shape = {"patch_size": 8, "embed_dim": width, "depth": 3, "num_heads": width // 16}
    network = create_network("vit_tiny_patch16_224", 10, SIZE, shape)
    classifier = Classifier(network, Preprocessing(size_px=SIZE), tuple("0123456789")).train()
    optimizer = torch.optim.AdamW(classifier.parameters(), 3e-3 if width < 100 else 3e-4)
    for _ in range(TRAINED):
        batch = torch.randint(ATTACKED, len(pixels), (64,))
        optimizer.zero_grad()
        F.cross_entropy(classifier(pixels[batch]), labels[batch]).backward()
        optimizer.step()
    return classifier.eval().requires_grad_(False), pixels[:ATTACKED], labels[:ATTACKED]


def accuracy(classifier: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        return float((classifier(pixels).argmax(1) == labels).float().mean())


def compare_attacks(peer: bool, width: int) -> None:
    """Print robust accuracies and times at two strengths, in batches of 64."""
    classifier, pixels, labels = trained(width)
    print(f"\nPGD-{STEPS}, {ATTACKED} images, clean accuracy {100 * accuracy(classifier, pixels, labels):.1f} %")
    index = np.arange(ATTACKED)
    for strength in (2, 8):
        epsilon, step = strength / 255, strength / 4 / 255
        sizes = {"epsilon": epsilon, "steps": STEPS, "step": step, "seed": 0}
        ways = {"ours": {}, "ours, gradients in bf16": {"bf16": True}, "ours, all steps": {"to_the_end": True}}
        works = [
            partial(_in_batches, lambda x, y, i, s=sizes | way: pgd(classifier, x, y, i, **s), pixels, labels, index)
            for way in ways.values()
        ]
        names = list(ways)
        if peer:
            import torchattacks

            attack = torchattacks.PGD(classifier, eps=epsilon, alpha=step, steps=STEPS, random_start=True)
            works.append(partial(_in_batches, lambda x, y, i, a=attack: a(x, y), pixels, labels, index))
            names.append("torchattacks")
        robust = [100 * accuracy(classifier, work(), labels) for work in works]
        print(f"epsilon {strength}/255, left of the accuracy: {', '.join(f'{x:.1f} %' for x in robust)}")
        assert not peer or max(robust) - min(robust) <= 1.0, "another attack"
        compare(names, works)


def _in_batches(attack: Callable[..., Tensor], pixels: Tensor, labels: Tensor, index: np.ndarray) -> Tensor:
    parts = [slice(start, start + 64) for start in range(0, len(pixels), 64)]
    return torch.cat([attack(pixels[of], labels[of], index[of]) for of in parts])


def main() -> None:
    """Compare both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="folder that the peers were installed into by pip's --target")
    parser.add_argument("--width", type=int, default=48, help="of the attacked transformer")
    given = parser.parse_args()
    if given.peer:
        # Not this script's folder: a peer would take coverage.py or train.py in it for a package of that name.
        own = Path(__file__).resolve().parent
        sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != own] + [given.peer]
    torch.set_num_threads(1)
    compare_metrics(bool(given.peer))
    compare_attacks(bool(given.peer), given.width)


if __name__ == "__main__":
    main()

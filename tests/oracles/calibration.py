"""Write the fixture of the calibration errors' tests with other programs: netcal and torchmetrics.

In: nothing. Out: ``calibration.npz``: logits and labels; for 10, 15 and 20 bins netcal's ECE of the answers'
confidences, the mean of its ECE of every class' probability, which is the class-wise error, and torchmetrics' ECE. No
confidence is exactly on an edge: there the programs disagree.
"""

from pathlib import Path

import numpy as np
import torch
from netcal.metrics import ECE
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = (10, 15, 20)


def main():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    logits = rng.normal(0, 1.5, (2000, 10)).astype(np.float32)
    logits[np.arange(2000), labels] += rng.normal(2, 2, 2000).astype(np.float32)
    p = softmax(logits.astype(np.float64), 1)
    # Of two-class problems netcal compares the probability with how often the class is there.
    of_answer, of_class = p.max(1), [(p[:, c], (labels == c).astype(int)) for c in range(10)]
    correct = (p.argmax(1) == labels).astype(int)
    scores, targets = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"),
        logits=logits,
        labels=labels,
        bins=BINS,
        netcal=[ECE(bins).measure(of_answer, correct) for bins in BINS],
        netcal_classwise=[np.mean([ECE(bins).measure(q, y) for q, y in of_class]) for bins in BINS],
        torchmetrics=[float(multiclass_calibration_error(scores, targets, 10, n_bins=bins)) for bins in BINS],
    )


if __name__ == "__main__":
    main()

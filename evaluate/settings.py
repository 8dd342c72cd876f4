"""The settings of an evaluation.

In: flags and YAML. Out: `EvaluateConfig`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synclones.base.config import check_ranges, grouped
from synclones.base.errors import InputError


@grouped(
    What="model data out dry_run",
    Measures="attacks epsilons_255 pgd_steps outliers outlier_scores ece_bins resamples seed",
    Machine="device batch_size torch_threads timeout_s",
)
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure classifiers on a labelled folder: accuracy, calibration, robustness to attacks, with intervals."""

    model: tuple[str, ...] = ()
    """Runs or exports, published checkpoints, ``timm:NAME``, ``open_clip:MODEL/TAG``, ``hub:OWNER/NAME``; several are
    compared on the same images."""
    data: Path | None = None
    """Labelled set, a dataset folder or what others made (docs/shards.md); by default the lab's real test digits."""
    out: Path = Path("results/lab")
    """Folder of results; further models may be added to it later."""
    attacks: tuple[Literal["fgsm", "pgd"], ...] = ("fgsm",)
    """Attacks on the pixels: fgsm costs two passes for each strength, pgd two for each of its steps."""
    epsilons_255: tuple[float, ...] = (1.0, 8.0)
    """Strengths of the attacks in 8-bit steps: 1 is the papers' (at 224 px), 8 the usual one for images of 32 px."""
    pgd_steps: int = 20
    """Steps of PGD, each a quarter of its strength."""
    outliers: tuple[Path, ...] = ()
    """Sets of images that show none of the classes, labelled or not: how well confidence tells them from --data."""
    outlier_scores: tuple[Literal["max-probability", "entropy", "energy", "max-logit"], ...] = ("max-probability",)
    """By which scores they are told apart; the papers' text says max-probability, their numbers are of entropy."""
    ece_bins: int = 20
    """Equal-width bins of the expected calibration error."""
    batch_size: int = 64
    """Images of one forward pass."""
    resamples: int = 2000
    """Bootstrap resamples of the test images."""
    seed: int = 0
    """Seed of the bootstrap, and of where PGD begins."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when there is one."""
    torch_threads: int = 0
    """Torch's CPU threads per process; 0 for all its cores."""
    timeout_s: int = 600
    """Longest wait for another process before the job ends."""
    dry_run: bool = False
    """Print what would be computed, and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            pgd_steps=(1, 10**4),
            ece_bins=(1, 1000),
            batch_size=(1, 10**5),
            resamples=(100, 10**6),
            seed=(0, 2**63 - 1),
            torch_threads=(0, 1024),
            timeout_s=(1, 10**6),
        )
        for epsilon in self.epsilons_255:
            if not 0 < epsilon <= 255:
                raise InputError(f"--epsilons-255: {epsilon} was given, expected more than 0 and at most 255")
        for name, values in (
            ("epsilons-255", self.epsilons_255),
            ("attacks", self.attacks),
            ("outliers", self.outliers),
            ("outlier-scores", self.outlier_scores),
        ):
            if len(set(values)) < len(values):
                raise InputError(f"--{name}: {' '.join(map(str, values))} has one twice; give each once")
        if self.outliers and not self.outlier_scores:
            raise InputError("--outlier-scores: none was given; give one, or leave the flag out")

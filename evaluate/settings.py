"""The settings of an evaluation.

In: flags and YAML. Out: `EvaluateConfig`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from synclones.base.config import Count, Points, check_ranges, grouped
from synclones.base.derived import derived, name_of
from synclones.base.errors import InputError
from synclones.base.resume import typed

BY_INPUTS = Path("results/{data}")


@grouped(
    What="model data out dry_run",
    Suite="suite data_root sets subset until protocol deviations",
    Measures="attacks epsilons_255 pgd_steps pgd_precision outliers outlier_scores ece_bins calibration resamples seed",
    Machine="device batch_size torch_threads timeout_s",
)
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure classifiers on a labelled folder: accuracy, calibration, robustness to attacks, with intervals."""

    model: tuple[str, ...] = ()
    """Runs or exports, published checkpoints, ``timm:NAME``, ``open_clip:MODEL/TAG``, ``hub:OWNER/NAME``; several are
    compared on the same images."""
    data: Path | None = None
    """Labelled set of ours or of others (docs/others_sets.md); by default the lab's real test digits."""
    suite: str = ""
    """Image sets of several kinds in place of --data: lab, synthetic-clones, or a file (docs/image_sets.md)."""
    data_root: Path | None = None
    """Folder below which the suite's sets lie; look at it first with `synclones evaluate doctor`."""
    sets: tuple[str, ...] = ()
    """Only these sets of the suite, by name or role; the reference is always one of them."""
    subset: Count = 0
    """Of every set with more images, this many: always the same, in ImageNet and its corrupted copies; 0: all."""
    until: Points = 0.0
    """Look at images of the reference and of shifted sets until every accuracy on the whole set is known to plus or
    minus so much, such as 1pp, or all models are told apart; 0: at all of them."""
    protocol: tuple[Literal["corrected", "paper"], ...] = ("corrected",)
    """paper does what the papers' code did, wrong turns included (docs/deviations.md); both may cost a second pass."""
    deviations: tuple[str, ...] = ()
    """Of the papers' code, only these are followed by --protocol paper, such as D1 D2."""
    out: Path = BY_INPUTS
    """Folder of results; further models may be added to it later. By default it is named by the data or the
    suite, and results/lab without any."""
    attacks: tuple[Literal["fgsm", "pgd", "autoattack", "none"], ...] = ("fgsm",)
    """Attacks on the pixels: fgsm costs two passes for each strength, pgd two for each of its steps; autoattack costs
    thousands, and needs the extra ``attacks``; none leaves them out."""
    epsilons_255: tuple[float, ...] = (1.0, 8.0)
    """Strengths of the attacks in 8-bit steps: 1 is the papers' (at 224 px), 8 the usual one for images of 32 px."""
    pgd_steps: int = 20
    """Steps of PGD, each a quarter of its strength."""
    pgd_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the gradients that PGD follows: bf16 is for GPUs, on processors it was not faster. Answers are in fp32 either
    way, and numbers say so."""
    outliers: tuple[Path, ...] = ()
    """Sets of images that show none of the classes, labelled or not: how well confidence tells them from --data."""
    outlier_scores: tuple[Literal["max-probability", "entropy", "energy", "max-logit"], ...] = ("max-probability",)
    """By which scores they are told apart; the papers' text says max-probability, their numbers are of entropy."""
    ece_bins: int = 20
    """Equal-width bins of the expected calibration error."""
    calibration: tuple[Literal["adaptive", "class-wise", "nll", "brier"], ...] = ()
    """What else to measure calibration by: bins of equal mass, bins of every class, likelihood, Brier's score."""
    batch_size: int = 64
    """Images of one forward pass."""
    resamples: int = 2000
    """Bootstrap resamples of the test images."""
    seed: int = 0
    """Seed of the bootstrap, of where PGD begins, and of what AutoAttack draws."""
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
            subset=(0, 10**9),
            until=(0, 49),
            pgd_steps=(1, 10**4),
            ece_bins=(1, 1000),
            batch_size=(1, 10**5),
            resamples=(100, 10**6),
            seed=(0, 2**63 - 1),
            torch_threads=(0, 1024),
            timeout_s=(1, 10**6),
        )
        if self.suite and (self.data or self.outliers):
            raise InputError("--suite: has sets of its own; leave --data and --outliers out, or the suite")
        if not self.suite and (self.data_root or self.sets):
            raise InputError("--data-root and --sets: are about a suite; give --suite, too")
        if self.deviations and "paper" not in self.protocol:
            raise InputError("--deviations: are followed by --protocol paper alone; give it, too")
        if self.until and self.subset:
            raise InputError("--until: finds out how many images are enough; leave --subset out, or --until")
        if self.until and "paper" in self.protocol:
            raise InputError(
                "--until: ends where the corrected accuracy is known; the papers' numbers are of all images"
            )
        if "none" in self.attacks:
            if len(self.attacks) > 1:
                raise InputError(f"--attacks: {' '.join(self.attacks)} is none and some; give either")
            object.__setattr__(self, "attacks", ())
        if self.out == BY_INPUTS:
            object.__setattr__(self, "out", self._default_out())
        for epsilon in self.epsilons_255:
            if not 0 < epsilon <= 255:
                raise InputError(f"--epsilons-255: {epsilon} was given, expected more than 0 and at most 255")
        for name, values in (
            ("epsilons-255", self.epsilons_255),
            ("attacks", self.attacks),
            ("outliers", self.outliers),
            ("outlier-scores", self.outlier_scores),
            ("sets", self.sets),
            ("protocol", self.protocol),
            ("deviations", self.deviations),
            ("calibration", self.calibration),
        ):
            if len(set(values)) < len(values):
                raise InputError(f"--{name}: {' '.join(map(str, values))} has one twice; give each once")
        if self.outliers and not self.outlier_scores:
            raise InputError("--outlier-scores: none was given; give one, or leave the flag out")

    def _default_out(self) -> Path:
        """Return where numbers on this data lie, of whatever models."""
        if self.suite:
            return derived("results", f"{name_of(self.suite)}-suite")
        return derived("results", self.data) if self.data else Path("results/lab")


_OF_A_MACHINE = ("out", "device", "batch_size", "torch_threads", "timeout_s", "dry_run")


def command_of(config: EvaluateConfig) -> str:
    """Return the command that makes the same evaluation in a ``FOLDER``, on any machine: what is not at its default."""
    words = ["evaluate"]
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default and field.name not in _OF_A_MACHINE:
            values = (value or ("none",)) if isinstance(value, tuple) else (value,)
            words.append(f"--{field.name.replace('_', '-')}")
            words += [f"{each:g}" if isinstance(each, float) else str(each) for each in values]
    return typed([*words, "--out", "FOLDER"])

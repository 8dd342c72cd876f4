"""The settings of the commands that plan, run and report grids."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synclones.base.config import check_ranges
from synclones.base.errors import InputError

DEFAULT_OUT = Path("ablations")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Show the cells of a grid, what is there, what is missing and how to get it, and what the rest costs."""

    grid: str = field(default="table6", kw_only=False)
    """A grid by name, or the file of one."""
    world: str = "lab"
    """What the grid's words stand for: lab, cifar10, imagenet, or a file."""
    scale: str = ""
    """Share by which counts and budgets are multiplied, as 1/4000; by default the world's for this grid, else 1."""
    only: tuple[str, ...] = ()
    """Values to choose, as in images=1M,4M prompts=captions; all by default."""
    seeds: int = 0
    """Trainings of each combination; the grid's number by default."""
    input: tuple[str, ...] = ()
    """Where inputs of the world lie, as in real=data/imagenet/train."""
    out: Path = DEFAULT_OUT
    """Store of steps, which grids share."""
    price_per_hour: float = -1.0
    """Dollars of a process hour; the world's by default."""

    def __post_init__(self) -> None:
        check_ranges(self, seeds=(0, 1000), price_per_hour=(-1, 1e6))
        if any(character in str(self.out) for character in ",{}:"):
            raise InputError(f"--out: {self.out} has a comma, colon or brace, which --data reads otherwise; rename it")


@dataclass(frozen=True, kw_only=True)
class RunConfig(PlanConfig):
    """Run what is missing of a grid, and write its report; the same command goes on after any kill."""

    processes: int = 0
    """Commands at once; one for each core by default."""
    write: Literal["", "slurm", "torchrun", "kubernetes"] = ""
    """Run nothing, and write the commands as scripts of this kind."""
    write_to: Path = Path("jobs")
    """Folder of these scripts."""
    gpus: int = 8
    """Processes of one command in these scripts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, processes=(0, 1024), gpus=(1, 1024))


@dataclass(frozen=True, kw_only=True)
class ReportConfig(PlanConfig):
    """Write the report of a grid from what is there; cells that are not computed are shown as missing."""

    report: Path | None = None
    """Folder of the report; reports/GRID-WORLD-SCALE of the store by default."""


@dataclass(frozen=True, kw_only=True)
class LabConfig:
    """Write what the lab has in place of the papers' data: real digits, robustness sets, or captions."""

    set: Literal["real", "test", "robust", "captions"]
    """real: 540 digits to train on; test: 537 others; robust: the sets of the suite lab; captions: 54 of each class."""
    out: Path
    """Folder to write."""


@dataclass(frozen=True, kw_only=True)
class NamesConfig:
    """Write a class list as a CSV with class_id and name, by which `synclones train --zero-shot-classes` classifies."""

    classes: str
    """Class list, as of `synclones prompts build`."""
    out: Path
    """The file, `*.csv`."""

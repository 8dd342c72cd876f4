"""What a grid has come to: its cells, each with its results or the reason why there are none, as the report reads it.

In: what `plan` computed and `execute` finished. Out: `GridResults`, which nothing of the engine is needed to read.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values, a seed included.

    Attributes:
        values: axis -> the name of its value, in the grid's order, without the seed.
        seed: of the training, from 0.
        results: folder of `synclones evaluate` that holds exactly one model; None where it is not computed.
        missing: why not, in words.
        commands: what made it, in order, quoted for a shell.
        cost: process seconds per kind of step (prompts, images, clone, results), shared steps counted whole.
        images: step -> the set of images that the cell was trained on.
    """

    values: dict[str, str]
    seed: int
    results: Path | None
    missing: str = ""
    commands: tuple[str, ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class GridResults:
    """A grid in a world at a scale, with every cell of it, computed or not.

    Attributes:
        axes: axis -> the names of its values, in the table's order, without the seed.
        seeds: how many trainings each combination has.
        columns: the numbers of the table, names that `ablate.columns` knows.
        published: the published table that is shown beside, or "".
        notes: what a reader should know of all of it, a sentence each.
        scaled: the axes whose counts the scale multiplies; values of others are what they say.
    """

    name: str
    title: str
    question: str
    source: str
    world: str
    scale: Fraction
    axes: dict[str, tuple[str, ...]]
    seeds: int
    columns: tuple[str, ...]
    published: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ("images", "pairs", "size", "sizes")

"""The settings of the commands that make and show prompt tables and captions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synclones.base.config import Count, grouped
from synclones.prompts.classes.labels import ClassNumbers

# Other commands read this file when they are given no table, so that only the default table may have this name.
DEFAULT_OUT = Path("data/prompts/lab-clip-templates.parquet")
DEFAULT_CLASSES = "lab-digits"


@grouped(
    What="recipe classes num_images images_per_caption seed out dry_run",
    Inputs="captions bad_captions images class_numbers templates places wordnet_dir",
)
@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Build a prompt table; row i depends on recipe, inputs, seed and i alone, so a prefix is the smaller table."""

    recipe: str = "clip-templates"
    """How prompts are made; `synclones prompts list` names the recipes."""
    classes: str = ""
    """Shipped class lists, CSV, TSV or JSON files with id and name, or class-to-idx:FILE.json, joined by commas; the
    lab's digits when empty, and none for the recipe text-file."""
    num_images: Count | None = None
    """Rows of the table, one per image; 16M and 10k are understood; 1,000 by default, all captions or images
    with text-file and real-images."""
    images_per_caption: int = 1
    """Rows that share a caption, side by side: 4 in SynCLR, 6 in StableRep."""
    seed: int = 0
    """Seed of the recipe's choices, 0 to 2^63-1."""
    captions: Path | None = None
    """Captions for the recipes captions, concept-llm and text-file: txt, CSV, TSV, JSONL, Parquet, a folder of tars."""
    bad_captions: Literal["stop", "skip"] = "stop"
    """What an empty or too long caption does: stop the build, or be left out and counted."""
    images: Path | None = None
    """Real images for the recipe real-images: a folder of images (one sub-folder per class) or of tars."""
    class_numbers: ClassNumbers = "ask"
    """What a number as the class of a caption or image means where the list's ids are numbers too: an id, or a position
    from 0 as WebDataset's cls; ask stops."""
    templates: Path | None = None
    """Own templates for clip-templates, one a line with {} for the class name."""
    places: Path | None = None
    """Own places for the recipes with places, one a line."""
    wordnet_dir: Path | None = None
    """Folder of a WordNet 3.0 database; located or downloaded when it is needed and not given."""
    out: Path = DEFAULT_OUT
    """The table's file, `*.parquet`; needed for any but the default table."""
    dry_run: bool = False
    """Print the first prompts and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show a prompt table, or how one row of it came about."""

    table: Path = field(kw_only=False)
    """The table's file."""
    index: int | None = None
    """Row to explain."""
    out: Path | None = None
    """Write the overview to this `*.html` or `*.md` file."""

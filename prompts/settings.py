"""The settings of the commands that make and show prompt tables and captions."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from synclones.base.config import Count, grouped
from synclones.base.derived import derived
from synclones.prompts.classes.labels import ClassNumbers

# Other commands read this file when they are given no table, so that only the default table may have this name.
DEFAULT_OUT = Path("data/prompts/lab-clip-templates.parquet")
BY_INPUTS = DEFAULT_OUT.with_name("{classes}-{recipe}.parquet")
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
    """Shipped class lists, CSV, TSV or JSON files with id and name, txt files with a name a line, or
    class-to-idx:FILE.json, joined by commas; or names, "red panda, sea otter". The lab's digits when empty, and none
    for the recipe text-file."""
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
    out: Path = BY_INPUTS
    """The table's file, `*.parquet`; by default it is named by inputs, recipe and number of images."""
    dry_run: bool = False
    """Print the first prompts and write nothing."""

    def __post_init__(self) -> None:
        if self.out == BY_INPUTS:
            object.__setattr__(self, "out", DEFAULT_OUT if self.is_default else self.derived_out())

    @property
    def is_default(self) -> bool:
        """Whether all that decides the rows is as it is when nothing is given."""
        of_rows = (field for field in fields(self) if field.name not in ("out", "dry_run"))
        return all(getattr(self, field.name) == field.default for field in of_rows)

    def derived_out(self) -> Path:
        """Return the file that is named by inputs, recipe, and the number of images where one was given."""
        inputs = [*filter(None, self.classes.split(",")), *filter(None, (self.captions, self.images))]
        path = derived(str(DEFAULT_OUT.parent), *(inputs or [DEFAULT_CLASSES]))
        return path.with_name(
            "-".join([path.name, self.recipe, *map(str, filter(None, [self.num_images]))]) + ".parquet"
        )


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show a prompt table, or how one row of it came about."""

    table: Path = field(kw_only=False)
    """The table's file."""
    index: int | None = None
    """Row to explain."""
    out: Path | None = None
    """Write the overview to this `*.html` or `*.md` file."""

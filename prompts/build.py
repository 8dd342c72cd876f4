"""Build a prompt table: recipe x inputs x number of images.

In: the name of a recipe and its `Inputs`. Out: a Parquet table whose row i is a pure function of (recipe, inputs, i),
so that the first million rows of a table of sixteen are the table of one million. With m images per caption, rows g*m
to g*m + m - 1 are the images of caption g, side by side.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.base.errors import InputError
from synclones.prompts.classes.lists import ClassList
from synclones.prompts.recipe import Bound, Columns, Inputs, Recipe, constant, load_recipe, pick, texts
from synclones.prompts.table import MAX_ROWS, ROWS_PER_GROUP, SCHEMA, ContentHash, write_table

MAX_SEED = 2**63 - 1  # the keyed hash tells all of them apart
MAX_COPIES = 1000
OPTIONAL_INPUTS = ("captions", "images", "templates", "places")
DEFAULT_ROWS = 1000


class PlannedTable:
    """A table to be: every row of it can be made by itself."""

    def __init__(self, recipe: str, inputs: Inputs, num_images: int, images_per_caption: int, bound: Bound):
        """Keep what `make_table` has checked."""
        self.recipe, self.inputs, self.num_images = recipe, inputs, num_images
        self.images_per_caption, self.bound = images_per_caption, bound
        self._class_ids = texts([info.class_id for info in inputs.classes.classes] or [""])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the inputs and the size."""
        cut = self.num_images % self.images_per_caption
        last = f"the last caption has {cut} of {self.images_per_caption} images; groups are whole at multiples of it"
        return (*self.bound.notes, *((last,) if cut else ()))

    def rows(self, indices: np.ndarray) -> pa.Table:
        """Return the rows ``indices`` int64[n], ascending, with the columns of `SCHEMA`."""
        captions, copies = np.unique(indices // self.images_per_caption, return_inverse=True)
        made = self.bound.columns(captions)
        if len(captions) < len(indices):
            made = _repeated(made, copies)
        return pa.table([self._column(name, made, indices) for name in SCHEMA.names], schema=SCHEMA)

    def _column(self, name: str, made: Columns, indices: np.ndarray) -> pa.Array:
        if name == "index":
            return pa.array(indices, pa.int64())
        if name == "recipe":
            return constant(self.recipe, len(indices))
        if name == "class_id" and made.class_id is None:
            return pick(self._class_ids, made.label)
        value = getattr(made, name)
        return constant("", len(indices)) if value is None else pa.array(value, SCHEMA.field(name).type)

    def blocks(self) -> Iterator[pa.Table]:
        """Yield all rows in blocks of 100,000."""
        for start in range(0, self.num_images, ROWS_PER_GROUP):
            yield self.rows(np.arange(start, min(start + ROWS_PER_GROUP, self.num_images), dtype=np.int64))

    def write(self, out: Path, on_block: Callable[[pa.Table], None] | None = None) -> str:
        """Write it to ``out`` and return its ``content_sha256``; ``on_block`` is called with every block."""
        return write_table(out, self.blocks(), self.metadata(), on_block)

    def content_hash(self) -> str:
        """Return the ``content_sha256`` that `write` would return, with nothing written."""
        content = ContentHash()
        for block in self.blocks():
            content.update(block)
        return content.hexdigest()

    def metadata(self) -> dict[str, Any]:
        """Return what is stored beside the rows."""
        classes = self.inputs.classes
        return {
            "recipe": self.recipe,
            "classes": classes.name,
            "classes_sha256": classes.content_sha256,
            "class_ids": [info.class_id for info in classes.classes],
            "class_names": {info.class_id: info.name for info in classes.classes},
            "seed": self.inputs.seed,
            "images_per_caption": self.images_per_caption,
            "sources": self.bound.sources,
        }


def make_table(recipe: str, inputs: Inputs, num_images: int | None, images_per_caption: int = 1) -> PlannedTable:
    """Return a table that can be built; ``num_images`` None: all captions, or 1,000 rows where they are unlimited.

    Raises:
        InputError: for an unknown recipe; inputs that it lacks; a number of images that is not 1 to 2^32, or more
            than the captions allow; a seed outside 0 to 2^63-1.
    """
    # Inputs that the recipe ignores are refused, so that nobody believes in an option without effect.
    rule = checked_recipe(recipe, inputs.seed, num_images, images_per_caption)
    for name in OPTIONAL_INPUTS:
        if getattr(inputs, name) is not None and name not in rule.takes:
            raise InputError(f"--{name}: was given, but the recipe {recipe} does not read it; leave it out")
    if inputs.class_numbers != "ask" and not {"captions", "images"} & set(rule.takes):
        raise InputError(f"--class-numbers: the recipe {recipe} reads no classes of captions or images; leave it out")
    if not inputs.classes.classes and rule.needs_classes:
        raise InputError(f"--classes: the recipe {recipe} needs classes; `synclones prompts list` names the lists")
    bound = rule.bind(inputs)
    # Only the bound recipe knows how many captions its files hold.
    most = MAX_ROWS if bound.num_captions is None else bound.num_captions * images_per_caption
    if num_images is None:
        num_images = DEFAULT_ROWS if bound.num_captions is None else most
    if num_images > most:
        raise InputError(
            f"--num-images: {num_images} was given, {bound.num_captions} captions with {images_per_caption} images "
            f"each make {most}; give at most that, or raise --images-per-caption"
        )
    return PlannedTable(recipe, inputs, num_images, images_per_caption, bound)


def checked_recipe(recipe: str, seed: int, num_images: int | None, images_per_caption: int) -> Recipe:
    """Return the recipe by name after checking the numbers; no file is read yet.

    Raises:
        InputError: for an unknown recipe, or a number out of range.
    """
    if num_images is not None and not 1 <= num_images <= MAX_ROWS:
        raise InputError(f"--num-images: {num_images} was given, expected 1 to 2^32")
    if not 1 <= images_per_caption <= MAX_COPIES:
        raise InputError(f"--images-per-caption: {images_per_caption} was given, expected 1 to {MAX_COPIES}")
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed: {seed} was given, expected 0 to 2^63-1")
    return load_recipe(recipe)


def build(recipe: str, classes: ClassList, num_images: int, seed: int, out: Path) -> str:
    """Write the table of a recipe that needs classes alone; return its ``content_sha256``.

    Raises:
        InputError: as `make_table`.
    """
    return make_table(recipe, Inputs(classes=classes, seed=seed), num_images).write(out)


def _repeated(made: Columns, numbers: np.ndarray) -> Columns:
    """Return columns of captions as columns of images: row i is caption ``numbers[i]``."""
    return Columns(
        prompt=pick(made.prompt, numbers),
        label=made.label[numbers],
        caption_id=made.caption_id[numbers],
        detail=pick(made.detail, numbers),
        source_key=None if made.source_key is None else pick(made.source_key, numbers),
        class_id=None if made.class_id is None else pick(made.class_id, numbers),
    )

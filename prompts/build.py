"""Builds a prompt table: recipe x classes x seed x number of images.

In: the name of a recipe, a `ClassList`, a seed. Out: a Parquet table whose row i is a pure function of (recipe,
classes, seed, i), so that the first million rows of a table of sixteen are the table of one million.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.errors import InputError
from synclones.prompts.classes import ClassList
from synclones.prompts.recipes import Recipe, load_recipe
from synclones.prompts.table import MAX_ROWS, ROWS_PER_GROUP, SCHEMA, ContentHash, write_table

MAX_SEED = 2**63 - 1  # the keyed hash tells all of them apart


def build(recipe: str, classes: ClassList, num_images: int, seed: int, out: Path) -> str:
    """Write the table to ``out`` and return its ``content_sha256``.

    Raises:
        InputError: an unknown recipe; fewer than 1 or more than 2^32 images; a seed outside 0 to 2^63-1.
    """
    rule = checked_recipe(recipe, num_images, seed)
    metadata = {
        "recipe": recipe,
        "classes": classes.name,
        "classes_sha256": classes.content_sha256,
        "class_ids": [info.class_id for info in classes.classes],
        "class_names": {info.class_id: info.name for info in classes.classes},
        "seed": seed,
    }
    return write_table(out, blocks(rule, classes, seed, num_images), metadata)


def checked_recipe(recipe: str, num_images: int, seed: int) -> Recipe:
    """The recipe by name, when a table of it can be built with this size and seed; raises InputError as `build`."""
    if not 1 <= num_images <= MAX_ROWS:
        raise InputError(f"--num-images: {num_images} was given, expected 1 to 2^32")
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"--seed: {seed} was given, expected 0 to 2^63-1")
    return load_recipe(recipe)


def content_hash(recipe: str, classes: ClassList, num_images: int, seed: int) -> str:
    """The ``content_sha256`` that `build` would return, with nothing written."""
    content = ContentHash()
    for block in blocks(checked_recipe(recipe, num_images, seed), classes, seed, num_images):
        content.update(pa.Table.from_pydict(block, schema=SCHEMA))
    return content.hexdigest()


def blocks(recipe: Recipe, classes: ClassList, seed: int, num_images: int) -> Iterator[dict[str, Any]]:
    """The table's columns in blocks of 100,000 rows."""
    ids = np.array([info.class_id for info in classes.classes], dtype=object)
    for start in range(0, num_images, ROWS_PER_GROUP):
        indices = np.arange(start, min(start + ROWS_PER_GROUP, num_images), dtype=np.int64)
        made = recipe.columns(classes, seed, indices)
        yield {
            "index": indices,
            "prompt": made.prompt,
            "label": made.label,
            "class_id": ids[made.label],
            "recipe": [recipe.name] * len(indices),
            "caption_id": made.caption_id,
            "source_key": [""] * len(indices),
            "detail": made.detail,
        }

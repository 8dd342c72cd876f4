"""Makes and shows prompt tables.

synclones prompts build --recipe clip-templates --classes imagenet1k --num-images 16M --out p.parquet
synclones prompts list
synclones prompts show p.parquet --index 7
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from synclones.config import Count, load
from synclones.errors import InputError, run_main
from synclones.prompts.build import build
from synclones.prompts.classes import SHIPPED, load_classes
from synclones.prompts.recipes import load_recipe, recipe_names
from synclones.prompts.table import PromptTable

VERBS = ("build", "list", "show")


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Build a prompt table; row i depends on recipe, classes, seed and i alone, so a prefix is the smaller table."""

    recipe: str = "clip-templates"
    """How prompts are made; `synclones prompts list` names the recipes."""
    classes: str = "lab-digits"
    """A shipped class list, or a CSV file with a header `class_id,name`."""
    num_images: Count = 1000
    """Rows of the table, one per image; 16M and 10k are understood."""
    seed: int = 0
    """Seed of the recipe's choices."""
    out: Path = Path("data/prompts/lab-clip-templates.parquet")
    """The table's file."""
    dry_run: bool = False
    """Print the first prompts and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show a prompt table, or one row of it."""

    table: Annotated[Path, tyro.conf.Positional]
    """The table's file."""
    index: int = -1
    """Row to show; the first ten by default."""


def main(argv: list[str]) -> None:
    """Run one verb; ``build`` when none is given."""
    verb, rest = (argv[0], argv[1:]) if argv and argv[0] in VERBS else ("build", argv)
    if rest and not rest[0].startswith("-") and verb != "show":
        raise InputError(f"synclones prompts {rest[0]}: no such verb; expected {', '.join(VERBS)}")
    if verb == "build":
        _build(load(BuildConfig, rest, prog="synclones prompts build"))
    elif verb == "list":
        _list()
    else:
        _show(load(ShowConfig, rest, prog="synclones prompts show"))


def _build(config: BuildConfig) -> None:
    classes = load_classes(config.classes)
    load_recipe(config.recipe)
    if config.dry_run:
        from synclones.prompts.build import blocks

        first = next(blocks(load_recipe(config.recipe), classes, config.seed, min(config.num_images, 10)))
        print("\n".join(f"{index}  {prompt}" for index, prompt in enumerate(first["prompt"])))
        return
    if config.out.exists():
        raise InputError(f"--out: {config.out} exists; choose another file, or delete it")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    digest = build(config.recipe, classes, config.num_images, config.seed, config.out)
    low, rest = divmod(config.num_images, len(classes.classes))
    per_class = f"{low} or {low + 1}" if rest else str(low)
    print(
        f"{config.out}: {config.num_images} prompts of {len(classes.classes)} classes, {per_class} each, "
        f"content {digest[:16]}, {time.monotonic() - started:.1f} s\n"
        f"next: accelerate launch generate/run.py --prompts {config.out} --out data/{config.out.stem}"
    )


def _list() -> None:
    print("recipes (--recipe):")
    for name in recipe_names():
        print(f"  {name:<16} {load_recipe(name).phrase}")
    print("class lists (--classes):")
    for name, phrase in SHIPPED.items():
        print(f"  {name:<16} {phrase}")
    print("  FILE.csv         your own, with a header `class_id,name`")


def _show(config: ShowConfig) -> None:
    table = PromptTable(config.table)
    if config.index >= table.num_rows:
        raise InputError(f"--index: {config.index} was given, the table has rows 0 to {table.num_rows - 1}")
    if config.index >= 0:
        for name, value in asdict(table.rows(config.index, config.index + 1)[0]).items():
            print(f"{name:<11} {value}")
        return
    facts = {key: value for key, value in table.metadata.items() if key != "class_names"}
    print("\n".join([f"{config.table}: {table.num_rows} rows", *(f"  {key}: {value}" for key, value in facts.items())]))
    for row in table.rows(0, min(10, table.num_rows)):
        print(f"{row.index:>10}  {row.class_id:<10} {row.prompt}")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

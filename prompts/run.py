"""Makes and shows prompt tables.

synclones prompts build --recipe clip-templates --classes imagenet1k --num-images 16M --out p.parquet
synclones prompts list
synclones prompts show p.parquet --index 7
"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import tyro

from synclones.config import Count, load
from synclones.errors import InputError, run_main
from synclones.prompts.build import blocks, build, checked_recipe, content_hash
from synclones.prompts.characters import printable
from synclones.prompts.classes import SHIPPED, ClassList, load_classes
from synclones.prompts.recipes import load_recipe, recipe_names
from synclones.prompts.table import PromptTable

VERBS = ("build", "list", "show")
# Other commands read this file when they are given no table, so that only the default table may lie there.
DEFAULT_OUT = Path("data/prompts/lab-clip-templates.parquet")


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
    """Seed of the recipe's choices, 0 to 2^63-1."""
    out: Path = DEFAULT_OUT
    """The table's file, `*.parquet`; needed for any but the default table."""
    dry_run: bool = False
    """Print the first prompts and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show a prompt table, or one row of it."""

    table: Annotated[Path, tyro.conf.Positional]
    """The table's file."""
    index: int | None = None
    """Row to show; the first ten by default."""


def main(argv: list[str]) -> None:
    """Run one verb; ``build`` when none is given."""
    verb, rest = (argv[0], argv[1:]) if argv and argv[0] in VERBS else ("build", argv)
    if rest and not rest[0].startswith("-") and verb != "show":
        near = get_close_matches(rest[0], VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(VERBS)}"
        raise InputError(f"synclones prompts {rest[0]}: no such verb; {hint}")
    if verb == "build":
        _build(load(BuildConfig, rest, prog="synclones prompts build"))
    elif verb == "list":
        if rest:
            raise InputError(f"synclones prompts list: {rest[0]!r} was given, expected nothing")
        _list()
    else:
        _show(load(ShowConfig, rest, prog="synclones prompts show"))


def _build(config: BuildConfig) -> None:
    classes = load_classes(config.classes)
    recipe = checked_recipe(config.recipe, config.num_images, config.seed)
    _check_out(config)
    if config.dry_run:
        first = next(blocks(recipe, classes, config.seed, min(config.num_images, 10)))
        print("\n".join(f"{index}  {prompt}" for index, prompt in enumerate(first["prompt"])))
        return
    started = time.monotonic()
    if config.out.exists():
        digest, done = _same_table(config, classes), "there already, unchanged"
    else:
        digest = _write(config, classes)
        done = f"{time.monotonic() - started:.1f} s"
    low, rest = divmod(config.num_images, len(classes.classes))
    per_class = f"{low} or {low + 1}" if rest else str(low)
    print(
        f"{config.out}: {config.num_images} prompts of {len(classes.classes)} classes, {per_class} each, "
        f"content {digest[:16]}, {done}\n"
        f"next: accelerate launch generate/run.py --prompts {config.out} --out data/{config.out.stem}"
    )


def _check_out(config: BuildConfig) -> None:
    if config.out.suffix != ".parquet":
        raise InputError(f"--out: {config.out} was given, expected a file name that ends in .parquet")
    if config.out == DEFAULT_OUT and replace(config, dry_run=False) != BuildConfig():
        name = f"{Path(config.classes).stem}-{config.recipe}-{config.num_images}.parquet"
        raise InputError(
            f"--out: {DEFAULT_OUT} is kept for the default table, which other commands read; "
            f"give another file, such as --out {DEFAULT_OUT.parent / name}"
        )


def _same_table(config: BuildConfig, classes: ClassList) -> str:
    """The content hash of the table that is there, when it is the one asked for; InputError when it is another."""
    try:
        there = PromptTable(config.out)
        num_rows, digest = there.num_rows, there.check()
    except InputError as error:
        raise InputError(f"--out: exists and is no prompt table ({error}); choose another file, or delete it") from None
    if num_rows != config.num_images:
        raise InputError(f"--out: {config.out} exists with {num_rows} rows; choose another file, or delete it")
    if digest != content_hash(config.recipe, classes, config.num_images, config.seed):
        facts = {key: there.metadata.get(key, "unknown") for key in ("recipe", "classes", "seed")}
        raise InputError(f"--out: {config.out} exists with other rows ({facts}); choose another file, or delete it")
    return digest


def _write(config: BuildConfig, classes: ClassList) -> str:
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        return build(config.recipe, classes, config.num_images, config.seed, config.out)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"--out: {config.out} cannot be written ({error.strerror}: {error.filename}); choose another folder"
        ) from None


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
    if config.index is not None and not 0 <= config.index < table.num_rows:
        raise InputError(f"--index: {config.index} was given, the table has rows 0 to {table.num_rows - 1}")
    if config.index is not None:
        for name, value in asdict(table.rows(config.index, config.index + 1)[0]).items():
            print(f"{name:<11} {printable(str(value))}")
        return
    facts = {key: value for key, value in table.metadata.items() if key != "class_names"}
    print(
        "\n".join(
            [f"{config.table}: {table.num_rows} rows", *(f"  {k}: {printable(str(v))}" for k, v in facts.items())]
        )
    )
    for row in table.rows(0, min(10, table.num_rows)):
        print(printable(f"{row.index:>10}  {row.class_id:<10} {row.prompt}"))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

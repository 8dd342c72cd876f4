"""Make and show prompt tables.

synclones prompts build --recipe clip-templates --classes imagenet1k --num-images 16M --out p.parquet
synclones prompts list
synclones prompts show p.parquet --index 7
synclones prompts caption --images data/real --classes imagenet1k --out captions.parquet
synclones prompts write --classes imagenet1k --server http://localhost:8000 --out captions.parquet
synclones prompts balance --captions captions.parquet --concepts wordnet-nouns --out balanced.parquet
"""

import sys
import time
from dataclasses import dataclass, fields

import pyarrow as pa

from synclones.base.errors import InputError
from synclones.base.output import print_json, wants_json
from synclones.base.process import run_main, stoppable
from synclones.base.progress import Progress
from synclones.base.resume import typed
from synclones.base.stage import Stage, Verb
from synclones.base.units import format_count
from synclones.prompts.build import PlannedTable, checked_recipe, make_table
from synclones.prompts.captions.balance import BalanceConfig, balance
from synclones.prompts.captions.describe import CaptionConfig, caption_images
from synclones.prompts.captions.write import WriteConfig, write
from synclones.prompts.characters import printable
from synclones.prompts.classes.lists import SHIPPED, ClassList, load_classes
from synclones.prompts.overview import Overview, lines
from synclones.prompts.recipe import Inputs, load_recipe, recipe_names
from synclones.prompts.settings import DEFAULT_CLASSES, DEFAULT_OUT, BuildConfig, ShowConfig
from synclones.prompts.show import explain_row, overview_lines, overview_values, row_values, summarise, write_overview
from synclones.prompts.status import draw_words
from synclones.prompts.table import PromptTable, check_out


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """List recipes and class lists."""


def main(argv: list[str]) -> None:
    """Run one verb; ``build`` when none is given."""
    STAGE.main(argv)


def perform(config: BuildConfig) -> None:
    """Build a prompt table, or print its first rows."""
    # Everything that can be refused is refused before a long build begins.
    checked_recipe(config.recipe, config.seed, config.num_images, config.images_per_caption)
    check_out(config.out)
    table = _table(config)
    _keep_default(config)
    for note in table.notes:
        print(f"synclones: note: {printable(note)}", file=sys.stderr)
    if config.dry_run:
        first = next(table.blocks()).slice(0, 10)
        print("\n".join(f"{index}  {printable(prompt)}" for index, prompt in enumerate(first["prompt"].to_pylist())))
        return
    # An existing table is compared, not replaced: the same command twice is no error.
    started = time.monotonic()
    if config.out.exists():
        digest, done = _same_table(config, table), "exists already, unchanged"
        summary = summarise(PromptTable(config.out))
    else:
        overview = Overview(table.num_images, len(table.inputs.classes.classes))
        digest = _write(config, table, overview)
        summary = overview.finish()
        done = f"{time.monotonic() - started:.1f} s"
    print(f"{config.out}: {format_count(table.num_images, 'prompt')}, content {digest[:16]}, {done}")
    print("\n".join(lines(summary)))
    if summary.share_cut:
        print(f"synclones: warning: {summary.facts['CLIP tokens']}", file=sys.stderr)
    print(f"next: {_next_command(config, table)}")


def _next_command(config: BuildConfig, table: PlannedTable) -> str:
    images = ["--images", str(config.images), "--strength", "0.6"] if config.images is not None else []
    return typed(draw_words(config.out, (info.name for info in table.inputs.classes.classes), images))


def _table(config: BuildConfig) -> PlannedTable:
    named = config.classes or (DEFAULT_CLASSES if load_recipe(config.recipe).needs_classes else "")
    classes = load_classes(named, config.wordnet_dir) if named else ClassList("none", ())
    given = {field.name: getattr(config, field.name) for field in fields(Inputs) if field.name != "classes"}
    inputs = Inputs(classes=classes, **given)
    return make_table(config.recipe, inputs, config.num_images, config.images_per_caption)


def _keep_default(config: BuildConfig) -> None:
    if config.out == DEFAULT_OUT and not config.dry_run and not config.is_default:
        raise InputError(
            f"--out: {DEFAULT_OUT} is kept for the default table, which other commands read; "
            f"give another file, or no --out for {config.derived_out()}"
        )


def _same_table(config: BuildConfig, table: PlannedTable) -> str:
    """Return the content hash of the existing table.

    Raises:
        InputError: when it is not the table that was asked for.
    """
    try:
        existing = PromptTable(config.out)
        num_rows, digest = existing.num_rows, existing.check()
    except InputError as error:
        raise InputError(f"--out: exists and is no prompt table ({error}); choose another file, or delete it") from None
    if num_rows != table.num_images:
        raise InputError(f"--out: {config.out} exists with {num_rows} rows; choose another file, or delete it")
    if digest != table.content_hash():
        facts = {key: existing.metadata.get(key, "unknown") for key in ("recipe", "classes", "seed")}
        raise InputError(f"--out: {config.out} exists with other rows ({facts}); choose another file, or delete it")
    return digest


def _write(config: BuildConfig, table: PlannedTable, overview: Overview) -> str:
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with Progress("prompts", table.num_images, what=str(config.out), shares=1) as progress:

            def seen(block: pa.Table) -> None:
                overview.update(block)
                progress.add(len(block))

            return table.write(config.out, seen)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"--out: {config.out} cannot be written ({error.strerror}: {error.filename}); choose another folder"
        ) from None


def _list(config: ListConfig) -> None:
    print("recipes (--recipe): prompt for class c, an example, where it comes from")
    for name in recipe_names():
        recipe = load_recipe(name)
        print(
            f"  {name:<18} {recipe.phrase}\n{'':<20} {recipe.text}\n{'':<20} {recipe.example}\n{'':<20} {recipe.paper}"
        )
    print("class lists (--classes):")
    for name, phrase in SHIPPED.items():
        print(f"  {name:<18} {phrase}")
    print(
        "  FILE               your own CSV, TSV or JSON with `id,name[,hypernym,definition]`, or txt with a name a line"
    )
    print("  A, B, C            names of classes; lists and files are joined by commas, too")


def _show(config: ShowConfig) -> None:
    table = PromptTable(config.table)
    if config.index is not None and not 0 <= config.index < table.num_rows:
        raise InputError(f"--index: {config.index} was given, the table has rows 0 to {table.num_rows - 1}")
    if config.index is not None:
        row = table.rows(config.index, config.index + 1)[0]
        print_json(row_values(row)) if wants_json() else print("\n".join(explain_row(table, row)))
        return
    summary = summarise(table)
    if config.out is not None:
        write_overview(config.out, table, summary)
        print(f"look: {config.out}")
    if wants_json():
        print_json(overview_values(table, summary))
    elif config.out is None:
        print("\n".join(overview_lines(table, summary)))


STAGE = Stage(
    name="prompts",
    phrase="Make and show prompt tables: what to draw.",
    verbs={
        "build": Verb(BuildConfig, stoppable(perform)),
        "list": Verb(ListConfig, _list),
        "show": Verb(ShowConfig, _show, json=True),
        "caption": Verb(CaptionConfig, stoppable(caption_images), divided=True),
        "write": Verb(WriteConfig, stoppable(write), divided=True),
        "balance": Verb(BalanceConfig, balance),
    },
    examples=(
        "synclones prompts build --recipe clip-templates --classes imagenet1k --num-images 16M --out p.parquet",
        "synclones prompts list",
        "synclones prompts show p.parquet --index 7",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

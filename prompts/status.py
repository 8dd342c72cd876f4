"""How far prompts are: a table that is there, captions that are, and captions that are being written.

In: a prompt table, a file of captions, or the folder ``FILE.parts`` that grows into one. Out: a `Status`, or None for
others' files.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.json_file import read_json
from synclones.base.resume import CONFIG, typed
from synclones.base.status import State, Status, pace
from synclones.lab.world import preset_for
from synclones.prompts.captions.journal import caption_facts, counted_rows
from synclones.prompts.captions.pieces import PARTS, SETTINGS, cut
from synclones.prompts.classes.lists import SHIPPED, WORDNET_NOUNS, load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.lock import holders


def status(path: Path) -> Status | None:
    """Return how far the prompts or captions of a file are."""
    parts = path if path.name.endswith(PARTS) else path.parent / f"{path.name}{PARTS}"
    if parts.is_dir() and (parts / SETTINGS).exists():
        return _growing(parts)
    if path.suffix != ".parquet" or not path.is_file():
        return None
    facts = caption_facts(path)
    return _table(path) if facts is None else _captions(path, facts)


def _table(path: Path) -> Status | None:
    try:
        table = PromptTable(path)
    except InputError:
        return None
    shown = ("recipe", "classes", "seed")
    facts = {name: table.metadata[name] for name in shown if table.metadata.get(name) is not None}
    names = table.metadata.get("class_names")
    return Status(
        kind="prompt table",
        path=str(path),
        state="finished",
        unit="prompts",
        planned=table.num_rows,
        done=table.num_rows,
        facts=facts,
        next=typed(draw_words(path, names.values() if isinstance(names, dict) else ())),
    )


def draw_words(table: Path, class_names: Iterable[str], more: Sequence[str] = ()) -> list[str]:
    """Return the words of the command that draws a table, with a preset whose generator knows its classes."""
    preset = preset_for(class_names)
    return ["generate", "--preset", preset, "--prompts", str(table), *more, "--out", f"data/{table.stem}"]


def _captions(path: Path, facts: dict[str, Any]) -> Status:
    rows = facts.get("rows")
    counts = facts.get("counts")
    written = {"model": str(facts.get("model", ""))}
    written |= {str(name): str(count) for name, count in counts.items()} if isinstance(counts, dict) else {}
    number = rows if type(rows) is int else 0
    build = ["prompts", "build", "--recipe", *_recipe_of(facts)]
    return Status(
        kind="captions",
        path=str(path),
        state="finished",
        unit="captions",
        planned=number,
        done=number,
        facts=written,
        next=typed([*build, "--captions", str(path), "--out", f"{path.stem}-prompts.parquet"]),
    )


def _recipe_of(facts: dict[str, Any]) -> list[str]:
    """Return the recipe that reads such captions, with the classes it asks for: of images, written, or balanced."""
    if "images" in facts:
        return ["captions"]
    if "classes_sha256" not in facts:
        return ["text-file"]
    shipped = (name for name in SHIPPED if name != WORDNET_NOUNS)  # which takes seconds, and a package of its own
    own = next((name for name in shipped if load_classes(name).content_sha256 == facts["classes_sha256"]), None)
    return ["concept-llm", "--classes", own or "CLASSES.csv"]  # where somebody's own list lies is not known


def _growing(parts: Path) -> Status:
    """Return how far the pieces of a file are that is being written."""
    out = parts.with_name(parts.name.removesuffix(PARTS))
    now, held = pace(parts), holders(parts)
    try:
        settings = read_json(parts / SETTINGS)["settings"]
        pieces = cut(int(settings["rows"]), int(settings["batch_size"]))
        planned = pieces[-1].stop
    except (OSError, ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        problem = f"{parts / SETTINGS}: damaged ({type(error).__name__}); choose another --out, or delete {parts}"
        return Status(kind="captions", path=str(out), state="damaged", unit="captions", problems=(problem,))
    whole = [piece for piece in pieces if (parts / f"{piece.name}.jsonl").exists()]
    done = sum(piece.stop - piece.start for piece in whole)
    done += sum(counted_rows(path) for path in parts.glob(".piece-*.part"))
    state: State = "running" if held or now.is_running else "unfinished"
    verb = "caption" if "images" in settings else "write"
    command = (
        ["prompts", verb, "--config", str(parts / CONFIG), "--out", str(out)] if (parts / CONFIG).is_file() else []
    )
    return Status(
        kind="captions",
        path=str(out),
        state=state,
        unit="captions",
        planned=planned,
        done=done,
        rate_per_s=now.rate_per_s,
        eta_s=now.eta_s(planned - done) if state == "running" else None,
        holders=held,
        facts={"pieces": f"{len(whole)} of {len(pieces)}", "model": str(settings.get("model", ""))},
        next="" if state == "running" or not command else typed(command),
    )

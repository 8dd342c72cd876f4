"""``synclones prompts write``: have a language model write captions of concepts, alone, in a place, or in a relation.

In: a class list or concept bank, a model or a server. Out: a Parquet file of captions for the recipe `concept-llm`.
Batches are fixed by the settings, so that any number of processes divide them, and end after any kills with the
captions that one uninterrupted process would have written (if the model answers the same).
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from synclones.base import machine
from synclones.base.config import check_ranges
from synclones.base.draws import hash64, uniform
from synclones.base.dry_run import DryRun
from synclones.base.files import sha256_bytes
from synclones.base.resume import typed
from synclones.prompts.captions.checks import caption_in, fault
from synclones.prompts.captions.journal import Record
from synclones.prompts.captions.language_model import LanguageModel, Local, Request, Sampling, Server
from synclones.prompts.captions.pieces import Work, refuse_other_file, say_cost
from synclones.prompts.captions.transformers_model import find_text_model, how_it_computes
from synclones.prompts.classes.lists import ClassInfo, ClassList, load_classes
from synclones.prompts.places import places
from synclones.prompts.recipe import CAPTION_KIND, CAPTION_SETTING, REQUEST_SEED
from synclones.prompts.table import check_out

# The shares of captions with a place, with a relation, and of the concept alone, as SynCLR draws them.
KINDS = {"place": 0.45, "relation": 0.11, "plain": 0.44}
RELATIONS = (
    "next to something else", "behind something", "in front of a crowd", "on top of something", "under something",
    "inside a container", "being held by someone", "far away in the distance", "very close to the camera",
    "together with several others",
)  # fmt: skip
ATTEMPTS = 3
FALLBACK = "a photo of {}."


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """Have a language model write captions of concepts; the same command resumes after any kill, or helps another."""

    classes: str = "imagenet1k"
    """Concepts: class lists by name or file, joined by commas; wordnet-nouns for all of WordNet."""
    captions_per_class: int = 10
    """Captions of each concept."""
    words: int = 15
    """Longest caption that is asked for, in words."""
    server: str = ""
    """Address of an OpenAI-compatible server (vLLM and others); without it the model runs in this process."""
    model: str = "mistralai/Mistral-7B-Instruct-v0.2"
    """Hub id or folder, or the name by which the server knows it."""
    revision: str = ""
    """Commit of the hub id; recorded for a server."""
    temperature: float = 0.7
    """0 takes the most probable word each time."""
    top_p: float = 0.95
    """Words are drawn among the most probable that sum to this."""
    max_tokens: int = 60
    """Longest answer in tokens."""
    seed: int = 0
    """Decides places, relations and the seed of each request."""
    places: Path | None = None
    """Own places, one a line; the 365 of Places365 by default."""
    wordnet_dir: Path | None = None
    """Folder of a WordNet 3.0 database, for --classes wordnet-nouns."""
    batch_size: int = 16
    """Requests sent or drawn together."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a model of this process runs."""
    threads: int = 4
    """Threads of a model on the CPU; sums round by their number, so that all processes have the same."""
    out: Path = Path("captions.parquet")
    """File of the captions, `*.parquet`; the folder `OUT.parts` beside it holds them until all are there."""
    dry_run: bool = False
    """Print the first instructions, their number, the rate measured on one batch, hours and cost, and write nothing."""
    price_per_hour: float = 0.0
    """Dollars per hour of one process' machine, for --dry-run."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            captions_per_class=(1, 100_000),
            words=(3, 60),
            temperature=(0, 5),
            top_p=(0, 1),
            max_tokens=(4, 1000),
            seed=(0, 2**63 - 1),
            batch_size=(1, 1024),
            threads=(1, 1024),
            price_per_hour=(0, 1e6),
        )
        check_out(self.out)


@dataclass(frozen=True)
class CaptionRequest:
    """One caption that a model is asked for."""

    number: int
    concept: ClassInfo
    kind: str
    setting: str
    """The place or relation; empty for the concept alone."""

    def instruction(self, words: int) -> str:
        """Return the request in words. Concept, definition and place are data: nothing in them is interpreted."""
        meaning = self.concept.more.get("definition", "")
        parts = [f"Write one caption for a photograph that shows this: {self.concept.name}."]
        parts += [f"It means: {meaning}."] if meaning else []
        parts += [f"The scene is this place: {self.setting}."] if self.kind == "place" else []
        parts += [f"Show it {self.setting}."] if self.kind == "relation" else []
        return " ".join([*parts, f"Use at most {words} words, name the subject, and answer with the caption alone."])


def caption_requests(config: WriteConfig, classes: ClassList) -> list[CaptionRequest]:
    """Return one request per caption: request n is for concept n mod C, with kind and setting by seed and n."""
    numbers = np.arange(len(classes.classes) * config.captions_per_class)
    share = uniform(config.seed, CAPTION_KIND, numbers)
    kinds = np.array(list(KINDS))[np.searchsorted(np.cumsum(list(KINDS.values()))[:-1], share, side="right")]
    scenes = places(config.places)
    draw = hash64(config.seed, CAPTION_SETTING, numbers)
    options = {"place": scenes, "relation": RELATIONS, "plain": ("",)}
    concept = [classes.classes[n % len(classes.classes)] for n in numbers.tolist()]
    return [
        CaptionRequest(n, concept[n], str(kind), options[str(kind)][int(draw[n]) % len(options[str(kind)])])
        for n, kind in enumerate(kinds)
    ]


def write(config: WriteConfig) -> None:
    """Ask for what no process has written yet; the last one writes the file."""
    refuse_other_file(config.out)
    classes = load_classes(config.classes, config.wordnet_dir)
    wanted = caption_requests(config, classes)
    # What decides a caption is known before any is written: other settings are refused, not mixed.
    settings, load = _model(config)
    settings |= {"classes_sha256": classes.content_sha256, "places": sha256_bytes(repr(places(config.places)).encode())}
    work = Work(config.out, settings, len(wanted), config.batch_size)
    writer = _Writer(config, wanted, load, work)
    if config.dry_run:
        _dry_run(config, len(classes.classes), work, writer)
        return
    if not work.begin(config):
        return
    work.divide(writer.answer, "captions")
    finished = work.finish(_table)
    if finished is None:
        return
    table, counts = finished
    counted = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{config.out}: {len(table)} captions of {len(classes.classes)} concepts; {counted}")
    command = ["prompts", "build", "--recipe", "concept-llm", "--classes", config.classes]
    print(f"next: {typed([*command, '--captions', str(config.out), '--out', 'p.parquet'])}")


def _table(records: list[Record]) -> tuple[pa.Table, Counter[str]]:
    counts = Counter(record["fault"] or "good" for record in records)
    kept = [{name: value for name, value in record.items() if name != "key"} for record in records]
    return pa.Table.from_pylist(kept), counts


def _model(config: WriteConfig) -> tuple[Record, Callable[[], LanguageModel]]:
    """Return (what decides the captions, what loads the model or prepares to ask it)."""
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens)
    settings: Record = {
        "model": config.model,
        "revision": config.revision,
        "server": bool(config.server),
        "seed": config.seed,
        "words": config.words,
        "captions_per_class": config.captions_per_class,
        **vars(sampling),
    }
    if config.server:
        server = Server(config.server, config.model, sampling, config.batch_size)
        return settings, lambda: server
    folder = find_text_model(config.model, config.revision, "--model")
    settings |= {"model": folder.name, "revision": folder.revision, "model_sha256": folder.sha256}
    settings |= how_it_computes(config.device, config.threads)
    return settings, lambda: Local(folder, sampling, config.device, config.threads)


class _Writer:
    """Writes any batch of the wanted captions; the model is loaded with the first that needs it."""

    def __init__(
        self, config: WriteConfig, wanted: list[CaptionRequest], load: Callable[[], LanguageModel], work: Work
    ):
        self.wanted, self._config, self._load, self._work = wanted, config, load, work
        self._model: LanguageModel | None = None

    def answer(self, start: int, stop: int, before: list[Record]) -> tuple[list[Record], int]:
        """Return the records of captions ``start`` to below ``stop``, and how many were asked for.

        A batch that an earlier version has whole is taken over.
        """
        keys = [str(wanted_caption.number) for wanted_caption in self.wanted[start:stop]]
        if all(key in self._work.earlier for key in keys):
            return [self._work.earlier[key] for key in keys], 0
        self._model = self._model or self._load()
        return _ask(self._model, self.wanted[start:stop], self._config), len(keys)


def _dry_run(config: WriteConfig, num_concepts: int, work: Work, writer: _Writer) -> None:
    """Print what the work would take; of several processes one speaks."""
    if machine.rank():
        return
    missing = 0 if work.is_written() else work.num_rows - work.check()
    work.earlier = {}  # what is known would be no measurement
    dry = DryRun("prompts write")
    for wanted_caption in writer.wanted[:5]:
        dry.line("", wanted_caption.instruction(config.words))
    counted = f"{work.num_rows} captions of {num_concepts} concepts, {missing} of them left to write"
    dry.line("work", counted, rows=work.num_rows, left=missing)
    model = str(work.settings["model"])
    dry.line("model", f"{model} {work.settings.get('model_sha256', '')[:16]}".rstrip(), model=model)
    # The first batch of a model here warms up: it loads weights and chooses kernels. A server is asked for one alone.
    for _ in range(1 if config.server else 2):
        started = time.monotonic()
        rows = writer.answer(0, min(config.batch_size, work.num_rows), [])[1]
        measured = rows, time.monotonic() - started
    where = "the server" if config.server else ", ".join(str(work.settings[key]) for key in ("device", "dtype"))
    say_cost(dry, missing, measured, where, config.price_per_hour)


def _ask(model: LanguageModel, batch: list[CaptionRequest], config: WriteConfig) -> list[Record]:
    """Return the batch's captions; a faulty one is asked for again, twice, then replaced and counted."""
    made: dict[int, Record] = {}
    left = batch
    for attempt in range(ATTEMPTS):
        numbers = np.array([wanted_caption.number for wanted_caption in left])
        seeds = hash64(config.seed, REQUEST_SEED, attempt, numbers) >> np.uint64(33)
        answers = model.answers(
            [Request(w.instruction(config.words), int(s)) for w, s in zip(left, seeds, strict=True)]
        )
        captions = [caption_in(answer) for answer in answers]
        for wanted_caption, caption in zip(left, captions, strict=True):
            made[wanted_caption.number] = _record(wanted_caption, caption, fault(caption), attempt)
        left = [wanted_caption for wanted_caption in left if made[wanted_caption.number]["fault"]]
        if not left:
            break
    for wanted_caption in left:
        made[wanted_caption.number]["caption"] = FALLBACK.replace("{}", wanted_caption.concept.name)
    return [made[wanted_caption.number] for wanted_caption in batch]


def _record(wanted_caption: CaptionRequest, caption: str, problem: str, attempt: int) -> Record:
    facts = {
        "key": str(wanted_caption.number),
        "caption": caption,
        "class": wanted_caption.concept.class_id,
        "kind": wanted_caption.kind,
    }
    return facts | {"setting": wanted_caption.setting, "attempt": attempt, "fault": problem}

"""Find the prompt recipes: every file of ``prompts/recipes/`` is one, so adding a recipe is adding a file.

A recipe file has a docstring (first line: what it is; then lines ``Text:``, ``Example:`` and ``Paper:``) and a function
``bind(inputs) -> Bound``; ``TAKES`` names the optional inputs it reads. What is bound is a pure function of caption
numbers: caption g of class g mod C, so that the classes of any prefix differ by at most one caption.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.draws import GOLDEN, finalise
from synclones.base.errors import InputError
from synclones.prompts.classes.labels import ClassNumbers
from synclones.prompts.classes.lists import ClassList

RECIPES = Path(__file__).resolve().parent / "recipes"
# What random numbers are for, beside the seed: the same number never serves two choices.
CONCEPT_ORDER, CONCEPT_PLACE, CAPTION_ORDER, CAPTION_KIND, CAPTION_SETTING, REQUEST_SEED = range(6)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What recipes may draw on; each takes what it needs and refuses what it lacks."""

    classes: ClassList
    """The classes or concepts; an empty list for a recipe that has none."""
    seed: int = 0
    """Seed of the recipe's choices, 0 to 2^63-1."""
    captions: Path | None = None
    """File or folder of captions."""
    bad_captions: Literal["stop", "skip"] = "stop"
    """What happens to a caption that cannot be used."""
    class_numbers: ClassNumbers = "ask"
    """What a number as the class of a caption or image means, where ids and positions differ."""
    templates: Path | None = None
    """Text file, one template a line, ``{}`` in place of the class name; OpenAI's 80 when None."""
    images: Path | None = None
    """Folder of images or shards, or one tar: the real images that a table has rows for."""
    places: Path | None = None
    """Text file, one place a line; the 365 of Places365 when None."""
    wordnet_dir: Path | None = None
    """Folder of a WordNet database; the first one installed when None."""


@dataclass(frozen=True)
class Columns:
    """What a recipe decides for n captions."""

    prompt: pa.Array
    """string[n]."""
    label: np.ndarray
    """int32[n], -1 for none."""
    caption_id: np.ndarray
    """int64[n]: equal for equal choices."""
    detail: pa.Array
    """string[n]: JSON texts, or empty ones."""
    source_key: pa.Array | None = None
    """string[n], or None when no caption comes from a real sample."""
    class_id: pa.Array | None = None
    """string[n], or None when the label says it."""


@dataclass(frozen=True)
class Bound:
    """A recipe with its inputs."""

    columns: Callable[[np.ndarray], Columns]
    """Caption numbers int64[n], ascending, each once -> what they say; n = 1 costs under a millisecond."""
    num_captions: int | None = None
    """How many captions there are; None when there is one for every number."""
    sources: dict[str, str] = field(default_factory=dict)
    """What the rows depend on besides classes and seed: role -> name and content hash."""
    notes: tuple[str, ...] = ()
    """What a user should know about the inputs, such as fallbacks taken."""


@dataclass(frozen=True)
class Recipe:
    """A named way from classes to prompts."""

    name: str
    phrase: str
    text: str
    """The exact form of the prompt."""
    example: str
    paper: str
    takes: tuple[str, ...]
    """Which of the optional inputs it reads."""
    needs_classes: bool
    """Whether it makes nothing without a class list."""
    bind: Callable[[Inputs], Bound]


def recipe_names() -> list[str]:
    """Return the names of all recipes, as written on the command line."""
    return sorted(path.stem.replace("_", "-") for path in RECIPES.glob("*.py"))


def load_recipe(name: str) -> Recipe:
    """Load a recipe by name.

    Raises:
        InputError: when there is none; the message offers a similar name.
    """
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(recipe_names())}"
        raise InputError(f"--recipe: {name!r} is unknown; {hint}")
    module = import_module(f"synclones.prompts.recipes.{name.replace('-', '_')}")
    lines = inspect.cleandoc(module.__doc__ or "").splitlines()
    facts = {key: _fact(lines, key) for key in ("Text", "Example", "Paper")}
    return Recipe(
        name=name,
        phrase=lines[0],
        text=facts["Text"],
        example=facts["Example"],
        paper=facts["Paper"],
        takes=getattr(module, "TAKES", ()),
        needs_classes=getattr(module, "NEEDS_CLASSES", True),
        bind=module.bind,
    )


def _fact(lines: list[str], key: str) -> str:
    return next(line.removeprefix(f"{key}:").strip() for line in lines if line.startswith(f"{key}:"))


# ------------------------------------------------------------------ what recipes are made of


def texts(values: Sequence[str]) -> pa.Array:
    """Return the values as string[n]."""
    return pa.array(values, pa.string())


def pick(pool: pa.Array, numbers: np.ndarray) -> pa.Array:
    """Return the entries ``numbers`` int[n] of a pool, in their order."""
    return pool.take(pa.array(numbers))


def joined(*pieces: pa.Array | str) -> pa.Array:
    """Join each row's pieces, one after the other; a plain text is the same in every row."""
    return pc.binary_join_element_wise(*pieces, "")


def json_text(value: object) -> str:
    """Return a value as JSON: a ``detail``, or a piece of one."""
    return json.dumps(value, ensure_ascii=False)


def json_texts(values: Sequence[object]) -> pa.Array:
    """Return the values as JSON, string[n]."""
    return texts([json_text(value) for value in values])


def constant(text: str, n: int) -> pa.Array:
    """Return string[n], the same text in every row."""
    return pa.repeat(pa.scalar(text, pa.string()), n)


def class_captions(prompts: Sequence[str], details: Sequence[str]) -> Callable[[np.ndarray], Columns]:
    """Return the columns of a recipe with one caption per class."""
    prompt_texts, facts = texts(prompts), texts(details)

    def columns(captions: np.ndarray) -> Columns:
        label = captions % len(prompt_texts)
        return Columns(pick(prompt_texts, label), label.astype(np.int32), label, pick(facts, label))

    return columns


class EvenChoice:
    """The option of n for a class's k-th caption: every class goes through all of them in a shuffled order.

    The seed decides the order, the same for all classes, and where each class begins.
    """

    def __init__(self, seed: int, num_classes: int, num_options: int):
        self._order = np.argsort(keyed_hash(seed, 0, np.arange(num_options)), kind="stable")
        offset = keyed_hash(seed, 1, np.arange(num_classes)) % np.uint64(num_options)
        self._offset = offset.astype(np.int64)

    def __call__(self, label: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Return int64[n] for classes ``label`` and their captions ``turn``, both int64[n]."""
        return self._order[(turn + self._offset[label]) % len(self._order)]


def keyed_hash(seed: int, purpose: int, values: np.ndarray) -> np.ndarray:
    """Return uint64[n] that decides the order of templates and places; other choices draw by `base.draws`.

    Purposes 0 and 1 only: seed s with purpose 2 would be seed s + 1 with purpose 0.
    """
    with np.errstate(over="ignore"):
        return finalise(values.astype(np.uint64) + GOLDEN * np.uint64(seed * 2 + purpose + 1 & 2**64 - 1))

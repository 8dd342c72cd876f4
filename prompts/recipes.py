"""Finds the prompt recipes: every ``prompts/recipe_NAME.py`` is one, so adding a recipe is adding a file.

A recipe file has a docstring (first line: what it is; then the paper) and a pure function
``columns(classes, seed, indices) -> Columns``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import numpy as np

from synclones.errors import InputError
from synclones.prompts.classes import ClassList

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Columns:
    """What a recipe decides for n rows."""

    prompt: list[str]
    label: np.ndarray
    """int32[n], -1 for none."""
    caption_id: np.ndarray
    """int64[n]."""
    detail: list[str]
    """JSON texts, or empty ones."""


@dataclass(frozen=True)
class Recipe:
    """A named way from classes to prompts."""

    name: str
    phrase: str
    columns: Callable[[ClassList, int, np.ndarray], Columns]


def recipe_names() -> list[str]:
    """The recipes there are, as written on the command line."""
    return sorted(path.stem.removeprefix("recipe_").replace("_", "-") for path in HERE.glob("recipe_*.py"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name. Raises InputError with the near one when there is none."""
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(recipe_names())}"
        raise InputError(f"--recipe: {name!r} is unknown; {hint}")
    module = import_module(f"synclones.prompts.recipe_{name.replace('-', '_')}")
    return Recipe(name, (module.__doc__ or "").strip().splitlines()[0], module.columns)


def keyed_hash(seed: int, purpose: int, values: np.ndarray) -> np.ndarray:
    """uint64[n] that depends on the seed, a purpose and the value alone: SplitMix64's finaliser (Steele et al. 2014).

    Written out, because the streams of a library's generator may change between its versions.
    """
    with np.errstate(over="ignore"):
        mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed * 2 + purpose + 1 & 2**64 - 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return mixed ^ (mixed >> np.uint64(31))

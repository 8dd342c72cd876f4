"""What a recipe states, for a dry run that names no data: its file as it stands, and what flags change of it.

In: settings. Out: standard output; nothing is opened but the recipe, and nothing is written.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from synclones.base.config import load
from synclones.base.dry_run import DryRun
from synclones.base.yaml_file import read_yaml
from synclones.train.settings import TrainConfig

RECIPES = Path(__file__).resolve().parent / "recipes"
_SAYS_HOW = ("recipe", "out", "dry_run", "price_per_hour")


def print_recipe(config: TrainConfig, data: str) -> None:
    """Print the recipe's file, settings that are others here, and ``data``, a sentence on what is missing."""
    dry = DryRun("train")
    # Some recipes hold only for a training that begins from weights, and leave it to flags which.
    given = {name: value for name in ("recipe", "weights") if (value := getattr(config, name))}
    stated = load(TrainConfig, [], "train", RECIPES, given)
    if config.recipe:
        text = (RECIPES / f"{config.recipe}.yaml").read_text(encoding="utf-8")
        dry.line("", text.rstrip(), recipe=config.recipe, expected=list(config.expected))
    changed = _changed(stated, config)
    if config.weights and config.weights != (own := _own_weights(config)):
        changed["weights"] = own, config.weights
    for name, (before, now) in changed.items():
        dry.line("here", f"{name}: {_shown(now)}, in place of {_shown(before)}")
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _SAYS_HOW}
    dry.line("data", data, data=[], settings={name: _plain(value) for name, value in values.items()})
    dry.print()


def _own_weights(config: TrainConfig) -> str:
    """Return the weights that the recipe itself begins from, or nothing."""
    stated = read_yaml(RECIPES / f"{config.recipe}.yaml").get("weights") if config.recipe else None
    return str(stated.value) if stated else ""


def _changed(stated: TrainConfig, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return name -> (what the recipe says, what holds) of each setting that flags or files changed."""
    names = [field.name for field in fields(config) if field.name not in _SAYS_HOW]
    pairs = {name: (getattr(stated, name), getattr(config, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "none"


def _plain(value: Any) -> Any:
    """Return a value of JSON: paths as text."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value

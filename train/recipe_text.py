"""What a recipe states, for a dry run that names no data: its file as it stands, and what flags change of it.

In: settings. Out: standard output; nothing is opened but the recipe, and nothing is written.
"""

from pathlib import Path
from typing import Any

from synclones.base.config import load, to_dict
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
    before, now = to_dict(stated), to_dict(config)
    if config.weights:
        before["weights"] = _own_weights(config)
    for name in now:
        if name not in _SAYS_HOW and now[name] != before[name]:
            dry.line("here", f"{name}: {_shown(now[name])}, in place of {_shown(before[name])}")
    dry.line("data", data, data=[], settings={name: now[name] for name in now if name not in _SAYS_HOW})
    dry.print()


def _own_weights(config: TrainConfig) -> str:
    """Return the weights that the recipe itself begins from, or nothing."""
    stated = read_yaml(RECIPES / f"{config.recipe}.yaml").get("weights") if config.recipe else None
    return str(stated.value) if stated else ""


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value) or "none"

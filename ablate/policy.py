"""Policies of practice, which candidates are taken: every file of ``ablate/policies/`` is one.

In: the name of a policy, or a YAML file. Out: a `Policy`, of which every number is within its range.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from synclones.ablate.answers import Answers
from synclones.base.errors import InputError
from synclones.base.json_file import canonical_json
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given, read_yaml

POLICIES = Path(__file__).resolve().parent / "policies"
SCORES = Path(__file__).resolve().parent / "scores"
Draw = Literal["rounds", "at once", "same compute"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a loop does with its candidates, or what it is compared with."""

    draw: Draw = "rounds"
    """``rounds``: the loop. ``at once``: as many images as the loop of the policy ``like`` keeps, all drawn at once and
    trained on for as long. ``same compute``: as much drawing and training as that loop takes, at once."""
    like: str = ""
    """Name of the loop that it is compared with."""
    score: str = "uniform"
    """A file of ``ablate/scores/``: candidates with the highest are taken."""
    keep: Literal["images", "prompts"] = "images"
    """``images``: candidates that are taken join the training as they are. ``prompts``: those of the taken candidates
    are appended to the prompt table, and drawn from other noise."""
    quota: Literal["class", "none"] = "class"
    """``class``: equally many of each class; ``none``: whichever have the highest scores."""
    share: float = 0.25
    """Share of the candidates of a round that is taken, above 0 and at most 1."""
    skip: float = 0.0
    """Share of the candidates, those of the highest scores, that is left out first; below 1."""
    temperature: float = 0.0
    """0: the highest scores are taken. Above: candidates are drawn with weights exp(score / temperature)."""
    learner: Literal["goes on", "begins anew"] = "goes on"
    """Whether each round trains the learner of the round before further, or a new one."""


@dataclass(frozen=True)
class Score:
    """A score as its file has it."""

    name: str
    learners: int
    """How many learners it compares; 0 where it looks at none."""
    teacher: bool
    """Whether it asks a teacher."""
    score: Callable[[Answers], np.ndarray]
    """Return float64[n], high for what is to be taken."""


def load_score(name: str) -> Score:
    """Return a score by the name of its file.

    Raises:
        InputError: there is none.
    """
    known = sorted(path.stem for path in SCORES.glob("*.py"))
    if name not in known:
        raise InputError(f"score {name!r} is unknown{suggestion(name, known)}")
    module = import_module(f"synclones.ablate.scores.{name}")
    return Score(name, module.LEARNERS, module.TEACHER, module.score)


def policy_names() -> list[str]:
    """Return the names of the shipped policies."""
    return sorted(path.stem for path in POLICIES.glob("*.yaml"))


def load_policy(name: str) -> Policy:
    """Return a shipped policy by name, or one of a file that ends in ``.yaml``.

    Raises:
        InputError: there is none, or a line of it says what no policy can be.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    if name not in policy_names():
        near = get_close_matches(name, policy_names(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(policy_names())}, or a .yaml file"
        raise InputError(f"--policy: {name!r} is unknown; {hint}")
    return _read(POLICIES / f"{name}.yaml")


def identity(policy: Policy) -> dict[str, Any]:
    """Return what a choice depends on, as JSON-able values."""
    return asdict(policy)


def _read(path: Path) -> Policy:
    given = read_yaml(path)
    known = {field.name: field.type for field in fields(Policy)}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{value.where}: {name!r} is unknown{suggestion(name, list(known))}")
        _check_type(name, known[name], value)
    policy = Policy(**{name: value.plain() for name, value in given.items()})
    _check(policy, {name: value.where for name, value in given.items()}, path)
    return policy


def _check_type(name: str, kind: Any, given: Given) -> None:
    try:
        TypeAdapter(kind).validate_json(canonical_json(given.plain()), strict=True)
    except ValidationError:
        allowed = ", ".join(map(repr, get_args(kind))) or {float: "a number", str: "text"}[kind]
        raise InputError(f"{given.where}: {name}: got {given.shown()}, expected {allowed}") from None


def _check(policy: Policy, where: dict[str, str], path: Path) -> None:
    """Refuse numbers out of range, and settings that the policy would not look at."""
    for name, good, expected in (
        ("share", 0 < policy.share <= 1, "above 0 and at most 1"),
        ("skip", 0 <= policy.skip < 1, "0 and more, below 1"),
        ("temperature", 0 <= policy.temperature < 1e6, "0 and more"),
    ):
        if not good:
            raise InputError(f"{where.get(name, path)}: {name}: {getattr(policy, name)} was given, expected {expected}")
    if policy.share + policy.skip > 1:
        raise InputError(f"{path}: share and skip are together {policy.share + policy.skip:g}; expected at most 1")
    load_score(policy.score)
    of_a_loop = [name for name in where if name not in ("draw", "like")]
    if policy.draw != "rounds" and of_a_loop:
        raise InputError(
            f"{where[of_a_loop[0]]}: {of_a_loop[0]} is of a loop, draw {policy.draw!r} is none; leave it out"
        )
    if (policy.draw == "rounds") == bool(policy.like):
        raise InputError(f"{path}: like: POLICY says which loop `draw: {policy.draw}` is like; a loop has none")
    if policy.like and load_policy(policy.like).draw != "rounds":
        raise InputError(f"{where['like']}: like: {policy.like!r} is no loop; name one")

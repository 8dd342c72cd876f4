"""The language of ``--data``: which sets a training reads, how much of each, and how often an epoch shows it.

In: texts of the command line, or one YAML file. Out: a `Mixture`; nothing is opened.

    --data data/synthetic data/real                      # all of both
    --data data/synthetic data/real:8                    # each real image eight times per epoch
    --data data/synthetic imagenet/train,fraction=1/8,repeat=8
    --data data/synthetic,first=1M                       # of a larger set what a smaller one would have been
    --data data/synthetic,share=0.5 data/real,share=0.5 total=1M
    --data data/synthetic,without=doubtful.txt           # all but the images whose numbers the file lists
    --data mixture.yaml
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from synclones.base.config import parse_count
from synclones.base.errors import InputError
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given, read_yaml

MAX_REPEAT = 10**6
PAIR_MODES = ("pick-one", "both")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One set of a mixture, as it was asked for."""

    path: str
    name: str = ""
    """What tables call it; the last part of the path by default."""
    first: int = 0
    """Only its images below this number, as if no more had been drawn; 0 for all."""
    count: int = 0
    """Different images of it: the first of a seeded permutation; 0 for what ``fraction`` says."""
    fraction: Fraction = Fraction(1)
    """Share of its images that are used, chosen alike."""
    repeat: Fraction = Fraction(1)
    """How often an epoch shows each of them."""
    images: int = 0
    """Images of it that an epoch shows, in place of ``repeat``."""
    share: Fraction = Fraction(0)
    """Its share of the mixture's ``total``, in place of ``repeat``."""
    balance: bool = False
    """Show every class equally often, and choose equally many of each."""
    subset_seed: int = 0
    """Seed of the choice; a smaller choice of the same seed is within a larger one."""
    only: str = ""
    """File with the numbers of the only images that are used."""
    without: str = ""
    """File with the numbers of images that are not used."""
    classes: str = ""
    """File or dataset folder that says what the labels of a foreign set mean."""
    label_key: str = ""
    """Key of a sample's json, or column, that holds its label."""
    caption_key: str = ""
    """Key of a sample's json, or column, that holds its text."""
    split: str = ""
    """Which split of the set; by default ``train`` of our own, and the only one of others."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Synthetic images joined to the real ones they came from."""

    mode: str
    """``pick-one``: every showing picks one of the two; ``both``: they stay together."""
    real: str
    """Name of the set of real images."""
    synthetic: str
    """Name of the set whose samples have a ``source_key``."""


@dataclass(frozen=True)
class Mixture:
    """What ``--data`` says."""

    items: tuple[Item, ...] = ()
    total: int = 0
    """Images per epoch; 0 for the sum of what the items say."""
    pair: Pair | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences about what could have been meant otherwise."""


def parse_mixture(texts: Sequence[str]) -> Mixture:
    """Read the values of ``--data``: sets, ``total=N``, ``pair=MODE:REAL+SYNTHETIC``, or one YAML file.

    Raises:
        InputError: naming the text, or file and line, and what is expected.
    """
    if len(texts) == 1 and texts[0].endswith((".yaml", ".yml")):
        return _checked(_from_yaml(Path(texts[0])))
    items: list[Item] = []
    top: dict[str, Any] = {}
    notes: list[str] = []
    for text in texts:
        key = text.partition("=")[0]
        if key in _TOP and "=" in text and not os.path.exists(text):
            _put(top, key, _TOP[key], text.partition("=")[2], f"--data: {text!r}")
            continue
        items.append(_item(text))
        notes += _ambiguities(text)
    return _checked(Mixture(tuple(items), **top, notes=tuple(notes)))


def _item(text: str) -> Item:
    """Read ``PATH[:REPEAT][,KEY=VALUE]...``; a path that exists as it stands is one."""
    where = f"--data: {text!r}"
    if os.path.exists(text):
        return Item(path=text)
    path, *settings = text.split(",")
    while settings and "=" not in settings[0]:  # a comma of the path
        path = f"{path},{settings.pop(0)}"
    values: dict[str, Any] = {}
    folder, colon, times = path.rpartition(":")
    if colon and not os.path.exists(path) and _is_repeat(times):
        path = folder
        _put(values, "repeat", _repeat, times, where)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{where}: {setting!r} is no KEY=VALUE; write one, as in count=100k")
        _put(values, key, _KEYS.get(key.replace("_", "-")), value, where)
    return _named(Item(path=path, **values), where)


def _is_repeat(text: str) -> bool:
    return bool(text) and text.isascii() and text[0].isdigit()


def _put(values: dict[str, Any], key: str, parse: Callable[[Any], Any] | None, value: Any, where: str) -> None:
    """Add a checked setting.

    Raises:
        InputError: an unknown one, one given twice, or a value out of range.
    """
    if parse is None:
        raise InputError(f"{where}: {key!r} is no setting of a set{suggestion(key, sorted(_KEYS))}")
    name = key.replace("-", "_")
    if name in values:
        raise InputError(f"{where}: {key} is given twice; keep one")
    try:
        values[name] = parse(value)
    except ValueError as error:
        raise InputError(f"{where}: {key}: {error}") from None


def _from_yaml(path: Path) -> Mixture:
    given = read_yaml(path)
    if unknown := [key for key in given if key not in ("sources", *_TOP)]:
        first = unknown[0]
        raise InputError(f"{given[first].where}: {first!r} is unknown{suggestion(first, ['sources', *_TOP])}")
    top: dict[str, Any] = {}
    for key in (key for key in given if key in _TOP):
        _put(top, key, _TOP[key], given[key].plain(), given[key].where)
    sources = given.get("sources")
    if sources is None or not isinstance(sources.value, dict) or not sources.value:
        raise InputError(f"{path}: expected `sources:` with a line `name: {{path: FOLDER}}` for each set")
    return Mixture(tuple(_yaml_item(name, value) for name, value in sources.value.items()), **top)


def _yaml_item(name: str, given: Given) -> Item:
    if isinstance(given.value, str):
        return Item(path=given.value, name=name)
    if not isinstance(given.value, dict) or not isinstance(path := given.plain().get("path"), str) or not path:
        raise InputError(f"{given.where}: {name}: got {given.shown()}, expected a folder, or a mapping with `path:`")
    values: dict[str, Any] = {}
    for key, value in given.value.items():
        if key != "path":
            _put(values, key, _KEYS.get(key.replace("_", "-")), value.plain(), value.where)
    return _named(Item(path=path, **{"name": name} | values), given.where)


def _named(item: Item, where: str) -> Item:
    for several in (("count", "fraction"), ("repeat", "images", "share"), ("only", "without")):
        given = [key for key in several if getattr(item, key) != getattr(Item(path=""), key)]
        if len(given) > 1:
            raise InputError(f"{where}: {' and '.join(given)} say the same thing twice; keep one")
    return item


def _checked(mixture: Mixture) -> Mixture:
    """Give every item a name of its own, and refuse shares that make no whole.

    Raises:
        InputError: naming the items.
    """
    items: list[Item] = []
    for item in mixture.items:
        name = item.name or Path(item.path).name or item.path
        taken = [other.name for other in items]
        if item.name and item.name in taken:
            raise InputError(f"--data: two sets are called {item.name!r}; give them names of their own")
        items.append(replace(item, name=name if name not in taken else item.path))
    _check_shares(items, mixture.total)
    if mixture.pair is not None:
        known = [item.name for item in items]
        for name in (mixture.pair.real, mixture.pair.synthetic):
            if name not in known:
                raise InputError(f"--data: pair: {name!r} is none of the sets{suggestion(name, known)}")
    return replace(mixture, items=tuple(items))


def _check_shares(items: Sequence[Item], total: int) -> None:
    shared = [item for item in items if item.share]
    if not shared:
        return
    if not total:
        raise InputError(f"--data: {shared[0].name}: a share is one of a total; add total=N")
    whole = sum((item.share for item in items), Fraction(0))
    others = len(items) - len(shared)
    if whole > 1 or (whole == 1 and others) or (whole < 1 and others != 1):
        raise InputError(
            f"--data: the shares sum to {float(whole):g} and {others} sets have none; let them sum to 1, or leave one "
            "out, which takes the rest"
        )


def _ambiguities(text: str) -> list[str]:
    """Say that a folder whose name could be another folder and a number of times was taken for itself."""
    folder, colon, times = text.rpartition(":")
    if not (colon and times.isdecimal() and os.path.exists(text) and os.path.isdir(folder)):
        return []
    return [
        f"--data {text}: taken for the folder of this name, not for {folder} shown {times} times; write "
        f"{text}:1 to say so, or rename it"
    ]


def _fraction(value: object) -> Fraction:
    text = str(value).strip()
    try:
        number = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if isinstance(value, bool) or not 0 < number <= 1 or len(text) > 40:
        raise ValueError(f"{text!r} was given, expected a share such as 1/8, 12.5% or 0.125")
    return number


def _repeat(value: object) -> Fraction:
    text = str(value).strip()
    try:
        number = Fraction(text) if len(text) <= 40 and text.isascii() else Fraction(0)
    except (ValueError, ZeroDivisionError):
        number = Fraction(0)
    if isinstance(value, bool) or not 0 < number <= MAX_REPEAT:
        raise ValueError(f"{text!r} was given, expected how often each image is shown, such as 2, 8 or 1/2")
    return number


def _amount(value: object) -> int:
    if str(value).strip() == "all":
        return 0
    count = parse_count(value)
    if not 1 <= count < 2**62:
        raise ValueError(f"{value!r} was given, expected a number of images of at least 1")
    return count


def _positive(value: object) -> int:
    if count := _amount(value):
        return count
    raise ValueError("all was given, expected a number of images")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} was given, expected text")
    return value


def _yes(value: object) -> bool:
    known = {"true": True, "yes": True, "false": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError(f"{value!r} was given, expected true or false")
    return known[str(value).lower()]


def _seed(value: object) -> int:
    seed = parse_count(value)
    if seed >= 2**63:
        raise ValueError(f"{value!r} was given, expected a seed below 2^63")
    return seed


def _pair(value: object) -> Pair:
    expected = f"expected {' or '.join(PAIR_MODES)}, a colon and the names REAL+SYNTHETIC"
    mode, _, names = str(value).partition(":")
    real, plus, synthetic = names.partition("+")
    if mode not in PAIR_MODES or not plus or not real or not synthetic or real == synthetic:
        raise ValueError(f"{value!r} was given, {expected}")
    return Pair(mode=mode, real=real, synthetic=synthetic)


_KEYS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("name", "classes", "label-key", "caption-key", "split", "only", "without"), _text),
    "first": _positive,
    "count": _amount,
    "images": _positive,
    "fraction": _fraction,
    "share": _fraction,
    "repeat": _repeat,
    "balance": _yes,
    "subset-seed": _seed,
}
_TOP: Mapping[str, Callable[[Any], Any]] = {"total": _positive, "pair": _pair}

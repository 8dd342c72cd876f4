"""Turns a frozen dataclass into a command: defaults, then YAML files, then flags; mistakes become one line.

In: a ``kw_only`` dataclass with a docstring under every field, ``--config base.yaml more.yaml`` and flags. Out: an
instance, and with `save` the YAML that reproduces it. pydantic checks the YAML's values, tyro parses the flags; the
dataclass' own ``__post_init__`` sees only the finished whole, so a flag can mend what a file left half done.
"""

import dataclasses
import json
import re
import types
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from synclones.base.command_line import chosen_kinds, flag_value, parse, suggestion, take_config_files
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.yaml_file import Dumper, Given, merge, read_yaml

T = TypeVar("T")

_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}


def parse_count(value: object) -> int:
    """``16M``, ``10k``, ``1_000`` or an integer, as an integer of at least 0.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d[\d_]*)([kMG]?)", str(value).strip()) if not isinstance(value, bool | float) else None
    if match is None:
        raise ValueError(f"{value!r} is not a count; write an integer such as 250, 10k or 16M")
    return int(match[1].replace("_", "")) * _MULTIPLES[match[2]]


def format_duration(seconds: float) -> str:
    """``59 s``, ``12 min``, ``3.4 h`` or ``2.1 days``."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def parse_duration(value: object) -> float:
    """``90s``, ``30min``, ``24h``, ``2d`` or a number of seconds, as seconds.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|d|)", str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write one such as 90s, 30min, 24h or 2d")
    return float(match[1]) * {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}[match[2]]


Count = Annotated[
    int,
    BeforeValidator(parse_count),
    tyro.constructors.PrimitiveConstructorSpec[int](
        nargs=1,
        metavar="COUNT",
        instance_from_str=lambda args: parse_count(args[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    tyro.constructors.PrimitiveConstructorSpec[float](
        nargs=1,
        metavar="DURATION",
        instance_from_str=lambda args: parse_duration(args[0]),
        is_instance=lambda value: isinstance(value, float),
        str_from_instance=lambda value: [f"{value}s"],
    ),
]


def load(cls: type[T], args: list[str], prog: str, description: str = "", presets: Path | None = None) -> T:
    """Build ``cls`` from its defaults, a preset, the ``--config`` files in their order, and flags, later ones winning.

    Args:
        presets: folder of ``NAME.yaml`` files that the field ``preset`` or ``recipe`` of ``cls`` chooses from.

    Raises:
        InputError: unknown key or flag (with the near one), wrong type, a value the dataclass refuses.
        SystemExit: after ``--help``.
    """
    files, flags = take_config_files(args)
    layers = [read_yaml(path) for path in files]
    if presets is not None:
        layers = _preset(cls, flags, layers, presets) + layers
    merged = Given({}, prog)
    for layer in layers + chosen_kinds(flags):
        merged = merge(merged, layer)
    default = _instance(cls, merged, None, ())
    config = parse(cls, default, flags, prog, description or (cls.__doc__ or ""), _flags_of(default, "--"))
    try:
        json.dumps(to_dict(config), allow_nan=False)
    except ValueError:
        raise InputError(f"{prog}: a number is infinite or `nan`; give finite numbers") from None
    return config


def check_ranges(config: Any, **limits: tuple[float, float]) -> None:
    """Field -> (lowest, highest allowed). Raises InputError for the first value outside, by its flag."""
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag}: {getattr(config, name)} was given, expected {low} to {high}")


def flags_of(cls: type) -> dict[str, str]:
    """Every flag of a dataclass as the command line spells it, with what it expects; no positional arguments."""
    known = _flags_of(_instance(cls, Given({}, ""), None, ()), "--")
    return {name: words for name, words in known.items() if name.startswith("--")}


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-able values; paths as strings."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def save(config: Any, path: Path) -> None:
    """Write the YAML that gives this configuration back through ``--config``."""
    text = yaml.dump(to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True)
    write_atomic(path, text.encode())


# ------------------------------------------------------------------ values of the dataclass' types


def _instance(cls: type[T], given: Given, base: Any, at: tuple[str, ...]) -> T:
    """``cls`` with the given values over those of ``base``: unchecked as a whole, required ones may be missing."""
    hints, fields = get_type_hints(cls, include_extras=True), dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    if not isinstance(given.value, dict):
        raise _wrong(given, at, f"a mapping with the keys {', '.join(names)}")
    for key, item in given.value.items():
        if key not in names:
            name = ".".join((*at, key))
            near = suggestion(name, [".".join((*at, known)) for known in names])
            raise InputError(f"{item.where}: key {name!r} is unknown{near}")
    instance = object.__new__(cls)
    for field in fields:
        value = getattr(base, field.name) if type(base) is cls else _default(field, hints[field.name])
        if field.name in given.value:
            value = _value(hints[field.name], given.value[field.name], value, (*at, field.name))
        object.__setattr__(instance, field.name, value)
    return instance


def _default(field: dataclasses.Field, hint: Any) -> Any:
    """A field's default; a required dataclass is one whose own defaults hold, anything else required is missing."""
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    kinds = _dataclasses_in(hint)
    return _instance(kinds[0], Given({}, ""), None, ()) if len(kinds) == 1 else tyro.MISSING_NONPROP


def _value(hint: Any, given: Given, base: Any, at: tuple[str, ...]) -> Any:
    kinds, inner = _dataclasses_in(hint), get_args(hint)
    if kinds and not (given.value is None and type(None) in inner):
        return _instance(_variant(kinds, given, base, at), given, base, at)
    if get_origin(hint) is tuple and inner[1:] == (Ellipsis,) and isinstance(given.value, list):
        items = enumerate(given.value)
        return tuple(_value(inner[0], item, None, (*at, str(number))) for number, item in items)
    try:
        return TypeAdapter(hint).validate_json(json.dumps(given.plain()), strict=True)
    except ValidationError:
        wanted = _words(hint)
        quote = isinstance(given.value, bool | int | float) and re.search("text|path|'", wanted)
        raise _wrong(given, at, wanted + ("; quote it to make it text" if quote else "")) from None


def _dataclasses_in(hint: Any) -> list[type]:
    alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [kind for kind in alternatives if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


def _variant(classes: list[type], given: Given, base: Any, at: tuple[str, ...]) -> type:
    """The class whose ``kind: Literal[...]`` is the value's; without a ``kind`` the one that is there already."""
    if len(classes) == 1:
        return classes[0]
    by_kind = {get_args(get_type_hints(cls)["kind"])[0]: cls for cls in classes}
    if not isinstance(given.value, dict) or ("kind" not in given.value and type(base) not in classes):
        raise _wrong(given, at, f"a mapping with `kind: {' | '.join(by_kind)}`")
    if "kind" not in given.value:
        return type(base)
    kind = given.value["kind"]
    if not isinstance(kind.value, str) or kind.value not in by_kind:
        raise _wrong(kind, (*at, "kind"), " or ".join(map(repr, by_kind)))
    return by_kind[kind.value]


def _words(hint: Any) -> str:
    """What a value of this type is, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint == Count:
        return "a count such as 250, 10k or 16M"
    if hint == Duration:
        return "a duration such as 90s, 30min or 24h"
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(_words(kind) for kind in inner)
    if origin in (tuple, list):
        return "a list, each " + " / ".join(dict.fromkeys(_words(kind) for kind in inner if kind is not Ellipsis))
    return "null" if hint is type(None) else _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _wrong(given: Given, at: tuple[str, ...], wanted: str) -> InputError:
    place = given.where if given.where.startswith("--") else f"{given.where}: {'.'.join(at)}"
    return InputError(f"{place}: got {given.shown()}, expected {wanted}")


def _preset(cls: Any, flags: list[str], layers: list[Given], presets: Path) -> list[Given]:
    field = next(f for f in dataclasses.fields(cls) if f.name in ("preset", "recipe"))
    chosen = Given(field.default, f"--{field.name}")
    for layer in layers:
        chosen = layer.value.get(field.name, chosen)
    flag = flag_value(flags, f"--{field.name}")
    name, where = (flag, f"--{field.name}") if flag is not None else (chosen.value, chosen.where)
    if not name:
        return []
    known = sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in known:
        raise InputError(f"{where}: {field.name} {name!r} is unknown{suggestion(str(name), known)}")
    return [read_yaml(presets / f"{name}.yaml")]


def _flags_of(instance: Any, prefix: str) -> dict[str, str]:
    """What every flag expects, in words; positional arguments stand under their name without dashes."""
    hints = get_type_hints(type(instance), include_extras=True)
    flags: dict[str, str] = {}
    for field in dataclasses.fields(instance):
        name, value = prefix + field.name.replace("_", "-"), getattr(instance, field.name)
        parts = enumerate(value) if isinstance(value, tuple) else []
        nested = {f"{name}.{number}.": part for number, part in parts if dataclasses.is_dataclass(part)}
        if dataclasses.is_dataclass(value):
            nested = {f"{name}.": value}
        for start, part in nested.items():
            flags |= _flags_of(part, start)
        if not nested:
            positional = tyro.conf.Positional in get_args(hints[field.name])
            flags[field.name if positional else name] = _words(hints[field.name])
    return flags

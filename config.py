"""Turns a frozen dataclass into a command: defaults, then YAML files, then flags; mistakes become one line.

In: a ``kw_only`` dataclass with a docstring under every field, ``--config base.yaml more.yaml`` and flags. Out: an
instance, and with `save` the YAML that reproduces it. pydantic checks YAML values, tyro parses flags.
"""

import contextlib
import dataclasses
import io
import json
import re
import types
from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from synclones.errors import InputError
from synclones.manifest import write_atomic

T = TypeVar("T")

MAX_YAML_BYTES = 2**20
MAX_YAML_DEPTH = 20
_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def parse_count(value: object) -> int:
    """``16M``, ``10k``, ``1_000`` or an integer, as an integer.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d[\d_]*)([kMG]?)", str(value).strip()) if not isinstance(value, (bool, float)) else None
    if match is None:
        raise ValueError(f"{value!r} is not a count; write an integer such as 250, 10k or 16M")
    return int(match[1].replace("_", "")) * _MULTIPLES[match[2]]


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


def load(cls: type[T], args: list[str], prog: str, description: str = "", presets: Path | None = None) -> T:
    """Build ``cls`` from its defaults, a preset, the ``--config`` files in their order, and flags, later ones winning.

    Args:
        presets: folder of ``NAME.yaml`` files that the flag ``--preset`` or ``--recipe`` (a field of ``cls``) chooses.

    Raises:
        InputError: unknown key or flag (with the near one), wrong type, a value the dataclass refuses.
        SystemExit: after ``--help``.
    """
    files, flags = _take_config_files(args)
    _refuse_unknown_flags(cls, flags, prog)
    given = [(path, read_yaml(path)) for path in files]
    if presets is not None:
        given = _preset_values(cls, flags, given, presets) + given
    values: dict[str, Any] = {}
    for path, (tree, lines) in given:
        values |= _fields_of(cls, tree, lines, (), str(path))
    return _parse_flags(cls, values, flags, prog, description or (cls.__doc__ or ""), [str(path) for path in files])


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-able values; paths as strings."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def save(config: Any, path: Path) -> None:
    """Write the YAML that gives this configuration back through ``--config``."""
    write_atomic(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True).encode())


def suggestion(given: str, known: list[str]) -> str:
    """``; did you mean 'x'?``, or the list of what is known."""
    near = get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"


# ------------------------------------------------------------------ YAML


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[Hashable, ...], int]]:
    """A YAML mapping without anchors or duplicate keys, and the line of every key path in it."""
    try:
        data = path.read_bytes()
        text = data.decode()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"--config: no file {str(path)!r}; give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    if len(data) > MAX_YAML_BYTES:
        raise InputError(f"{path}: {len(data)} bytes, at most {MAX_YAML_BYTES} are read; is this the right file?")
    try:
        _refuse_anchors(text, path)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[tuple[Hashable, ...], int] = {}
        tree = _value(loader, node, (), lines, path) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}:1: expected `key: value` lines, got a {type(tree).__name__}")
    return tree, lines


def _refuse_anchors(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{path}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if getattr(event, "anchor", None):
            raise InputError(f"{where}: anchors and aliases are not allowed; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise InputError(f"{where}: nested more than {MAX_YAML_DEPTH} deep; is this the right file?")


def _value(loader: yaml.SafeLoader, node: yaml.Node, at: tuple[Hashable, ...], lines: dict, path: Path) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in result:
                problem = "is given twice" if isinstance(key, str) else "is not text"
                raise InputError(f"{path}:{key_node.start_mark.line + 1}: key {key!r} {problem}; keep one")
            lines[(*at, key)] = key_node.start_mark.line + 1
            result[key] = _value(loader, value_node, (*at, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*at, number), lines, path) for number, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


# ------------------------------------------------------------------ types


def _fields_of(cls: type, tree: dict[str, Any], lines: dict, at: tuple[Hashable, ...], source: str) -> dict[str, Any]:
    """Checked values of the fields of ``cls`` that ``tree`` names."""
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in tree:
        if key not in names:
            line = lines.get((*at, key), 1)
            raise InputError(f"{source}:{line}: key {key!r} is unknown{suggestion(key, names)}")
    return {key: _checked(hints[key], value, lines, (*at, key), source) for key, value in tree.items()}


def _checked(hint: Any, value: Any, lines: dict, at: tuple[Hashable, ...], source: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _built(hint, value, lines, at, source)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and any(dataclasses.is_dataclass(kind) for kind in inner):
        return None if value is None and type(None) in inner else _variant(inner, value, lines, at, source)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis and isinstance(value, list):
        return tuple(_checked(inner[0], item, lines, (*at, number), source) for number, item in enumerate(value))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        quote = "; quote it in YAML to make it text" if isinstance(value, (bool, int, float)) and hint is str else ""
        raise InputError(
            f"{_where(lines, at, source)}: {_dotted(at)}: got {value!r}, expected {reason}{quote}"
        ) from None


def _built(cls: type, value: Any, lines: dict, at: tuple[Hashable, ...], source: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{_where(lines, at, source)}: {_dotted(at)}: got {value!r}, expected keys of {cls.__name__}")
    fields = _fields_of(cls, value, lines, at, source)
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"{cls.__name__}.__init__() ")
        raise InputError(f"{_where(lines, at, source)}: {_dotted(at)}: {reason}") from None


def _variant(kinds: tuple[Any, ...], value: Any, lines: dict, at: tuple[Hashable, ...], source: str) -> Any:
    """The dataclass of a union whose ``kind: Literal[...]`` is the value's."""
    classes: dict[Any, Any] = {
        get_args(get_type_hints(kind)["kind"])[0]: kind for kind in kinds if dataclasses.is_dataclass(kind)
    }
    kind = value.get("kind") if isinstance(value, dict) else value
    if kind not in classes:
        raise InputError(
            f"{_where(lines, at, source)}: {_dotted(at)}.kind: got {kind!r}, expected {' or '.join(classes)}"
        )
    return _built(classes[kind], value, lines, at, source)


def _where(lines: dict, at: tuple[Hashable, ...], source: str) -> str:
    while at and at not in lines:
        at = at[:-1]
    return f"{source}:{lines.get(at, 1)}"


def _dotted(at: tuple[Hashable, ...]) -> str:
    return ".".join(str(part) for part in at)


# ------------------------------------------------------------------ flags


def _take_config_files(args: list[str]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    flags: list[str] = []
    taking = False
    for arg in args:
        if arg == "--config" or arg.startswith("--config="):
            taking = True
            files += [Path(arg.removeprefix("--config="))] if "=" in arg else []
        elif taking and not arg.startswith("-"):
            files.append(Path(arg))
        else:
            taking = False
            flags.append(arg)
    if "--config" in args and not files:
        raise InputError("--config: no file was given; write --config path/to/file.yaml")
    return files, flags


def _refuse_unknown_flags(cls: type, flags: list[str], prog: str) -> None:
    known = ["--help", "--config", *_flags_of(cls, "--")]
    for flag in flags:
        name = flag.split("=")[0]
        if name.startswith("--") and name.replace("_", "-").replace("--no-", "--") not in known:
            raise InputError(f"{name}: unknown flag of `{prog}`{suggestion(name, known)}")


def _flags_of(cls: Any, prefix: str) -> list[str]:
    hints = get_type_hints(cls)
    flags = []
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        flags.append(name)
        for kind in (hints[field.name], *get_args(hints[field.name])):
            flags += _flags_of(kind, f"{name}.") if dataclasses.is_dataclass(kind) else []
    return flags


def _preset_values(cls: Any, flags: list[str], given: list, presets: Path) -> list:
    field = next(f for f in dataclasses.fields(cls) if f.name in ("preset", "recipe"))
    name = field.default
    for _, (tree, _) in given:
        name = tree.get(field.name, name)
    for position, flag in enumerate(flags):
        if flag.split("=")[0] == f"--{field.name}":
            name = flag.split("=", 1)[1] if "=" in flag else (flags[position + 1 :] or [""])[0]
    if not name:
        return []
    known = sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in known:
        raise InputError(f"--{field.name}: {name!r} is unknown{suggestion(str(name), known)}")
    path = presets / f"{name}.yaml"
    return [(path, read_yaml(path))]


def _parse_flags(cls: type[T], values: dict, flags: list[str], prog: str, description: str, files: list[str]) -> T:
    # Without required fields an instance is the clearest default: --help then shows what the YAML files set.
    required = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]  # type: ignore[arg-type]
    missing = {f.name: tyro.MISSING for f in required if f.name not in values}
    output = io.StringIO()
    try:
        default = cls(**values, **missing)
        with contextlib.redirect_stderr(output):
            return tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=flags,
                default=default,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except ValueError as error:  # __post_init__ of the dataclass
        where = f"{files[-1]}: " if files and not flags else ""
        raise InputError(f"{where}{error}") from None
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(_one_line(output.getvalue(), prog)) from None


def _one_line(boxed: str, prog: str) -> str:
    """tyro's framed message as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [line.strip(" │╭╮╰╯─\n") for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and "helptext" not in line and not re.fullmatch(r"Parsing error|Required options|-+", line)
    ]
    return f"{' '.join(kept).removeprefix('Value error ')}; see `{prog} --help`"

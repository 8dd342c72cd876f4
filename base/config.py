"""Turn a frozen dataclass into a command: its defaults, then YAML files, then flags; a mistake becomes one line.

In: a ``kw_only`` dataclass with a docstring under every field, ``--config a.yaml b.yaml`` and flags. Out: an instance,
and with `save` the YAML that gives it back. cyclopts reads flags and writes the help, pydantic checks YAML's values; a
field of a nested dataclass marked `FLAT` has its own name, in flags and files alike.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from cyclopts import App, Argument, ArgumentCollection, CycloptsError, Group, Parameter, Token
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.base.mistakes import CONFIG_HELP, OUTPUT_HELP, explain, leaves, shown, suggestion, words
from synclones.base.output import shaped
from synclones.base.yaml_file import Dumper, Given, read_yaml

T = TypeVar("T")

FLAT = Parameter(name="*")
_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_count(value: object) -> int:
    """Return ``16M``, ``10k``, ``1_000`` or an integer as an integer of at least 0.

    Raises:
        ValueError: when it is anything else.
    """
    match = re.fullmatch(r"([0-9][0-9_]*)([kMG]?)", str(value).strip()) if not isinstance(value, bool | float) else None
    if match is None:
        raise ValueError(f"{value!r} is not a count; write an integer such as 250, 10k or 16M")
    return int(match[1].replace("_", "")) * _MULTIPLES[match[2]]


def parse_duration(value: object) -> float:
    """Return ``90s``, ``30min``, ``24h``, ``2d`` or a number of seconds in seconds.

    Raises:
        ValueError: when it is anything else.
    """
    match = (
        re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(s|min|h|d|)", str(value).strip())
        if not isinstance(value, bool)
        else None
    )
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write one such as 90s, 30min, 24h or 2d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_points(value: object) -> float:
    """Return ``1pp``, ``0.5 pp`` or a number as points of 100.

    Raises:
        ValueError: when it is anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(?:pp|)", str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"{value!r} are no points; write some such as 1pp or 0.5pp")
    return float(match[1])


Count = Annotated[int, BeforeValidator(parse_count), "a count such as 250, 10k or 16M"]
Duration = Annotated[float, BeforeValidator(parse_duration), "a duration such as 90s, 30min or 24h"]
Points = Annotated[float, BeforeValidator(parse_points), "points of 100 such as 1pp or 0.5"]


def grouped(**headings: str) -> Callable[[type[T]], type[T]]:
    """Show the flags of a dataclass under headings in its help: heading -> the names of its fields, in this order."""

    def group(cls: type[T]) -> type[T]:
        for heading, names in headings.items():
            panel = Parameter(group=Group.create_ordered(heading.replace("_", " ")))
            for name in names.split():
                owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
                cls.__annotations__[name] = Annotated[owner.__annotations__[name], panel]
        return cls

    return group


def check_ranges(config: Any, **limits: tuple[float, float]) -> None:
    """Check fields against (lowest, highest allowed).

    Raises:
        InputError: for the first value outside, by its flag.
    """
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag}: {str(getattr(config, name))[:40]} was given, expected {low} to {high}")


def to_dict(config: Any) -> dict[str, Any]:
    """Return the dataclass as JSON-able values, fields of nested ones beside its own, paths as strings."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flat |= to_dict(value) if dataclasses.is_dataclass(value) else {field.name: value}
    plain: dict[str, Any] = parse_json(json.dumps(flat, default=str))
    return plain


def save(config: Any, path: Path) -> None:
    """Write the YAML that gives this configuration back through ``--config``."""
    data = yaml.dump(to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True).encode()
    if not path.is_file() or path.read_bytes() != data:  # a rerun changes no file
        write_atomic(path, data)


# ------------------------------------------------------------------ from arguments to a dataclass


def command_app(name: str, config: Any = (), **more: Any) -> App:
    """Return an empty cyclopts application with the house's habits: defaults are shown where they say something."""

    def default(value: Any) -> str | None:
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return None if value is None or value is False or not text else text

    habits = Parameter(negative_iterable=(), consume_multiple=(1, None), allow_repeating=True, show_default=default)
    return App(name=name, config=config, version_flags=[], default_parameter=habits, help_format="markdown", **more)


def as_command(cls: type, run: Callable[[Any], None], *, json_too: bool = False) -> Callable[..., None]:
    """Return the function whose flags are the fields of ``cls``, ``--config`` and output's; it runs the instance.

    Args:
        json_too: whether ``run`` prints its result as JSON where that is wanted.
    """

    def command(
        settings: Any = None, *, config: Any = (), quiet: bool = False, verbose: bool = False, as_json: bool = False
    ) -> None:
        made = cls() if settings is None else settings
        _refuse_unstorable(made)
        with shaped(quiet=quiet, verbose=verbose, json=as_json):
            run(made)

    # cyclopts learns flags, defaults and help from the function's annotations.
    required = any(f.default is f.default_factory is dataclasses.MISSING for f in dataclasses.fields(cls))
    if required:
        command.__defaults__ = None
    files = Parameter(name="--config", consume_multiple=(1, None), help=CONFIG_HELP, group="Files")
    command.__annotations__ = {
        "settings": Annotated[cls if required else cls | None, FLAT],
        "config": Annotated[tuple[Path, ...], files],
        "quiet": Annotated[bool, _output_flag("quiet", "-q")],
        "verbose": Annotated[bool, _output_flag("verbose", "-v")],
        "as_json": Annotated[bool, _output_flag("json") if json_too else Parameter(parse=False)],
    }
    command.__doc__ = cls.__doc__
    return command


def _output_flag(name: str, *short: str) -> Parameter:
    return Parameter(name=(f"--{name}", *short), help=OUTPUT_HELP[name], group="Output", negative="")


def _refuse_unstorable(made: Any) -> None:
    """Refuse what plans and manifests could not hold before the job that would write them."""
    try:
        json.dumps(to_dict(made), allow_nan=False)
    except UnicodeEncodeError as error:
        text = re.search(r'"([^"]*[\ud800-\udfff][^"]*)"', error.object)
        given = text[1] if text else error.object[:100]
        raise InputError(f"{given}: is not UTF-8, which manifests are; rename it") from None
    except ValueError:
        raise InputError("a number is infinite or `nan`; give finite numbers") from None


def load(
    cls: type[T], args: Sequence[str], prog: str, presets: Path | None = None, given: Mapping[str, Any] | None = None
) -> T:
    """Build ``cls`` from its defaults, a preset, the ``--config`` files in their order, and flags, later ones winning.

    Args:
        presets: folder of ``NAME.yaml`` files that the field ``preset`` or ``recipe`` of ``cls`` chooses from.
        given: values from Python by name, in the place of flags: of the types of YAML, paths, or tuples of them.

    Raises:
        InputError: unknown key or flag (with the near one), wrong type, a value the dataclass refuses.
        SystemExit: after ``--help``.
    """
    loaded: list[T] = []
    values = {name: _from_python(value, prog, name) for name, value in (given or {}).items()}
    app = command_app(prog, config=[Layers(presets, values)])
    app.default(as_command(cls, loaded.append))
    run_app(app, args, prog)
    if not loaded:
        raise SystemExit(0)
    return loaded[0]


def run_app(app: App, args: Sequence[str], prog: str) -> None:
    """Run the command that ``args`` name.

    Raises:
        InputError: the one line for what cyclopts or a source of values refuses.
    """
    try:
        command, bound, _ = app.parse_args(list(args), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        explain(error, app, prog)
    command(*bound.args, **bound.kwargs)


def flags_of(cls: type) -> dict[str, str]:
    """Return every flag of a dataclass with what it expects, in words; positional arguments without dashes."""
    app = command_app("x")
    app.default(as_command(cls, lambda made: None))
    arguments = leaves(app.assemble_argument_collection())
    return {shown(argument): words(argument.field_info.annotation) for argument in arguments.values()}


# ------------------------------------------------------------------ values from files, and their types


@dataclasses.dataclass(frozen=True)
class Layers:
    """What cyclopts asks for values: a preset's file, ``--config`` files, what Python gave; all are checked by type."""

    presets: Path | None = None
    given: dict[str, Given] = dataclasses.field(default_factory=dict)

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Give every argument its value, flags before files."""
        taken = leaves(arguments)
        files = [token.value for argument in arguments if argument.name == "--config" for token in argument.tokens]
        values: dict[str, Given] = {}
        for layer in self._with_preset(taken, [*(read_yaml(Path(file)) for file in files), self.given]):
            values |= layer
        for name, given in values.items():
            if name not in taken:
                raise InputError(f"{given.where}: key {name!r} is unknown{suggestion(name, list(taken))}")
            value = _typed(taken[name].field_info.annotation, given, name)
            if not taken[name].tokens:
                taken[name].tokens.append(Token(keyword=name, source=given.where, implicit_value=value))
        for argument in taken.values():
            _check_flag(argument)

    def _with_preset(self, taken: dict[str, Argument], layers: list[dict[str, Given]]) -> list[dict[str, Given]]:
        """Put the preset that a flag, else a file, else the dataclass names under the files."""
        field = next((name for name in ("preset", "recipe") if name in taken), None)
        if self.presets is None or field is None:
            return layers
        chosen = Given(taken[field].field_info.default, f"--{field}")
        for layer in layers:
            chosen = layer.get(field, chosen)
        if taken[field].tokens:
            chosen = Given(taken[field].tokens[-1].value, f"--{field}")
        known = sorted(path.stem for path in self.presets.glob("*.yaml"))
        if not isinstance(chosen.value, str):
            return layers  # whose types are checked next
        if chosen.value and chosen.value not in known:
            hint = suggestion(chosen.value, known)
            raise InputError(f"{chosen.where}: {field} {chosen.value!r} is unknown{hint}")
        return [read_yaml(self.presets / f"{chosen.value}.yaml"), *layers] if chosen.value else layers


def _from_python(value: Any, where: str, name: str) -> Given:
    """Return a value of Python as YAML would give it: paths as texts, tuples as lists.

    Raises:
        InputError: YAML has no such value.
    """
    if isinstance(value, list | tuple):
        return Given([_from_python(item, where, name) for item in value], where)
    if isinstance(value, Path):
        return Given(str(value), where)
    if not isinstance(value, str | int | float):
        raise InputError(f"{where}: {name}: got {type(value).__name__}, expected text, a number, a path or a list")
    return Given(value, where)


def _typed(hint: Any, given: Given, key: str) -> Any:
    """Return YAML's value as the type of its field: strictly, so that a number is no text and `no` is no name."""
    if get_origin(_bare(hint)) is tuple and isinstance(given.value, list):
        inner = get_args(_bare(hint))[0]
        return tuple(_typed(inner, item, f"{key}.{number}") for number, item in enumerate(given.value))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(given.plain()), strict=True)
    except ValidationError:
        wanted = words(hint)
        quote = isinstance(given.value, bool | int | float) and re.search("text|path|'", wanted)
        hint_to_quote = "; quote it to make it text" if quote else ""
        raise InputError(f"{given.where}: {key}: got {given.shown()}, expected {wanted}{hint_to_quote}") from None


def _check_flag(argument: Argument) -> None:
    """Turn the texts that follow a flag into its value, by the same types as YAML's."""
    tokens = [token for token in argument.tokens if isinstance(token.implicit_value, type(Token().implicit_value))]
    if not tokens or argument.field_info.annotation is bool:
        return
    texts = [token.value for token in tokens]
    hint = argument.field_info.annotation
    if "" in texts:  # as a default it would be taken for whatever the field means by nothing
        raise InputError(f"{shown(argument)}: got '', as from a shell variable that is not set; expected {words(hint)}")
    try:
        if get_origin(_bare(hint)) is tuple:
            each = get_args(_bare(hint))[0]
            value: Any = tuple(_from_text(each, text) for text in texts)
        else:
            value = _from_text(hint, texts[-1])
    except ValueError:
        wanted = words(hint)
        near = get_close_matches(texts[-1], re.findall(r"'(.*?)'", wanted), 1, 0.6)
        hint_near = f"; did you mean {near[0]!r}?" if near else ""
        given = " ".join(map(repr, texts))
        raise InputError(f"{shown(argument)}: got {given}, expected {wanted}{hint_near}") from None
    argument.tokens[:] = [tokens[-1].evolve(implicit_value=value)]


def _from_text(hint: Any, text: str) -> Any:
    """Return the value of a text.

    Raises:
        ValueError: when it is none of this type; ``1.0`` is no whole number on the command line, as in files.
    """
    value = TypeAdapter(hint).validate_strings(text)
    if type(value) is int and "." in text:
        raise ValueError(text)
    return value


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint

"""Reads a command line into a dataclass through tyro; what tyro frames in a box becomes one line.

In: arguments and the instance that holds the defaults. Out: the instance with the flags applied, or an InputError that
names the flag, what was given and what is expected.
"""

import contextlib
import io
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar
from unittest import mock

import tyro

from synclones.base.errors import InputError
from synclones.base.yaml_file import Given

T = TypeVar("T")


def suggestion(given: str, known: list[str]) -> str:
    """``; did you mean 'x'?``, or the list of what is known."""
    near = get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"


def take_config_files(args: list[str]) -> tuple[list[Path], list[str]]:
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


def flag_value(flags: list[str], name: str) -> str | None:
    """What the command line gives to a flag, the last time it does."""
    found = None
    for flag, after in zip(flags, flags[1:] + [""], strict=False):
        key, equals, value = flag.partition("=")
        if key.replace("_", "-") == name:
            found = value if equals else after
    return found


def chosen_kinds(flags: list[str]) -> list[Given]:
    """``--sampler.kind ddim`` chooses a union's class, as ``sampler: {kind: ddim}`` in a file does."""
    layers = []
    for name in dict.fromkeys(flag.partition("=")[0].replace("_", "-") for flag in flags):
        keys = name.removeprefix("--").replace("-", "_").split(".")
        if name.startswith("--") and len(keys) > 1 and keys[-1] == "kind" and not any(key.isdigit() for key in keys):
            layer = Given(flag_value(flags, name), name)
            for key in reversed(keys):
                layer = Given({key: layer}, name)
            layers.append(layer)
    return layers


def parse(cls: type[T], default: T, flags: list[str], prog: str, description: str, known: dict[str, str]) -> T:
    """``cls`` with the flags over ``default``; ``known`` says for every flag what it expects, in words.

    Raises:
        InputError: an unknown flag, a wrong or missing value, or whatever the dataclass' ``__post_init__`` refuses.
        SystemExit: after ``--help``.
    """

    def run() -> T:
        return tyro.cli(
            cls,
            prog=prog,
            args=flags,
            default=default,
            description=f"{description}\n--config FILE.yaml ... reads values from files, later ones and flags win.",
            config=(tyro.conf.AvoidSubcommands,),
        )

    if {"--help", "-h"} & set(flags):
        return run()  # prints the help and exits
    box = io.StringIO()
    try:
        # A terminal this wide keeps tyro from breaking its sentences into lines.
        with contextlib.redirect_stderr(box), mock.patch.dict(os.environ, {"COLUMNS": "10000"}):
            return run()
    except SystemExit:
        raise InputError(_explain(box.getvalue(), known, flags, prog)) from None


def _explain(box: str, known: dict[str, str], flags: list[str], prog: str) -> str:
    """tyro's framed message as our one line; a message of another form keeps tyro's words."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │╭╮╰╯─\n") for line in text[text.find("╭") :].splitlines()[1:]]
    said = re.split(r"For full helptext|Perhaps you meant:", " ".join(filter(None, lines)))[0].strip()
    strangers = [flag for flag in flags if flag.startswith("--") and not _is_known(flag, known)]
    if strangers:
        return _unknown(strangers[0], known, prog)
    if match := re.match(r"Unrecognized options: (.*)", said):
        return _unknown(match[1].split(", ")[0], known, prog)
    if match := re.match(r"Error parsing (\S+): (.*?) ?Argument helptext:", said):
        wanted = f"expected {known[match[1]]}" if match[1] in known else match[2]
        return f"{match[1]}: got {_tokens_of(flags, match[1])}, {wanted}"
    if match := re.match(r"Error parsing \S+: (.*)", said):  # a dataclass' __post_init__
        return match[1]
    if match := re.match(r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*?),?\)", said):
        near = suggestion(match[1], re.findall(r"'(.*?)'", match[3])) if match[1] else ""
        return f"{match[2]}: got {match[1]!r}, expected {match[3].replace(', ', ' or ')}{near if '?' in near else ''}"
    if match := re.match(r"Missing value for argument '(.*?)'\.", said):
        wanted = known[match[1]] if match[1] in known else "a value"
        return f"{match[1]}: no value or too few were given, expected {wanted}"
    if said.startswith("Missing from"):
        return _required(lines, known, prog)
    return f"{said}; see `{prog} --help`"


def _is_known(flag: str, known: dict[str, str]) -> bool:
    name = flag.partition("=")[0].replace("_", "-")
    return name in known or (name.startswith("--no-") and known.get(f"--{name[5:]}") == "true or false")


def _unknown(given: str, known: dict[str, str], prog: str) -> str:
    if not given.startswith("-"):
        return f"{given!r} is unexpected in `{prog}`; every value follows its flag, see `{prog} --help`"
    name = given.partition("=")[0]
    near = get_close_matches(name, [*known, "--config", "--help"], n=1, cutoff=0.6)
    return f"{name}: unknown flag of `{prog}`; " + (f"did you mean {near[0]!r}?" if near else f"see `{prog} --help`")


def _required(lines: list[str], known: dict[str, str], prog: str) -> str:
    """Of tyro's list of a flag and its help by turns, the first."""
    flag = lines[1].partition(" ")[0]
    positional = [name for name in known if not name.startswith("--")]
    if not flag.startswith("--") and len(positional) == 1:
        flag = positional[0]
    about = lines[2].removesuffix("(required)").rstrip(" .")
    wanted = known.get(flag, "a value")
    return f"{flag}: required by `{prog}` and not given; expected {wanted}" + (f" ({about})" if about else "")


def _tokens_of(flags: list[str], name: str) -> str:
    """All values behind a flag, quoted."""
    tokens: list[str] = []
    inside = False
    for flag in flags:
        key, equals, value = flag.partition("=")
        if flag.startswith("--"):
            inside = key.replace("_", "-") == name
            tokens = ([value] if equals else []) if inside else tokens
        elif inside:
            tokens.append(flag)
    return " ".join(map(repr, tokens)) or "nothing"

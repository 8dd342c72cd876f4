"""Say in one line what is wrong with a command line: the flag, what was given, what is expected, what may be meant.

In: an error of cyclopts, which is an object. Out: an `InputError`.
"""

import types
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from cyclopts import App, Argument, ArgumentCollection, CycloptsError
from cyclopts.exceptions import CoercionError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from synclones.base.errors import InputError

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
CONFIG_HELP = "YAML files with values for these flags; later ones and flags win."
OUTPUT_HELP = {
    "quiet": "Print results, warnings and errors alone.",
    "verbose": "Say every five seconds how far it is, and show the traceback of an error.",
    "json": "Print the result as JSON, and nothing else on standard output.",
}
"""Flags of the process, which are no settings: no plan, manifest or config.yaml holds them."""
# What users of other tools type: the flags that may be meant here, or an answer in words.
HABITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("--lr", "--learning_rate"), ("--learning-rate",)),
    **dict.fromkeys(("--output", "--output-dir", "--outdir", "-o"), ("--out",)),
    **dict.fromkeys(("--steps", "--num-steps"), ("--num-inference-steps",)),
    **dict.fromkeys(("--cfg", "--guidance"), ("--guidance-scale",)),
    **dict.fromkeys(("--n", "--count", "--num-samples"), ("--num-images",)),
    **dict.fromkeys(("--num-workers", "-j"), ("--workers", "--decode-threads")),
    **dict.fromkeys(("--gpus", "--num-gpus"), ("start it with `torchrun --nproc-per-node N`",)),
    "--resume": ("the same command resumes, without a flag",),
    "--prompt": ("--prompts",),
    "--wd": ("--weight-decay",),
    "--bs": ("--batch-size",),
    "--arch": ("--architecture",),
    "--checkpoint": ("--model",),
    "--dataset": ("--data",),
}


def leaves(arguments: ArgumentCollection) -> dict[str, Argument]:
    """Return field name -> argument, for all but ``--config`` and the flags of output."""
    named = {a.name.lstrip("-").replace("-", "_"): a for a in arguments if not a.children and a.name != "*"}
    apart = {CONFIG_HELP, *OUTPUT_HELP.values()}
    return {name: a for name, a in named.items() if a.parse and a.parameter.help not in apart}


def shown(argument: Argument) -> str:
    return argument.name.lstrip("-") if argument.field_info.is_positional else argument.name


def words(hint: Any) -> str:
    """Return what a value of this type is, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((note for note in inner[1:] if isinstance(note, str)), words(inner[0]))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(words(kind) for kind in inner)
    if origin is tuple:
        return f"a list, each {words(inner[0])}"
    return "null" if hint is type(None) else _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def suggestion(given: str, known: list[str]) -> str:
    """Return ``; did you mean 'x'?``, or the list of what is known."""
    near = get_close_matches(given, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"


def explain(error: CycloptsError, app: App, prog: str) -> NoReturn:
    """Raise the InputError that says what cyclopts found."""
    if isinstance(error, UnknownOptionError):
        known = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
        raise InputError(_unknown(error.token.keyword or error.token.value, known, prog))
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or ["?"])[0]
        if first.startswith("-"):
            raise InputError(_unknown(first, [], prog))
        raise InputError(f"{first!r} is unexpected in `{prog}`; every value follows its flag, see `{prog} --help`")
    if isinstance(error, CoercionError) and error.argument is not None and error.token is not None:
        wanted = words(error.argument.field_info.annotation)
        raise InputError(f"{shown(error.argument)}: got {error.token.value!r}, expected {wanted}")
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        _explain_missing(error, error.argument, described(error.app or app), prog)
    raise InputError(f"{' '.join(str(error).split())}; see `{prog} --help`")


def _explain_missing(
    error: MissingArgumentError, argument: Argument, known: dict[str, Argument], prog: str
) -> NoReturn:
    """Raise for a flag without its value, else for an unknown flag, else for what is required."""
    wanted = words(argument.field_info.annotation)
    if argument.name == "--config":
        raise InputError("--config: no file was given; write --config path/to/file.yaml")
    if error.keyword:
        raise InputError(f"{error.keyword}: no value or too few were given, expected {wanted}")
    strangers = [text for text in error.unused_tokens or [] if text.startswith("-")]
    if strangers:
        raise InputError(_unknown(strangers[0], [name for one in known.values() for name in one.names], prog))
    about = next((one.parameter.help or "" for one in known.values() if one.name == argument.name), "").rstrip(".")
    note = f" ({about})" if about else ""
    raise InputError(f"{shown(argument)}: required by `{prog}` and not given; expected {wanted}{note}")


def described(app: App) -> dict[str, Argument]:
    """Return field name -> argument with its docstring as help, which cyclopts reads only when it is asked to."""
    return leaves(app.assemble_argument_collection(parse_docstring=True))


def _unknown(given: str, known: list[str], prog: str) -> str:
    """Return the line for a flag that does not exist, with the one that other tools' users mean, or a near one."""
    name = given.partition("=")[0]
    answers = [answer for answer in HABITS.get(name, ()) if not answer.startswith("-") or answer in known]
    near = get_close_matches(name, [*known, "--help"], n=1, cutoff=0.7)
    hint = f"here it is {answers[0]}" if answers and answers[0].startswith("-") else "".join(answers)
    hint = hint or (f"did you mean {near[0]!r}?" if near else f"see `{prog} --help`")
    return f"{name}: unknown flag of `{prog}`; {hint}"

"""The `synclones` command: one stage per room, each loaded only when it is called.

synclones --help
"""

import sys
from difflib import get_close_matches
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.process import run_main

# stage -> what it does and its verbs; the module is `synclones.STAGE.run`.
STAGES = {
    "prompts": "what to draw: build | list | show | caption | write | balance",
    "generate": "draw it into shards: run | redraw",
    "shards": "check, mend, mix and hand on shards: verify | show | stats | index | mix | annotate | dedup | "
    "retrieve | missing | repair | finish | subset | merge | export | gc | push",
    "train": "shards to a clone: run | replay | tokenize | onnx",
    "evaluate": "a clone to robustness results: run | doctor | explain | reproduce-tables | audit | corrupt",
    "ablate": "grids of all of the above: plan | run | report | practice | choose | what-if | lab | names",
    "serve": "look at sets, runs and results in a web browser: run",
}
STATUS = "how far any folder is, who works on it, what to run next: status FOLDER"
TRACE = "what produced a folder, down to its prompts: trace FOLDER"
DEMO = "the whole experiment on the lab's digits: two kinds of prompts, five clones, a table; minutes"
RAY = "the work of one command, divided on a Ray cluster: ray [FLAGS] COMMAND"
COMPLETION = "let the shell complete verbs and flags: --install-completion"
HELP = ("--help", "-h", "help")


def stages() -> dict[str, str]:
    """Return the stages that this installation has."""
    return {
        name: words for name, words in STAGES.items() if find_spec(f"synclones.{name}") and find_spec(_module(name))
    }


def _module(stage: str) -> str:
    return f"synclones.{stage}.run"


def help_text() -> str:
    """Return what ``synclones --help`` prints."""
    rows = [f"  synclones {name:<9} {words}" for name, words in stages().items()]
    return "\n".join(
        [
            "synclones: prompts -> Stable Diffusion -> shards -> clones -> a robustness table",
            "",
            *rows,
            f"  synclones status    {STATUS}",
            f"  synclones trace     {TRACE}",
            f"  synclones demo      {DEMO}",
            f"  synclones ray       {RAY}",
            f"  synclones           {COMPLETION}",
            "",
            "`synclones STAGE --help` and `synclones STAGE VERB --help` list flags; the first verb is the default.",
        ]
    )


def main() -> None:
    """Run the installed command."""
    run_main(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Run one stage, or say what there is.

    Raises:
        InputError: there is no such stage.
    """
    name, rest = (argv[0], argv[1:]) if argv else ("help", [])
    if name in HELP and rest:  # `synclones help generate redraw`
        name, rest = rest[0], [*rest[1:], "--help"]
    if name in HELP:
        print(help_text())
    elif name == "--version":
        print(metadata.version("synclones"))
    elif name == "--install-completion":
        _install_completion(rest)
    elif name in FOLDER_COMMANDS:
        FOLDER_COMMANDS[name](rest)
    elif name == "demo":
        import_module("synclones.lab.experiment").main(rest)
    elif name == "ray":
        _ray(rest)
    elif name in stages():
        import_module(_module(name)).main(rest)
    else:
        known = [*stages(), *FOLDER_COMMANDS, "demo", "ray", "help"]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise InputError(f"synclones {name}: no such command; {hint}")


def _install_completion(rest: list[str]) -> None:
    """Write the completion of the whole command for the shell that calls, and say where."""
    if rest:  # such as --help: nothing may be written into the shell's startup file by a question
        raise InputError(f"synclones --install-completion: got {rest[0]!r}, expected nothing after it; leave it out")

    from cyclopts.completion import ShellDetectionError

    from synclones.base.config import command_app

    app = command_app("synclones")
    for stage in stages():
        app.command(import_module(_module(stage)).STAGE.app())
    try:
        print(f"written: {app.install_completion(add_to_startup=True)}; it works in the next shell")
    except ShellDetectionError as error:
        raise InputError(f"--install-completion: {error}; call it from bash, zsh or fish") from None


def _ray(argv: list[str]) -> None:
    """Run what follows the flags as workers of Ray; everything that can be wrong with it comes to light before.

    Raises:
        InputError: there is no command, or none whose work is divided, or it is refused.
    """
    from synclones.base.config import load
    from synclones.base.ray_workers import RayConfig, run_on_ray

    begin = next((n for n, word in enumerate(argv) if word in stages() or word == "--"), len(argv))
    config = load(RayConfig, argv[:begin], "synclones ray")
    command = argv[begin + 1 :] if argv[begin : begin + 1] == ["--"] else argv[begin:]
    example = "as in `synclones ray --workers 4 generate --prompts p.parquet --out /shared/x`"
    if not command or command[0] not in stages():
        given = f"{command[0]!r} is no stage" if command else "no command was given"
        raise InputError(f"synclones ray: {given}; put one after the flags, {example}")
    if any(word in HELP for word in command):
        dispatch(command)
        return
    if not import_module(_module(command[0])).STAGE.check(command[1:]).divided:
        raise InputError(
            f"synclones ray: {' '.join(command[:2])} is not divided among processes by files; these are: {_divided()}. "
            "Training and evaluation are started by torchrun"
        )
    run_on_ray(config, command)


def _divided() -> str:
    """Return the verbs that any number of processes share, as they are typed."""
    verbs = ((stage, import_module(_module(stage)).STAGE.verbs) for stage in stages())
    return ", ".join(
        f"{stage} {word}".removesuffix(" run") for stage, all in verbs for word, verb in all.items() if verb.divided
    )


def _one_folder(name: str, about: str, argv: list[str]) -> Path | None:
    """Return the folder that a command is about; None after its help."""
    if argv and argv[0] in HELP:
        print(f"synclones {name} FOLDER [--json]: {about.partition(':')[0]}, as in `synclones {name} data/lab`")
        return None
    given = [word for word in argv if word != "--json"]
    if len(given) != 1 or given[0].startswith("-"):
        raise InputError(f"synclones {name}: give one folder, as in `synclones {name} data/lab`")
    return Path(given[0])


def _trace(argv: list[str]) -> None:
    from synclones.base.manifest import trace, trace_tree

    folder = _one_folder("trace", TRACE, argv)
    if folder is not None and "--json" in argv:
        _print_json(trace_tree(folder))
    elif folder is not None:
        print(trace(folder))


def _status(argv: list[str]) -> None:
    """Ask each room for its own folders; the first that knows this one speaks.

    Raises:
        InputError: nobody does.
    """
    from synclones.base.status import nobody_s

    folder = _one_folder("status", STATUS, argv)
    if folder is None:
        return
    rooms = [f"synclones.{name}.status" for name in STAGES if find_spec(f"synclones.{name}")]
    asked = (import_module(room).status(folder) for room in rooms if find_spec(room))
    known = next((status for status in asked if status is not None), None) or nobody_s(folder)
    if "--json" in argv:
        _print_json(known.to_json())
    else:
        print("\n".join(known.lines()))


def _print_json(value: object) -> None:
    from synclones.base.output import print_json

    print_json(value)


FOLDER_COMMANDS = {"status": _status, "trace": _trace}

if __name__ == "__main__":
    main()

"""The `synclones` command: one subcommand per stage, each imported only when it is called.

synclones --help
"""

import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module, metadata
from importlib.util import find_spec

from synclones.base.errors import InputError, run_main

# subcommand -> (module with `main(argv)`, one phrase)
STAGES = {
    "prompts": ("synclones.prompts.run", "what to draw: build | list | show | caption | write | balance"),
    "generate": ("synclones.generate.run", "draw it into shards: run | redraw"),
    "shards": ("synclones.shards.run", "check and look at shards: verify | show | dedup | finish | gc | push"),
    "train": ("synclones.train.run", "shards to a clone: run"),
    "evaluate": ("synclones.evaluate.run", "a clone to robustness results: run | explain"),
    "ablate": ("synclones.ablate.run", "grids of all of the above: plan | run | report"),
}


def stages() -> dict[str, tuple[str, str]]:
    """Return the stages that this installation has."""
    return {
        name: stage for name, stage in STAGES.items() if find_spec(stage[0].rpartition(".")[0]) and find_spec(stage[0])
    }


def help_text() -> str:
    """Return what ``synclones --help`` prints."""
    rows = [f"  synclones {name:<9} {phrase}" for name, (_, phrase) in stages().items()]
    rows.append(f"  synclones {'trace':<9} what produced a folder, down to its prompts: trace FOLDER")
    return "\n".join(
        [
            "synclones: prompts -> Stable Diffusion -> shards -> clones -> a robustness table",
            "",
            *rows,
            "",
            "`synclones STAGE --help` lists a stage's flags; the first verb is the default.",
        ]
    )


def main() -> None:
    """Run the installed command."""
    run_main(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Run one subcommand.

    Raises:
        InputError: there is no such subcommand.
    """
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("--help", "-h"):
        print(help_text())
    elif name == "--version":
        print(metadata.version("synclones"))
    elif name == "trace":
        _trace(rest)
    elif name in stages():
        stage: Callable[[list[str]], None] = import_module(STAGES[name][0]).main
        stage(rest)
    else:
        known = [*stages(), "trace"]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise InputError(f"synclones {name}: no such command; {hint}")


def _trace(argv: list[str]) -> None:
    from pathlib import Path

    from synclones.base.manifest import trace

    if len(argv) != 1 or argv[0].startswith("-"):
        raise InputError("synclones trace: give one folder, as in `synclones trace data/lab`")
    print(trace(Path(argv[0])))


if __name__ == "__main__":
    main()

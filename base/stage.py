"""A stage of the `synclones` command: its verbs, of which the first is the default, as one cyclopts application.

In: a table of verbs, each a dataclass of settings and the function that takes it. Out: what ``main(argv)`` of a room's
``run.py`` runs, and what ``synclones --help`` and the shells' completion look into.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any

from cyclopts import App

from synclones.base.config import Layers, as_command, command_app, load, run_app
from synclones.base.errors import InputError
from synclones.base.resume import resumed_by, typed


@dataclass(frozen=True)
class Verb:
    """What a verb is set by, what it runs, and what may follow it in the examples of its help."""

    settings: type
    run: Callable[[Any], None]
    examples: tuple[str, ...] = ()
    divided: bool = False
    """Whether any number of processes share the work of one call, as `synclones ray` starts them."""
    json: bool = False
    """Whether it prints its result as JSON where that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The verbs of a stage.

    Attributes:
        phrase: what the stage does, for its help.
        examples: commands shown below the verbs, and in the help of verbs that have none of their own.
        presets: folder of YAML files that ``--preset`` or ``--recipe`` chooses from.
        implied: turns the default verb's flags into those that are meant.
    """

    name: str
    phrase: str
    verbs: dict[str, Verb]
    examples: tuple[str, ...]
    presets: Path | None = None
    implied: Callable[[list[str]], list[str]] = list

    def app(self, name: str = "") -> App:
        """Return the stage as a cyclopts application, called ``name`` where it is not a part of another."""
        end = "\n".join([*_shown(self.examples), *self._named()])
        app = command_app(name or self.name, [Layers(self.presets)], help=self.phrase, help_epilogue=end)
        for number, (word, verb) in enumerate(self.verbs.items()):
            commands = tuple(f"synclones {self.name} {word} {given}" for given in verb.examples)
            own = {"help_epilogue": "\n".join(_shown(commands))} if commands else {}
            app.command(as_command(verb.settings, verb.run, json_too=verb.json), name=word, sort_key=number, **own)
        app.default(as_command(self._first.settings, self._first.run, json_too=self._first.json))
        return app

    def main(self, argv: list[str]) -> None:
        """Run one verb; the first when none is given.

        Raises:
            InputError: there is no such verb, or its settings are refused.
        """
        typed_words = [self.name, *argv]
        if argv[:1] == ["help"]:
            argv = [*argv[1:], "--help"]
        default = next(iter(self.verbs))
        verb, flags = self._split(argv)
        if (verb or default) == default:
            flags = self.implied(flags)
        shown = verb or ("" if default == "run" else default)
        program = " ".join(filter(None, ("synclones", self.name, "" if shown == "run" else shown)))
        with resumed_by(typed(typed_words), as_typed=True):
            run_app(self.app(f"synclones {self.name}"), [verb, *flags] if verb else flags, program)

    def check(self, argv: list[str]) -> Verb:
        """Check the words of a call as `main` does, without running it, and return its verb.

        Raises:
            InputError: as `main`.
        """
        quiet = {word: replace(verb, run=lambda config: None) for word, verb in self.verbs.items()}
        replace(self, verbs=quiet).main(argv)
        return self.verbs.get(self._split(argv)[0], self._first)

    def settings(self, **given: Any) -> Any:
        """Return the settings of the default verb from values by name, as the flags of these names would give them.

        ``config`` names YAML files, as ``--config`` does; what is None is not given.

        Raises:
            InputError: an unknown name (with the near one), a value of another type, or one that the settings refuse.
        """
        files = given.pop("config", None)
        given = {name: value for name, value in given.items() if value is not None}
        files = [files] if isinstance(files, str | Path) else [*(files or ())]
        flags = [word for file in files for word in ("--config", str(file))]
        # What the stage adds to flags depends on which there are; they are shown to it by name.
        named = [*flags, *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]
        implied = [word for word in self.implied(named) if word not in named[len(flags) :]]
        verb = self._first
        return load(verb.settings, implied, f"{self.name}()", self.presets, given)

    def _split(self, argv: list[str]) -> tuple[str, list[str]]:
        """Return the verb, empty when none is given, and what follows it."""
        if argv and argv[0] in self.verbs:
            return argv[0], argv[1:]
        self._refuse_unknown_verb(argv)
        return "", argv

    @property
    def _first(self) -> Verb:
        return next(iter(self.verbs.values()))

    def _refuse_unknown_verb(self, argv: list[str]) -> None:
        """Tell a mistyped verb from the argument of the default one, such as a folder."""
        if not argv or argv[0].startswith("-"):
            return
        takes_argument = any(not field.kw_only for field in fields(self._first.settings))
        near = get_close_matches(argv[0], self.verbs, n=1, cutoff=0.7)
        if takes_argument and (not near or Path(argv[0]).exists()):
            return
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(self.verbs)}"
        raise InputError(f"synclones {self.name} {argv[0]}: no such verb; {hint}")

    def _named(self) -> list[str]:
        """Return lines with the presets by name, each with the beginning of its header."""
        if self.presets is None:
            return []
        flag = "--preset" if any(field.name == "preset" for field in fields(self._first.settings)) else "--recipe"
        headers = {
            file.stem: file.read_text(encoding="utf-8").splitlines()[0][2:] for file in self.presets.glob("*.yaml")
        }
        rows = (f"{name:<20}{shorten(headers[name], 56, placeholder=' ...')}" for name in sorted(headers))
        return [f"Named settings ({flag}):", "```", *rows, "```"]


def _shown(examples: tuple[str, ...]) -> list[str]:
    return ["Examples:", "```", *examples, "```"]

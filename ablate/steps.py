"""Steps: public commands with their flags, each known by the hash of everything that goes into it.

In: a command's words and resolved flags. Out: a `Step` with an address, the folder or file it makes, and its command
line. Paths and flags that change nothing but speed are in no address.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from synclones.ablate.references import identity, sources, words
from synclones.ablate.world import Input
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.mistakes import suggestion
from synclones.base.resume import typed

ADDRESS_DIGITS = 16
# Flags by which a command is faster, or says more: two steps that differ in nothing else are one.
SPEED_ONLY = frozenset(
    "device torch-threads threads decode-threads workers compile log-every checkpoint-every keep-checkpoints track "
    "timeout-s cache-gb price-per-hour work part verify verbose".split()
)


@dataclass(frozen=True)
class Command:
    """A command that can be a step.

    Attributes:
        kind: the folder of its outputs, and the name of its cost.
        suffix: of what it makes: empty for a folder.
        size: its flag for how much it makes, where a smaller output is the beginning of a larger one.
        grows: whether the same output is made larger in place, by ``--extend``; otherwise each size is a file.
        module: what `torchrun -m` starts; empty where one process does it.
        program: how it is started.
    """

    kind: str
    suffix: str = ""
    size: str = ""
    grows: bool = False
    module: str = ""
    program: tuple[str, ...] = (sys.executable, "-m", "synclones.cli")


COMMANDS: dict[str, Command] = {
    "prompts build": Command("prompts", ".parquet", size="num-images"),
    "prompts caption": Command("captions", ".parquet", module="synclones.prompts.run caption"),
    "prompts write": Command("captions", ".parquet", module="synclones.prompts.run write"),
    "prompts balance": Command("captions", ".parquet"),
    "generate": Command("images", size="num-images", grows=True, module="synclones.generate.run"),
    "shards retrieve": Command("neighbours"),
    "shards subset": Command("images"),
    "shards merge": Command("images"),
    "train": Command("clone", module="synclones.train.run"),
    "evaluate": Command("results", module="synclones.evaluate.run"),
    "ablate practice": Command("practice"),
    "ablate lab": Command("real"),
    "ablate names": Command("names", ".csv"),
}


@dataclass(frozen=True)
class Step:
    """One command of a plan.

    Attributes:
        name: what the grid calls it.
        run: words of the command.
        flags: resolved, without those of the machine.
        machine: flags of speed alone.
        size: how much it makes; 0 where outputs do not grow.
        amount: how much there is to do, in units of its rate.
        rate: name of the world's rate.
    """

    name: str
    run: str
    flags: Mapping[str, Any]
    machine: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    amount: float = 1
    rate: str = ""

    @property
    def command(self) -> Command:
        """What is known of its command."""
        return COMMANDS[self.run]

    @property
    def kind(self) -> str:
        """The folder of its outputs."""
        return self.command.kind

    @cached_property
    def needs(self) -> tuple["Step", ...]:
        """The steps whose outputs it reads."""
        pointed = [one for value in self.flags.values() for one in sources(value) if isinstance(one, Step)]
        return tuple({step.key: step for step in pointed}.values())

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What it reads from outside."""
        pointed = [one for value in self.flags.values() for one in sources(value) if isinstance(one, Input)]
        return tuple({one.name: one for one in pointed}.values())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything that goes in, as JSON: what the address is of."""
        left_out = {*SPEED_ONLY, *filter(None, [self.command.size])}
        flags = {name: identity(value) for name, value in self.flags.items() if name not in left_out}
        return {"run": self.run, "flags": flags}

    @cached_property
    def address(self) -> str:
        """The first digits of the SHA-256 of that."""
        return sha256_bytes(canonical_json(self.facts))[:ADDRESS_DIGITS]

    @property
    def identity(self) -> str:
        """What other steps know it by."""
        return f"step:{self.address}"

    @property
    def key(self) -> str:
        """Kind and name of the output: of a step that grows the same for all sizes."""
        sized = f"-{self.size}" if self.size and not self.command.grows else ""
        return f"{self.kind}/{self.address}{sized}"

    def path(self, out: Path) -> str:
        """Return where its output is, for a store in ``out``."""
        return f"{out}/steps/{self.key}{self.command.suffix}"

    def of_size(self, size: int, amount: float) -> "Step":
        """Return the same step making more."""
        return replace(self, size=size, amount=amount, flags={**self.flags, self.command.size: size})

    def flag_words(self, out: Path, extend: bool = False) -> list[str]:
        """Return what follows the command's words; ``extend`` where a smaller output is there."""
        listed: list[str] = []
        for name, value in {**self.flags, **self.machine}.items():
            if not name:
                listed = [*words(value, out), *listed]
            elif isinstance(value, bool):  # flags of cyclopts: --flag and --no-flag
                listed.append(f"--{name}" if value else f"--no-{name}")
            elif value is not None and value != []:
                listed += [f"--{name}", *words(value, out)]
        return [*listed, "--out", self.path(out), *(["--extend"] if extend else [])]

    def shown(self, out: Path) -> str:
        """Return the command line as a user types it."""
        return typed([*self.run.split(), *self.flag_words(out)])


def check_command(run: str, where: str) -> None:
    """Refuse what is no step.

    Raises:
        InputError: with the near one.
    """
    if run not in COMMANDS:
        raise InputError(f"{where}: run: {run!r} is no command that can be a step{suggestion(run, list(COMMANDS))}")

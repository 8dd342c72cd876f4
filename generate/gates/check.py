"""The quality gates: every file but policy.py and check.py is one: flags, check and class.

In: `GenerateConfig`, a checked model. Out: `GateInputs`: what of them belongs to the plan, and `Gates` that inspect.

A gate's file has a frozen dataclass ``Settings`` with its flags, and ``check(settings, model, out)``, which finds and
hashes what the gate needs and returns a `CheckedGate`, or None when the gate is off. It imports nothing heavy before.
Of several findings ``ORDER`` says which comes first.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from synclones.generate.gates.policy import BlankSettings, CheckedGate, GateFacts, Gates
from synclones.generate.generators.model import ModelFolder

_NO_GATES = ("policy", "check")


def gate_names() -> list[str]:
    """Return the gates there are, the files of this folder, in the order in which they decide and are named in rows."""
    return [module.__name__.rpartition(".")[2] for module in _modules()]


def _modules() -> list[Any]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NO_GATES)
    modules = [import_module(f"synclones.generate.gates.{name}") for name in names]
    return sorted(modules, key=lambda module: getattr(module, "ORDER", 100))  # without one: after those that have it


def gate_settings() -> tuple[type, ...]:
    """Return the dataclasses whose fields are the gates' flags."""
    return (BlankSettings, *(module.Settings for module in _modules()))


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """The gates that are on, checked."""

    on_blank: str
    checked: tuple[CheckedGate, ...]

    @property
    def facts(self) -> GateFacts:
        """``Plan.gates``."""
        facts: GateFacts = {} if self.on_blank == "fail" else {"blank": self.on_blank}
        for gate in self.checked:
            facts |= gate.facts
        return facts

    @property
    def libraries(self) -> tuple[str, ...]:
        """Whose releases belong to the plan too."""
        return tuple(sorted({library for gate in self.checked for library in gate.libraries}))

    def open(self, device: str) -> Gates:
        """Load what inspects.

        Raises:
            InputError: when a model cannot be loaded.
        """
        return Gates([(gate.open(device), gate.policy) for gate in self.checked], self.on_blank)

    def keep(self) -> None:
        """Keep in the dataset folder what a restart would otherwise compute again."""
        for gate in self.checked:
            gate.keep()


def check_gates(config: Any, model: ModelFolder) -> GateInputs:
    """Find and check what the gates inspect with; ``config`` inherits the settings of all gates.

    Raises:
        InputError: when something is missing, or a flag would have no effect.
    """
    checked = [module.check(config, model, config.out) for module in _modules()]
    return GateInputs(on_blank=config.on_blank, checked=tuple(gate for gate in checked if gate is not None))

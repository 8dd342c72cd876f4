"""What happens to an image that something is found in: the policies of the quality gates.

In: the images of one planned batch with their prompts, and the gates of the plan. Out: one `Verdict` per image.

    fail   the attempt failed: drawn again with the seed of the next one; ``failed`` when all attempts are used
    mark   the image is stored; its row carries the finding as ``reason`` beside status ``ok``
    drop   the image is not stored; its row says ``dropped`` and why; there are no further attempts

Where several gates find something, the first that fails decides, then the first that drops; marks add up. Every gate
looks at the whole planned batch, whatever else is wrong with it: no score depends on how many images broke.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from synclones.base.json_file import canonical_json

if TYPE_CHECKING:
    import numpy as np

NOT_FINITE, BLANK = "not finite", "blank picture"  # what `pixels.to_host` finds
BETWEEN_MARKS = "; "


Policy = Literal["fail", "mark", "drop"]
GateFacts = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class BlankSettings:
    """The policy for what the pixels show before any gate inspects them."""

    on_blank: Policy = "fail"
    """What happens to an image of one colour: fail (draw again with the next seed), mark (keep it, with the finding in
    its row), drop (leave the image out at once)."""


@dataclass(frozen=True)
class Finding:
    """What a gate finds in one image: scores for its row, and whether it is what the gate is there to find."""

    is_hit: bool
    scores: dict[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """Inspects finite and other images; deterministic for a given batch, and safe to share between threads."""

    reason: str
    """What its findings are called in the rows."""

    def inspect(self, images: "np.ndarray", prompts: Sequence[str]) -> list[Finding]:
        """Return one finding per image of uint8[n, h, w, 3], in order."""


def _nothing() -> None:
    """Keep nothing."""


@dataclass(frozen=True, kw_only=True)
class CheckedGate:
    """A gate that is on: what it needs is there and hashed, nothing is loaded."""

    facts: GateFacts
    """Its part of ``Plan.gates``, under keys of its own."""
    policy: str
    open: Callable[[str], Gate]
    """Loads it on a device."""
    libraries: tuple[str, ...] = ()
    """Whose releases belong to the plan too."""
    keep: Callable[[], None] = _nothing
    """Keeps in the dataset folder what a restart would otherwise compute again."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of an image: status ``ok``, ``failed`` (this attempt) or ``dropped``; why; its scores as JSON."""

    status: str = "ok"
    reason: str = ""
    scores: str = ""


OK = Verdict()


class Gates:
    """The gates of a plan with their policies. Without any, a blank image fails and nothing else is inspected."""

    def __init__(self, gates: Sequence[tuple[Gate, str]] = (), on_blank: str = "fail"):
        """``gates``: each with ``fail``, ``mark`` or ``drop``. An image that is not finite always fails: there is
        none."""
        self._gates = list(gates)
        self._policies = {NOT_FINITE: "fail", BLANK: on_blank} | {gate.reason: policy for gate, policy in gates}

    def judge(self, images: "np.ndarray", broken: Sequence[str], prompts: Sequence[str]) -> list[Verdict]:
        """Return one verdict per image of uint8[n, h, w, 3]; ``broken`` says what its pixels have shown, or ""."""
        findings = [gate.inspect(images, prompts) for gate, _ in self._gates]
        return [self._verdict(reason, [finding[i] for finding in findings]) for i, reason in enumerate(broken)]

    def _verdict(self, broken: str, findings: list[Finding]) -> Verdict:
        if broken == NOT_FINITE:
            return Verdict("failed", broken)  # scores of what is no image say nothing
        pairs = zip(self._gates, findings, strict=True)
        reasons = [broken] * bool(broken) + [gate.reason for (gate, _), finding in pairs if finding.is_hit]
        scores = {key: value for finding in findings for key, value in finding.scores.items()}
        text = canonical_json(scores).decode() if scores else ""
        for policy, status in (("fail", "failed"), ("drop", "dropped")):
            if deciding := [reason for reason in reasons if self._policies[reason] == policy]:
                return Verdict(status, deciding[0], text)
        return Verdict("ok", BETWEEN_MARKS.join(reasons), text)

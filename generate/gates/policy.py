"""What happens to a picture that something is found in: the policies of the quality gates.

In: the pictures of one planned batch with their prompts, and the gates of the plan. Out: one `Verdict` per picture.

    fail   the attempt failed: drawn again with the seed of the next one; ``failed`` when all attempts are used
    mark   the picture is stored; its row carries the finding as ``reason`` beside status ``ok``
    drop   the picture is not stored; its row says ``dropped`` and why; there are no further attempts

Where several gates find something, the first that fails decides, then the first that drops; marks add up. Every gate
looks at the whole planned batch, whatever else is wrong with it: no score depends on how many pictures broke.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from synclones.base.json_file import canonical_json

NOT_FINITE, BLANK = "not finite", "blank picture"  # what `pixels.to_host` finds
UNSAFE, LOW_CLIP_SCORE, NEAR_DUPLICATE = "unsafe", "low clip score", "near duplicate"
BETWEEN_MARKS = "; "


@dataclass(frozen=True)
class Look:
    """What a gate sees in one picture: scores for its row, and whether it is what the gate is there to find."""

    found: bool
    scores: dict[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """Looks at finite and other pictures; deterministic for a given batch, and safe to share between threads."""

    reason: str
    """What its findings are called in the rows."""

    def look(self, images: np.ndarray, prompts: Sequence[str]) -> list[Look]:
        """One look per picture of uint8[n, h, w, 3], in order."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a picture: status ``ok``, ``failed`` (this attempt) or ``dropped``; why; its scores as JSON."""

    status: str = "ok"
    reason: str = ""
    scores: str = ""


OK = Verdict()


class Gates:
    """The gates of a plan with their policies. Without any, a blank picture fails and nothing else is looked at."""

    def __init__(self, gates: Sequence[tuple[Gate, str]] = (), on_blank: str = "fail"):
        """``gates``: each with ``fail``, ``mark`` or ``drop``. A picture that is not finite always fails: there is
        none."""
        self._gates = list(gates)
        self._policies = {NOT_FINITE: "fail", BLANK: on_blank} | {gate.reason: policy for gate, policy in gates}

    def judge(self, images: np.ndarray, broken: Sequence[str], prompts: Sequence[str]) -> list[Verdict]:
        """One verdict per picture of uint8[n, h, w, 3]; ``broken`` says what its pixels have shown already, or ""."""
        looks = [gate.look(images, prompts) for gate, _ in self._gates]
        return [self._verdict(reason, [look[i] for look in looks]) for i, reason in enumerate(broken)]

    def _verdict(self, broken: str, looks: list[Look]) -> Verdict:
        if broken == NOT_FINITE:
            return Verdict("failed", broken)  # scores of what is no picture say nothing
        seen = zip(self._gates, looks, strict=True)
        found = [broken] * bool(broken) + [gate.reason for (gate, _), look in seen if look.found]
        scores = {key: value for look in looks for key, value in look.scores.items()}
        text = canonical_json(scores).decode() if scores else ""
        for policy, status in (("fail", "failed"), ("drop", "dropped")):
            if deciding := [reason for reason in found if self._policies[reason] == policy]:
                return Verdict(status, deciding[0], text)
        return Verdict("ok", BETWEEN_MARKS.join(found), text)

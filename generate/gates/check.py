"""The quality gates that flags ask for: checked, written into the plan, opened.

In: `GenerateConfig`, a checked generator. Out: `GateInputs`: what of them belongs to the plan, and `Gates` that look.
"""

from dataclasses import dataclass
from pathlib import Path

from synclones.base.errors import InputError
from synclones.generate.gates.policy import Gate, Gates
from synclones.generate.generators.model import ModelFolder
from synclones.generate.plan import Plan
from synclones.generate.settings import GenerateConfig
from synclones.shards.similarity.embed import LIBRARIES, ClipFolder, find_clip
from synclones.shards.similarity.phash import PictureHashes

GateFacts = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """What gates look with, checked; nothing for a gate that is off."""

    facts: GateFacts
    """``Plan.gates``."""
    libraries: tuple[str, ...] = ()
    """Whose releases belong to the plan too."""
    clip: ClipFolder | None = None
    checker: Path | None = None
    """The folder that holds the safety checker."""
    test_set: PictureHashes | None = None

    def open(self, plan: Plan, device: str) -> Gates:
        """Load what looks. Raises InputError when a model cannot be loaded."""
        facts, gates = plan.gates, list[tuple[Gate, str]]()
        if self.checker is not None:
            from synclones.generate.gates.unsafe import Unsafe

            gates.append((Unsafe(self.checker, device), str(facts["unsafe"])))
        if self.clip is not None:
            from synclones.generate.gates.clip_score import ClipScore
            from synclones.shards.similarity.embed import Embedder

            minimum = facts.get("clip_minimum")
            score = ClipScore(Embedder(self.clip, device), self.clip.name, None if minimum is None else float(minimum))
            gates.append((score, str(facts.get("clip_score", "mark"))))
        if self.test_set is not None:
            from synclones.generate.gates.near_duplicates import NearDuplicates

            gates.append((NearDuplicates(self.test_set, int(facts["test_set_distance"])), str(facts["near_duplicate"])))
        return Gates(gates, str(facts.get("blank", "fail")))


def keep_inputs(config: GenerateConfig, inputs: GateInputs) -> None:
    """Keep in the dataset folder what a restart would otherwise compute again."""
    if config.near_duplicates_of is not None and inputs.test_set is not None:
        from synclones.generate.gates.near_duplicates import keep_test_set

        keep_test_set(inputs.test_set, config.near_duplicates_of, config.out)


def check_gates(config: GenerateConfig, model: ModelFolder) -> GateInputs:
    """Find and check what the gates look with. Raises InputError for what is missing or has no effect."""
    _refuse_without_effect(config)
    facts: GateFacts = {} if config.on_blank == "fail" else {"blank": config.on_blank}
    clip, checker, test_set, libraries = None, None, None, set[str]()
    if config.on_unsafe != "off":
        from synclones.generate.gates.unsafe import LIBRARIES as CHECKED_WITH
        from synclones.generate.gates.unsafe import find_checker

        checker, digest = find_checker(model)
        facts |= {"unsafe": config.on_unsafe, "unsafe_sha256": digest}
        libraries |= set(CHECKED_WITH)
    if config.clip_score:
        clip = find_clip(config.clip_score, "--clip-score")
        facts |= {"clip_model": clip.name, "clip_sha256": clip.sha256}
        libraries |= set(LIBRARIES)
        if config.min_clip_score is not None:
            facts |= {"clip_minimum": float(config.min_clip_score), "clip_score": config.on_low_clip_score}
    if config.near_duplicates_of is not None:
        from synclones.generate.gates.near_duplicates import read_test_set

        test_set = read_test_set(config.near_duplicates_of, config.out)
        facts |= {"near_duplicate": config.on_near_duplicate, "test_set_distance": config.near_duplicate_bits}
        facts |= {"test_set_sha256": test_set.sha256}
        libraries |= {"pillow"}
    return GateInputs(facts=facts, libraries=tuple(sorted(libraries)), clip=clip, checker=checker, test_set=test_set)


def _refuse_without_effect(config: GenerateConfig) -> None:
    if config.min_clip_score is not None and not config.clip_score:
        raise InputError("--min-clip-score: has no effect without a model; name one with --clip-score")
    if config.on_low_clip_score != "mark" and config.min_clip_score is None:
        raise InputError("--on-low-clip-score: has no effect without a minimum; give --min-clip-score")
    if config.on_near_duplicate != "mark" and config.near_duplicates_of is None:
        raise InputError("--on-near-duplicate: has no effect without a test set; give --near-duplicates-of")

"""Names cached logits by all that decides them.

In: a model, a set, a condition. Out: the name, the same on every machine.
"""

from typing import Any

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.predictions import CLEAN, Condition, EvaluatedModel
from synclones.evaluate.test_set import TestSet


def logits_key(model: EvaluatedModel, test_set: TestSet, condition: Condition, answers_only: bool = False) -> str:
    """Return the name of cached logits: weights, images, preprocessing and condition decide them.

    Of answers alone it depends on the set's classes as well.
    """
    parts = [model.weights_sha256, test_set.content_hash, repr(model.classifier.preprocessing), _key_part(condition)]
    if answers_only:
        members = {name: list(ids) for name, ids in test_set.members.items()}
        parts.append(["answers", test_set.decision, list(test_set.class_ids), members])
    return sha256_bytes(canonical_json(parts))[:16]


def _key_part(condition: Condition) -> Any:
    """Return what stands for a condition; for the first two what it was before conditions had names."""
    if condition == CLEAN:
        return 0.0
    if condition.name == "fgsm" and list(condition.settings) == ["epsilon_255"]:
        return condition.settings["epsilon_255"]
    return [condition.name, condition.settings]

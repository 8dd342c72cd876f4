"""Tells whether a model was trained on what it is tested with: by its run's manifest, those behind it, and its card.

In: a model folder and a test set, known by content hash. Out: how the two are related, in words; nothing where no file
says that they are.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from synclones.base.errors import InputError, VerificationError, one_line
from synclones.base.json_file import read_regular
from synclones.base.manifest import find_parent, lineage, read_manifest
from synclones.evaluate.answers.predictions import EvaluatedModel, SuiteSet
from synclones.models.folder import CARD
from synclones.models.load import find_model

# A row of the card's table of data ends with a content hash; pairs of sets have one of each, and one of the pairing.
_CARD_ROW = re.compile(r"^\|.*\| `([0-9a-f]{64}(?:\+[0-9a-f]{64})*)` \|$", re.MULTILINE)


def seen_in_training(models: Sequence[EvaluatedModel], sets: Sequence[SuiteSet], say: bool) -> set[tuple[str, str]]:
    """Return which models were trained on which of the sets; ``say`` a line on stderr for each of them.

    Args:
        models: those without a folder (published checkpoints, names of libraries) say nothing of what they saw.
        sets: what they are tested with.
        say: on one process only.

    Returns:
        Name of the model and content hash of the folder that the set is of, or is some images of.
    """
    pairs = set()
    for model in (model for model in models if model.folder):
        for test_set in (of.test_set for of in sets):
            assert model.folder is not None
            if not (way := trained_on(model.folder, test_set.folder, test_set.source_hash)):
                continue
            pairs.add((model.name, test_set.source_hash))
            if say:
                line = f"{model.name}: was trained on {way}; its numbers show what it remembers, not what it would do"
                print(one_line(f"{line} with new images"), file=sys.stderr, flush=True)
    return pairs


def trained_on(model: Path, test_folder: Path, content_hash: str) -> str:
    """Return which part the test set had in a model's training, in words; empty when no file says that it had any.

    A set that was made from the test set counts (a merged one holds it, a drawn one began from its images), and so does
    a training set that the test set was made from.

    Args:
        model: a run or an export.
        test_folder: where the test set lies.
        content_hash: what it is known by.

    Raises:
        InputError: there is no model.
    """
    export = find_model(model)
    behind = lineage(export.resolve().parent) if export.resolve().name == "export" else {}
    sets = _stated_in_card(export) | {digest: chain[0] for digest, chain in behind.items() if len(chain) == 1}
    if content_hash in sets:
        return f"this test set, {test_folder}"
    if content_hash in behind:
        return f"{behind[content_hash][0]}, which was made from this test set, {test_folder}"
    common = next((digest for digest in lineage(test_folder) if digest in sets), None)
    return "" if common is None else f"{sets[common]}, which this test set, {test_folder}, was made from"


def trained_on_generated(model: Path) -> bool:
    """Return whether every set that a model was trained on is known to be drawn by `synclones generate`.

    Args:
        model: a run or an export.
    """
    export = find_model(model).resolve()
    try:
        run = export.parent if export.name == "export" else export
        stated = [parent for parent in read_manifest(run).get("parents", []) if parent["name"] == "data"]
        folders = [find_parent(run, parent["path"]) for parent in stated]
        made = [None if folder is None else read_manifest(folder) for folder in folders]
    except (InputError, VerificationError, OSError, KeyError):
        return False
    pairs = zip(stated, made, strict=True)
    return bool(stated) and all(
        record is not None and record["stage"] == "generate" and record.get("content_hash") == parent["content_hash"]
        for parent, record in pairs
    )


def _stated_in_card(export: Path) -> dict[str, str]:
    """Return content hash -> who says it, of the sets in the card's table; the card may be somebody else's."""
    try:
        card = read_regular(export / CARD).decode(errors="replace")
    except (OSError, ValueError, InputError):
        return {}
    digests = (digest for row in _CARD_ROW.findall(card) for digest in row.split("+"))
    return dict.fromkeys(digests, f"a set named in {export / CARD}")

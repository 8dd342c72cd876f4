"""Tells whether a model was trained on what it is tested with: by its run's manifest, those behind it, and its card.

In: a model folder and a test set, known by content hash. Out: how the two are related, in words; nothing where no file
says that they are.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synclones.base.errors import InputError, one_line
from synclones.base.json_file import read_regular
from synclones.base.manifest import lineage
from synclones.evaluate.predict import TestSet
from synclones.evaluate.predictions import EvaluatedModel
from synclones.models.folder import CARD
from synclones.models.load import find_model

# A row of the card's table of data ends with a content hash; pairs of sets have one of each, and one of the pairing.
_CARD_ROW = re.compile(r"^\|.*\| `([0-9a-f]{64}(?:\+[0-9a-f]{64})*)` \|$", re.MULTILINE)


def marked(models: Sequence[EvaluatedModel], test_set: TestSet, say: bool) -> list[EvaluatedModel]:
    """Return the models, those marked that were trained on the test set; ``say`` a line on stderr for each of them.

    Args:
        models: those without a folder (published checkpoints, names of libraries) say nothing of what they saw.
        test_set: what they are tested with.
        say: on one process only.
    """
    ways = [
        trained_on(model.folder, test_set.folder, test_set.content_hash) if model.folder else "" for model in models
    ]
    for model, way in zip(models, ways, strict=True):
        if way and say:
            line = f"{model.name}: was trained on {way}; its numbers show what it remembers, not what it would do"
            print(one_line(f"{line} with new images"), file=sys.stderr, flush=True)
    return [replace(model, trained_on_test=bool(way)) for model, way in zip(models, ways, strict=True)]


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


def _stated_in_card(export: Path) -> dict[str, str]:
    """Return content hash -> who says it, of the sets in the card's table; the card may be somebody else's."""
    try:
        card = read_regular(export / CARD).decode(errors="replace")
    except (OSError, ValueError, InputError):
        return {}
    digests = (digest for row in _CARD_ROW.findall(card) for digest in row.split("+"))
    return dict.fromkeys(digests, f"a set named in {export / CARD}")

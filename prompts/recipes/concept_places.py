"""A concept, its hypernym and a random scene, for concept banks: what a language model would add, without one.

Text: c, h_c inside b
Example: tench, cyprinid inside creek
Paper: Tian et al. 2023, SynCLR, arXiv 2312.17742, table 2, IN+h+Places

Against the LLM captions there it is 0.1 to 0.4 points behind on ImageNet, 5 to 6 on the average of fine-grained sets.
Concepts follow each other in an order shuffled by the seed, so that the first million rows of a bank of WordNet's nouns
are no alphabet; each place is drawn by itself. `--classes wordnet-nouns`, or any lists joined by commas, is the bank.
"""

import numpy as np

from synclones.base.draws import hash64
from synclones.prompts.facts import class_facts
from synclones.prompts.places import InPlaces
from synclones.prompts.recipe import CONCEPT_ORDER, CONCEPT_PLACE, Bound, Columns, Inputs

TAKES = ("places",)


def bind(inputs: Inputs) -> Bound:
    """Bind every concept once per round, each time with a scene of its own.

    Raises:
        InputError: for a concept without a hypernym.
    """
    facts = class_facts(inputs, "hypernym")
    made = InPlaces(inputs, facts)
    order = np.argsort(hash64(inputs.seed, CONCEPT_ORDER, np.arange(made.num_classes)), kind="stable")

    def columns(captions: np.ndarray) -> Columns:
        scene = hash64(inputs.seed, CONCEPT_PLACE, captions) % np.uint64(made.num_places)
        return made.columns(order[captions % made.num_classes], scene.astype(np.int64))

    return Bound(columns, sources=facts.sources | made.sources, notes=facts.notes)

"""The class name, its hypernym and one of the 365 scenes of Places365.

Text: c, h_c inside b
Example: tench, cyprinid inside aquarium
Paper: Sariyildiz et al. 2023, ImageNet-SD, arXiv 2212.08420 (SynResNet50 of Singh et al. 2024)

Every class goes evenly through all places; the paper draws them at random. Sub-types stay apart: `apartment building
outdoor`. `--places FILE` takes others, one a line.
"""

import numpy as np

from synclones.prompts.facts import class_facts
from synclones.prompts.places import InPlaces
from synclones.prompts.recipe import Bound, Columns, EvenChoice, Inputs

TAKES = ("places",)


def bind(inputs: Inputs) -> Bound:
    """Bind every class with every scene.

    Raises:
        InputError: for a class without a hypernym.
    """
    facts = class_facts(inputs, "hypernym")
    made = InPlaces(inputs, facts)
    choice = EvenChoice(inputs.seed, made.num_classes, made.num_places)

    def columns(captions: np.ndarray) -> Columns:
        label = captions % made.num_classes
        return made.columns(label, choice(label, captions // made.num_classes))

    return Bound(columns, sources=facts.sources | made.sources, notes=facts.notes)

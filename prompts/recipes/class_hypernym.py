"""The class name and its hypernym in WordNet.

Text: c, h_c
Example: tench, cyprinid
Paper: Sariyildiz et al. 2023, Fake it till you make it (ImageNet-SD), arXiv 2212.08420

h_c is the first lemma of the first hypernym in the order of WordNet's file. All images of a class share one caption;
the seed does not matter. A column `hypernym` of the class file goes before WordNet.
"""

from synclones.prompts.facts import bind_fact
from synclones.prompts.recipe import Bound, Inputs


def bind(inputs: Inputs) -> Bound:
    """Bind one caption per class.

    Raises:
        InputError: for a class without a hypernym.
    """
    return bind_fact(inputs, "hypernym")

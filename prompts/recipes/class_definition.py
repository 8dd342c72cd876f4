"""The class name and its definition in WordNet.

Text: c, d_c
Example: tench, freshwater dace-like game fish of Europe and western Asia noted for ability to survive outside water
Paper: Sariyildiz et al. 2023, Fake it till you make it (ImageNet-SD), arXiv 2212.08420

The definition tells a crane at a building site from the bird. All images of a class share one caption; the seed does
not matter. A column `definition` of the class file goes before WordNet.
"""

from synclones.prompts.facts import bind_fact
from synclones.prompts.recipe import Bound, Inputs


def bind(inputs: Inputs) -> Bound:
    """Bind one caption per class.

    Raises:
        InputError: for a class without a definition.
    """
    return bind_fact(inputs, "definition")

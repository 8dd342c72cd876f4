"""The class name alone.

Text: c
Example: tench
Paper: Fan et al. 2023, Scaling Laws of Synthetic Images, arXiv 2312.04567; Singh et al. 2024, arXiv 2405.20469

All images of a class share one caption; the seed does not matter.
"""

from synclones.prompts.recipe import Bound, Inputs, class_captions


def bind(inputs: Inputs) -> Bound:
    """Bind one caption per class."""
    names = [info.name for info in inputs.classes.classes]
    return Bound(class_captions(names, [""] * len(names)))

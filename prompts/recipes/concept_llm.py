"""What a language model wrote about a concept, with a place or a relation or without.

Text: caption
Example: a tench resting on wet river stones under an overcast sky
Paper: Tian et al. 2023, SynCLR, arXiv 2312.17742; Hammoud et al. 2024, SynthCLIP, arXiv 2402.01832

`--captions FILE` holds them with their concepts: what `synclones prompts write` makes, or any file of that form. The
classes are the concepts; each goes through its captions in an order shuffled by the seed.
"""

from synclones.prompts.captions.pool import CaptionPool
from synclones.prompts.recipe import Bound, Inputs

TAKES = ("captions",)


def bind(inputs: Inputs) -> Bound:
    """Bind the captions to their concepts.

    Raises:
        InputError: without captions, for an unknown concept, or for concepts without a caption.
    """
    return CaptionPool(inputs).bind(inputs, with_name=False)

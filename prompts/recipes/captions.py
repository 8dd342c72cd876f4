"""The class name and the caption of a real image of that class.

Text: c, caption
Example: tench, a man holding a large fish by a lake
Paper: the captions ablation of Singh et al. 2024, arXiv 2405.20469, with BLIP-2 (Li et al. 2023, arXiv 2301.12597)

`--captions FILE` holds them with their classes: what `synclones prompts caption` writes, or any CSV, JSONL or Parquet
with `caption`, `class` and, if known, `source_key`. Every class goes through its captions in an order shuffled by the
seed, and again when it has fewer than images.
"""

from synclones.prompts.captions.pool import CaptionPool
from synclones.prompts.recipe import Bound, Inputs

TAKES = ("captions",)


def bind(inputs: Inputs) -> Bound:
    """Bind the captions to their classes.

    Raises:
        InputError: without captions, for an unknown class, or for classes without a caption.
    """
    return CaptionPool(inputs).bind(inputs, with_name=True)

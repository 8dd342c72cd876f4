"""The CLIP score of pictures: how well each shows its prompt, as the cosine of their vectors, -1 to 1.

In: uint8[n, h, w, 3] as they were drawn, before JPEG, and their prompts. Out: ``{"clip:MODEL": 0.2713}`` for each row.
Hessel et al., "CLIPScore" (2021), scale the cosine by 2.5 and cut it at 0; here it is the cosine itself.
"""

import threading
from collections.abc import Sequence

import numpy as np

from synclones.generate.gates.policy import LOW_CLIP_SCORE, Look
from synclones.shards.similarity.embed import Embedder

DECIMALS = 4  # far coarser than the noise of float32, so that rows have the same bytes


class ClipScore:
    """Records the score; finds those below ``minimum``, if there is one."""

    reason = LOW_CLIP_SCORE

    def __init__(self, embedder: Embedder, model_name: str, minimum: float | None):
        self._embedder, self._minimum = embedder, minimum
        self._column = f"clip:{model_name}"
        self._last = threading.local()  # a batch drawn again has the same prompts

    def look(self, images: np.ndarray, prompts: Sequence[str]) -> list[Look]:
        """Whether the rounded score is below the minimum, and the score."""
        pictures, texts = self._embedder.images(images), self._texts(tuple(prompts))
        cosines = np.einsum("nd,nd->n", pictures.astype(np.float64), texts.astype(np.float64))
        scores = [round(float(cosine), DECIMALS) + 0.0 for cosine in cosines]
        return [Look(self._minimum is not None and score < self._minimum, {self._column: score}) for score in scores]

    def _texts(self, prompts: tuple[str, ...]) -> np.ndarray:
        if getattr(self._last, "prompts", None) != prompts:
            self._last.vectors, self._last.prompts = self._embedder.texts(prompts), prompts
        vectors: np.ndarray = self._last.vectors
        return vectors

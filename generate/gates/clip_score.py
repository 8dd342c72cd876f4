"""The CLIP score of images: how well each shows its prompt, as the cosine of their vectors, -1 to 1.

In: uint8[n, h, w, 3] as they were drawn, before JPEG, and their prompts. Out: ``{"clip:MODEL": 0.2713}`` for each row.
Hessel et al., "CLIPScore" (2021), scale the cosine by 2.5 and cut it at 0; here it is the cosine itself.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base.config import check_ranges
from synclones.base.errors import InputError
from synclones.generate.gates.policy import CheckedGate, Finding, GateFacts, Policy
from synclones.generate.generators.model import ModelFolder

if TYPE_CHECKING:
    import numpy as np

    from synclones.shards.similarity.embed import Embedder

COLUMN = "clip:"  # and the model's name

DECIMALS = 4  # far coarser than the noise of float32, so that rows have the same bytes

ORDER = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags of this gate."""

    clip_score: str = ""
    """CLIP model that says how well each image shows its prompt: an open_clip folder, hub id, or architecture/tag."""
    min_clip_score: float | None = None
    """Cosine, -1 to 1, below which the CLIP score is low; without one it is only recorded."""
    on_low_clip_score: Policy = "mark"
    """What happens to an image with a low CLIP score."""


def check(settings: Settings, model: ModelFolder, out: Path) -> CheckedGate | None:
    """Find and hash the CLIP model.

    Raises:
        InputError: when there is none, or a flag would have no effect.
    """
    # A flag without effect is refused: its user believes that it acts.
    minimum = settings.min_clip_score
    if minimum is not None:
        check_ranges(settings, min_clip_score=(-1, 1))
        if not settings.clip_score:
            raise InputError("--min-clip-score: has no effect without a model; name one with --clip-score")
    elif settings.on_low_clip_score != "mark":
        raise InputError("--on-low-clip-score: has no effect without a minimum; give --min-clip-score")
    if not settings.clip_score:
        return None
    from synclones.shards.similarity.embed import LIBRARIES, Embedder, find_clip

    # The model's content is part of the plan; a policy only where there is a minimum that it can act on.
    clip = find_clip(settings.clip_score, "--clip-score")
    facts: GateFacts = {"clip_model": clip.name, "clip_sha256": clip.sha256}
    if minimum is not None:
        facts |= {"clip_minimum": float(minimum), "clip_score": settings.on_low_clip_score}
    return CheckedGate(
        facts=facts,
        policy=settings.on_low_clip_score,
        libraries=tuple(LIBRARIES),
        open=lambda device: ClipScore(Embedder(clip, device), clip.name, minimum),
    )


class ClipScore:
    """Records the score; finds those below ``minimum``, if there is one."""

    reason = "low clip score"

    def __init__(self, embedder: "Embedder", model_name: str, minimum: float | None):
        self._embedder, self._minimum = embedder, minimum
        self._column = f"{COLUMN}{model_name}"
        self._last = threading.local()  # a batch drawn again has the same prompts

    def inspect(self, images: "np.ndarray", prompts: Sequence[str]) -> list[Finding]:
        """Return whether the rounded score is below the minimum, and the score."""
        import numpy as np

        vectors, texts = self._embedder.images(images), self._texts(tuple(prompts))
        cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), texts.astype(np.float64))
        scores = [round(float(cosine), DECIMALS) + 0.0 for cosine in cosines]
        return [Finding(self._minimum is not None and score < self._minimum, {self._column: score}) for score in scores]

    def _texts(self, prompts: tuple[str, ...]) -> "np.ndarray":
        if getattr(self._last, "prompts", None) != prompts:
            self._last.vectors, self._last.prompts = self._embedder.texts(prompts), prompts
        vectors: np.ndarray = self._last.vectors
        return vectors

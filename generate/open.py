"""Opens a generator to draw a few images from Python: from prompts and seeds, as a generation does; no file is written.

In: `GenerateConfig`, of which model, sampling and sizes count. Out: `OpenGenerator`, whose `sample` gives
`GeneratedImage`s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synclones.base.errors import InputError
from synclones.base.weights import refuse_old_libraries
from synclones.generate.generators.generator import Generator, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.job import plan_of
from synclones.generate.plan import Plan
from synclones.generate.settings import GenerateConfig, resolve_device

if TYPE_CHECKING:  # importing them would load torch
    from PIL.Image import Image

    from synclones.generate.sampling.sampler import Sampler

NUM_SEEDS = 2**32


@dataclass(frozen=True)
class GeneratedImage:
    """What was drawn from one prompt."""

    prompt: str
    seed: int
    pixels: np.ndarray
    """uint8[side, side, 3], RGB."""
    reason: str
    """Why it cannot be used, such as ``nan latents``; empty of a good one. A generation would try the next seed."""

    @property
    def image(self) -> "Image":
        """The image of PIL."""
        from PIL import Image

        return Image.fromarray(self.pixels)


class OpenGenerator:
    """A loaded generator.

    Attributes:
        plan: everything that decides the pixels beside prompts and seeds.
    """

    def __init__(self, plan: Plan, sampler: "Sampler"):
        """Keep a sampler, which draws by the plan."""
        self.plan, self._sampler = plan, sampler

    def sample(self, prompts: str | Sequence[str], seeds: Sequence[int] | None = None) -> list[GeneratedImage]:
        """Draw one image for each prompt.

        An image is that of `synclones generate` when its batch is: on other neighbours depend the last bits. One that
        is stored has its seed in `DatasetSample.seed`.

        Args:
            prompts: one text, or several.
            seeds: of the noise of each, 0 to 2^32 - 1; 0, 1, 2, ... by default.

        Raises:
            InputError: no text, another number of seeds than of prompts, or one out of range.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        numbers = list(range(len(texts))) if seeds is None else [int(seed) for seed in seeds]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError("sample(): prompts: expected texts, at least one, none of them empty")
        if len(numbers) != len(texts):
            raise InputError(f"sample(): seeds: {len(numbers)} were given for {len(texts)} prompts; give one for each")
        if bad := [seed for seed in numbers if not 0 <= seed < NUM_SEEDS]:
            raise InputError(f"sample(): seeds: {bad[0]} was given, expected 0 to 2^32 - 1, what torch can tell apart")
        made: list[GeneratedImage] = []
        for start in range(0, len(texts), self.plan.batch_size):
            of = slice(start, start + self.plan.batch_size)
            pixels, reasons = self._sampler.images(texts[of], numbers[of])
            made += map(GeneratedImage, texts[of], numbers[of], pixels, reasons)
        return made


def opened(config: GenerateConfig, embedded_model: Path) -> OpenGenerator:
    """Check and load the generator that the settings name; ``embedded_model``: what the model ``lab`` means.

    Raises:
        InputError: no model, none that can be loaded, or settings that do not fit it.
    """
    refuse_old_libraries()
    if not config.model:
        raise InputError("open_generator(): no model was given; name a diffusers folder, a hub id, or 'lab'")
    if config.images is not None or config.batch_size == "auto":
        raise InputError("open_generator(): images and batch_size='auto' are for generate(); leave them out")
    model = find_model(str(embedded_model) if config.model == "lab" else config.model, config.revision)
    generator, device = make_generator(model, config), resolve_device(config.device)
    no_prompts = {"prompts_sha256": "", "num_samples": 1, "has_labels": False}
    return _loaded(plan_of(config, generator, device, no_prompts), generator, device)


def _loaded(plan: Plan, generator: Generator, device: str) -> OpenGenerator:
    from synclones.generate.sampling.sampler import Sampler
    from synclones.generate.workers import load_for

    return OpenGenerator(plan, Sampler(load_for(plan, generator, device), plan))

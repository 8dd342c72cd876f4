"""Asks the safety checker that comes with a Stable Diffusion for its flag; its black images are never used.

In: uint8[n, h, w, 3] as they were drawn. Out: ``{"unsafe": true}`` for each row. The checker is loaded only when asked
for, from ``safety_checker/`` and ``feature_extractor/`` of the model's folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synclones.base.errors import InputError
from synclones.base.files import files_sha256
from synclones.base.weights import check_safetensors, find_folder, read_model_json
from synclones.generate.gates.policy import CheckedGate, Finding, GateFacts
from synclones.generate.generators.model import ModelFolder

if TYPE_CHECKING:
    import numpy as np

UNSAFE = "unsafe"
CHECKER, EXTRACTOR = "safety_checker", "feature_extractor"
LIBRARIES = ("torchvision", "pillow")  # whose release can change a flag, beside the plan's own
_WANTED = [f"{CHECKER}/config.json", f"{CHECKER}/model.safetensors", f"{EXTRACTOR}/preprocessor_config.json"]

ORDER = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flag of this gate."""

    on_unsafe: Literal["off", "fail", "mark", "drop"] = "off"
    """What happens to an image that the generator's safety checker flags; off does not load the checker."""


def check(settings: Settings, model: ModelFolder, out: Path) -> CheckedGate | None:
    """Find and hash the checker of ``model``.

    Raises:
        InputError: when the model has none, or its files are missing, cut or pickled.
    """
    policy = settings.on_unsafe
    if policy == "off":
        return None
    folder, digest = find_checker(model)
    facts: dict[str, str | int | float] = {"unsafe": policy, "unsafe_sha256": digest}
    return CheckedGate(facts=facts, policy=policy, libraries=LIBRARIES, open=lambda device: Unsafe(folder, device))


def find_checker(model: ModelFolder) -> tuple[Path, str]:
    """Return the folder that holds the checker of a model, and the hash of its files.

    Raises:
        InputError: the model has none, or its files are missing, cut or pickled.
    """
    folder = find_folder(model.name, model.revision, _WANTED)[0] if model.revision else model.path
    for part in (CHECKER, EXTRACTOR):
        if not (folder / part).is_dir():
            raise InputError(f"--on-unsafe: {folder} has no {part}/; only models with a safety checker can be asked")
    config, weights, extractor = (folder / name for name in _WANTED)
    read_model_json(config)
    read_model_json(extractor)
    check_safetensors(weights)
    return folder, files_sha256(folder, (folder / name for name in _WANTED))


class Unsafe:
    """The checker's flag."""

    reason = UNSAFE

    def __init__(self, folder: Path, device: str):
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from diffusers.utils import logging
        from transformers import CLIPImageProcessor

        logging.set_verbosity_error()  # it announces black images that nobody will see
        checker: Any = StableDiffusionSafetyChecker.from_pretrained(
            folder / CHECKER, use_safetensors=True, local_files_only=True
        )
        self._checker, self._device = checker.eval().to(device), device
        self._extractor = CLIPImageProcessor.from_pretrained(folder / EXTRACTOR, local_files_only=True)

    def inspect(self, images: "np.ndarray", prompts: Sequence[str]) -> list[Finding]:
        """Return its flag for each image. What it may blacken is not the images, but zeros in their place."""
        import numpy as np

        pixels = self._extractor(list(images), return_tensors="pt").pixel_values.to(self._device)
        _, flags = self._checker(clip_input=pixels, images=np.zeros((len(images), 1, 1, 3)))
        return [Finding(bool(flag), {UNSAFE: bool(flag)}) for flag in flags]


def card_words(facts: GateFacts) -> str:
    """Return what a data card says of the safety checker, whether the gate is on or off."""
    policy = facts.get(UNSAFE)
    return f"its flag only ({policy}), no black images" if policy else "off: its black images must not pass for data"

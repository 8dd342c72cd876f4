"""RandAugment with named operation sets, on the bytes of one image; what is drawn is a function of image and showing.

In: uint8[s, s, 3], cropped. Out: the same shape and type. A set means its source's operations, magnitudes, fill
and interpolation: ``torchvision`` is `torchvision.transforms.RandAugment` on PIL images with nearest neighbours and
black fill, ``timm`` is timm's ``rand-m9-mstd0.5-inc1`` with the "increasing" operations, each with probability 0.5,
a filter drawn from bilinear and bicubic, and the mean of the data as fill, ``big_vision`` is
`big_vision_operations.py` beside it. Runs on the CPU, image by image: 1.1 to 1.5 ms for two operations on 224 px.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import ndtri

from synclones.base.draws import hash_int, uniform_float
from synclones.train.augmentation.big_vision_operations import BIG_VISION, big_vision_operation
from synclones.train.options.augmentation import RandAugmentSettings

RAND_AUGMENT = 0x52414E44  # tells these numbers from those that crops and augmentation draw from the same seed
# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
WHICH, SIGN, DONE, LEVEL, FILTER, CUT_TOP, CUT_LEFT = range(7)
BINS = 31  # of torchvision's magnitudes 0..30
TORCHVISION = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
TIMM = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"),
    *("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "ShearX", "ShearY"),
    *("TranslateXRel", "TranslateYRel"),
)


@dataclass(frozen=True, kw_only=True)
class RandAugment(RandAugmentSettings):
    """Which operations change an image."""

    fill: tuple[int, int, int] = (124, 116, 104)
    """Colour of what timm's operations move in from outside; timm's is the mean that the network normalises by."""
    seed: int = 0

    def apply(self, pixels: np.ndarray, source: int, index: int, showing: int, view: int = 0) -> np.ndarray:
        """Return uint8[s, s, 3] ``pixels`` after the operations that are drawn for this showing of the image."""
        if self.rand_augment == "none":
            return pixels
        image = Image.fromarray(pixels)
        state = hash_int(self.seed, RAND_AUGMENT, source, index, showing, view)
        for number in range(self.rand_augment_operations):
            each = hash_int(number, state=state)
            drawn = [uniform_float(purpose, state=each) for purpose in range(7)]
            if self.rand_augment == "torchvision":
                image = torchvision_operation(
                    image,
                    TORCHVISION[int(drawn[WHICH] * len(TORCHVISION))],
                    int(self.rand_augment_magnitude),
                    negative=drawn[SIGN] < 0.5,
                )
            elif self.rand_augment == "big_vision":
                image = big_vision_operation(
                    image,
                    BIG_VISION[int(drawn[WHICH] * len(BIG_VISION))],
                    self.rand_augment_magnitude,
                    negative=drawn[SIGN] < 0.5,
                    at=(drawn[CUT_TOP], drawn[CUT_LEFT]),
                )
            elif drawn[DONE] <= 0.5:
                level = self.rand_augment_magnitude + self.rand_augment_deviation * float(ndtri(drawn[LEVEL] or 2**-54))
                image = timm_operation(
                    image,
                    TIMM[int(drawn[WHICH] * len(TIMM))],
                    min(max(level, 0.0), 10.0),
                    negative=drawn[SIGN] < 0.5,
                    fill=self.fill,
                    bicubic=drawn[FILTER] < 0.5,
                )
        return np.asarray(image)


def torchvision_operation(image: Image.Image, name: str, magnitude: int, *, negative: bool) -> Image.Image:
    """Apply an operation of `TORCHVISION` at bin ``magnitude`` of 0..30; signed ones turned around if ``negative``."""
    import torchvision.transforms.functional as V

    share, sign = magnitude / (BINS - 1), -1 if negative else 1
    factor = 1 + sign * 0.9 * share
    tangent = 0.3 * share * sign
    shift = int(150.0 / 331.0 * image.width * share) * sign
    degrees = float(np.degrees(np.arctan(tangent)))
    # A shear about the corner, as the paper's, not about the centre.
    corner: dict[str, Any] = {"angle": 0.0, "scale": 1.0, "center": [0, 0]}
    moved: dict[str, Any] = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0]}
    operations: dict[str, Callable[[], Image.Image]] = {
        "Identity": lambda: image,
        "ShearX": lambda: V.affine(image, translate=[0, 0], shear=[degrees, 0.0], **corner),
        "ShearY": lambda: V.affine(image, translate=[0, 0], shear=[0.0, degrees], **corner),
        "TranslateX": lambda: V.affine(image, translate=[shift, 0], **moved),
        "TranslateY": lambda: V.affine(image, translate=[0, shift], **moved),
        "Rotate": lambda: V.rotate(image, sign * 30.0 * share),
        "Brightness": lambda: V.adjust_brightness(image, factor),
        "Color": lambda: V.adjust_saturation(image, factor),
        "Contrast": lambda: V.adjust_contrast(image, factor),
        "Sharpness": lambda: V.adjust_sharpness(image, factor),
        "Posterize": lambda: V.posterize(image, 8 - round(4 * share)),
        "Solarize": lambda: V.solarize(image, 255.0 * (1 - share)),
        "AutoContrast": lambda: V.autocontrast(image),
        "Equalize": lambda: V.equalize(image),
    }
    return operations[name]()


def timm_operation(
    image: Image.Image, name: str, level: float, *, negative: bool, fill: tuple[int, int, int], bicubic: bool
) -> Image.Image:
    """Apply an operation of `TIMM` at ``level`` 0..10; signed ones turned around if ``negative``."""
    from timm.data.auto_augment import NAME_TO_OP

    share, sign = level / 10, -1 if negative else 1
    arguments: dict[str, tuple[float, ...]] = {
        "Rotate": (30 * share * sign,),
        "PosterizeIncreasing": (4 - int(4 * share),),
        "SolarizeIncreasing": (256 - min(256, int(256 * share)),),
        "SolarizeAdd": (min(128, int(110 * share)),),
        "ShearX": (0.3 * share * sign,),
        "ShearY": (0.3 * share * sign,),
        "TranslateXRel": (0.45 * share * sign,),
        "TranslateYRel": (0.45 * share * sign,),
    }
    enhanced = (max(0.1, 1 + 0.9 * share * sign),) if name.startswith(("Color", "Contrast", "Bright", "Sharp")) else ()
    if arguments.get(name) == (0,) and name == "PosterizeIncreasing":
        return Image.new(image.mode, image.size)  # no bit is kept: black; Pillow 13 refuses it, and timm with it
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    changed: Image.Image = NAME_TO_OP[name](image, *arguments.get(name, enhanced), fillcolor=fill, resample=resample)
    return changed

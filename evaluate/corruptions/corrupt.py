"""Corrupts images as ImageNet-C and its relatives do, each image by random numbers of its own.

In: ``uint8[h, w, 3]``, a corruption's name, a severity from 1 to 5, a seed and the image's id. Out: ``uint8[h, w, 3]``,
the same for any number of processes, any batch and any order. It is no released set: results call it "generated".

    corrupt(image, "snow", 3, seed=0, key="n01440764/ILSVRC2012_val_00000293")
"""

import hashlib
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.corruptions import blur, digital, laion_c, noise, spatter, three_d, weather
from synclones.evaluate.corruptions.constants import (
    BY_SIZE,
    IMAGENET_3DCC,
    IMAGENET_C,
    LAION_C,
    OF_ANY_SIZE,
    OF_DEPTH,
    SIZES,
)
from synclones.evaluate.corruptions.pixels import jpeg_stored

NAMES = IMAGENET_C + IMAGENET_3DCC + LAION_C
"""What an image is enough for; those of `OF_DEPTH` need its depth map as well."""
SEVERITIES = (1, 2, 3, 4, 5)
STORED_QUALITY = 85

_FIXED: dict[str, Callable[..., np.ndarray]] = {
    "defocus_blur": blur.defocus_blur,
    "zoom_blur": blur.zoom_blur,
    "gaussian_blur": blur.gaussian_blur,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "saturate": digital.saturate,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "color_quant": three_d.color_quant,
    "vertical_lines": laion_c.vertical_lines,
}
_RANDOM: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "speckle_noise": noise.speckle_noise,
    "iso_noise": noise.iso_noise,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "spatter": spatter.spatter,
    "elastic_transform": digital.elastic_transform,
    "low_light": three_d.low_light,
    "geometric_shapes": laion_c.geometric_shapes,
    "luminance_checkerboard": laion_c.luminance_checkerboard,
}
_WITH_DEPTH: dict[str, Callable[..., np.ndarray]] = {
    "near_focus": three_d.near_focus,
    "far_focus": three_d.far_focus,
    "fog_3d": three_d.fog_3d,
}


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    *,
    seed: int,
    key: str | int,
    table: int | None = None,
    stored: bool = False,
    frost_textures: Sequence[np.ndarray] = (),
    depth: np.ndarray | None = None,
) -> np.ndarray:
    """Return a corrupted copy of uint8[h, w, 3].

    Args:
        name: one of `NAMES` or `OF_DEPTH`.
        severity: 1 to 5.
        seed: of the whole set.
        key: what the image is known by; other keys get other random numbers.
        table: which image size the constants are of, 32, 64 or 224; by default the image's own.
        stored: whether the result is written as JPEG of quality 85 and read again, as the released sets of 64 and
            224 px were; those of 32 px were not.
        frost_textures: uint8[a, b, 3] each, not smaller than the image, for frost; without any it is procedural.
        depth: float[h, w], distances on the makers' scale (`depth.on_scale`), for `OF_DEPTH`.

    Raises:
        InputError: no such corruption or severity, no such image, a size that no table is of, or no map of its depth.
    """
    constants = constants_of(image, name, severity, table)
    image = np.ascontiguousarray(image)
    if name in _FIXED:
        result = _FIXED[name](image, constants)
    elif name in _WITH_DEPTH:
        if depth is None:
            raise InputError(f"corruption {name}: needs the image's depth map (depth=, --depth-dir)")
        result = _WITH_DEPTH[name](image, depth, severity)
    else:
        more = (frost_textures,) if name == "frost" else ()
        result = _RANDOM[name](image, constants, generator(seed, key, name, severity), *more)
    return jpeg_stored(result, STORED_QUALITY, optimize=True) if stored else result


def constants_of(image: np.ndarray, name: str, severity: int, table: int | None = None) -> object:
    """Return the constants of a corruption for an image.

    Raises:
        InputError: as `corrupt`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise InputError(f"image: {image.dtype}{list(image.shape)} was given, expected uint8[height, width, 3]")
    check_name(name)
    if severity not in SEVERITIES:
        raise InputError(f"severity: {severity} was given, expected 1 to 5")
    rows = OF_ANY_SIZE if name in OF_ANY_SIZE else BY_SIZE[table_of(image.shape[0], image.shape[1], table)]
    return rows[name][severity - 1]


def table_of(height: int, width: int, table: int | None = None) -> int:
    """Return which table of constants an image is corrupted by.

    Raises:
        InputError: there is none for this size, and none was named; no such table.
    """
    if table is None and height == width and height in SIZES:
        return height
    if table is None:
        raise InputError(
            f"image of {width} x {height} px: constants exist for squares of 32, 64 and 224 px; resize the images, or "
            "name the table that is to be used for this size (table=, --table)"
        )
    if table not in SIZES:
        raise InputError(f"table: {table} was given, expected 32, 64 or 224")
    return table


def check_name(name: str) -> None:
    """Refuse what is no corruption.

    Raises:
        InputError: with the nearest name.
    """
    known = NAMES + OF_DEPTH
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise InputError(f"corruption {name[:60]!r}: no such one; {hint}")


def generator(seed: int, key: str | int, name: str, severity: int) -> np.random.Generator:
    """Return the generator of one image under one corruption: the same whenever and wherever it is asked for."""
    digest = hashlib.sha256(f"{name}/{severity}/{seed}/{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))

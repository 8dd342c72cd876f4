"""Depth maps of images: found by name, read, brought to the image's size and to the scale of ImageNet-3DCC's makers.

In: a folder ``CLASS/NAME.npy`` (floating numbers) or ``CLASS/NAME.png`` (16-bit grey), of distances in any unit or of
inverse depth as MiDaS and DPT predict it. Out: ``float32[h, w]``, from `NEAREST` to `FARTHEST`.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from synclones.base.errors import InputError

Kind = Literal["distance", "inverse"]
SUFFIXES = (".npy", ".png")
# The makers read 16-bit inverse depth v as the distance 512 / v and limit it to 0.5: these two are its ends.
NEAREST, FARTHEST = 512 / 65535, 0.5
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError)  # what Pillow and NumPy raise for files that they refuse


def find_maps(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the map of each image.

    Args:
        names: ``CLASS/NAME`` of each image, without a suffix.

    Raises:
        InputError: images have none, or one has two; names the first.
    """
    paths, missing = [], []
    for name in names:
        present = [path for path in (folder / f"{name}{suffix}" for suffix in SUFFIXES) if path.is_file()]
        if len(present) > 1:
            raise InputError(
                f"--depth-dir: {present[0]} and {present[1].name} are maps of one image; leave one of them"
            )
        if present:
            paths += present
        else:
            missing.append(name)
    if missing:
        raise InputError(
            f"--depth-dir {folder}: {len(missing):,} of {len(names):,} images have no depth map, the first is "
            f"{missing[0]}.npy (or .png); add them, or leave these images out of --data"
        )
    return paths


def read_map(path: Path, kind: Kind) -> np.ndarray:
    """Read a map as it is stored: float32[h, w].

    Raises:
        InputError: it cannot be read, is no map of one channel, or has numbers that are no distances.
    """
    try:
        values = _decoded(path)
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"--depth-dir: {path} cannot be read: {error}; write it again") from None
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fu":
        wanted = "float[height, width] in .npy, 16-bit grey in .png"
        raise InputError(f"--depth-dir: {path} is {values.dtype}{list(values.shape)}, expected {wanted}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        values = values.astype(np.float32)
    least = 0 if kind == "inverse" else np.finfo(np.float32).tiny  # nothing is nearer to 0 than far away, inversely
    if not np.isfinite(values).all() or values.min() < least:
        wanted = "0 or more" if kind == "inverse" else "more than 0"
        raise InputError(f"--depth-dir: {path} has values that are not finite and {wanted}; mend the map")
    return values


def _decoded(path: Path) -> np.ndarray:
    data = path.read_bytes()
    if path.suffix == ".npy":
        values: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if values.dtype.kind != "f":
            raise ValueError(f"it holds {values.dtype}, expected floating numbers")
        return values
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    if not image.mode.startswith("I"):  # Pillow's modes of 16-bit grey
        raise ValueError(f"it is a PNG of mode {image.mode}, expected 16-bit grey")
    return np.asarray(image).astype(np.uint16)


def check_aspect(values: np.ndarray, height: int, width: int, path: Path) -> None:
    """Refuse a map of another aspect ratio than its image, beyond what rounding its sides explains.

    Raises:
        InputError: when it is one.
    """
    down, right = values.shape
    if abs(down * width - right * height) > max(height, width, down, right) / 2:
        raise InputError(f"--depth-dir: {path} is {right}x{down}, its image {width}x{height} px: other aspect ratios")


def on_scale(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Return distances on the makers' scale: float32[h, w], `NEAREST` to `FARTHEST`.

    Args:
        values: float32[h, w]. As "distance" in any unit, more than 0: the farthest is brought to `FARTHEST`. As
            "inverse" 0 to 65535, as DPT writes its 16-bit files: 512 / value, as the makers read them.
    """
    if kind == "inverse":
        distances = 512 / (values + np.float32(1e-6))
    else:
        distances = values * np.float32(FARTHEST / values.max())
    return np.clip(distances, NEAREST, FARTHEST).astype(np.float32)

"""What a corrupted set is made from: its images, resized and cropped, frost textures, and depth maps that fit them.

In: a labelled set, folders that the user gives. Out: ``uint8[h, w, 3]``, ``float32[h, w]`` of depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import files_sha256
from synclones.evaluate.corruptions.constants import FROST_SCALE
from synclones.evaluate.corruptions.depth import Kind, check_aspect, find_maps, on_scale, read_map
from synclones.shards.sources.decode import IMAGE_SUFFIXES, decode_image

_SHORTER_SIDE = 256 / 224  # of the resized image, over the crop's


def cropped(pixels: np.ndarray, crop_px: int) -> np.ndarray:
    """Return the middle of the resized image, uint8[crop_px, crop_px, 3]; with 0 the image itself."""
    if not crop_px:
        return pixels
    return np.asarray(_middle(Image.fromarray(pixels), pixels.shape[0], pixels.shape[1], crop_px))


def _middle(image: Image.Image, height: int, width: int, crop_px: int) -> Image.Image:
    """Resize to what an image of this size is resized to, and crop as it is cropped."""
    shorter = round(crop_px * _SHORTER_SIDE)
    scaled = [
        shorter if side == min(height, width) else int(shorter * side / min(height, width)) for side in (width, height)
    ]
    resized = image.resize((scaled[0], scaled[1]), Image.Resampling.BILINEAR)
    left, top = (round((side - crop_px) / 2) for side in scaled)
    return resized.crop((left, top, left + crop_px, top + crop_px))


def frost_textures(folder: Path | None, table: int, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return frost textures, shrunk as upstream does for the table: uint8[a, b, 3] each.

    Raises:
        InputError: there are none, or one is smaller than the images.
    """
    if folder is None:
        return ()
    paths = sorted(path for path in folder.glob("*") if path.name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise InputError(f"--frost-dir {folder}: no PNG, JPEG or WebP image in it; give a folder of textures")
    textures = []
    for path in paths:
        try:
            pixels = Image.fromarray(decode_image(path.read_bytes(), where=str(path)))
        except VerificationError as error:
            raise InputError(f"--frost-dir: {error}") from None
        size = [int(side * FROST_SCALE[table]) for side in pixels.size]
        if size[0] < image.shape[1] or size[1] < image.shape[0]:
            needed = "x".join(str(-(-side // FROST_SCALE[table])).removesuffix(".0") for side in image.shape[1::-1])
            raise InputError(f"--frost-dir: {path} is {pixels.width}x{pixels.height} px, expected at least {needed}")
        textures.append(np.asarray(pixels.resize((size[0], size[1]), Image.Resampling.BILINEAR)))
    return tuple(textures)


@dataclass(frozen=True)
class DepthMaps:
    """The depth map of each image of a set."""

    paths: tuple[Path, ...]
    kind: Kind
    identity: str
    """Of the maps' contents and how they are read."""

    def of(self, position: int, height: int, width: int, crop_px: int) -> np.ndarray:
        """Return an image's map, resized and cropped as the image is: float32[h, w] on the makers' scale.

        Args:
            height: of the image before it is resized, px.
            width: the same.

        Raises:
            InputError: it is no map of distances, or of another aspect ratio.
        """
        path = self.paths[position]
        values = read_map(path, self.kind)
        check_aspect(values, height, width, path)
        image = Image.fromarray(values)
        if crop_px:
            image = _middle(image, height, width, crop_px)
        elif values.shape != (height, width):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return on_scale(np.asarray(image), self.kind)


def depth_maps(folder: Path | None, kind: Kind, names: Sequence[str]) -> DepthMaps | None:
    """Return the maps of all images, none of which is decoded yet, or None without a folder.

    Raises:
        InputError: an image has none, or two.
    """
    if folder is None:
        return None
    paths = tuple(find_maps(folder, names))
    return DepthMaps(paths, kind, f"{kind} {files_sha256(folder, paths)}")

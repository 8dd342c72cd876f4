"""Encoded images to the square pixels of a batch: decoded once, cropped at full resolution, resized into their slots.

In: the bytes of a jpg, png or webp, and which image at which showing. Out: ``uint8[views, size, size, 3]``, RGB.
What is cropped is a function of (seed, source, index, showing, view) that anybody can ask again; rotation, colours and
normalisation come later, on the device. Nothing here starts threads: whoever decodes with more of them gains by each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from synclones.base.draws import hash_int, uniform_float
from synclones.shards.loading.boxes import Box, centre_box, random_box
from synclones.shards.sources.decode import Decoded, decode_for_crops

cv2.setNumThreads(0)  # its pool is one for the whole process: decoding threads would wait for each other
# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
CROPS = 0x43524F50  # tells these numbers from those that the order and the augmentation draw from the same seed
LEFT, TOP, FLIP, TRIES_FROM = range(4)
_LONGEST = 8  # of a longer side over the shorter: of longer images only a centre as long as this is resized


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How images become the square pixels of a batch."""

    size_px: int
    scale_min: float = 1.0
    """Smallest share of the area that a random crop shows (torchvision's RandomResizedCrop); 1: none is random, the
    shorter side is resized to ``size_px`` and the centre cropped (torchvision's Resize and CenterCrop)."""
    scale_max: float = 1.0
    """Largest share."""
    flip: bool = False
    """Mirror half of the crops."""
    views: int = 1
    """Crops of each image, from one decoding."""
    first_view: int = 0
    """Number of the first crop in the draws: local crops count on where global ones end."""
    local: "Crops | None" = None
    """Further crops of the same decoding, of another size and scale (multi-crop, Caron et al. 2020)."""
    mode: Literal["faithful", "fast"] = "faithful"
    """``faithful``: the pixels of PIL's ``crop().resize()``. ``fast``: JPEGs decoded at 1/2, 1/4 or 1/8 where all crops
    of them stay as large as ``size_px``, and a linear filter; the same boxes."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of ``faithful``, antialiased."""
    seed: int = 0

    def parameters(
        self, source: int, index: int, showing: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what is shown of an image of this size: a pure function, the one by which `fill` crops.

        Boxes int64[views, 4] as (left, top, width, height) in px of the image as viewers show it, and bool[views]
        whether each is mirrored. Without random crops the box is the centre square, to the nearest pixel.
        """
        drawn = self._draw(source, index, showing, (height, width))
        boxes = np.array([box for box, _ in drawn], dtype=np.int64).reshape(-1, 4)
        return boxes, np.array([mirrored for _, mirrored in drawn], dtype=bool)

    def fill(
        self,
        data: bytes,
        source: int,
        index: int,
        showing: int,
        out: np.ndarray,
        local_out: np.ndarray | None = None,
        *,
        where: str,
    ) -> str:
        """Decode an image once and write its crops into ``out``, uint8[views, size_px, size_px, 3].

        ``local_out``: the same for the crops of ``local``, where there are any.

        Returns what had to be converted, such as "grey", "CMYK", "16 bit" or "turned"; empty for most. ``where`` names
        the image in messages.

        Raises:
            VerificationError: no image that decodes, or one that cannot be used; see `decode_image`.
        """
        kinds = [(self, out)] if self.local is None or local_out is None else [(self, out), (self.local, local_out)]

        drawn: list[list[tuple[Box, bool]]] = []

        def draw(height: int, width: int) -> float:
            """Draw all crops; return how much smaller the image may be decoded: what the most demanding one allows."""
            drawn.extend(crops._draw(source, index, showing, (height, width)) for crops, _ in kinds)
            return min(
                min(box[2:]) / crops.size_px for (crops, _), own in zip(kinds, drawn, strict=True) for box, _ in own
            )

        image = decode_for_crops(data, draw if self.mode == "fast" else None, where=where)
        if not drawn:  # a JPEG's size is asked before it is decoded; of all others it is known only now
            draw(*image.size)
        for (crops, views), own in zip(kinds, drawn, strict=True):
            for view, (box, mirrored) in zip(views, own, strict=True):
                crops._fill_view(image, box, mirrored, view)
        return image.converted

    def _fill_view(self, image: Decoded, box: Box, mirrored: bool, view: np.ndarray) -> None:
        if self.mode == "fast":
            self._fill_fast(image.pixels, self._window(box, image.size), image.factor, mirrored, view)
        elif self.scale_min < 1:
            left, top, width, height = box
            part = image.pixels[top : top + height, left : left + width]
            _write(resize(part, (self.size_px, self.size_px), self.interpolation), mirrored, view)
        else:
            _write(self._centre(image.pixels), mirrored, view)

    def _draw(self, source: int, index: int, showing: int, size: tuple[int, int]) -> list[tuple[Box, bool]]:
        # In plain integers: numpy's calls on single numbers would cost more than a small image's decoding.
        image = hash_int(self.seed, CROPS, source, index, showing)
        drawn = []
        for view in range(self.first_view, self.first_view + self.views):
            state = hash_int(view, state=image)
            box = centre_box(size)
            if self.scale_min < 1:
                places = uniform_float(LEFT, state=state), uniform_float(TOP, state=state)
                box = random_box(_tries(state), *places, size, self.scale_min, self.scale_max)
            drawn.append((box, self.flip and uniform_float(FLIP, state=state) < 0.5))
        return drawn

    def _centre(self, pixels: np.ndarray) -> np.ndarray:
        """Resize the shorter side and crop the centre, rounded as torchvision rounds sizes and offsets."""
        side = self.size_px
        pixels = _shortened(pixels)
        height, width = _resized_size(pixels.shape[:2], side)
        resized = resize(pixels, (height, width), self.interpolation)
        top, left = round((height - side) / 2), round((width - side) / 2)
        return resized[top : top + side, left : left + side]

    def _window(self, box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part that is shown as (left, top, width, height) in px, which a centre has fractions of."""
        if self.scale_min < 1:
            return box
        (height, width), side = _resized_size(size, self.size_px), self.size_px
        across, down = size[1] / width, size[0] / height
        left, top = round((width - side) / 2), round((height - side) / 2)
        return left * across, top * down, side * across, side * down

    def _fill_fast(
        self,
        pixels: np.ndarray,
        window: tuple[float, float, float, float],
        factor: int,
        mirrored: bool,
        view: np.ndarray,
    ) -> None:
        side = self.size_px
        left, top, width, height = (number / factor for number in window)
        first, above = int(left), int(top)
        part = pixels[above : int(np.ceil(top + height)), first : int(np.ceil(left + width))]
        if part.shape[:2] == (height, width):  # whole pixels: most crops
            area = min(width, height) >= 2 * side  # a linear filter would skip pixels
            resized = part
            if (height, width) != (side, side):
                resized = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
            _write(resized, mirrored, view)
            return
        # Fractions of a pixel: each output pixel's centre, mirrored or not, is looked up where it lies.
        across, down = width / side, height / side
        matrix = np.array([[across, 0, left - first + across / 2 - 0.5], [0, down, top - above + down / 2 - 0.5]])
        if mirrored:
            matrix[0] = [-across, 0, left - first + width - across / 2 - 0.5]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(part, matrix, (side, side), dst=view, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def resize(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize uint8[h, w, 3] to ``size`` (height, width) as PIL does, antialiased, to 60 dB and better.

    An image of this size is returned as it is.
    """
    (height, width), (rows, columns) = pixels.shape[:2], size
    if (height, width) == size:
        return pixels
    # Pillow 13's order of the two passes, which shows, as values are clipped between them: the vertical one first where
    # it takes away more than twice what the horizontal one does.
    if height > rows and height - rows > 2 * (width - columns) and width != columns:
        pixels = _resize_once(pixels, (rows, width), interpolation)
    return _resize_once(pixels, size, interpolation)


def _resize_once(pixels: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    # Torch's kernels for bytes with the channels last: integers, one thread. They are chosen by strides, and by that
    # of the axis of length 1 too: `view` makes it right, an axis that numpy adds has none.
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).view(1, *pixels.shape).permute(0, 3, 1, 2)
    resized: np.ndarray = F.interpolate(tensor, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    return resized


def _write(pixels: np.ndarray, mirrored: bool, view: np.ndarray) -> None:
    if mirrored:
        cv2.flip(pixels, 1, dst=view)
    else:
        view[...] = pixels


def _resized_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    height, width = size
    short = min(height, width)
    return int(side * height / short), int(side * width / short)


def _shortened(pixels: np.ndarray) -> np.ndarray:
    """Cut the ends off an image that is very long: resized whole, a line of pixels would take all memory."""
    height, width = pixels.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return pixels[top : height - top, left : width - left]


def _tries(state: int) -> Iterator[float]:
    return (uniform_float(purpose, state=state) for purpose in count(TRIES_FROM))

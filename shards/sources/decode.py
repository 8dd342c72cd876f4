"""Encoded images to pixels: what a viewer shows, or a refusal; bounds are checked before any pixel is decoded.

In: the bytes of a jpg, png or webp. Out: ``uint8[height, width, 3]``, RGB. Images are turned as their EXIF orientation
says; grey, palettes, CMYK and 16 bits (the high byte) become RGB; transparency is refused, because viewers, diffusers
and torchvision fill it differently. Pixels are those of diffusers' `load_image`, which clips 16-bit grey to white.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from synclones.base.errors import VerificationError

MAX_PIXELS = 2**28  # 268 megapixels: above the sensors of telephones (200) and medium format (151)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of the files and members that are taken for images
# A decompression bomb is large and has few bytes. Deflate packs at most 1032:1, so that no RGB image, not even one of
# a single colour, holds more pixels in a byte.
_SURELY_NO_BOMB, _MAX_PIXELS_PER_BYTE = 2**24, 512
_FORMATS = ("PNG", "JPEG", "WEBP")
# Pillow only warns up to twice its bound, in lines that users would see beside ours.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of EXIF that is cut
_UNREADABLE = (
    *(UnidentifiedImageError, OSError, ValueError, SyntaxError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_THREADS, _CHUNK = 4, 256
_SCALES = (8, 4, 2)  # by which a JPEG is decoded smaller at once, from fewer of its frequencies
_KEPT_BYTES = 2**26  # of a thread's buffer
_KINDS = {"1": "grey", "L": "grey", "LA": "grey", "Gray": "grey", "CMYK": "CMYK", "YCCK": "CMYK"}
_KINDS |= {"P": "palette", "RGBA": "alpha"}
_OF_THREAD = threading.local()
# EXIF orientation -> how the stored rows and columns are shown (EXIF 2.32, tag 0x0112); 1 and anything else: as stored.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "image") -> np.ndarray:
    """Decode JPEG, PNG or WebP bytes, told apart by content, to ``uint8[height, width, 3]`` as a viewer shows them.

    Raises:
        VerificationError: none of them; one that does not decode, is out of bounds or transparent, or of a kind of
            pixels without a common meaning.
    """
    try:
        return _decode(data, max_pixels, None, None).pixels
    except _UNREADABLE as error:
        raise VerificationError(f"{where}: {error}; mend the image or leave it out") from None


def decode_cut_image(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "image") -> tuple[np.ndarray, bool]:
    """Decode as `decode_image`; of a JPEG that is cut or damaged what is there, the rest grey.

    Its pixels are then those of Pillow with ``LOAD_TRUNCATED_IMAGES``, which ends such a file by a marker of its own.

    Returns:
        uint8[height, width, 3], and whether the image was whole.

    Raises:
        VerificationError: as `decode_image`, of what has no header, is out of bounds, or is no JPEG.
    """
    try:
        return _decode(data, max_pixels, None, None).pixels, True
    except _UNREADABLE as error:
        if not _is_jpeg(data):
            raise VerificationError(f"{where}: {error}; mend the image or leave it out") from None
    try:
        pixels, orientation, _ = _decode_others(data + b"\xff\xd9", max_pixels)
    except _UNREADABLE as error:
        raise VerificationError(f"{where}: {error}; mend the image or leave it out") from None
    turn = _TURNS.get(orientation, np.asarray)
    return np.ascontiguousarray(turn(pixels)), False


@dataclass(frozen=True)
class Decoded:
    """One image as a viewer shows it, perhaps smaller."""

    pixels: np.ndarray
    """uint8[h, w, 3], both sides those of the image over ``factor``, rounded up."""
    size: tuple[int, int]
    """Height and width of the whole image."""
    factor: int
    """1, or 2, 4, 8 of a JPEG that was decoded smaller."""
    converted: str
    """What had to be changed, in a few words such as "grey", "CMYK", "16 bit", "turned"; empty for a plain image."""


def decode_for_crops(
    data: bytes, smallest: Callable[[int, int], float] | None = None, *, where: str, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """Decode as `decode_image` does, a JPEG perhaps smaller, into a buffer that this thread's next call overwrites.

    ``smallest``: (height, width) of the image as shown -> by how much it may be shrunk; the largest of 8, 4 and 2 that
    is not larger is taken. None: every image is decoded whole.

    Raises:
        VerificationError: as `decode_image`.
    """
    buffers: dict[str, np.ndarray] = _OF_THREAD.__dict__
    try:
        return _decode(data, max_pixels, smallest, buffers)
    except _UNREADABLE as error:
        raise VerificationError(f"{where}: {error}; mend the image or leave it out") from None


def image_fault(data: bytes, *, max_pixels: int = MAX_PIXELS) -> str:
    """Return why an image cannot be used, as far as header, bounds and end of the file tell; empty when it can.

    Pixels are decoded of images with transparency only. Single bits that are wrong inside a JPEG stay unseen.
    """
    try:
        if _is_jpeg(data):
            _jpeg_header(data, max_pixels)
            _check_jpeg_end(data)
        else:
            _check_others(data, max_pixels)
    except _UNREADABLE as error:
        return str(error)
    return ""


def bad_images(keys: Iterable[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Look at all images before one is used; return key -> why it cannot be, of the bad ones, in the order of ``keys``.

    ``read`` returns the encoded image of a key and is called from several threads. It costs reading every file once.

    Raises:
        Exception: what ``read`` raises.
    """
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inspect") as pool:
        rest = iter(keys)
        while chunk := list(islice(rest, _CHUNK)):  # millions of keys would queue as millions of tasks
            judged = pool.map(lambda key: image_fault(read(key)), chunk)
            faults |= {key: fault for key, fault in zip(chunk, judged, strict=True) if fault}
    return faults


def _is_jpeg(data: bytes) -> bool:
    return data[:2] == b"\xff\xd8"


def _decode(
    data: bytes, max_pixels: int, smallest: Callable[[int, int], float] | None, buffers: dict[str, np.ndarray] | None
) -> Decoded:
    factor, shown = 1, (0, 0)
    if not _is_jpeg(data):
        pixels, orientation, kind = _decode_others(data, max_pixels)
    else:
        height, width, colours = _jpeg_header(data, max_pixels)
        orientation, kind = _jpeg_orientation(data), _KINDS.get(colours, "")
        if kind == "CMYK":  # whose inks simplejpeg does not mix as Adobe stores them
            pixels, orientation, kind = _decode_others(data, max_pixels)
        else:
            shown = (width, height) if 5 <= orientation <= 8 else (height, width)
            wanted = smallest(*shown) if smallest else 1
            factor = next((scale for scale in _SCALES if scale <= wanted), 1)
            pixels = _decode_jpeg(data, (height, width), factor, buffers)
    # Only now is it known how the image is shown: everything after this line sees it as viewers do.
    turn = _TURNS.get(orientation)
    if turn is not None:
        pixels, kind = np.ascontiguousarray(turn(pixels)), f"{kind} turned".strip()
    return Decoded(pixels, pixels.shape[:2] if factor == 1 else shown, factor, kind)


def _decode_jpeg(data: bytes, size: tuple[int, int], factor: int, buffers: dict[str, np.ndarray] | None) -> np.ndarray:
    height, width = (-(-side // factor) for side in size)
    buffer = None if buffers is None else _buffer(buffers, height * width * 3)
    try:
        if factor == 1:
            pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=buffer)
        else:
            smaller = {"min_height": height, "min_width": width, "min_factor": factor}
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=buffer, **smaller)
    except ValueError as error:
        raise ValueError(f"not a JPEG that decodes ({error})") from None
    return pixels


def _buffer(buffers: dict[str, np.ndarray], num_bytes: int) -> np.ndarray | None:
    """Return a buffer that is kept for the next image: a fresh megabyte per image would cost its page faults."""
    if num_bytes > _KEPT_BYTES:
        return None
    kept = buffers.get("kept")
    if kept is None or len(kept) < num_bytes:
        kept = buffers["kept"] = np.empty(num_bytes, np.uint8)
    return kept


def _jpeg_header(data: bytes, max_pixels: int) -> tuple[int, int, str]:
    """Return (height, width, colours as stored)."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise ValueError(f"not a JPEG that decodes ({error})") from None
    _check_bounds(height, width, len(data), max_pixels)
    return height, width, colours


def _jpeg_orientation(data: bytes) -> int:
    # The header ends where the first scan begins. Most images say nothing, and opening them twice would cost.
    header = data[: data.find(b"\xff\xda")]
    if b"Exif\0\0" not in header and b"Orientation" not in header:
        return 1
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - whatever Pillow makes of broken EXIF, viewers show such an image as it is stored
        return 1


def _decode_others(data: bytes, max_pixels: int) -> tuple[np.ndarray, int, str]:
    """Return (pixels as stored, EXIF orientation, what they were)."""
    with _opened(data, max_pixels) as image:
        kind = "16 bit" if image.mode.startswith("I;16") else _KINDS.get(image.mode, "")
        return _rgb(image), _orientation(image), kind


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Open an image: its header alone is read, so that its size is known before a pixel is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except _UNREADABLE as error:
        raise ValueError(f"no PNG, JPEG or WebP that decodes ({error})") from None
    _check_bounds(image.height, image.width, len(data), max_pixels)
    return image


def _rgb(image: Image.Image) -> np.ndarray:
    try:
        image.load()
        if image.mode.startswith("I;16"):
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        opaque = not image.has_transparency_data or np.asarray(image.convert("RGBA"))[..., 3].min() == 255
    except _UNREADABLE as error:
        raise ValueError(f"no PNG, JPEG or WebP that decodes ({error})") from None
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise ValueError(f"pixels of mode {image.mode} have no one meaning; store it with 8 bits a channel")
    if not opaque:
        raise ValueError("transparent pixels have no colour of their own; flatten it on a background")
    return np.asarray(image.convert("RGB"))


def _check_bounds(height: int, width: int, num_bytes: int, max_pixels: int) -> None:
    pixels = height * width
    if pixels > max_pixels:
        raise ValueError(f"{width}x{height} pixels, at most {max_pixels} are decoded")
    if pixels > max(_SURELY_NO_BOMB, _MAX_PIXELS_PER_BYTE * num_bytes):
        raise ValueError(f"{width}x{height} pixels in {num_bytes} bytes: a decompression bomb")


def _check_jpeg_end(data: bytes) -> None:
    """Refuse a JPEG without an end behind its first scan; a thumbnail in the header has an end of its own."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        is_fill = data[at + 1 : at + 2] == b"\xff"
        at += 1 if is_fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data.find(b"\xff\xd9", at) < 0:
        raise ValueError("not a JPEG that decodes (its end is missing: cut in transfer?)")


def _check_others(data: bytes, max_pixels: int) -> None:
    if data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError("no PNG, JPEG or WebP that decodes (its end is missing: cut in transfer?)")
    image = _opened(data, max_pixels)
    if image.has_transparency_data or image.mode in ("I", "F"):
        _rgb(image)
        return
    try:
        image.verify()  # the checksums of all parts, unpacked or not
    except _UNREADABLE as error:
        raise ValueError(f"no PNG, JPEG or WebP that decodes ({error})") from None

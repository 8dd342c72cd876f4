"""Images are decoded as viewers show them, or refused by name before a pixel of them is."""

import io
import struct

import diffusers.utils
import numpy as np
import pytest
from PIL import Image

from synclones.base.errors import VerificationError
from synclones.shards.sources.decode import _TURNS, bad_images, decode_image, image_fault

PIXELS = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
SMOOTH = Image.fromarray(PIXELS).resize((96, 64), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def load_image(data: bytes) -> np.ndarray:
    """What plain diffusers makes of the same bytes."""
    return np.asarray(diffusers.utils.load_image(Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("orientation", [0, *range(1, 10), 700])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_as_its_exif_says(form, orientation):
    data = encoded(SMOOTH, form, exif=exif(orientation))
    assert np.array_equal(decode_image(data), load_image(data))
    assert decode_image(data).shape == ((96, 64, 3) if 5 <= orientation <= 8 else (64, 96, 3))
    assert decode_image(data).flags.c_contiguous and image_fault(data) == ""
    assert set(_TURNS) == set(range(2, 9))


def test_an_orientation_in_xmp_or_behind_a_thumbnail_counts_and_broken_exif_does_not():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for data in (
        encoded(SMOOTH, "JPEG", xmp=xmp),
        encoded(SMOOTH, "JPEG", xmp=xmp, comment=b"x" * 60_000),
        encoded(SMOOTH, "JPEG", exif=exif(6), comment=b"\xff\xda\xff\xd9"),
    ):
        assert np.array_equal(decode_image(data), load_image(data)) and decode_image(data).shape == (96, 64, 3)
    broken = encoded(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert np.array_equal(decode_image(broken), decode_image(encoded(SMOOTH, "JPEG")))


OPAQUE = {
    "grey": encoded(SMOOTH.convert("L"), "PNG"),
    "grey JPEG": encoded(SMOOTH.convert("L"), "JPEG"),
    "two colours": encoded(SMOOTH.convert("1"), "PNG"),
    "palette": encoded(SMOOTH.convert("P"), "PNG"),
    "palette with a transparent colour that is not used": encoded(SMOOTH.quantize(9), "PNG", transparency=200),
    "grey with opaque alpha": encoded(SMOOTH.convert("LA"), "PNG"),
    "colours with opaque alpha": encoded(SMOOTH.convert("RGBA"), "PNG"),
    "WebP with opaque alpha": encoded(SMOOTH.convert("RGBA"), "WEBP", lossless=True),
    "CMYK": encoded(SMOOTH.convert("CMYK"), "JPEG"),
    "progressive": encoded(SMOOTH, "JPEG", progressive=True),
    "4:4:4": encoded(SMOOTH, "JPEG", subsampling=0),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_every_opaque_mode_of_eight_bits_is_what_plain_diffusers_loads(name):
    assert np.array_equal(decode_image(OPAQUE[name]), load_image(OPAQUE[name]))
    assert decode_image(OPAQUE[name]).dtype == np.uint8 and image_fault(OPAQUE[name]) == ""


def test_sixteen_bits_keep_their_high_byte_as_viewers_show_them():
    """The library's own conversion clips: all but black becomes white."""
    wide = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 10
    shown = decode_image(encoded(Image.fromarray(wide), "PNG"))
    assert np.array_equal(shown[..., 0], wide >> 8) and np.array_equal(shown[..., 1], shown[..., 2])
    assert load_image(encoded(Image.fromarray(wide), "PNG")).mean() > 200


def with_alpha(mode: str, alpha: int) -> Image.Image:
    image = SMOOTH.convert(mode)
    image.putalpha(Image.new("L", image.size, alpha))
    return image


@pytest.mark.parametrize(
    "data",
    [
        encoded(with_alpha("RGBA", 254), "PNG"),
        encoded(with_alpha("LA", 0), "PNG"),
        encoded(with_alpha("RGBA", 100), "WEBP"),
        encoded(SMOOTH.quantize(9), "PNG", transparency=3),
        encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    ],
)
def test_transparent_pixels_are_refused_by_name(data):
    with pytest.raises(VerificationError, match="^a.png: transparent pixels have no colour of their own; flatten it"):
        decode_image(data, where="a.png")
    assert image_fault(data).startswith("transparent pixels")


def test_photographs_of_real_cameras_are_decoded_and_bombs_are_not():
    photograph = encoded(Image.new("RGB", (9504, 6336), (9, 200, 100)), "JPEG")  # 61 megapixels, full frame
    assert image_fault(photograph) == "" and decode_image(photograph).shape == (6336, 9504, 3)
    one_colour = encoded(Image.new("RGB", (5000, 5000), (9, 200, 100)), "PNG")
    assert image_fault(one_colour) == ""
    for width, height in ((16320, 12240), (14204, 10652)):  # a telephone of 200, a medium format of 151
        head = photograph.replace(struct.pack(">HH", 6336, 9504), struct.pack(">HH", height, width))
        assert image_fault(head + bytes(width * height // 500)) == ""
    bomb = encoded(Image.new("1", (5000, 5000)), "PNG")
    assert image_fault(bomb) == f"5000x5000 pixels in {len(bomb)} bytes: a decompression bomb"
    with pytest.raises(VerificationError, match="^x: 16x16 pixels, at most 100 are decoded; mend the image or leave"):
        decode_image(encoded(Image.new("RGB", (16, 16)), "PNG"), max_pixels=100, where="x")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_cut_image_is_told_from_a_whole_one_without_decoding(form):
    thumbnail = encoded(SMOOTH.resize((8, 8)), "JPEG")
    more = {"exif": b"Exif\0\0" + thumbnail} if form == "JPEG" else {}
    data = encoded(SMOOTH, form, **more)
    assert image_fault(data) == ""
    for length in (0, 3, 30, len(data) // 2, len(data) - 9):
        assert "that decodes" in image_fault(data[:length])
    assert image_fault(encoded(SMOOTH, "JPEG") + b"trailer of a telephone") == ""


def test_all_bad_images_of_many_are_named_at_once_in_their_order():
    good, cut = encoded(SMOOTH, "JPEG"), encoded(SMOOTH, "JPEG")[:-100]
    stored = {f"{n:04d}": cut if n in (3, 700, 1999) else good for n in range(2000)}
    stored["0004"] = b"<html>404</html>"
    faults = bad_images(reversed(stored), stored.__getitem__)
    assert list(faults) == ["1999", "0700", "0004", "0003"]
    assert "its end is missing" in faults["0700"] and "no PNG, JPEG or WebP that decodes" in faults["0004"]
    assert bad_images([], stored.__getitem__) == {}
    with pytest.raises(KeyError):
        bad_images(["none"], stored.__getitem__)

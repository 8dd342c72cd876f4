"""Crops are torchvision's boxes, functions of what they are for, and their pixels are PIL's whatever the file is."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from test_decode import OPAQUE, SMOOTH, encoded, exif
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import center_crop, resize

from synclones.base.draws import hash64, hash_int, uniform, uniform_float
from synclones.base.errors import VerificationError
from synclones.shards.loading.crops import Crops
from synclones.shards.sources.decode import decode_for_crops, decode_image

PHOTOGRAPH = Image.fromarray(load_sample_image("flower.jpg"))
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def photograph(width: int, height: int, form: str = "JPEG", **more: object) -> bytes:
    return encoded(PHOTOGRAPH.resize((width, height)), form, **({"quality": 90} | more))


def filled(crops: Crops, data: bytes, index: int = 0, showing: int = 0) -> np.ndarray:
    out = np.zeros((crops.views, crops.size_px, crops.size_px, 3), np.uint8)
    crops.fill(data, 0, index, showing, out, where="image")
    return out


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((ours.astype(float) - theirs) ** 2), 1e-9))


def shown(crops: Crops, data: bytes, index: int = 0, showing: int = 0) -> np.ndarray:
    """What PIL makes of the boxes that `parameters` names."""
    image = Image.fromarray(decode_image(data))
    boxes, mirrored = crops.parameters(0, index, showing, image.height, image.width)
    views = []
    for (x, y, w, h), flipped in zip(boxes.tolist(), mirrored, strict=True):
        view = image.crop((x, y, x + w, y + h)).resize([crops.size_px] * 2, FILTERS[crops.interpolation])
        views.append(np.asarray(view)[:, ::-1] if flipped else np.asarray(view))
    return np.stack(views)


# ------------------------------------------------------------------ boxes


def _boxes(n: int, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    crops = Crops(size_px=8, scale_min=scale[0], scale_max=scale[1])
    return np.concatenate([crops.parameters(0, index, 0, *size)[0] for index in range(n)])


@pytest.mark.parametrize("scale", [(0.05, 0.25), (0.08, 1.0), (0.75, 1.0)])
@pytest.mark.parametrize("size", [(32, 32), (256, 256), (96, 200)])
def test_crops_are_distributed_as_torchvision_s(size, scale):
    torch.manual_seed(0)
    image, n = torch.empty(3, *size), 20_000
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(n)])
    ours, theirs = _boxes(n, size, scale), theirs[:, [1, 0, 3, 2]]
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= size[::-1]).all() and (ours[:, 2:] > 0).all()

    def quantities(boxes):
        left, top, width, height = boxes.T
        return [width * height / (size[0] * size[1]), np.log(width / height), left + width / 2, top + height / 2]

    for one, other in zip(quantities(ours), quantities(theirs), strict=True):
        error = np.hypot(one.std(), other.std()) / np.sqrt(n)
        assert abs(one.mean() - other.mean()) <= 4.5 * error
        assert one.std() == pytest.approx(other.std(), rel=0.03)


@pytest.mark.parametrize("size", [(10, 400), (400, 10)])
def test_a_box_that_never_fits_is_torchvision_s_of_last_resort(size):
    top, left, height, width = RandomResizedCrop.get_params(torch.empty(3, *size), [0.9, 1.0], [3 / 4, 4 / 3])
    assert (_boxes(5, size, (0.9, 1.0)) == [left, top, width, height]).all()


def test_half_of_the_crops_are_mirrored_and_none_without_flip():
    for flip, share in ((True, 0.5), (False, 0.0)):
        crops = Crops(size_px=8, scale_min=0.5, flip=flip, views=2)
        mirrored = np.array([crops.parameters(0, index, 0, 9, 9)[1] for index in range(1000)])
        assert mirrored.mean(0) == pytest.approx([share] * 2, abs=0.05)
        assert not flip or abs(np.corrcoef(mirrored.T)[0, 1]) < 0.12


def test_numbers_of_one_image_are_those_of_many():
    index = np.array([0, 7, 2**40, 2**63])
    assert hash64(5, index, 3).tolist() == [hash_int(5, int(i), 3) for i in index]
    assert uniform(5, index).tolist() == [uniform_float(int(i), state=hash_int(5)) for i in index]


def test_parameters_depend_on_each_of_their_words_alone_and_are_pinned():
    crops = Crops(size_px=8, scale_min=0.08, flip=True, views=2, seed=3)
    first = crops.parameters(1, 2, 3, 300, 400)
    others = [crops.parameters(*words, 300, 400) for words in ((0, 2, 3), (1, 0, 3), (1, 2, 0))]
    others.append(Crops(size_px=8, scale_min=0.08, flip=True, views=2, seed=4).parameters(1, 2, 3, 300, 400))
    assert all(not np.array_equal(first[0], boxes) for boxes, _ in others)
    assert not np.array_equal(first[0][0], first[0][1])
    again = Crops(size_px=99, scale_min=0.08, flip=True, views=1, seed=3, mode="fast").parameters(1, 2, 3, 300, 400)
    assert np.array_equal(again[0][0], first[0][0]) and again[1][0] == first[1][0]
    # pinned: a training resumed by a later version must see the same crops
    assert first[0].tolist() == PINNED_BOXES and first[1].tolist() == PINNED_MIRRORED


PINNED_BOXES, PINNED_MIRRORED = [[88, 4, 302, 230], [7, 13, 178, 146]], [True, False]


# ------------------------------------------------------------------ pixels


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("width", "height", "size"), [(256, 256, 224), (400, 300, 96), (90, 130, 224), (32, 32, 32)])
def test_faithful_crops_are_the_pixels_of_pil(width, height, size, interpolation):
    crops = Crops(size_px=size, scale_min=0.08, flip=True, views=12, interpolation=interpolation)
    data = photograph(width, height)
    for showing in range(2):
        for ours, theirs in zip(filled(crops, data, 0, showing), shown(crops, data, 0, showing), strict=True):
            assert psnr(ours, theirs) >= 60 and np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize(("width", "height", "size"), [(400, 300, 96), (300, 400, 224), (61, 47, 96), (96, 96, 96)])
@pytest.mark.parametrize("mode", ["faithful", "fast"])
def test_without_random_crops_the_centre_is_torchvision_s(width, height, size, mode):
    data = photograph(width, height)
    image = Image.fromarray(decode_image(data))
    theirs = np.asarray(center_crop(resize(image, size, FILTERS["bicubic"]), size))
    ours = filled(Crops(size_px=size, mode=mode), data)[0]
    assert psnr(ours, theirs) >= (60 if mode == "faithful" else 33)
    assert (width, height) != (size, size) or np.array_equal(ours, image)
    flipping = Crops(size_px=size, flip=True, mode=mode)
    index = next(i for i in range(99) if flipping.parameters(0, i, 0, height, width)[1][0])
    assert np.abs(filled(flipping, data, index)[0].astype(int) - ours[:, ::-1]).max() <= (
        0 if mode == "faithful" else 24
    )


@pytest.mark.parametrize(("width", "height"), [(256, 256), (512, 512), (1300, 1100)])
def test_fast_crops_show_the_same_boxes_to_thirty_decibels(width, height):
    data = photograph(width, height)
    crops = Crops(size_px=224, scale_min=0.08, flip=True, views=16, mode="fast")
    figures = [psnr(*pair) for pair in zip(filled(crops, data), shown(crops, data), strict=True)]
    assert min(figures) >= 30 and np.mean(figures) >= 35
    # A pixel to the side would be seen: the boxes lie where they should, to a fraction of one.
    large = Crops(size_px=64, scale_min=0.5, flip=True, views=8, mode="fast")
    for ours, theirs in zip(filled(large, data), shown(large, data), strict=True):
        assert psnr(ours, theirs) > 1 + max(psnr(np.roll(ours, shift, 1), theirs) for shift in (-1, 1))


def test_fast_decoding_decodes_less_where_crops_allow_it():
    data = photograph(1001, 800, exif=exif(6))
    for room, factor in ((1, 1), (1.99, 1), (2, 2), (5.3, 4), (100, 8)):
        image = decode_for_crops(data, lambda height, width, room=room: room * (height > width), where="image")
        assert (image.factor, image.size, image.converted) == (factor, (1001, 800), "turned")
        assert image.pixels.shape == (-(-1001 // factor), -(-800 // factor), 3)


def test_several_views_are_the_crops_of_one_decoding():
    data, crops = photograph(300, 200), Crops(size_px=48, scale_min=0.05, scale_max=0.25, flip=True, views=4)
    views = filled(crops, data, 7)
    assert len({view.tobytes() for view in views}) == 4
    assert np.array_equal(filled(Crops(size_px=48, scale_min=0.05, scale_max=0.25, flip=True), data, 7)[0], views[0])


# ------------------------------------------------------------------ every image through the same door

CONVERTED = {
    "grey": "grey",
    "grey JPEG": "grey",
    "two colours": "grey",
    "palette": "palette",
    "palette with a transparent colour that is not used": "palette",
    "grey with opaque alpha": "grey",
    "colours with opaque alpha": "alpha",
    "WebP with opaque alpha": "",  # Pillow stores no alpha that says nothing
    "CMYK": "CMYK",
    "progressive": "",
    "4:4:4": "",
}
WIDE = encoded(Image.fromarray(np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 10), "PNG")
DOORS = {name: (OPAQUE[name], word) for name, word in CONVERTED.items()} | {
    "16 bit": (WIDE, "16 bit"),
    "turned": (encoded(SMOOTH, "JPEG", exif=exif(6)), "turned"),
    "turned grey": (encoded(SMOOTH.convert("L"), "PNG", exif=exif(3)), "grey turned"),
    "PNG": (encoded(SMOOTH, "PNG"), ""),
    "WebP": (encoded(SMOOTH, "WEBP"), ""),
    "RGB JPEG": (encoded(SMOOTH, "JPEG", keep_rgb=True), ""),
}


@pytest.mark.parametrize("name", DOORS)
def test_every_kind_of_image_is_cropped_as_a_viewer_shows_it_and_says_what_was_converted(name):
    data, word = DOORS[name]
    crops = Crops(size_px=40, scale_min=0.3, flip=True, views=6)
    out = np.zeros((6, 40, 40, 3), np.uint8)
    assert crops.fill(data, 0, 0, 0, out, where="image") == word
    assert all(psnr(*pair) >= 60 for pair in zip(out, shown(crops, data), strict=True))
    fast = Crops(size_px=40, scale_min=0.3, flip=True, views=6, mode="fast")
    assert fast.fill(data, 0, 0, 0, out, where="image") == word
    floor = 12 if name == "two colours" else 24  # dots: the worst there is for a linear filter
    assert all(psnr(*pair) >= floor for pair in zip(out, shown(crops, data), strict=True))


def test_what_decoding_refuses_is_refused_by_name_in_both_modes():
    cut = photograph(90, 90)[:-400]
    for mode in ("faithful", "fast"):
        for data in (b"", b"\xff\xd8 no image", cut, encoded(SMOOTH.convert("RGBA").rotate(9), "PNG")):
            with pytest.raises(VerificationError, match="^a.jpg: .*mend the image or leave it out"):
                Crops(size_px=8, scale_min=0.5, mode=mode).fill(
                    data, 0, 0, 0, np.zeros((1, 8, 8, 3), np.uint8), where="a.jpg"
                )


def test_a_line_of_pixels_takes_no_memory_for_its_ends():
    for width, height in ((1, 60_000), (60_000, 1)):
        data = encoded(Image.new("RGB", (width, height), (9, 200, 100)), "PNG")
        for mode in ("faithful", "fast"):
            assert (np.abs(filled(Crops(size_px=224, mode=mode), data)[0] - [9, 200, 100]) <= 1).all()
            assert filled(Crops(size_px=224, scale_min=0.5, mode=mode), data).shape == (1, 224, 224, 3)


def _filled_of(crops: Crops, files: list[bytes], index: int) -> np.ndarray:
    return filled(crops, files[index], index)


def test_crops_are_the_same_in_any_order_and_from_any_thread():
    sizes = [(64 + 7 * n, 120 - 5 * n) for n in range(12)]
    files = [photograph(*size) for size in sizes]
    for mode in ("faithful", "fast"):
        crops = Crops(size_px=32, scale_min=0.2, flip=True, views=2, mode=mode)
        alone = [filled(crops, data, index) for index, data in enumerate(files)]
        with ThreadPoolExecutor(4) as pool:
            order = list(reversed(range(12))) * 3
            for index, views in zip(order, pool.map(partial(_filled_of, crops, files), order), strict=True):
                assert np.array_equal(views, alone[index])


def test_a_kept_buffer_is_not_the_pixels_that_were_handed_out():
    first = filled(Crops(size_px=96), encoded(SMOOTH.resize((96, 96)), "JPEG"))
    kept, before = decode_image(photograph(96, 96)), first.copy()
    whole = kept.copy()
    filled(Crops(size_px=96), encoded(SMOOTH.resize((96, 96)), "JPEG", quality=20))
    assert np.array_equal(first, before) and np.array_equal(kept, whole)

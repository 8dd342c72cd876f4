"""Linear filters as sums of shifted rows, and as products of frequencies: alike for any number of threads.

In: ``float32[h, w * c]``, rows of ``c`` interleaved channels. Out: the same.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy import fft

TRUNCATE = 4.0  # where Gaussian kernels end, in standard deviations
_BLOCK = 2**15  # values of a block of rows
_NEGLIGIBLE = 2e-4  # weight of a motion's tail that is left out: at most 0.05 grey levels


@cache
def gaussian_kernel(deviation: float, truncate: float = TRUNCATE) -> np.ndarray:
    """Return the weights at distances 0, 1, ... of a normalised, truncated Gaussian: float64[radius + 1]."""
    if deviation < 1e-15:
        return np.ones(1)
    half = np.exp(-0.5 * (np.arange(int(truncate * deviation + 0.5) + 1) / deviation) ** 2)
    weights: np.ndarray = half / (2 * half.sum() - half[0])
    return weights


def gaussian(rows: np.ndarray, deviation: float, channels: int = 3) -> np.ndarray:
    """Return the Gaussian filter of float32[h, w * channels]; beyond an edge lies what lies on it."""
    return symmetric(rows, gaussian_kernel(deviation), channels)


def symmetric(rows: np.ndarray, weights: np.ndarray, channels: int = 3) -> np.ndarray:
    """Return float32[h, w * channels] filtered along both axes; beyond an edge lies what lies on it.

    Args:
        weights: float[radius + 1], at distances 0, 1, ...
    """
    weights = weights.astype(np.float32)
    if len(weights) == 1:
        return rows.copy()
    return _symmetric(_symmetric(rows, weights, channels, axis=1), weights, channels, axis=0)


def _symmetric(rows: np.ndarray, weights: np.ndarray, channels: int, axis: int) -> np.ndarray:
    """Filter along one axis: a multiplication for each pair of neighbours at the same distance."""
    radius = len(weights) - 1
    padded = pad(rows, radius * (1 - axis), radius * axis, channels)
    down, right = (0, channels) if axis else (1, 0)
    result, width = np.empty_like(rows), rows.shape[1]
    for start, out, term in _blocks(result):
        at = [
            padded[start + down * k : start + down * k + len(out), right * k : right * k + width]
            for k in range(2 * radius + 1)
        ]
        np.multiply(at[radius], weights[0], out=out)
        for distance in range(1, radius + 1):
            np.add(at[radius - distance], at[radius + distance], out=term)
            np.multiply(term, weights[distance], out=term)
            np.add(out, term, out=out)
    return result


def _blocks(result: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield blocks of rows that stay in the processor's cache: first row, the block, and a buffer of its shape."""
    height = max(1, _BLOCK // result.shape[1])
    buffer = np.empty_like(result[:height])
    for start in range(0, len(result), height):
        block = result[start : start + height]
        yield start, block, buffer[: len(block)]


def pad(rows: np.ndarray, vertical: int, horizontal: int, channels: int) -> np.ndarray:
    """Return the rows with their edges repeated ``vertical`` and ``horizontal`` times on both sides."""
    height, width = rows.shape[0], rows.shape[1] // channels
    padded = np.empty((height + 2 * vertical, width + 2 * horizontal, channels), dtype=rows.dtype)
    middle, pixels = padded[vertical : vertical + height], rows.reshape(height, width, channels)
    middle[:, horizontal : horizontal + width] = pixels
    if horizontal:
        middle[:, :horizontal], middle[:, horizontal + width :] = pixels[:, :1], pixels[:, -1:]
    if vertical:
        padded[:vertical], padded[vertical + height :] = middle[:1], middle[-1:]
    return padded.reshape(len(padded), -1)


# ------------------------------------------------------------------ motion


def motion_steps(radius: int, deviation: float, angle: float) -> list[tuple[int, int, float]]:
    """Return which shifts (down, right) a motion is the mean of, and their weights.

    A half Gaussian over ``2 radius + 1`` steps along ``angle`` degrees, in whole pixels, as ImageMagick's
    ``MotionBlurImage`` and its port in imagecorruptions have it.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    turn = np.deg2rad(angle)
    down = np.ceil(steps * np.sin(turn) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(turn) - 0.5).astype(int)
    return list(zip((-down).tolist(), (-right).tolist(), weights.tolist(), strict=True))


def motion(rows: np.ndarray, radius: int, deviation: float, angle: float, channels: int = 3) -> np.ndarray:
    """Return the mean of shifted copies of float32[h, w * channels]; beyond an edge lies what lies on it."""
    height, width = rows.shape
    steps = motion_steps(radius, deviation, angle)
    # The far end of a short motion has next to no weight.
    tail = np.cumsum([weight for *_, weight in steps[::-1]])[::-1]
    steps = [step for step, rest in zip(steps, tail, strict=True) if rest > _NEGLIGIBLE]
    scale = 1 / sum(weight for *_, weight in steps)
    # Steps that leave the image altogether are left out without making up for them.
    steps = [step for step in steps if abs(step[0]) < height and abs(step[1]) < width // channels]
    reach = max(max(abs(down), abs(right)) for down, right, _ in steps)
    padded = pad(rows, reach, reach, channels)
    result = np.zeros_like(rows)
    for start, out, term in _blocks(result):
        for down, right, weight in steps:
            top, left = start + reach - down, (reach - right) * channels
            np.multiply(padded[top : top + len(out), left : left + width], np.float32(weight * scale), out=term)
            np.add(out, term, out=out)
    return result


# ------------------------------------------------------------------ frequencies


def smooth_field(field: np.ndarray, deviation: float, truncate: float) -> np.ndarray:
    """Return the Gaussian filter of float32[h, w] with mirrored edges (d c b a | a b c d), whatever the deviation.

    Mirrored, a field is a sum of cosines, and a symmetric filter multiplies each of them by a number.
    """
    down, right = (_response(deviation, truncate, length) for length in field.shape)
    smooth: np.ndarray = fft.idctn(fft.dctn(field) * (down[:, None] * right))
    return smooth


@cache
def _response(deviation: float, truncate: float, length: int) -> np.ndarray:
    """Return what the filter multiplies each cosine by, float32[length]."""
    weights, phase = gaussian_kernel(deviation, truncate), np.pi * np.arange(length) / length
    total = weights[0] + 2 * (np.cos(phase[:, None] * np.arange(1, len(weights))) * weights[1:]).sum(1)
    return np.asarray(total, dtype=np.float32)


def _mirrored_planes(image: np.ndarray, radius: int) -> np.ndarray:
    """Return uint8[h, w, 3] as float32[3, h + 2 radius, w + 2 radius], mirrored at the outermost pixels."""
    height, width = image.shape[:2]
    if min(height, width) <= radius:
        down, right = (reflect_index(length, radius, whole=True) for length in (height, width))
        return image.transpose(2, 0, 1)[:, down[:, None], right].astype(np.float32)
    planes = np.empty((3, height + 2 * radius, width + 2 * radius), dtype=np.float32)
    middle = planes[:, radius : radius + height]
    middle[:, :, radius : radius + width] = image.transpose(2, 0, 1)
    middle[:, :, :radius] = middle[:, :, 2 * radius : radius : -1]
    middle[:, :, radius + width :] = middle[:, :, radius + width - 2 : width - 2 : -1]
    planes[:, :radius] = planes[:, 2 * radius : radius : -1]
    planes[:, radius + height :] = planes[:, radius + height - 2 : height - 2 : -1]
    return planes


def reflect_index(length: int, reach: int, *, whole: bool) -> np.ndarray:
    """Return where -reach to length - 1 + reach lies after mirroring: int64[length + 2 reach].

    Args:
        whole: mirrored at the centre of the outermost pixel (OpenCV's reflect101), else at its edge (scipy's reflect).
    """
    index = np.arange(-reach, length + reach)
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1) if whole else 2 * length
    index = index % period
    return np.where(index >= length, period - index - (0 if whole else 1), index)


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return uint8[h, w, 3], mirrored at its edges, filtered with a symmetric kernel of odd size: float32[h, w * 3]."""
    height, width = image.shape[:2]
    radius = len(kernel) // 2
    planes = _mirrored_planes(image, radius)
    shape = tuple(fft.next_fast_len(side, real=True) for side in planes.shape[1:])
    response = _kernel_response(kernel.tobytes(), len(kernel), shape)
    spectrum = fft.rfft2(planes, s=shape)
    spectrum *= response
    filtered = fft.irfft2(spectrum, s=shape, overwrite_x=True)
    inside = filtered[:, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]
    return np.ascontiguousarray(inside.transpose(1, 2, 0)).reshape(height, -1)


@cache
def _kernel_response(kernel: bytes, size: int, shape: tuple[int, int]) -> np.ndarray:
    weights = np.frombuffer(kernel, dtype=np.float32).reshape(size, size)
    return np.asarray(fft.rfft2(weights, s=shape))

"""The lab's cue-conflict, IN-9 and FOCUS: real test digits before backgrounds that speak for one class or another.

In: strokes float32[n, 8, 8] and labels int64[n] of the test split, a seed. Out: pairs of a path in the layout of the
real set and the file's bytes.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from synclones.lab.digits import DIGIT_NAMES
from synclones.lab.real_digits import encode
from synclones.lab.render import PLAIN_INK, PLAIN_PAPER, SIZE_PX, Look, place_strokes
from synclones.lab.scenes import GROUPS, KINDS, background, pixels, png, wallpaper

Files = Iterator[tuple[str, bytes]]

PER_PAIR = 5  # as in the original
SHAPE_INK, TEXTURE_INK = 0.47, 0.53

DIGITS_PER_CLASS = 50
VARIANTS = ("original", "mixed_same", "mixed_rand")

# Of twenty images that follow each other, how many have 0, 1, 2 or 3 uncommon attributes.
UNCOMMON_OF_TWENTY = (8, 5, 4, 3)
COMMON_TIMES, NIGHT = ("day", "none"), "night"
COMMON_WEATHER, UNCOMMON_WEATHER = ("sunny", "partly cloudy", "cloudy", "none"), ("foggy", "raining", "snowing")
AT_HOME_AT_NIGHT = "nine"  # as the original's frogs: its time is never uncommon
TWO_LOCATIONS = 0.15
_INK = torch.tensor(PLAIN_INK).view(3, 1, 1) / 255
_PAPER = torch.tensor(PLAIN_PAPER).view(3, 1, 1) / 255


def group_of(digit: int) -> int:
    """Return the number of the group of classes that a digit is in."""
    return next(number for number, digits in enumerate(GROUPS.values()) if digit in digits)


# ------------------------------------------------------------------ cue conflict


def cue_conflict(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Draw the outline of one digit over a pattern of another, every ordered pair five times, equal ones included."""
    rng = np.random.default_rng([seed, 1])
    order = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    for shape in range(10):
        for texture in range(10):
            # Other examples in every pair: each digit is a shape about as often as any other of its class.
            numbers = (np.arange(PER_PAIR) + texture * PER_PAIR) % len(order[shape])
            patterns = (np.arange(PER_PAIR) + shape * PER_PAIR) % len(order[texture])
            looks = [Look(size="large")] * PER_PAIR
            ink = SHAPE_INK * place_strokes(strokes[order[shape][numbers]], looks, rng)
            ink = ink + TEXTURE_INK * wallpaper(strokes[order[texture][patterns]], rng)
            for i, j, image in zip(numbers, patterns, _PAPER * (1 - ink) + _INK * ink, strict=True):
                a, b = DIGIT_NAMES[shape], DIGIT_NAMES[texture]
                yield f"{a}/{a}{i + 1}-{b}{j + 1}.png", png(pixels(image))


# ------------------------------------------------------------------ backgrounds


def backgrounds(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Place digits on a background of their own, on another one of their group, and on one of another group."""
    rng = np.random.default_rng([seed, 2])
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:DIGITS_PER_CLASS] for digit in range(10)])
    ink = place_strokes(strokes[chosen], [Look()] * len(chosen), rng)
    for mask, position in zip(ink, chosen, strict=True):
        own = group_of(int(labels[position]))
        other = (own + 1 + int(rng.integers(len(GROUPS) - 1))) % len(GROUPS)
        folder = f"{own:02d}_{list(GROUPS)[own]}"
        for variant, group in zip(VARIANTS, (own, own, other), strict=True):
            image = _on(mask, _background_of(group, strokes, labels, rng))
            yield f"{variant}/val/{folder}/{position:04d}.png", png(pixels(image))


def _background_of(group: int, strokes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    digit = rng.choice(list(GROUPS.values())[group])
    return background(KINDS[group], strokes[rng.choice(np.flatnonzero(labels == digit))], rng)


def _on(mask: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    return _INK * mask + behind * (1 - mask)


# ------------------------------------------------------------------ context


@dataclass(frozen=True)
class Setting:
    """What an image's annotation says."""

    time: str
    weather: str
    locations: tuple[str, ...]


def uncommon_locations(digit: int) -> tuple[str, ...]:
    """Return where a digit is not at home."""
    return tuple(kind for number, kind in enumerate(KINDS) if number != group_of(digit))


def draw_setting(digit: int, uncommon: int, rng: np.random.Generator) -> Setting:
    """Draw a setting with so many uncommon attributes; of a digit that is at home at night there are two at most."""
    names = ["time", "weather", "locations"]
    if DIGIT_NAMES[digit] == AT_HOME_AT_NIGHT:
        names.remove("time")
    odd = set(rng.permutation(names)[:uncommon])
    times = (NIGHT,) if "time" in odd else COMMON_TIMES + ((NIGHT,) if "time" not in names else ())
    weather = UNCOMMON_WEATHER if "weather" in odd else COMMON_WEATHER
    home = KINDS[group_of(digit)]
    locations = uncommon_locations(digit) if "locations" in odd else (home, "none")
    first = str(rng.choice(locations))
    both = rng.random() < TWO_LOCATIONS and first not in ("none", home)
    return Setting(
        time=str(rng.choice(times)),
        weather=str(rng.choice(weather)),
        locations=tuple(sorted((first, home))) if both else (first,),
    )


def focus(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Show every digit once, by day or night, in fair or foul weather, at home or elsewhere; the annotations last."""
    rng = np.random.default_rng([seed, 3])
    counts = np.repeat(np.arange(4), UNCOMMON_OF_TWENTY)
    rows, numbers = [], np.zeros(10, dtype=np.int64)
    ink = place_strokes(strokes, [Look()] * len(labels), rng)
    for mask, label in zip(ink, labels, strict=True):
        digit = int(label)
        # Dealt within each class, so that every class has each count about as often.
        uncommon = int(counts[(numbers[digit] * 7) % len(counts)])
        setting = draw_setting(digit, uncommon, rng)
        image = _weather(_on(mask, _location(setting.locations, strokes, labels, rng)), setting, rng)
        folder = f"{DIGIT_NAMES[digit]}-{_folder_setting(setting)}"
        name = f"{folder}/{numbers[digit]}.jpg"
        numbers[digit] += 1
        rows.append((f"/{name}", DIGIT_NAMES[digit], setting.time, setting.weather, ", ".join(setting.locations), "no"))
        yield name, encode(pixels(image))
    yield "annotations.db", _database(rows)


def _folder_setting(setting: Setting) -> str:
    """What a folder is called by, as by the original's search words: weather before time, time before location."""
    words = [setting.weather if setting.weather in UNCOMMON_WEATHER else "", setting.time, *setting.locations]
    return next((word for word in words if word not in ("", "none", "day")), "day")


def _location(
    locations: tuple[str, ...], strokes: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> torch.Tensor:
    """One background, or the left half of one and the right half of another."""
    parts = []
    for name in locations:
        bare = _PAPER.expand(3, SIZE_PX, SIZE_PX)
        parts.append(bare if name == "none" else _background_of(KINDS.index(name), strokes, labels, rng))
    middle = SIZE_PX // 2
    return parts[0] if len(parts) == 1 else torch.cat([parts[0][:, :, :middle], parts[1][:, :, middle:]], 2)


def _weather(image: torch.Tensor, setting: Setting, rng: np.random.Generator) -> torch.Tensor:
    """Lay weather over an image, then the light of its time."""
    if setting.weather == "foggy":
        image = 0.5 * image + 0.5 * 0.82
    elif setting.weather == "cloudy":
        image = 0.9 * image
    elif setting.weather in ("raining", "snowing"):
        image = _precipitation(image, setting.weather, rng)
    if setting.time == NIGHT:
        # Little light and the noise of a sensor that amplifies it.
        image = 0.6 * image * torch.tensor([0.8, 0.85, 1.1]).view(3, 1, 1)
        image = image + torch.from_numpy(rng.normal(0, 0.03, (1, SIZE_PX, SIZE_PX))).float()
    return image.clamp(0, 1)


def _precipitation(image: torch.Tensor, kind: str, rng: np.random.Generator) -> torch.Tensor:
    """Bright slanted lines of rain, or flakes of four pixels."""
    cover = torch.zeros(1, SIZE_PX, SIZE_PX)
    for _ in range(9 if kind == "raining" else 14):
        y, x = rng.integers(-4, SIZE_PX, 2)
        length, width = (int(rng.integers(8, 15)), 1) if kind == "raining" else (2, 2)
        for step in range(length):
            row, column = int(y) + step, int(x) + (step // 3 if kind == "raining" else 0)
            if 0 <= row < SIZE_PX:
                cover[0, row, max(column, 0) : max(column + width, 0)] = 0.75 if kind == "raining" else 0.95
    return image * (1 - cover) + cover


def _database(rows: Sequence[tuple[str, ...]]) -> bytes:
    """Return the file of the annotations."""
    connection = sqlite3.connect(":memory:")
    columns = "file_name TEXT PRIMARY KEY, category TEXT, time TEXT, weather TEXT, locations TEXT, humans TEXT"
    with connection:
        connection.execute(f"CREATE TABLE annotations ({columns})")
        connection.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?)", sorted(rows))
    data = connection.serialize()
    connection.close()
    return data

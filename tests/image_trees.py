"""Small trees of images in the layouts of published sets, for tests."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

IDS = ("ant", "bee", "cat", "dog")
ROW = "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?)"


def write_image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    """Write an image of (width, height) whose pixels tell it from those of other paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(str(path).encode()))
    Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)


def write_images(root: Path, names: Iterable[str], size: tuple[int, int] = (8, 8)) -> None:
    for name in names:
        write_image(root / name, size)


def write_annotations(path: Path, rows: list[tuple[str | None, ...]]) -> None:
    """Write (file, category, time, weather, locations) as FOCUS has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE annotations (file_name TEXT PRIMARY KEY, category TEXT, time TEXT, weather TEXT, "
            "locations TEXT, humans TEXT)"
        )
        connection.executemany(ROW, [(*row, "no") for row in rows])
    connection.close()

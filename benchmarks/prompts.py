"""Rows per second of building a prompt table, beside a plain Python loop over f-strings.

python benchmarks/prompts.py
"""

import random
import tempfile
import time
from pathlib import Path

from synclones.prompts.build import build
from synclones.prompts.classes import load_classes
from synclones.prompts.recipe_clip_templates import templates
from synclones.prompts.table import PromptTable

ROWS, ROUNDS = 1_000_000, 3


def peer(names: list[str]) -> list[str]:
    """Text only: no table, no hash, no class balance, and no row without all those before it."""
    rng = random.Random(0)
    return [rng.choice(templates()).replace("{}", rng.choice(names)) for _ in range(ROWS)]


def run() -> None:
    """Print ours (building and checking), peer and ratio."""
    classes = load_classes("imagenet1k")
    names = [info.name for info in classes.classes]
    times: dict[str, list[float]] = {"build": [], "check": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.parquet"
        for _ in range(ROUNDS):
            for what, call in (
                ("build", lambda: build("clip-templates", classes, ROWS, 0, path)),
                ("check", lambda: PromptTable(path).check()),
                ("peer", lambda: peer(names)),
            ):
                started = time.perf_counter()
                call()
                times[what].append(time.perf_counter() - started)
        texts = {row.prompt for row in PromptTable(path).rows(0, 1000)}
        assert all(any(name in text for name in names) for text in texts)
    rate = {what: ROWS / min(values) / 1e6 for what, values in times.items()}
    print(f"build: ours {rate['build']:.2f} M rows/s, loop of texts {rate['peer']:.2f} M/s, ", end="")
    print(f"ratio {rate['build'] / rate['peer']:.2f}; check: {rate['check']:.2f} M rows/s")


if __name__ == "__main__":
    run()

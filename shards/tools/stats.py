"""The command that counts what is in a set, on the terminal and as a page.

In: a dataset folder or a set in a store. Out: a few lines and, on request, one HTML file. Unfinished sets are counted
as far as they are complete, and said to be unfinished.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from synclones.base.errors import one_line
from synclones.base.files import write_atomic
from synclones.base.units import format_set
from synclones.shards.mirror import open_set
from synclones.shards.tools.counting import Stats, count
from synclones.shards.tools.stats_page import stats_page
from synclones.shards.unfinished import how_far, is_unfinished

SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class StatsConfig:
    """Count a set's classes, statuses, image sizes, scores and repeated captions; every image is read and checked."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix: of a store, one shard at a time is brought to this disk."""
    out: Path | None = None
    """HTML page to write: tables of all classes, and histograms."""


def stats(config: StatsConfig) -> None:
    """Count, print, and write the page when one is asked for.

    Raises:
        InputError: no such folder, or no shard in it.
        VerificationError: a sample is damaged.
    """
    with open_set(config.folder) as opened:
        counted = count(opened.shards())
        counted.name = opened.named(str(opened.folder))
        if is_unfinished(opened.folder):
            counted.unfinished = how_far(opened.folder)
    print("\n".join(map(one_line, lines(counted))))
    if config.out is not None:
        write_atomic(config.out, stats_page(counted))
        print(f"wrote    {config.out}")


def lines(made: Stats) -> list[str]:
    """Return what the terminal shows."""
    sizes, stored = made.image_bytes, [made.per_class.get(label, Counter())["ok"] for label in made.classes]
    shown = [f"{made.name}: {format_set(made.num_images, made.num_shards)}, {sizes.sum() / 1e6:.1f} MB of JPEG"]
    shown += [f"unfinished: {made.unfinished}"] if made.unfinished else []
    shown.append("status   " + ", ".join(f"{status} {number}" for status, number in sorted(made.statuses.items())))
    shown += [f"reason   {status}: {reason}: {n}" for (status, reason), n in made.reasons.most_common(SHOWN)]
    if stored and set(made.classes) != {-1}:
        shown.append(
            f"classes  {len(stored)}, {min(stored)} to {max(stored)} images each, median {np.median(stored):.0f}"
        )
        few = sorted(made.classes, key=lambda label: (made.per_class.get(label, Counter())["ok"], label))[:SHOWN]
        least = (f"{label} {made.classes[label]}: {made.per_class.get(label, Counter())['ok']}" for label in few)
        shown.append(f"fewest   {', '.join(least)}")
    if len(sizes):
        shown.append("pixels   " + ", ".join(f"{w}x{h}: {number}" for (w, h), number in made.sides.most_common(SHOWN)))
        low, middle, high = np.percentile(sizes, (5, 50, 95))
        shown.append(f"bytes    {low:.0f} to {high:.0f} of 90 % of the images, median {middle:.0f}")
    for name, values in made.scores.items():
        low, middle, high = np.percentile(values, (5, 50, 95))
        shown.append(f"score    {name}: {len(values)} rows, median {middle:.4g}, 90 % in {low:.4g} to {high:.4g}")
    shown.append(
        f"captions {made.num_captions} different; {made.images_repeating} images share theirs with another image"
    )
    shown += [f"         {number} times: {text[:100]}" for text, number in list(made.repeated.items())[:3]]
    return shown

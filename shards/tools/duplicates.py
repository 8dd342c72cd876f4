"""The command that lists near-duplicates: inside a set, or of the images that a clone will be tested on.

In: a finished dataset folder, perhaps a test set. Out: a Parquet file of rows to leave out, and counts.
"""

from dataclasses import dataclass, field
from pathlib import Path

from synclones.base.config import check_ranges
from synclones.shards.similarity.near import MAX_DISTANCE
from synclones.shards.stores.store import refuse_store


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """List the images of a finished set that nearly are an earlier one, or a test image; the set is left alone."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    max_distance: int = 4
    """Of the 64 bits of two perceptual hashes, how many may differ between near-duplicates."""
    against: Path | None = None
    """Test images to compare with instead: a folder of them, a tar or a folder of tars, or a dataset folder."""
    out: Path | None = None
    """Parquet file with a row per image to leave out; (test_)duplicates.parquet in the folder by default."""

    def __post_init__(self) -> None:
        check_ranges(self, max_distance=(0, MAX_DISTANCE))


def dedup(config: DedupConfig) -> None:
    """Write the list and print what it says.

    Raises:
        InputError: no such set, no images.
        VerificationError: the set is unfinished, or an image is damaged.
    """
    from synclones.shards.similarity.dedup import list_duplicates, list_test_duplicates

    refuse_store(config.folder)
    if config.against is None:
        out = config.out or config.folder / "duplicates.parquet"
        print(list_duplicates(config.folder, config.max_distance, out))
        return
    refuse_store(config.against)
    out = config.out or config.folder / "test_duplicates.parquet"
    print(list_test_duplicates(config.folder, config.against, config.max_distance, out))

"""``synclones shards index``: makes, or renews, the index by which a set that others made is read in place.

In: a folder, file or pattern of files. Out: the index (`shards.sources.indexing`), and what it says on standard output.
"""

from dataclasses import dataclass, field
from pathlib import Path

from synclones.base.errors import one_line
from synclones.base.units import format_set

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Index a set that others made, so that it is trained on in place; what lies there now is taken for right."""

    path: Path = field(kw_only=False)
    """Folder of tars (or its s3://, gs://, hf:// URL), of Parquet files or of images; a table; a pattern of files."""
    split: str | None = None
    """Of a set whose names tell splits apart: train, val or test."""
    label_key: str | None = None
    """Key of the samples' json, or column, that holds the label; cls, folder or label by default."""
    caption_key: str | None = None
    """Key of the samples' json, or column, that holds the caption; txt, caption or text by default."""
    classes: Path | None = None
    """Class list that says what numbers mean (.txt, .csv, .json); it is compared, trainings are given it again."""


def index(config: IndexConfig) -> None:
    """Make the index and say what it holds.

    Raises:
        InputError: no such set, or a class list that does not fit it.
        VerificationError: a file changes just now.
    """
    from synclones.shards.sources.open import index_set, meaning_of

    made = index_set(config.path, label_key=config.label_key, caption_key=config.caption_key, split=config.split)
    labels, meaning = made.labels(), meaning_of(config.path, made, config.classes)
    without_caption = sum(facts.without_caption for facts in made.shards)
    print(f"{config.path}: {format_set(made.num_images, len(made.shards))} ({made.kind}); index in {made.where}")
    if labels.counts:
        shown = [f"{one_line(text)}: {count:,}" for text, count in sorted(labels.counts.items())]
        shown[_SHOWN:] = ["..."] if len(shown) > _SHOWN else []
        print(f"labels  {len(labels.counts)} by {made.rule.partition(' and ')[0]} ({', '.join(shown)})")
    print(f"classes {meaning.fault or meaning.note or f'{len(meaning.ids)}, the first is {meaning.ids[0]}'}")
    print(f"caption {made.num_images - without_caption:,} images have one")

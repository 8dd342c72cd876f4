"""``synclones train tokenize``: keeps the token ids of a set's captions beside it, for trainings of images and texts.

In: a finished dataset folder. Out: its side column ``tokens-77``, or ``NAME-tokens-77`` for the captions of the side
column NAME. A training takes ids from there, mapped into memory, where a set has the column of its captions and its
--text-length: they are those that it would make itself, so that weights are the same with and without.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synclones.base.differences import differences
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.column_files import TOKENS, ColumnFiles, ColumnType, made_by, write_data
from synclones.shards.column_makers import Maker, add_columns
from synclones.shards.columns import SideColumn, SideColumns
from synclones.shards.index import Summary
from synclones.shards.read import ShardFolder
from synclones.shards.shard import Shard
from synclones.shards.stores.store import refuse_store
from synclones.shards.token_files import TokenColumn, packed
from synclones.train.options.objective import OBJECTIVE_RANGES

if TYPE_CHECKING:  # importing them loads torch
    from synclones.shards.loading.parts import MixedSources
    from synclones.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Keep the token ids of a set's captions beside it, so that trainings need not make them again and again."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    text_length: int = 77
    """Token ids of a caption, cut or filled up: the --text-length of the training."""
    caption_column: str = ""
    """Side column of the captions; empty for those that the images were drawn from."""


def token_column_name(text_length: int, caption_column: str) -> str:
    """Return the name of the side column with the token ids of some captions."""
    return f"{caption_column}-tokens-{text_length}" if caption_column else f"tokens-{text_length}"


def tokenize(config: TokenizeConfig) -> str:
    """Add the column and return what was done, in a few lines; any number of processes divide the shards.

    Raises:
        InputError: a length that is none, a column that is none or not of captions, a name that is taken.
        VerificationError: the set or the column of captions is unfinished or damaged.
    """
    low, high = OBJECTIVE_RANGES["text_length"]
    if not low <= config.text_length <= high:
        raise InputError(f"--text-length: {config.text_length} was given, expected {low:g} to {high:g}")
    refuse_store(config.folder)
    shards = ShardFolder(config.folder)
    shards.content_hash()
    captions = SideColumns(config.folder, shards.split).column(config.caption_column) if config.caption_column else None
    if captions is not None and captions.type.kind not in ("text", "texts"):
        raise InputError(f"--caption-column: {captions.name} holds {captions.type}, expected texts; name another one")
    maker = TokenMaker(
        name=token_column_name(config.text_length, config.caption_column),
        type=ColumnType(TOKENS, "uint16", (config.text_length,)),
        made_by=_made_by(config.text_length, captions),
        captions=captions,
    )
    done = add_columns(shards, [maker], "synclones train tokenize")
    return f"{done}\n{_counts(TokenColumn(config.folder, maker.name, shards.split).counts(), config.text_length)}"


def _made_by(text_length: int, captions: SideColumn | None) -> dict[str, Any]:
    """Return what ids depend on, beside the tars that each shard's json names."""
    from synclones.models.tokenizer import tokenizer_identity  # loads open_clip

    content = sha256_bytes(canonical_json(captions.hashes())) if captions else ""
    column = captions.name if captions else ""
    return {"text_length": text_length, "caption_column": column, "captions_sha256": content, **tokenizer_identity()}


def _counts(counts: tuple[int, int], text_length: int) -> str:
    captions, cut = counts
    return f"{cut:,} of {captions:,} captions have more than {text_length} token ids and lose their end"


@dataclass(frozen=True, kw_only=True)
class TokenMaker(Maker):
    """The token ids of captions."""

    captions: SideColumn | None

    def write(self, number: int, shard: Shard, files: ColumnFiles, summary: Summary) -> None:
        """Tokenize the captions of a shard.

        Raises:
            VerificationError: a sample or the column of captions is damaged.
        """
        from synclones.models.tokenizer import token_ids

        length, texts = self.type.shape[0], self._texts(number, shard)
        flat = [text for of_image in texts for text in of_image]
        # No ids for an empty text, and its row all the same: of several the same one has to be drawn.
        made = [token_ids(text, length) if text else (np.zeros(length, np.int64), False) for text in flat]
        ids = np.array([numbers for numbers, _ in made], dtype=np.int64).reshape(-1, length)
        data = packed(shard.index, np.array([len(of_image) for of_image in texts], np.int64), ids)
        cut = sum(is_cut for _, is_cut in made)
        write_data(files, summary, len(shard), data, captions=sum(map(bool, flat)), cut=cut)

    def _texts(self, number: int, shard: Shard) -> list[Sequence[str]]:
        """Return the captions of each image."""
        if self.captions is None:
            return [[shard.caption(row)] for row in range(len(shard))]
        values = self.captions.read(number, range(len(shard))).tolist()
        return [[value] if isinstance(value, str) else value or [] for value in values]


def check_token_columns(config: "TrainConfig", mixed: "MixedSources", rank: int) -> None:
    """Compare the token ids that lie beside sets with what this training would make; the first process says which are.

    Raises:
        InputError: they were made from something else; says what differs.
        VerificationError: they are unfinished or damaged.
    """
    name = token_column_name(config.text_length, config.caption_column)
    for source in {id(one): one for part in mixed.parts for one in part.sets}.values():
        column = source.token_column(name)
        if column is None:
            continue
        captions = source.columns.column(config.caption_column) if config.caption_column else None
        if changed := differences(made_by(column.files), _made_by(config.text_length, captions)):
            raise InputError(
                f"{column.files.folder}: token ids that were made from something else ({changed}); remove the folder, "
                "and make them again with `synclones train tokenize`, or leave it to this training"
            )
        column.hashes()
        if rank == 0:
            counts = _counts(column.counts(), config.text_length)
            print(f"{source.folder}: token ids are those of its column {name}; {counts}", file=sys.stderr)

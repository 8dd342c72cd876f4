"""Checks the side columns of a set against their hashes and the set's shards.

In: a dataset folder. Out: what is wrong, a line each.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError, VerificationError
from synclones.shards.column_files import TOKENS, ColumnFiles, column_names, is_written, open_column, read_values
from synclones.shards.index import own_summary
from synclones.shards.schema import ShardFiles
from synclones.shards.shard import Shard
from synclones.shards.token_files import map_tokens


def column_problems(folder: Path, shards: Sequence[str], quick: bool, unfinished: bool = False) -> Iterator[str]:
    """Yield what is wrong with the columns of a set, a line each; presence and sizes only when ``quick``.

    ``unfinished``: of a set that is still drawn, whose columns may lack shards.
    """
    for name in column_names(folder):
        try:
            files = open_column(folder, name)
        except (InputError, VerificationError) as error:
            yield str(error)
            continue
        for shard in shards:
            if is_written(files, shard) or not unfinished:
                yield from _shard_problem(files, shard, quick)


def _shard_problem(files: ColumnFiles, shard: str, quick: bool) -> Iterator[str]:
    if not is_written(files, shard):
        yield f"{files.values(shard)}: missing or cut; run the same {files.verb} command again"
    elif not quick:
        try:
            own = ShardFiles(files.set_folder, shard)
            stored = Shard(own, own_summary(own)).index
            if not np.array_equal(_stated_index(files, shard), stored):
                yield f"{files.values(shard)}: its indices are not those of {shard}.tar; annotate the set again"
        except VerificationError as error:
            yield str(error)


def _stated_index(files: ColumnFiles, shard: str) -> np.ndarray:
    if files.type.kind == TOKENS:
        return map_tokens(files, shard).index
    index: np.ndarray = read_values(files, shard)["index"].to_numpy()
    return index

"""What the images of a set were drawn from: the prompt table of its plan where it lies here, else texts in the tars.

In: a dataset folder. Out: prompts by number, and the numbers whose prompts hold a text. A table is taken only when it
states the hash that the plan does; it is read by row groups of 100,000 prompts, of which the last ones are kept.
"""

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError
from synclones.base.manifest import find_parent, read_manifest
from synclones.base.resume import CONFIG
from synclones.base.yaml_file import read_yaml
from synclones.prompts.table import PromptTable
from synclones.shards.shard import ReadRange

MOST_BYTES = 1 << 16  # of a prompt that is read from a tar
KEPT_GROUPS = 4


class PromptTexts:
    """The prompts of a table. Safe to use from several threads."""

    def __init__(self, table: PromptTable):
        self.table = table
        self._lock = threading.Lock()
        self._prompts = lru_cache(maxsize=KEPT_GROUPS)(self._read)
        self._matching = lru_cache(maxsize=KEPT_GROUPS)(self._matching_in)

    def text(self, index: int) -> str:
        """Return the prompt of a sample; empty when the table has none."""
        if not 0 <= index < self.table.num_rows:
            return ""
        group = self.table.group_of(index)
        return str(self._prompts(group)[index - self.table.rows_of(group).start].as_py())

    def matching(self, text: str, rows: range) -> np.ndarray:
        """Return which of these samples have a prompt that holds ``text``, in whatever case: int64[n], ascending."""
        parts, start, stop = [np.empty(0, np.int64)], rows.start, min(rows.stop, self.table.num_rows)
        while start < stop:
            group = self.table.group_of(start)
            numbers = self._matching(group, text)
            parts.append(numbers[np.searchsorted(numbers, start) : np.searchsorted(numbers, stop)])
            start = self.table.rows_of(group).stop
        return np.concatenate(parts)

    def _read(self, group: int) -> pa.ChunkedArray:
        with self._lock:  # pyarrow does not promise that two threads may read one file
            return self.table.prompts(group)

    def _matching_in(self, group: int, text: str) -> np.ndarray:
        positions = pc.indices_nonzero(holds(self._prompts(group), text))
        first: int = self.table.rows_of(group).start
        return np.asarray(positions.to_numpy(), np.int64) + first


def holds(texts: pa.ChunkedArray | pa.Array, text: str) -> Any:
    """Return which of these texts hold another one, in whatever case, as an Arrow array of booleans."""
    return pc.match_substring(texts, text, ignore_case=True)


def prompt_texts(folder: Path, plan: dict[str, Any]) -> PromptTexts | None:
    """Open the prompt table that the plan of a set names by its hash; None where it is not found."""
    for stated in _stated_paths(folder) if plan.get("prompts_sha256") else []:
        path = find_parent(folder, stated)
        try:
            table = PromptTable(path) if path else None
        except (InputError, OSError):
            continue
        if table and table.metadata.get("content_sha256") == plan["prompts_sha256"]:
            return PromptTexts(table)
    return None


def _stated_paths(folder: Path) -> list[str]:
    """Return where manifest and settings say that the prompts are."""
    paths = []
    try:
        paths += [parent["path"] for parent in read_manifest(folder).get("parents", []) if parent["name"] == "prompts"]
    except (InputError, OSError):  # unfinished
        pass
    try:
        paths.append(str(read_yaml(folder / CONFIG)["prompts"].value or ""))
    except (InputError, OSError, KeyError):
        pass
    return list(filter(None, dict.fromkeys(paths)))


def stored_texts(read_range: ReadRange, offsets: list[int], sizes: list[int]) -> list[str]:
    """Read prompts out of a tar, by where its sidecar says that they are."""
    read = (read_range(offset, min(size, MOST_BYTES)) for offset, size in zip(offsets, sizes, strict=True))
    return [data.decode("utf-8", "replace") for data in read]

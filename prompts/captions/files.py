"""Read captions from a file or from foreign shards, checked and cleaned: any row, or all of them in order.

In: a path (`captions.formats`). Out: tables of ``caption``, ``class`` and ``source_key``. One pass over the file checks
every row and notes where each chunk begins; after it row i costs reading one chunk.
"""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
from synclones.prompts.captions.chunks import BadRow, Format, Position
from synclones.prompts.captions.formats import FORMATS
from synclones.prompts.characters import UNPRINTABLE
from synclones.prompts.table import MAX_CHARS
from synclones.shards.sources.files import PassedOver, list_files, listing_sha256

BadCaptions = Literal["stop", "skip"]
COLUMNS = ("caption", "class", "source_key")
CACHED_CHUNKS = 4


class CaptionFile:
    """The good rows of a file of captions.

    Attributes:
        path: the file.
        num_rows: captions that can be used.
        skipped: bad rows that were left out.
        cleaned: captions that lost control characters or line breaks.
    """

    def __init__(self, path: Path, bad: BadCaptions = "stop"):
        """Check the whole file. ``bad``: whether a row that cannot be used stops or is left out and counted.

        Raises:
            InputError: for a missing file, an unknown format, no caption at all; for a bad row, by its number.
        """
        self.path, self._bad = path, bad
        self._format = _open(path)
        self._read_cached = lru_cache(maxsize=CACHED_CHUNKS)(self._usable)
        self.skipped = self.cleaned = self._rows_seen = 0
        self._positions, self._starts = list[Position](), [0]
        for position in self._format.positions():
            self._scan(position)
        self.num_rows = self._starts[-1]
        if not self.num_rows:
            raise InputError(f"{path}: no captions{' that can be used' if self.skipped else ''}; write one a row")

    def _scan(self, position: Position) -> None:
        table, keep, cleaned = self._checked(position, self._rows_seen)
        self._rows_seen += len(table)
        count = len(table) if keep is None else int(pc.sum(keep).as_py())
        self.skipped += len(table) - count
        self.cleaned += cleaned
        if count:
            self._positions.append(position)
            self._starts.append(self._starts[-1] + count)

    @property
    def content_sha256(self) -> str:
        """Hash of the file; of a folder, of its tars' names and sizes."""
        if self.path.is_dir():
            return listing_sha256(list_files(self.path, PassedOver())[0])
        return sha256_file(self.path)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return rows start..stop-1, 0 <= start < stop <= num_rows, with the columns `COLUMNS`."""
        parts = []
        for chunk in range(bisect_right(self._starts, start) - 1, len(self._positions)):
            first = self._starts[chunk]
            if first >= stop:
                break
            table = self._read_cached(chunk)
            parts.append(table.slice(max(0, start - first), min(stop - first, len(table)) - max(0, start - first)))
        return pa.concat_tables(parts).combine_chunks()

    def blocks(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield (first row, rows) of each chunk."""
        for chunk, first in enumerate(self._starts[:-1]):
            yield first, self._usable(chunk)

    def notes(self) -> tuple[str, ...]:
        """Return what was mended or left out."""
        notes = []
        if self.cleaned:
            notes.append(f"{self.cleaned:,} captions held line breaks or control characters, which were taken out")
        if self.skipped:
            notes.append(f"{self.skipped:,} bad rows were skipped")
        if passed_over := self._format.passed.text(self.path):
            notes.append(passed_over)
        return tuple(notes)

    def _usable(self, chunk: int) -> pa.Table:
        table, keep, _ = self._checked(self._positions[chunk], 0)
        table = table if keep is None else table.filter(keep)
        if len(table) != self._starts[chunk + 1] - self._starts[chunk]:
            raise InputError(f"{self.path}: was changed while it was read; run the command again")
        return table

    def _checked(self, position: Position, first: int) -> tuple[pa.Table, pa.Array | None, int]:
        """Return (cleaned rows, which of them can be used or None for all, how many captions the cleaning changed)."""
        try:
            stored = self._format.read(position)
        except BadRow as error:
            raise InputError(f"{self._format.where(first + error.row, position)}: {error.why}") from None
        caption, cleaned = clean(stored["caption"])
        columns = {"caption": caption}
        for name in COLUMNS[1:]:
            is_stored = name in stored.column_names
            columns[name] = clean(stored[name])[0] if is_stored else pa.repeat(pa.scalar(""), len(stored))
        # Judged after cleaning: a caption of control characters alone is empty only then.
        bad = self._bad_rows(columns)
        if bad is None:
            return pa.table(columns), None, cleaned
        if self._bad == "stop":
            at = pc.index(bad, True).as_py()
            raise InputError(
                f"{self._format.where(first + at, position)}: {_problem(columns['caption'][at].as_py())}; mend or drop "
                "the row, or give --bad-captions skip"
            )
        return pa.table(columns), pc.invert(bad), cleaned

    @staticmethod
    def _bad_rows(columns: dict[str, pa.Array]) -> pa.Array | None:
        lengths = pc.utf8_length(columns["caption"])
        bad = pc.or_(pc.equal(lengths, 0), pc.greater(lengths, MAX_CHARS["prompt"]))
        bad = pc.or_(bad, pc.greater(pc.utf8_length(columns["source_key"]), MAX_CHARS["source_key"]))
        return bad if pc.any(bad).as_py() else None


def clean(values: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, int]:
    """Return (texts without control and bidirectional characters, blanks for line breaks; how many that changed)."""
    texts = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    texts = pc.fill_null(texts, "")
    if pc.all(pc.ascii_is_printable(texts)).as_py():  # most texts need no slow expression
        return pc.utf8_trim_whitespace(texts), 0
    blanks = pc.replace_substring_regex(texts, "[\t\r\n\u2028\u2029]+", " ")
    mended = pc.replace_substring_regex(blanks, UNPRINTABLE, "")
    return pc.utf8_trim_whitespace(mended), int(pc.sum(pc.not_equal(mended, texts)).as_py() or 0)


def _problem(caption: str) -> str:
    if not caption:
        return "the caption is empty"
    if len(caption) > MAX_CHARS["prompt"]:
        return f"the caption has {len(caption)} characters, at most {MAX_CHARS['prompt']} are allowed"
    return f"the source key has over {MAX_CHARS['source_key']} characters"


def _open(path: Path) -> Format:
    if not path.exists():
        raise InputError(f"--captions: no file or folder {str(path)!r}; give {', '.join(FORMATS)} or a folder of tars")
    suffix = ".tar" if path.is_dir() else path.suffix
    if suffix not in FORMATS:
        raise InputError(f"--captions: {path} ends in {suffix!r}, expected {', '.join(FORMATS)} or a folder of tars")
    return FORMATS[suffix](path)

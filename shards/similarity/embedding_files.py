"""Reads embeddings that others made: numbered .npy files beside Parquet files of the same rows, and FAISS indexes.

In: a folder as LAION publishes it (``img_emb_0000.npy``, ``metadata_0000.parquet``), or as clip-retrieval and autofaiss
write it (``img_emb/``, ``metadata/``, ``image.index`` or ``knn.index``). Out: `FileVectors`; url, md5, caption and key
of a row.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.kept import note_once
from synclones.shards.similarity.vectors import Vectors
from synclones.shards.sources.source import Source

# Names of a column, whoever wrote it: LAION, img2dataset, clip-retrieval.
COLUMNS = {
    "url": ("url", "URL"),
    "md5": ("md5", "MD5"),
    "caption": ("caption", "TEXT", "text"),
    "key": ("key", "image_path"),
}
_NUMBER = re.compile(r"(\d+)$")


class EmbeddingFolder:
    """What lies in a folder of embeddings, matched by number.

    Attributes:
        arrays: the .npy files of image embeddings, in order.
        metadata: the Parquet files, in the same order.
        indexes: FAISS files, in order; those of texts are passed over.
        counts: how many rows each part has.
    """

    def __init__(self, folder: Path):
        """List the files and compare their lengths.

        Raises:
            InputError: there are none, numbers that only one kind has, or lengths that differ.
        """
        if not folder.is_dir():
            raise InputError(f"--embeddings: no folder {str(folder)!r}; give one with img_emb and metadata files")
        self.folder = folder
        self.arrays = _numbered(folder, "img_emb", ".npy")
        self.metadata = _numbered(folder, "metadata", ".parquet")
        self.indexes = [path for path in sorted(folder.glob("*.index")) if not path.name.startswith("text")]
        if not self.arrays and not self.indexes:
            raise InputError(f"{folder}: holds neither img_emb*.npy nor *.index; give a folder of image embeddings")
        if self.arrays and self.metadata and len(self.arrays) != len(self.metadata):
            raise InputError(
                f"{folder}: {len(self.arrays)} files of embeddings and {len(self.metadata)} of metadata; fetch the rest"
            )
        rows = [_rows_of(path) for path in self.metadata]
        lengths = [_header(path)[0] for path in self.arrays]
        for array, length, stated, other in zip(self.arrays, lengths, rows, self.metadata, strict=False):
            if length != stated:
                raise InputError(f"{array}: {length} embeddings, {other.name} has {stated} rows; fetch both again")
        self.counts = lengths or rows

    def __len__(self) -> int:
        return sum(self.counts)

    def names(self) -> dict[str, str]:
        """Return which columns of the metadata hold url, md5, caption and key, as far as they do."""
        if not self.metadata:
            return {}
        present = pq.read_schema(self.metadata[0]).names
        wanted = {kind: [name for name in names if name in present] for kind, names in COLUMNS.items()}
        return {kind: names[0] for kind, names in wanted.items() if names}

    def texts(self, kind: str, number: int) -> pa.Array:
        """Read a column of a part as texts, empty where there is none: url, md5, caption or key.

        Raises:
            VerificationError: it is damaged.
        """
        name = self.names()[kind]
        try:
            column = pq.read_table(self.metadata[number], columns=[name])[name]
            if isinstance(column.type, pa.DictionaryType):
                column = column.cast(column.type.value_type)
            return column.cast(pa.string()).fill_null("").combine_chunks()
        except (pa.ArrowException, KeyError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            reason = " ".join(str(error).split())[:100]
            raise VerificationError(f"{self.metadata[number]}: cannot be read ({reason}); fetch it again") from None

    def take(self, kind: str, positions: np.ndarray) -> list[str]:
        """Return the texts of some rows, by position."""
        starts = np.cumsum([0, *self.counts])
        part = np.searchsorted(starts, positions, "right") - 1
        result = [""] * len(positions)
        for number in np.unique(part):
            texts = self.texts(kind, int(number))
            for at in np.flatnonzero(part == number):
                result[at] = str(texts[int(positions[at] - starts[number])])
        return result

    @cached_property
    def sha256(self) -> str:
        """Identity of the folder: names and sizes of its files; vectors count for themselves."""
        files = [*self.arrays, *self.metadata, *self.indexes]
        return sha256_bytes(canonical_json([[path.name, path.stat().st_size] for path in files]))


def _numbered(folder: Path, kind: str, suffix: str) -> list[Path]:
    """List the files of a kind, ``img_emb/`` or right here, by the number that their names end in."""
    inside = folder / kind if (folder / kind).is_dir() else folder
    paths = [path for path in inside.glob(f"*{suffix}") if path.name.startswith(kind) or inside != folder]
    numbers = {path: _NUMBER.search(path.stem) for path in paths}
    return sorted(paths, key=lambda path: (int(match[1]) if (match := numbers[path]) else -1, path.name))


def _rows_of(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"{path}: no Parquet file; fetch it again") from None


def _header(path: Path) -> tuple[int, int]:
    """Return rows and width of a .npy file, its size compared with what it states."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no array ({str(error)[:100]}); fetch it again") from None
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise InputError(f"{path}: holds {array.dtype}{list(array.shape)}, expected float16 or float32[n, d]")
    return array.shape[0], array.shape[1]


class FileVectors(Vectors):
    """The .npy files of a folder."""

    def __init__(self, files: EmbeddingFolder, width: int, model: str):
        """Compare the width of each file with that of the model that queries are embedded by.

        Raises:
            InputError: it is another.
        """
        for path in files.arrays:
            own = _header(path)[1]
            if own != width:
                raise InputError(
                    f"{path}: vectors of {own} numbers, {model} gives {width}; name the model that made them"
                )
        self._paths: Sequence[Path] = files.arrays
        super().__init__(width, [_header(path)[0] for path in self._paths])

    def part(self, number: int) -> np.ndarray:
        array: np.ndarray = np.load(self._paths[number], mmap_mode="r", allow_pickle=False)
        return array

    @cached_property
    def sha256(self) -> str:
        """Identity of all vectors: sizes and contents at equal steps, since terabytes are not read for a name."""
        known_by = []
        for number, path in enumerate(self._paths):
            array = self.part(number)
            sample = np.ascontiguousarray(array[:: max(1, len(array) // 64)])
            known_by.append([path.name, len(array), str(array.dtype), sha256_bytes(sample.tobytes())])
        return sha256_bytes(canonical_json(known_by))


def matched_rows(source: Source, files: EmbeddingFolder) -> np.ndarray:
    """Return where in a set the image of each row is, by its key, -1 nowhere: int64[n]; by position without keys.

    Raises:
        InputError: lengths differ and nothing tells rows apart, no row is of the set, or two are of one image.
    """
    total = sum(source.images_per_shard)
    if "key" not in files.names():
        if files.counts and len(files) != total:
            raise InputError(
                f"{files.folder}: {len(files)} embeddings without keys, {source.folder} has {total} images; "
                "give the set that they are of"
            )
        return np.arange(total)
    position = {name: at for at, name in enumerate(_names(source))}
    root = f"{source.folder}/"
    keys = (key for number in range(len(files.counts)) for key in files.texts("key", number).to_pylist())
    rows = np.array([position.get(key, position.get(key.removeprefix(root), -1)) for key in keys], np.int64)
    known = rows[rows >= 0]
    if not len(known):
        raise InputError(f"{files.folder}: none of its {len(rows)} rows is of an image of {source.folder} by its key")
    if len(np.unique(known)) < len(known):
        raise InputError(f"{files.folder}: two rows are of one image of {source.folder}; leave one out")
    if len(known) < max(len(rows), total):
        note_once(f"{files.folder}: {len(known)} of {len(rows)} rows are of the {total} images of {source.folder}")
    return rows


def _names(source: Source) -> Iterator[str]:
    for number in range(len(source.images_per_shard)):
        shard = source.open(number)
        yield from (shard.name(row) for row in range(len(shard)))

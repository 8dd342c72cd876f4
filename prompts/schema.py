"""Define the columns of a prompt table, and the hash that is its identity.

``content_sha256`` is the SHA-256 over, for each column in the order of `SCHEMA`, its name, a NUL byte and the SHA-256
of its values: integers as little-endian int64; texts as two running hashes, of their UTF-8 lengths (little-endian
int64) and of their UTF-8 bytes joined, which are hashed together. It does not depend on row groups, compression or the
version of any library.
"""

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """The order for one image."""

    index: int
    """0..N-1 < 2^32: the identity of the image."""
    prompt: str
    label: int
    """Class number, -1 for none."""
    class_id: str
    """wnid or slug, empty for none."""
    recipe: str
    caption_id: int
    """Images drawn from one caption share it."""
    source_key: str
    """Source hash and shard/key of the real sample a caption came from, or empty."""
    detail: str
    """JSON with what the recipe chose (template, hypernym, place, ...)."""


# What pyarrow raises for a damaged file: also types that it does not know, and names that are not UTF-8.
DAMAGED = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError, ValueError, OSError)

COLUMN_TYPES = {"index": pa.int64(), "label": pa.int32(), "caption_id": pa.int64()}
SCHEMA = pa.schema([pa.field(f.name, COLUMN_TYPES.get(f.name, pa.string()), nullable=False) for f in fields(PromptRow)])


class ContentHash:
    """Running ``content_sha256`` of a table given in blocks of any size."""

    def __init__(self) -> None:
        self._values = {name: hashlib.sha256() for name in SCHEMA.names}
        self._lengths = {name: hashlib.sha256() for name in SCHEMA.names if name not in COLUMN_TYPES}

    def update(self, block: pa.Table) -> None:
        """Add the rows of ``block``, which has the columns of `SCHEMA`."""
        for name in SCHEMA.names:
            column = block.column(name)
            if name in COLUMN_TYPES:
                self._values[name].update(column.to_numpy().astype("<i8").tobytes())
                continue
            self._lengths[name].update(pc.binary_length(column).to_numpy().astype("<i8").tobytes())
            for chunk in column.chunks:
                self._values[name].update(_text_bytes(chunk))

    def hexdigest(self) -> str:
        """Return the hash of all rows so far."""
        total = hashlib.sha256()
        for name, values in self._values.items():
            digest = values.digest()
            if name in self._lengths:
                digest = hashlib.sha256(self._lengths[name].digest() + digest).digest()
            total.update(name.encode() + b"\0" + digest)
        return total.hexdigest()


def _text_bytes(chunk: pa.StringArray) -> memoryview:
    """Return the UTF-8 bytes of an Arrow text array, joined, without a copy."""
    data = chunk.buffers()[2]
    if data is None:
        return memoryview(b"")
    offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(data)[int(offsets[0]) : int(offsets[-1])]

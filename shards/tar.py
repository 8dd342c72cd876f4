"""Bytes of a tar shard: how a sample becomes plain USTAR members, and how members become a sample again.

In: a `Sample`. Out: its bytes (headers, data, padding), the same on every machine, and where each member lies in them.
Nothing here opens a file, and nothing in this project ever extracts one.
"""

import tarfile

from synclones.base.errors import InputError, VerificationError
from synclones.shards.schema import MEMBERS, Sample, sample_key

BLOCK = 512
RECORD = 10240  # tar pads an archive to whole records of twenty blocks
_KEY_END = 100  # the name field of a USTAR header
_SIZE = slice(124, 136)


def padded(size: int) -> int:
    """Return ``size`` bytes rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def trailer(data_bytes: int) -> bytes:
    """Return the end of an archive of ``data_bytes`` bytes: two zero blocks, then zeros up to a whole record."""
    end = data_bytes + 2 * BLOCK
    return bytes(-(-end // RECORD) * RECORD - data_bytes)


def _template() -> bytes:
    """The header of an empty member without a name, its checksum as the blanks that it counts as."""
    info = tarfile.TarInfo("")
    info.mode = 0o444
    block = bytearray(info.tobuf(format=tarfile.USTAR_FORMAT))
    block[_SUM] = b" " * 8
    return bytes(block)


_SUM = slice(148, 156)
_TEMPLATE = _template()
_TEMPLATE_SUM = sum(_TEMPLATE)


def header(name: str, size: int) -> bytes:
    """Make the 512-byte USTAR header of a regular member: time 0, ids 0, no user or group name, mode 0444.

    ``name`` is ASCII of at most 100 characters, ``size`` below 8 GiB. `tarfile` makes the same, slowly.
    """
    text, digits = name.encode("ascii"), b"%011o" % size
    if len(text) > _KEY_END or len(digits) > 11:
        raise ValueError(f"a USTAR header holds no name {name!r} of {size} bytes")
    block = bytearray(_TEMPLATE)
    block[: len(text)] = text
    block[124:135] = digits
    block[_SUM] = b"%06o\0 " % (_TEMPLATE_SUM + sum(text) + sum(digits) - 11 * ord("0"))
    return bytes(block)


def encode_sample(sample: Sample) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Encode a checked sample: its tar bytes, and member -> (offset of its data in them, size)."""
    key = sample_key(sample.index)
    chunks: list[bytes] = []
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for extension, data in _member_data(sample).items():
        places[extension] = (end + BLOCK, len(data))
        padding = bytes(padded(len(data)) - len(data))
        chunks += [header(f"{key}.{extension}", len(data)), data, padding]
        end += BLOCK + len(data) + len(padding)
    return b"".join(chunks), places


def _member_data(sample: Sample) -> dict[str, bytes]:
    try:
        text = sample.txt.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"sample {sample.index}: the prompt is no valid Unicode ({error.reason}); correct the prompt table"
        ) from None
    label = {} if sample.label is None else {"cls": str(sample.label).encode()}
    return {**label, "jpg": sample.jpg, "json": sample.json, "txt": text}


def decode_sample(data: bytes, index: int, where: str) -> dict[str, bytes]:
    """Decode the tar bytes of sample ``index``: member -> data.

    Raises:
        VerificationError: they hold anything else.
    """
    key = sample_key(index)
    members: dict[str, bytes] = {}
    start = 0
    while start < len(data):
        name = data[start : start + _KEY_END].rstrip(b"\0").decode("ascii", "replace")
        own_key, _, extension = name.partition(".")
        size = _octal(data[start : start + BLOCK][_SIZE])
        end = start + BLOCK + size
        if own_key != key or extension not in MEMBERS or extension in members or size < 0 or end > len(data):
            raise VerificationError(
                f"{where}: sample {key} holds a member {name!r}, expected {key}.{'|'.join(MEMBERS)} once each; "
                "the parquet does not belong to this tar: run `synclones shards verify`"
            )
        members[extension] = data[start + BLOCK : end]
        start = padded(end)
    return members


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0 ")
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else -1

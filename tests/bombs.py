"""Small files that would grow beyond memory or time when read: made here, and opened in a process with little of both.

    python tests/bombs.py FOLDER [naive]

Prints JSON: name -> [how it ended, CPU seconds], and ``peak``: MiB that reading all of them added to the process.
"""

import contextlib
import io
import json
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from shard_helpers import write_folder

from synclones.base.errors import SynclonesError
from synclones.base.manifest import read_manifest
from synclones.base.weights import check_safetensors
from synclones.base.yaml_file import read_yaml
from synclones.generate.generators.source_images import SourceImages
from synclones.generate.plan import read_plan
from synclones.shards.index import read_summary
from synclones.shards.read import ShardFolder
from synclones.shards.schema import MAX_SHARD_ROWS, PARQUET_SCHEMA
from synclones.shards.sidecar import read_sidecar
from synclones.shards.sources.decode import decode_image
from synclones.shards.verify import inspect

MEMORY, CPU_SECONDS = 2 * 2**30, 120


def png(side_px: int, text: bytes = b"", pixels: bool = True) -> bytes:
    """A PNG of one colour, a few kB per million pixels, with a compressed comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0))
    rows = bytes(side_px // 8 + 2) * side_px if pixels else b""
    comment = chunk(b"zTXt", b"a\0\0" + zlib.compress(text)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + head + comment + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _sparse(path: Path, start: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


def _sidecar(path: Path, rows: int, reason: str = "") -> Path:
    """A sidecar of equal rows, written as every writer would: each column's one value, and how often it stands."""
    columns = []
    for field in PARQUET_SCHEMA:
        value = {"status": "ok", "reason": reason}.get(field.name, "") if pa.types.is_string(field.type) else 0
        one = pa.array([value], field.type)
        coded = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), one)
        columns.append(coded)
    fields = [pa.field(f.name, c.type, nullable=False) for f, c in zip(PARQUET_SCHEMA, columns, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), path, store_schema=False)
    return path


def make(folder: Path) -> dict[str, Callable[[], object]]:
    """Write all bombs; name -> how it is read."""
    folder.mkdir(parents=True)
    write_folder(folder / "many", 1)
    (folder / "many" / "plan.json").write_text(json.dumps({"num_shards": 10**12}))
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(png(10_000))
    deep = "[" * 100_000 + "]" * 100_000
    texts = {
        "alias.yaml": "a: &a [x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in pairwise("abcdefghij")),
        "deep.yaml": f"a: {'[' * 3000}{']' * 3000}\n",
        "plan.json": deep,
        "manifest.json": f'{{"stage": "x", "parents": {deep}}}',
        "train-00000.json": '{"a":' * 100_000 + "1" + "}" * 100_000,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "huge").mkdir()
    huge = _sparse(folder / "huge" / "train-00000.json", b"[", 2**32)
    _sparse(folder / "huge" / "manifest.json", b"{", 2**32)
    _sparse(folder / "huge.yaml", b"a: ", 2**32)
    header = _sparse(folder / "a.safetensors", struct.pack("<Q", 2**60), 4096)
    wide = _sparse(folder / "b.safetensors", struct.pack("<Q", 10**8) + b'{"a":', 2 * 10**8)
    rows = _sidecar(folder / "rows.parquet", MAX_SHARD_ROWS + 1)
    words = _sidecar(folder / "words.parquet", 1_000, "x" * 1_000_000)
    pictures = {f"PNG of {side}": png(side, pixels=side < 20_000) for side in (5_000, 10_000, 13_500, 60_000)}
    pictures["zTXt"] = png(64, bytes(2**28))
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    pictures["JPEG of 65500"] = jpeg.getvalue().replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 65500, 65500))
    return {
        **{name: (lambda data=data: decode_image(data)) for name, data in pictures.items()},
        "source image": lambda: SourceImages(folder / "pictures").read([_key(folder)], 32),
        "YAML of aliases": lambda: read_yaml(folder / "alias.yaml"),
        "deep YAML": lambda: read_yaml(folder / "deep.yaml"),
        "YAML of 4 GiB": lambda: read_yaml(folder / "huge.yaml"),
        "deep plan": lambda: read_plan(folder),
        "deep manifest": lambda: read_manifest(folder),
        "deep sidecar": lambda: read_summary(folder / "train-00000.json"),
        "sidecar of 4 GiB": lambda: read_summary(huge),
        "manifest of 4 GiB": lambda: read_manifest(folder / "huge"),
        "header of 2^60 bytes": lambda: check_safetensors(header),
        "header of 100 MB": lambda: check_safetensors(wide),
        "too many rows": lambda: _refused(read_sidecar, rows),
        "one long text in every row": lambda: _refused(read_sidecar, words),
        "a trillion shards": lambda: inspect(folder / "many"),
        "a good folder": lambda: list(ShardFolder(folder / "many").sequential()),
    }


def _key(folder: Path) -> str:
    return f"{SourceImages(folder / 'pictures').source}/a.png"


def _refused(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except ValueError as error:
        raise SynclonesError(str(error)) from None


def naive(folder: Path) -> dict[str, Callable[[], object]]:
    """The same files as their libraries read them."""
    Image.MAX_IMAGE_PIXELS = None
    return {
        "PNG": lambda: np.asarray(Image.open(folder / "pictures" / "a.png", formats=["PNG"]).convert("RGB")).sum(),
        "rows": lambda: pq.read_table(folder / "words.parquet").nbytes,
        "JSON": lambda: json.loads((folder / "plan.json").read_bytes()),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    bombs = make(folder)
    if "naive" in sys.argv:
        bombs = naive(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of making the files
    before, ends = _peak_mib(), {}
    for name, read in bombs.items():
        started = time.process_time()
        try:
            read()
            end = "read"
        except SynclonesError as error:
            end = f"refused: {error}"
        except BaseException as error:  # noqa: BLE001 - out of memory too
            end = f"failed: {type(error).__name__} {error}"[:200]
        ends[name] = (end, time.process_time() - started)
    print(json.dumps({"ends": ends, "peak": _peak_mib() - before}))


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()

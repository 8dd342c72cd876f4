"""Files that somebody with bad intentions would hand on: tars, tables, sidecars, plans, models, and links among them.

    python tests/hostile_corpus.py FOLDER COMMANDS.json

Runs each command (name -> arguments) in this one process, as `synclones` would, and prints JSON: name -> [exit code,
the one line]. A bug has exit code 1 and its traceback.
"""

import contextlib
import io
import json
import os
import struct
import sys
import tarfile
import traceback
from pathlib import Path

JPG = b"\xff\xd8\xff\xe0"


def header(name: bytes, size: bytes = b"00000000003\0", kind: bytes = b"0", prefix: bytes = b"") -> bytes:
    """A USTAR header of any content with the right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124 : 124 + len(size)], block[136:148], block[156:157] = size, b"00000000000\0", kind
    block[257:265], block[345 : 345 + len(prefix)] = b"ustar\x0000", prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"abc") -> bytes:
    """A member of any kind, as `tarfile` writes it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind in (tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE) else 0
    return info.tobuf(tarfile.GNU_FORMAT) + (data + bytes(-len(data) % 512) if info.size else b"")


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """A PAX header with these records."""
    return header(b"pax", b"%011o\0" % len(records), kind) + records + bytes(-len(records) % 512)


END = bytes(1024)
GOOD = member("0000000001.jpg") + member("0000000001.txt")
TARS = {
    "parent": member("../../0000000001.jpg"),
    "absolute": member("/etc/0000000001.jpg"),
    "parent in the prefix": header(b"0000000001.jpg", prefix=b"../..") + b"abc" + bytes(509),
    "symbolic link": member("0000000001.jpg", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": member("0000000001.jpg", tarfile.LNKTYPE, "/etc/passwd"),
    "character device": member("0000000001.jpg", tarfile.CHRTYPE),
    "block device": member("0000000001.jpg", tarfile.BLKTYPE),
    "pipe": member("0000000001.jpg", tarfile.FIFOTYPE),
    "sparse": member("0000000001.jpg", tarfile.GNUTYPE_SPARSE),
    "long name": member("0000000001" + "x" * 200 + ".jpg"),
    "pax path": pax(b"21 path=../../x.jpg\n\n") + GOOD,
    "pax size": pax(b"20 size=99999999999\n") + GOOD,
    "pax sparse": pax(b"22 GNU.sparse.major=1\n") + GOOD,
    "global pax path": pax(b"21 path=../../x.jpg\n\n", b"g") + GOOD,
    "huge pax": pax(b"99999 comment=" + b"x" * 99_985) + GOOD,
    "pax of 8 GiB": header(b"pax", b"77777777777\0", b"x") + GOOD,
    "pax path without end": pax(b"19 path=../../x.jpg") + GOOD,
    "pax of a wrong length": pax(b"99 path=x.jpg\n") + GOOD,
    "pax length of nothing": pax(b"0 path=x.jpg\n") + GOOD,
    "pax path of no text": pax(b"15 path=\xff\xfe.jpg\n") + GOOD,
    "long name that leads up": member("../" * 60 + "x.jpg"),
    "long name of a link": member("0000000001" + "x" * 200 + ".jpg", tarfile.SYMTYPE, "/etc/passwd"),
    "long name of nothing": header(b"long", b"00000000010\0", b"L") + b"0001.jpg" + bytes(504),
    "huge long name": header(b"long", b"00001000000\0", b"L") + b"x" * 2**18 + GOOD,
    "folder with a content": header(b"a/", kind=b"5") + b"abc" + bytes(509) + GOOD,
    "negative size": header(b"0000000001.jpg", b"\xff" * 8 + struct.pack(">i", -1024)) + GOOD,
    "size of a negative block": header(b"0000000001.jpg", b"\xff" * 8 + struct.pack(">i", -512)) + GOOD,
    "huge size": header(b"0000000001.jpg", b"\x80" + b"\x7f" * 11) + GOOD,
    "no number as size": header(b"0000000001.jpg", b"zzzzzzzzzzz\0") + GOOD,
    "member twice": GOOD + member("0000000001.jpg"),
    "sample twice": GOOD + member("0000000002.jpg") + member("0000000001.jpg"),
    "pickle": GOOD + member("0000000001.pickle"),
    "pyd": GOOD + member("0000000001.pyd"),
    "pth": GOOD + member("0000000001.pth"),
    "npy": GOOD + member("0000000001.npy"),
    "line break": member("0000000001.jpg\n.jpg"),
    "escape": member("\x1b[2J.jpg"),
    "no text": header(b"\xff\xfe.jpg") + b"abc" + bytes(509),
    "key beyond numbers": member("9" * 90 + ".jpg"),
    "label that is no number": GOOD + member("0000000001.cls", data=b"1e9"),
    "label without end": GOOD + member("0000000001.cls", data=b"9" * 5000),
}


def write_tars(folder: Path) -> dict[str, Path]:
    """Every tar in a folder of its own."""
    paths = {}
    for name, data in TARS.items():
        path = folder / name.replace(" ", "-") / "train-00000.tar"
        path.parent.mkdir(parents=True)
        path.write_bytes(data + END)
        paths[name] = path
    return paths


def main() -> None:
    from synclones.base.errors import as_synclones_error
    from synclones.cli import dispatch

    os.chdir(sys.argv[1])
    said: dict[str, tuple[int, str]] = {}
    for name, argv in json.loads(Path(sys.argv[2]).read_text()).items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                dispatch(argv)
            said[name] = 0, ""
        except BaseException as error:  # noqa: BLE001 - what `run_main` does, without ending the process
            known = as_synclones_error(error)
            said[name] = (known.exit_code, str(known)) if known else (1, traceback.format_exc())
    print(json.dumps(said))


if __name__ == "__main__":
    main()

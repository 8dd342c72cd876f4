"""A stand-in for the `synclones` command that draws and trains nothing: its output is a hash of all that it was given.

In: a command line, and in the environment ``FAKE_LOG``, a file to which each start and end is appended, and
``FAKE_KILL``, the number of the start at which it kills its caller and itself in the middle of its work, if at all.
Out: ``--out``, a file or a folder with ``content``, and what the next commands look for. Standard library alone.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path


def values(words, flag):
    """The values of a flag."""
    at = words.index(flag) + 1
    end = next((k for k in range(at, len(words)) if words[k].startswith("--")), len(words))
    return words[at:end]


def content(path):
    """What stands for a file or folder that a command reads."""
    return (path / "content" if path.is_dir() else path).read_bytes()


def log(text):
    with open(os.environ["FAKE_LOG"], "a") as file:
        file.write(text + "\n")


def digest(words, out):
    """Hash of the words, with paths below the root of everything replaced by what lies there."""
    root, total = os.environ["FAKE_ROOT"], hashlib.sha256()
    for word in words:
        for part in word.split(","):
            path = Path(part.partition("=")[2] if "=" in part else part)
            below = str(path).startswith(root)
            assert not below or path == out or path.exists(), f"{path} is not there yet"
            total.update(content(path) if below and path != out else b"" if below else part.encode())
    return total.hexdigest()


def main(words):
    out = Path(values(words, "--out")[0])
    is_file = out.suffix == ".parquet"
    folder = out.parent if is_file else out
    folder.mkdir(parents=True, exist_ok=True)
    log(f"begin {out}")
    if str(Path(os.environ["FAKE_LOG"]).read_text().count("begin ")) == os.environ.get("FAKE_KILL"):
        (folder / ".half").write_text("half a file")
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    result = digest(words, out)
    (folder / ".half").unlink(missing_ok=True)
    if words[:2] == ["ablate", "choose"]:
        (out / ("prompts.parquet" if "--table" in words else "images.txt")).write_text(result)
    if words[0] == "train":
        (out / "manifest.json").write_text(json.dumps({"stage": "train", "content_hash": result}))
    (out if is_file else out / "content").write_text(result)
    log(f"end {out}")


if __name__ == "__main__":
    started = time.monotonic()
    main(sys.argv[1:])

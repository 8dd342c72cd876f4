"""Names what a command makes by what it is made of: the default of ``--out`` wherever something was given.

In: the folder of a stage, and paths, URLs or names of what its command was given. Out: ``data/animals``,
``runs/animals+photos``, ``results/photos``.
"""

import re
from collections.abc import Iterable
from pathlib import Path

RESERVED = "lab"
"""What commands make that are given nothing, and read in each other's place; nobody's data is called so."""
MAX_CHARS, MAX_NAMES = 60, 3
# Names that say nothing without the folder they are in, or nothing at all.
_PARTS = {"train", "val", "validation", "test", "images", "data"}
_SILENT = {"export"}
_SUFFIXES = {".parquet", ".yaml", ".yml", ".json", ".csv", ".tsv", ".txt", ".safetensors", ".pt", ".pth"}


def derived(folder: str, *sources: object) -> Path:
    """Return where a command puts what it makes of these, in a folder of the working directory.

    Args:
        sources: paths, URLs, or names such as ``timm:resnet50``; those beyond the third are counted.
    """
    names = list(dict.fromkeys(name_of(source) for source in sources))
    more = [f"{len(names) - MAX_NAMES + 1}-more"] if len(names) > MAX_NAMES else []
    name = "+".join(names[: MAX_NAMES - len(more)] + more)[:MAX_CHARS].rstrip("-+.")
    return Path(folder) / (f"{name}-given" if name == RESERVED else name)


def name_of(source: object) -> str:
    """Return one word for a path, URL or name: ``imagenet-train`` for ``/sets/imagenet/train/``."""
    text = str(source).rpartition("://")[2]
    parts = _words(Path(text).parts) or _words(Path(text).absolute().parts)  # of `.` by the folder that it is
    if not parts:
        return "given"
    kept = parts[-2:] if parts[-1] in _PARTS else parts[-1:]
    return "-".join(kept)


def _words(parts: Iterable[str]) -> list[str]:
    """Return the parts of a path as words of letters, digits and ``_ . -``, without suffixes that say a form."""
    words = []
    for part in parts:
        stem = Path(part).stem if Path(part).suffix.lower() in _SUFFIXES else part
        words.append(re.sub(r"[^\w.]+", "-", stem).strip("-."))
    return [word for word in words if word and word not in _SILENT]

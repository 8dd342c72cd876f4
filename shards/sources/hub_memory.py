"""What the last start with a network learnt of a repository of the hub, kept beside its cache for starts without one.

In: a commit with its files, and the small files that every start asks for. Out: the same, from this disk. What cannot
be written is not kept, and what cannot be read is as if it were not there.
"""

from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, read_json, read_regular
from synclones.shards.sources.remote import RemoteFile

_FORMAT, _LISTING, _MAX_BYTES = 1, "hub.json", 2**30


class HubMemory:
    """The memory of one repository, as one URL names it."""

    def __init__(self, folder: Path | None):
        """``folder``: where it is kept; None keeps nothing."""
        self._folder = folder

    def keep(self, revision: str, files: dict[str, RemoteFile]) -> None:
        """Keep which files a commit has."""
        self._write(
            _LISTING,
            canonical_json(
                {"format": _FORMAT, "revision": revision, "files": [list(astuple(file)) for file in files.values()]}
            ),
        )

    def listing(self) -> tuple[str, dict[str, RemoteFile]] | None:
        """Return the commit of the last start with a network, and its files."""
        if self._folder is None:
            return None
        try:
            stated = read_json(self._folder / _LISTING, max_bytes=_MAX_BYTES)
            revision, files = stated["revision"], [RemoteFile(*entry) for entry in stated["files"]]
            sound = stated["format"] == _FORMAT and type(revision) is str and all(map(_is_sound, files))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (revision, {file.name: file for file in files}) if sound else None

    def keep_small(self, file: RemoteFile, data: bytes) -> None:
        """Keep the content of a small file."""
        self._write(f"small-{file.key}", data)

    def small(self, file: RemoteFile) -> bytes | None:
        """Return the content of a small file of this size and state."""
        if self._folder is None:
            return None
        with suppress(OSError, ValueError):
            data = read_regular(self._folder / f"small-{file.key}")
            return data if len(data) == file.size else None
        return None

    def _write(self, name: str, data: bytes) -> None:
        if self._folder is None:
            return
        with suppress(OSError):
            path = self._folder / name
            if not path.is_file() or path.read_bytes() != data:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, data)


def _is_sound(file: RemoteFile) -> bool:
    return type(file.size) is int and all(type(text) is str for text in (file.name, file.sha256, file.version))

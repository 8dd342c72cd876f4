"""Google Cloud Storage, through gcsfs. Tried against an imitation of its API, not against Google's servers.

In: ``gs://bucket/prefix``. Out: an `ObjectStore`. gcsfs itself tries six times, and compares md5 sums.
"""

from pathlib import Path
from typing import Any

from synclones.shards.stores.store import PART_BYTES, ObjectStore

MODULE, COPY = "gcsfs", "gcloud storage rsync -r"


class GoogleStore(ObjectStore):
    """Google Cloud Storage. Its unfinished uploads cannot be listed; they expire after a week."""

    clients = frozenset({"gcsfs", "google", "aiohttp", "requests", "fsspec"})

    def __init__(self, url: str):
        from gcsfs.core import GCSFileSystem

        # The plain class: the one that gcsfs exports asks over gRPC, at every start, what kind of bucket it is.
        filesystem = GCSFileSystem(skip_instance_cache=True, use_listings_cache=False, consistency="md5")
        super().__init__(url, filesystem)

    def _version(self, info: dict[str, Any]) -> str:
        return str(info["generation"])

    def _replace(self, name: str, data: bytes, version: str) -> Any:
        # gcsfs writes on no condition but absence: of those who see one version, one removes it, and one creates.
        bucket, key, _ = self._fs.split_path(self._path(name))
        self._call(name, self._fs.call, "DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=version)
        self._call(name, self._fs.pipe_file, self._path(name), data, mode="create")

    def _create_file(self, name: str, path: Path, sha256: str) -> None:
        self._call(
            name,
            self._fs.put_file,
            str(path),
            self._path(name),
            mode="create",
            chunksize=PART_BYTES,
            metadata={"sha256": sha256},
        )

    def _facts(self, name: str) -> tuple[int, str, str]:
        info = self._call(name, self._fs.info, self._path(name))
        return info["size"], (info.get("metadata") or {}).get("sha256", ""), ""


def open_url(url: str) -> GoogleStore:
    """Return the store at ``gs://bucket/prefix``."""
    return GoogleStore(url)

"""Amazon S3, and the stores that speak its language (``AWS_ENDPOINT_URL`` names them), through s3fs.

In: ``s3://bucket/prefix``. Out: an `ObjectStore`. Credentials: where boto finds them (environment, profile, role).
"""

import base64
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from synclones.shards.stores.store import PART_BYTES, PARTS_AT_ONCE, TRIES, Missing, ObjectStore, Upload

MODULE, COPY = "s3fs", "aws s3 sync"


class S3Store(ObjectStore):
    """Amazon S3, or a store that speaks its language at ``AWS_ENDPOINT_URL``."""

    clients = frozenset({"s3fs", "aiobotocore", "botocore", "aiohttp", "fsspec"})

    def __init__(self, url: str):
        import s3fs

        retries = {"mode": "standard", "total_max_attempts": TRIES}
        filesystem = s3fs.S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, config_kwargs={"retries": retries, "read_timeout": 60}
        )
        filesystem.retries = 1  # botocore has tried again already
        super().__init__(url, filesystem)
        self._bucket, _, self._prefix = self._root.partition("/")

    def _version(self, info: dict[str, Any]) -> str:
        return str(info["ETag"])

    def _written(self, name: str, data: bytes, answer: Any) -> str | None:
        return str(answer["ETag"])

    def _replace(self, name: str, data: bytes, version: str) -> Any:
        return self._call(name, self._fs.pipe_file, self._path(name), data, IfMatch=version)

    def _create_file(self, name: str, path: Path, sha256: str) -> None:
        self._call(
            name,
            self._fs.put_file,
            str(path),
            self._path(name),
            mode="create",
            chunksize=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
            Metadata={"sha256": sha256},
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),  # of one request; parts have crc32s
        )

    def _facts(self, name: str) -> tuple[int, str, str]:
        key = f"{self._prefix}/{name}"
        head = self._call(name, self._fs.call_s3, "head_object", Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        computed = head.get("ChecksumSHA256", "")
        whole = base64.b64decode(computed).hex() if computed and "-" not in computed else ""
        return head["ContentLength"], head.get("Metadata", {}).get("sha256", ""), whole

    def uploads(self) -> list[Upload]:
        """List multipart uploads under the prefix that nobody completed, a thousand a request."""
        uploads, marker, more = [], dict[str, str](), True
        while more:
            page = self._call(
                "", self._fs.call_s3, "list_multipart_uploads", Bucket=self._bucket, Prefix=f"{self._prefix}/", **marker
            )
            for upload in page.get("Uploads", []):
                name = upload["Key"].removeprefix(f"{self._prefix}/")
                uploads.append(Upload(name, upload["Initiated"], partial(self._abort, name, upload["UploadId"])))
            marker = {"KeyMarker": page.get("NextKeyMarker", ""), "UploadIdMarker": page.get("NextUploadIdMarker", "")}
            more = page.get("IsTruncated", False)
        return uploads

    def _abort(self, name: str, upload_id: str) -> None:
        where = {"Bucket": self._bucket, "Key": f"{self._prefix}/{name}", "UploadId": upload_id}
        with suppress(Missing):  # completed or aborted since
            self._call(name, self._fs.call_s3, "abort_multipart_upload", **where)


def open_url(url: str) -> S3Store:
    """Return the store at ``s3://bucket/prefix``."""
    return S3Store(url)

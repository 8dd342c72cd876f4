"""A Google Cloud Storage on the loopback interface: as much of its JSON API as gcsfs asks for.

In: requests of the real client. Out: objects in memory with generations; uploads in one request or in parts; listings
of a thousand a page; ``ifGenerationMatch``. `GoogleServer.fail` lets requests fail.
"""

import base64
import hashlib
import itertools
import json
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from loopback import LoopbackServer

PAGE = 1000


class GoogleServer(LoopbackServer):
    """The server; ``with GoogleServer() as server`` runs it.

    Attributes:
        buckets: bucket -> key -> what is stored.
        uploads: identifier -> an upload that nobody completed yet.
    """

    def __init__(self):
        super().__init__()
        self.buckets, self.uploads, self.seen, self.failing = {}, {}, [], []
        self.numbers = itertools.count(1)

    def fail(self, count: int, *statuses: int) -> None:
        """Let the next ``count`` requests fail; the statuses take turns."""
        self.failing = list(itertools.islice(itertools.cycle(statuses or (503,)), count))

    def requests(self) -> list[list[str]]:
        """[method, path, query] of all requests since the last call."""
        seen, self.seen = self.seen, []
        return seen

    def answer(self, method, url, headers, body):
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.seen.append([method, unquote(parts.path), parts.query])
        if self.failing:
            return self.failing.pop(0), {"error": {"message": "try again"}}, {}
        if parts.path.startswith("/sessions/"):
            return self._part(method, parts.path.removeprefix("/sessions/"), headers, body)
        found = re.fullmatch(r"/(upload/|download/)?storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?)?", parts.path)
        kind, bucket, key = found[1], self.buckets.get(found[2]), unquote(found[3] or "")
        if bucket is None:
            return _error(404)
        if kind == "upload/":
            return self._upload(bucket, query, headers, body)
        if not key:
            return self._list(bucket, query)
        if key not in bucket:
            return _error(404)
        if query.get("ifGenerationMatch", bucket[key]["generation"]) != bucket[key]["generation"]:
            return _error(412)
        if method == "DELETE":
            del bucket[key]
            return 204, b"", {}
        data = bucket[key]["data"]
        return _media(data, headers) if kind or query.get("alt") == "media" else (200, _facts(key, bucket[key]), {})

    def _list(self, bucket, query):
        keys = sorted(
            key for key in bucket if key.startswith(query.get("prefix", "")) and key > query.get("pageToken", "")
        )
        page = keys[: min(PAGE, int(query.get("maxResults", PAGE)))]
        more = {"nextPageToken": page[-1]} if len(keys) > len(page) else {}
        return 200, {"kind": "storage#objects", "items": [_facts(key, bucket[key]) for key in page], **more}, {}

    def _upload(self, bucket, query, headers, body):
        if query["uploadType"] == "resumable":
            identifier = str(next(self.numbers))
            self.uploads[identifier] = {"bucket": bucket, "query": query, "about": json.loads(body), "data": b""}
            return 200, b"", {"Location": f"{self.url}/sessions/{identifier}"}
        mark = b"--" + headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
        _, about, media = body.split(mark, 2)
        about = about.partition(b"\n\n")[2]
        media = media.partition(b"\n\n")[2].removesuffix(b"\n" + mark + b"--")
        return self._store(bucket, query, json.loads(about), media)

    def _part(self, method, identifier, headers, body):
        upload = self.uploads.get(identifier)
        if upload is None:
            return _error(404)
        if method == "DELETE":
            del self.uploads[identifier]
            return 499, b"", {}
        first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers["Content-Range"]).groups())
        assert first == len(upload["data"]), "parts come in order"
        upload["data"] += body
        if last + 1 < size:
            return 308, b"", {"Range": f"bytes=0-{last}"}
        del self.uploads[identifier]
        return self._store(upload["bucket"], upload["query"], upload["about"], upload["data"])

    def _store(self, bucket, query, about, data):
        key = about["name"]
        if query.get("ifGenerationMatch") == "0" and key in bucket:
            return _error(412)
        generation = str(next(self.numbers))
        bucket[key] = {"data": data, "generation": generation, "metadata": about.get("metadata", {})}
        return 200, _facts(key, bucket[key]), {}


def _facts(key, stored):
    md5 = base64.b64encode(hashlib.md5(stored["data"]).digest()).decode()
    named = {name: stored[name] for name in ("generation", "metadata")}
    return {"name": key, "size": str(len(stored["data"])), "md5Hash": md5, **named}


def _media(data, headers):
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or "")
    if not asked:
        return 200, data, {}
    first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if first >= len(data):
        return _error(416)
    return 206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"}


def _error(status):
    return status, {"error": {"code": status, "message": "no"}}, {}

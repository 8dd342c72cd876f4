"""A Hugging Face Hub on the loopback interface: as much of its protocol as uploading and reading a dataset takes.

In: requests of the real client. Out: repositories in memory, and the list of requests. Contents travel inside commits,
or with ``large`` set by the LFS protocol; the chunked protocol of xet storage is not here.
"""

import base64
import hashlib
import json
import re

import yaml
from loopback import LoopbackServer

TOKEN = "hf_EXAMPLEexampleEXAMPLEexample"


class Hub(LoopbackServer):
    """The server; ``with Hub() as hub`` runs it.

    Attributes:
        repositories: name -> {"private": ..., "files": name -> bytes}.
        refuse: (method, path) -> status with which a request fails, or None.
        large: suffixes of files that go by LFS.
        commits: (repository, commit) -> its files, where they differ from the newest ones.
    """

    def __init__(self):
        super().__init__()
        self.repositories, self.objects, self.requests, self.commits = {}, {}, [], {}
        self.refuse, self.large = lambda method, path: None, ()

    def answer(self, method, path, headers, body):
        self.requests.append((method, path, headers.get("Authorization", "")))
        status = self.refuse(method, path)
        if status:
            return status, {"error": "Forbidden: not on this hub"}, {}
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        path = path.partition("?")[0]
        resolved = re.fullmatch(r"/datasets/([\w-]+/[\w-]+)/resolve/(\w+)/(.+)", path)
        if resolved:
            return self._resolve(*resolved.groups())
        asked = [json.loads(line) for line in body.splitlines()]
        if path == "/api/repos/create":
            return self._create(asked[0])
        if path == "/api/validate-yaml":
            front = yaml.safe_load(asked[0]["content"].split("---")[1])
            return (200, {}, {}) if isinstance(front, dict) else (400, {"errors": [{"message": "no front matter"}]}, {})
        found = re.fullmatch(r"/(?:api/)?datasets/([\w-]+/[\w-]+)(?:\.git)?(/.*)?", path)
        repository = self.repositories.get(found[1])
        if repository is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if "/info/lfs/" in path:
            return self._batch(asked)
        answers = {"": self._info, "revision": self._info, "preupload": self._preupload, "commit": self._commit}
        verb, _, rest = (found[2] or "/").removeprefix("/").partition("/")
        if verb == "revision" and rest not in ("main", "0" * 40, *(commit for _, commit in self.commits)):
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        return answers[verb](repository, found[1], asked)

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this dataset repo", "url": f"{self.url}/datasets/{name}"}, {}
        self.repositories[name] = {"private": asked["visibility"] == "private", "files": {}}
        return 200, {"url": f"{self.url}/datasets/{name}"}, {}

    def _info(self, repository, name, asked):
        files = [
            {"rfilename": file, "size": len(data), "blobId": _oid(data, "regular")}
            for file, data in repository["files"].items()
        ]
        return 200, {"id": name, "sha": "0" * 40, "private": repository["private"], "siblings": files, "tags": []}, {}

    def _resolve(self, name, commit, file):
        files = self.commits.get((name, commit), self.repositories[name]["files"])
        if file not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        data = files[file]
        return 200, data, {"ETag": f'"{_oid(data, "regular")}"', "X-Repo-Commit": commit}

    def _preupload(self, repository, name, asked):
        def describe(file):
            there = repository["files"].get(file["path"])
            mode = "lfs" if file["path"].endswith(self.large or ("?",)) else "regular"
            oid = None if there is None else _oid(there, mode)
            return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        return 200, {"files": [describe(file) for file in asked[0]["files"]]}, {}

    def _batch(self, asked):
        def describe(one):
            actions = {} if one["oid"] in self.objects else {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}
            return {**one, **({"actions": actions} if actions else {})}

        return 200, {"transfer": "basic", "objects": [describe(one) for one in asked[0]["objects"]]}, {}

    def _commit(self, repository, name, asked):
        for line in asked[1:]:
            file = line["value"]
            if line["key"] == "lfsFile":
                data = self.objects[file["oid"]]
                assert hashlib.sha256(data).hexdigest() == file["oid"] and len(data) == file["size"]
            else:
                data = base64.b64decode(file["content"])
            repository["files"][file["path"]] = data
        return 200, {"commitUrl": f"{self.url}/datasets/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}, {}


def _oid(data: bytes, mode: str) -> str:
    """What git calls a file, or LFS."""
    return (
        hashlib.sha256(data).hexdigest() if mode == "lfs" else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    )

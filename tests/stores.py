"""The object stores of the tests: servers on the loopback interface, and an empty prefix in them."""

import hashlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import fsspec.config
import pytest
from gs_server import GoogleServer

from synclones.shards.stores.store import open_store

SECRET = "s3cr3t/Example+Key"


class Server:
    """The S3 server of a test session, as seen from a test."""

    def __init__(self, port: str):
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def fail(self, count: int, *statuses: int, every: int = 1) -> None:
        """Let ``count`` of the next requests fail, each of them or each ``every``-th."""
        asked = "&".join(f"status={status}" for status in statuses or (503,))
        urllib.request.urlopen(f"{self.url}/-/faults?{asked}&count={count}&every={every}", data=b"").read()

    def requests(self) -> list[list[str]]:
        """[method, path, query] of all requests since the last call."""
        return json.loads(urllib.request.urlopen(f"{self.url}/-/requests").read())


@pytest.fixture(scope="session")
def server():
    script = str(Path(__file__).with_name("s3_server.py"))
    process = subprocess.Popen([sys.executable, script], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True)
    yield Server(process.stdout.readline().strip())
    process.communicate()


@pytest.fixture
def store(server, monkeypatch, request):
    """An empty prefix in a bucket of its own."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = "t" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    opened = open_store(f"s3://{bucket}/sets/x")
    opened._fs.call_s3("create_bucket", Bucket=bucket)
    server.requests()
    yield opened
    server.fail(0)


@pytest.fixture(scope="session")
def gs_server():
    with GoogleServer() as running:
        yield running


@pytest.fixture
def gs_store(gs_server, monkeypatch, request):
    """An empty prefix in a bucket of an imitated Google Cloud Storage."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server.url)
    monkeypatch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
    bucket = "t" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    gs_server.buckets[bucket] = {}
    gs_server.requests()
    yield open_store(f"gs://{bucket}/sets/x")
    gs_server.fail(0)


@pytest.fixture(params=["s3", "gs"])
def any_store(request):
    """An empty prefix in each kind of store."""
    return request.getfixturevalue({"s3": "store", "gs": "gs_store"}[request.param])


def visible(store) -> dict[str, str]:
    """name -> sha256 of the objects that belong to the identity set."""
    kept = ("train-", "info.json", "sizes.json", "SHA256SUMS", "plan.json")
    names = [name for name in store.listing() if name.startswith(kept)]
    return {name: hashlib.sha256(data).hexdigest() for name, data in store.read_many(names).items()}

"""Google Cloud Storage, imitated: what is visible is whole, and a set in it is the local one."""

import hashlib
import os

import pytest
from conftest import QUICK, identity
from stores import visible

import synclones.shards.stores.gs as remote_gs
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.run import main as generate
from synclones.shards.run import main as shards
from synclones.shards.stores.store import open_store

IN_PARTS = 6 << 20  # gcsfs sends files of less than 5 MiB as one request


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(remote_gs, "PART_BYTES", 1 << 20)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [3000, IN_PARTS])
def test_a_file_becomes_an_object_once_and_whole(gs_store, gs_server, tmp_path, size):
    path, other = tmp_path / "t.tar", tmp_path / "other.tar"
    path.write_bytes(os.urandom(size))
    other.write_bytes(os.urandom(size))
    gs_server.requests()
    assert gs_store.create_file("t.tar", path, digest(path.read_bytes()))
    parts = [url for _, url, _ in gs_server.requests() if url.startswith("/sessions/")]
    assert len(parts) == (6 if size == IN_PARTS else 0)
    assert gs_store.read("t.tar") == path.read_bytes() and gs_store.listing() == {"t.tar": size}
    assert gs_store.create_file("t.tar", path, digest(path.read_bytes())), "the same bytes again are fine"
    assert not gs_store.create_file("t.tar", other, digest(other.read_bytes()))
    assert gs_store.read("t.tar") == path.read_bytes()
    gs_store.fetch("t.tar", tmp_path / "back", size)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert gs_store.read_range("t.tar", 1000, 50) == path.read_bytes()[1000:1050]
    gs_store.remove("t.tar")
    gs_store.remove("t.tar")
    assert gs_store.listing() == {}


class Interrupted(Exception):
    """The fault of the next test."""


def test_an_exception_within_an_upload_leaves_nothing_visible_and_nothing_behind(
    gs_store, gs_server, tmp_path, monkeypatch
):
    path = tmp_path / "t.tar"
    path.write_bytes(os.urandom(IN_PARTS))
    call, parts = gs_store._fs._call, []

    async def calling(method, path, *args, **kwargs):
        parts.extend([path] if method == "POST" and "/sessions/" in path else [])
        if len(parts) == 4:
            assert len(gs_server.uploads) == 1
            parts.append("interrupted")
            raise Interrupted
        return await call(method, path, *args, **kwargs)

    monkeypatch.setattr(gs_store._fs, "_call", calling)
    with pytest.raises(Interrupted):
        gs_store.create_file("t.tar", path, digest(path.read_bytes()))
    monkeypatch.setattr(gs_store._fs, "_call", call)
    assert gs_server.uploads == {} and gs_store.listing() == {}


def test_other_bytes_than_were_sent_are_found(gs_store, gs_server, tmp_path, monkeypatch):
    path, store = tmp_path / "t.tar", gs_server._store
    path.write_bytes(b"right")
    monkeypatch.setattr(gs_server, "_store", lambda bucket, query, about, data: store(bucket, query, about, b"wrong"))
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", no_sleep)
    with pytest.raises(MachineError, match="t.tar: MD5 checksum failed"):
        gs_store.create_file("t.tar", path, digest(b"right"))


async def no_sleep(_):
    pass


def test_more_than_a_thousand_objects_are_listed_a_thousand_a_request(gs_store, gs_server):
    bucket = gs_server.buckets[gs_store.url.split("/")[2]]
    entry = {"data": b"{}", "generation": "1", "metadata": {}}
    bucket.update({f"sets/x/train-{number:05d}.json": entry for number in range(1003)})
    bucket["sets/x-other/train-00000.json"] = entry
    assert len(gs_store.listing()) == 1003
    lists = [query for method, path, query in gs_server.requests() if path.endswith("/o")]
    assert len(lists) == 2 and "pageToken" in lists[1]


def test_transient_errors_are_tried_again(gs_store, gs_server, monkeypatch):
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", no_sleep)
    gs_server.fail(3, 500, 503, 429)
    assert gs_store.create("a", b"x")
    gs_server.fail(2, 503)
    assert gs_store.listing() == {"a": 1}
    gs_server.fail(100, 503)
    with pytest.raises(MachineError, match="sets/x/a: .*run the same command again to resume"):
        gs_store.put("a", b"y")


def test_a_bucket_that_is_not_there_is_named(gs_store):
    with pytest.raises(InputError, match="gs://none/x: no bucket 'none'; make it, or check its name"):
        open_store("gs://none/x").listing()


def test_the_set_in_the_store_is_the_local_one_and_checked_where_it_is(gs_store, prompts, dataset, tmp_path, capsys):
    command = ["--prompts", str(prompts), "--out", gs_store.url, "--work", str(tmp_path / "w"), *QUICK]
    generate(command)
    assert visible(gs_store) == identity(dataset)
    others = {name for name in gs_store.listing() if name not in identity(dataset) and not name.startswith("log/")}
    assert others == {"README.md", "config.yaml", "croissant.json", "manifest.json", "preview.html"}
    generate(command)
    shards(["verify", gs_store.url])
    generate(["redraw", gs_store.url, "--index", "33"])
    printed = capsys.readouterr()
    assert "complete, 60 images; nothing to do" in printed.err and "ok: 3 shards, 60 samples" in printed.out
    assert "image 33: seed" in printed.out and "drawn again, the same" in printed.out
    data = bytearray(gs_store.read("train-00001.tar"))
    data[5000] ^= 1
    gs_store.put("train-00001.tar", bytes(data))
    with pytest.raises(VerificationError, match=f"^{gs_store.url}/train-00001.tar: damaged, first in sample 00000000"):
        shards(["verify", gs_store.url])

"""Object stores: what is visible is whole, a shard has one owner, and the set has the bytes of a local one."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import NOTES, QUICK, ROOT, identity, run_command
from stores import SECRET, visible

import synclones.shards.stores.lease as leases
import synclones.shards.stores.s3 as remote_s3
import synclones.shards.stores.store as remote
from synclones.base.config import load, parse_duration
from synclones.base.errors import InputError, MachineError, Stopped, VerificationError
from synclones.generate.publish import Publisher
from synclones.generate.run import main as generate
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as shards
from synclones.shards.stores.lease import acquire, lease_name, read_holder
from synclones.shards.stores.store import Missing, Upload, open_store, store_url
from synclones.shards.tools.leftovers import in_folder, in_store

HARNESS = Path(__file__).with_name("remote_harness.py")


@pytest.fixture
def small_parts(monkeypatch):
    """Every file of 8 kB or more goes up in parts."""
    monkeypatch.setattr(remote_s3, "PART_BYTES", 4096)


# ------------------------------------------------------------------ the store


def test_an_object_is_created_once_and_replaced_only_by_who_saw_it_last(any_store):
    assert (first := any_store.create("a", b"one"))
    assert any_store.create("a", b"two") is None and any_store.read("a") == b"one"
    assert (second := any_store.replace("a", b"three", first))
    assert any_store.replace("a", b"four", first) is None and any_store.read("a") == b"three"
    assert second == any_store.version("a") != first
    assert any_store.replace("gone", b"x", first) is None
    assert not any_store.put_if_absent("a", b"five")


def test_an_answer_that_got_lost_does_not_make_its_object_somebody_elses(any_store):
    put = any_store._fs.pipe_file

    def put_and_lose_the_answer(*args, **kwargs):
        put(*args, **kwargs)
        return put(*args, **kwargs)  # what a client does that waited in vain: refused by its own first try

    any_store._fs.pipe_file = put_and_lose_the_answer
    version = any_store.create("a", b"mine")
    assert version and any_store.replace("a", b"mine again", version)


def test_more_than_a_thousand_objects_are_listed_a_thousand_a_request(store, server):
    store._fs.pipe({store._path(f"train-{number:05d}.json"): b"{}" for number in range(1003)})
    server.requests()
    assert len(store.listing()) == 1003
    lists = [query for method, _, query in server.requests() if method == "GET" and "list-type=2" in query]
    assert len(lists) == 2


@pytest.mark.parametrize("size", [3000, 30_000])
def test_a_file_becomes_an_object_once_and_whole(store, tmp_path, small_parts, size):
    path, other = tmp_path / "t.tar", tmp_path / "other.tar"
    path.write_bytes(os.urandom(size))
    other.write_bytes(os.urandom(size))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.create_file("t.tar", path, digest) and store.read("t.tar") == path.read_bytes()
    assert store.create_file("t.tar", path, digest), "the same bytes again are fine"
    assert not store.create_file("t.tar", other, hashlib.sha256(other.read_bytes()).hexdigest())
    assert store.read("t.tar") == path.read_bytes() and store.uploads() == []


class Interrupted(Exception):
    """The fault of the next tests."""


def break_off(store, monkeypatch, after: int) -> None:
    """Raise in the upload of the part after ``after`` good ones."""
    call, parts = store._fs._call_s3, []

    async def calling(method, *args, **kwargs):
        if method == "upload_part" and len(parts) == after:
            raise Interrupted
        parts.extend([method] if method == "upload_part" else [])
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(store._fs, "_call_s3", calling)


def test_an_exception_within_an_upload_leaves_nothing_visible_and_nothing_behind(store, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_s3, "PART_BYTES", 4096)
    monkeypatch.setattr(remote_s3, "PARTS_AT_ONCE", 1)
    path = tmp_path / "t.tar"
    path.write_bytes(os.urandom(30_000))
    break_off(store, monkeypatch, after=3)
    with pytest.raises(Interrupted):
        store.create_file("t.tar", path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert store.listing() == {} and store.uploads() == []


def test_a_naive_writer_leaves_a_short_object_visible_under_the_same_fault(store, tmp_path):
    data = os.urandom(30_000)
    with pytest.raises(Interrupted), store._fs.open(store._path("t.tar"), "wb") as file:
        file.write(data[:12_000])
        raise Interrupted
    assert store.listing() == {"t.tar": 12_000}


def test_other_bytes_than_were_sent_are_found(store, tmp_path, monkeypatch):
    path = tmp_path / "t.tar"
    path.write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    head = store._fs.call_s3

    def heading(method, **kwargs):
        return head(method, **kwargs) | {"ChecksumSHA256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}

    monkeypatch.setattr(store._fs, "call_s3", heading)
    with pytest.raises(MachineError, match="arrived, 5 with .* were sent"):
        store.create_file("t.tar", path, digest)
    assert store.listing() == {}


# ------------------------------------------------------------------ transient and lasting errors


@pytest.mark.parametrize("status", [500, 503, 0])
def test_transient_errors_are_tried_again(store, server, status):
    server.fail(2, status)
    assert store.create("a", b"x")
    server.fail(1, status)
    assert store.listing() == {"a": 1}


def test_lasting_errors_end_with_one_line_that_names_the_object(server, store, monkeypatch):
    monkeypatch.setattr(remote_s3, "TRIES", 2)
    again = open_store(store.url)
    server.requests()
    server.fail(100)
    with pytest.raises(MachineError, match=r"^s3://\w+/sets/x/plan.json: .*run the same command again to resume$") as e:
        again.put("plan.json", b"{}")
    assert len(server.requests()) == 2 and SECRET not in str(e.value)


def test_a_server_that_is_not_there_is_a_machine_error(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote_s3, "TRIES", 1)
    with pytest.raises(MachineError, match="Could not connect"):
        open_store(store.url).listing()


@pytest.mark.parametrize(
    "url, words",
    [
        ("s3://bucket", "expected s3://bucket/prefix"),
        ("ftp://host/x", "ftp://: is no store with conditional writes"),
        ("s3://key:secret@bucket/x", "credentials and options belong into the environment"),
        ("s3://no-such-bucket-here/x", "no bucket 'no-such-bucket-here'"),
        ("gs://bucket/x", r"needs gcsfs; run `pip install 'synclones\[gs\]'`"),
    ],
)
def test_a_wrong_place_is_refused_before_a_model_loads(store, prompts, monkeypatch, url, words):
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", None)
    found = remote.find_spec
    monkeypatch.setattr(remote, "find_spec", lambda name: None if name == "gcsfs" else found(name))
    with pytest.raises(InputError, match=words) as refused:
        generate(["--prompts", str(prompts), "--out", url, *QUICK])
    assert "secret" not in str(refused.value)


def test_without_credentials_the_line_says_so(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="Unable to locate credentials; check the bucket's name, the credentials"):
        open_store(store.url).listing()


def test_a_denial_is_input_before_the_first_write_and_the_machine_after_it(store, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store._fs, "pipe_file", denied)
    with pytest.raises(InputError, match="Access Denied"):
        store.put("a", b"x")
    monkeypatch.undo()
    store._has_written = True
    monkeypatch.setattr(store._fs, "pipe_file", denied)
    with pytest.raises(MachineError, match="Access Denied"):
        store.put("a", b"x")


@pytest.mark.parametrize(
    "written, url",
    [
        ("s3://b/x", "s3://b/x"),
        (Path("s3://b/x/"), "s3://b/x"),
        (Path("gs:/b/x"), "gs://b/x"),
        (Path("data/x"), None),
        (Path("C:/x"), None),
        (Path("/a:/b"), None),
    ],
)
def test_a_url_is_told_from_a_path(written, url):
    assert store_url(written) == url


@pytest.mark.parametrize(
    "command",
    [
        lambda url: shards(["finish", url]),
        lambda url: shards(["dedup", url]),
        lambda url: ShardFolder(url),
    ],
)
def test_what_reads_from_a_disk_only_says_how_to_get_a_set_there(command):
    with pytest.raises(InputError, match="aws s3 sync s3://b/x data/x"):
        command("s3://b/x")


def test_flags_of_the_other_place_are_refused(store, prompts, tmp_path):
    for flags in (["--steal-lease"], ["--work", str(tmp_path)]):
        with pytest.raises(InputError, match="are for a URL as --out"):
            generate(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, *flags])
    with pytest.raises(InputError, match="--extend is for folders"):
        generate(["--prompts", str(prompts), "--out", store.url, *QUICK, "--extend"])


# ------------------------------------------------------------------ leases


def test_of_many_who_want_a_lease_one_gets_it(any_store):
    got, start = [], threading.Barrier(6)

    def want(number):
        start.wait()
        got.append(acquire(any_store, "train-00000", f"machine {number}"))

    threads = [threading.Thread(target=want, args=(n,)) for n in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    held = [lease for lease in got if lease is not None]
    assert len(held) == 1
    held[0].release()
    assert any_store.listing() == {}


def with_heartbeat(store, seconds_ago: float, owner: str = "elsewhere") -> None:
    record = {"owner": owner, "host": "node7", "pid": 4711, "heartbeat": time.time() - seconds_ago}
    store.put(lease_name("train-00000"), json.dumps(record).encode())


def test_a_live_lease_is_left_and_a_stale_one_taken_over_by_one(any_store):
    with_heartbeat(any_store, 300)
    assert acquire(any_store, "train-00000", "here") is None
    with_heartbeat(any_store, leases.STALE_S + 1)
    first, second = acquire(any_store, "train-00000", "here"), acquire(any_store, "train-00000", "there")
    assert first is not None and second is None
    with first:
        assert read_holder(any_store, "train-00000").owner == "here"
    assert any_store.listing() == {}


def test_of_two_who_see_the_same_stale_lease_one_takes_it(any_store):
    with_heartbeat(any_store, 3600)
    seen = any_store.version(lease_name("train-00000"))
    assert any_store.replace(lease_name("train-00000"), b"first", seen)
    assert any_store.replace(lease_name("train-00000"), b"second", seen) is None


def test_a_live_lease_can_be_stolen_and_its_holder_learns_it(any_store):
    robbed = acquire(any_store, "train-00000", "here")
    assert acquire(any_store, "train-00000", "there") is None
    thief = acquire(any_store, "train-00000", "there", steal=True)
    assert thief is not None and not robbed.renew() and robbed.lost.is_set()
    robbed.release()
    assert read_holder(any_store, "train-00000").owner == "there", (
        "the robbed one does not remove what it no longer has"
    )
    thief.release()


def test_the_lease_of_a_dead_process_of_this_work_folder_is_taken_over_at_once(any_store):
    with_heartbeat(any_store, 1, owner="this folder")
    lease = acquire(any_store, "train-00000", "this folder")
    assert lease is not None
    lease.release()


def test_a_lease_is_renewed_while_it_is_held(any_store, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 0.05)

    def heartbeat() -> float:
        """The last beat; Google's store has no lease for a moment while it is replaced."""
        for _ in range(200):
            with contextlib.suppress(Missing):
                return read_holder(any_store, "train-00000").heartbeat
            time.sleep(0.01)
        pytest.fail("the lease stays away")

    with acquire(any_store, "train-00000", "here") as lease:
        before, until = heartbeat(), time.monotonic() + 20
        while heartbeat() == before and time.monotonic() < until:
            time.sleep(0.02)
        assert heartbeat() > before and not lease.lost.is_set()
    with pytest.raises(Missing):
        read_holder(any_store, "train-00000")


# ------------------------------------------------------------------ generation


def test_the_set_in_the_store_is_the_local_one(store, server, prompts, dataset, tmp_path, small_parts, capfd):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path / "w"), *QUICK]
    generate(command)
    assert visible(store) == identity(dataset)
    others = {"README.md", "config.yaml", "croissant.json", "manifest.json", "preview.html"}
    rest = {name for name in store.listing() if name not in identity(dataset)}
    assert {name for name in rest if not name.startswith("log/")} == others and store.uploads() == []
    manifest = json.loads(store.read("manifest.json"))
    assert manifest["counts"]["ok"] == 60 and manifest["config"]["out"] == store.url
    assert manifest["times"]["process_starts"] == 1 and manifest["bytes"] == "reproduced"
    assert f"out: {store.url}\n" in store.read("config.yaml").decode()
    left = [path.name for path in (tmp_path / "w").glob("*/*") if path.name not in ("log", ".owner")]
    assert left == [], "nothing but logs is left in the work folder"
    assert any("uploadId" in query for _, _, query in server.requests()), "the tars went up in parts"
    generate(command)
    shown = "".join(capfd.readouterr()) + "".join(data.decode("latin1") for data in store.read_many(rest).values())
    assert "complete, 60 images; nothing to do" in shown and SECRET not in shown


def test_a_stopped_set_of_a_store_goes_on_by_the_command_that_is_printed(
    store, prompts, dataset, tmp_path, monkeypatch
):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path / "w"), *QUICK, "--workers", "1"]
    with monkeypatch.context() as patch, pytest.raises(MachineError) as stopped:
        patch.setattr(Publisher, "_publish", lambda *_: _raise(OSError(28, "No space left on device", "x")))
        generate(command)
    (printed,) = re.findall("`synclones generate (.*)`", str(stopped.value))
    with pytest.raises(
        VerificationError, match=rf"^{store.url}: unfinished, 0 of 3 .*config.yaml copied from {store.url}$"
    ):
        shards(["verify", store.url])
    generate(shlex.split(printed))
    assert visible(store) == identity(dataset)


def _raise(error):
    raise error


def figures(page: bytes) -> list[str]:
    return re.findall("<figure.*?</figure>", page.decode())


def at_once(monkeypatch):
    """Sheets are written whenever somebody looks."""
    monkeypatch.setattr("synclones.generate.preview.stored.EVERY_S", 0.0)
    monkeypatch.setattr("synclones.generate.preview.stored.MAX_SHARE", float("inf"))


def test_the_contact_sheet_grows_with_the_set_and_is_the_local_one_at_the_end(
    store, prompts, dataset, tmp_path, monkeypatch
):
    publish, early = Publisher._publish, []

    def waiting(self, files, lease):
        until = time.monotonic() + 60
        while files.name == "train-00002" and not early and time.monotonic() < until:
            early.extend(store.read_many(store.listing("preview.html")).values())
        return publish(self, files, lease)

    monkeypatch.setattr(Publisher, "_publish", waiting)
    at_once(monkeypatch)
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK, "--workers", "1"]
    generate(command)
    assert b"images so far, 60 planned" in early[0] and early[0].endswith(b"</html>\n")
    page, local = store.read("preview.html"), (dataset / "preview.html").read_bytes()
    assert len(figures(page)) > len(figures(early[0])) > 0
    assert figures(page) == figures(local) and b"so far" not in page and b'<svg class="rate"' in page


@pytest.mark.parametrize("error", [MachineError("the store is silent"), OSError("no room"), VerificationError("bad")])
def test_a_contact_sheet_that_fails_stops_nothing(store, monkeypatch, error):
    from synclones.generate.preview.stored import StoredPreview

    at_once(monkeypatch)
    asked = []
    monkeypatch.setattr(store, "listing", lambda *_: asked.append(_) or raising(error))
    preview = StoredPreview(store, None, {})
    preview.refresh()
    monkeypatch.setattr(store, "listing", lambda *_: raising(Stopped(15, "run it again")))
    with pytest.raises(Stopped):
        preview.refresh()
    preview.close()
    assert asked


def raising(error):
    raise error


def test_an_early_contact_sheet_does_not_replace_the_last_one(store, dataset, monkeypatch):
    from synclones.generate.plan import read_plan
    from synclones.generate.preview.stored import StoredPreview

    at_once(monkeypatch)
    for path in dataset.glob("train-00000.*"):
        store.put(path.name, path.read_bytes())
    store.put("preview.html", b"an earlier one")
    preview, listing = StoredPreview(store, read_plan(dataset), {}), store.listing

    def finished_meanwhile(*prefix):
        there = listing(*prefix)
        store.put("preview.html", b"the last one")
        return there

    monkeypatch.setattr(store, "listing", finished_meanwhile)
    preview.refresh()
    assert store.read("preview.html") == b"the last one"
    preview.close()
    monkeypatch.setattr(store, "listing", listing)
    preview = StoredPreview(store, read_plan(dataset), {})
    preview.refresh()
    preview.close()
    assert b"20 images so far, 60 planned" in store.read("preview.html"), "and without that it is written"


def test_a_store_that_falters_all_the_time_gets_the_same_set(store, server, prompts, dataset, tmp_path, small_parts):
    server.fail(1000, 500, 503, 0, every=7)
    generate(["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK])
    server.fail(0)
    assert visible(store) == identity(dataset)
    assert not [name for name in store.listing() if name.startswith(".leases/")]


def test_a_copy_of_the_set_is_a_dataset_folder(store, prompts, tmp_path):
    generate(["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path / "w"), *QUICK])
    for name, data in store.read_many(store.listing()).items():
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    shards(["verify", str(tmp_path / "copy")])
    generate(["redraw", str(tmp_path / "copy"), "--index", "33"])


def test_a_stopped_process_gives_its_leases_back(store, prompts, dataset, tmp_path, monkeypatch):
    import synclones.generate.workers as drawing

    def stop_when_drawing(pool, jobs, stop, meanwhile):
        while not any(name.startswith(".leases/") for name in store.listing()):
            time.sleep(0.01)
        raise Stopped(15, "run the same command again to resume")

    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK, "--workers", "1"]
    monkeypatch.setattr(drawing, "_wait", stop_when_drawing)
    monkeypatch.setattr("synclones.generate.publish.acquire", once(acquire))
    with pytest.raises(Stopped):
        generate(command)
    assert not any(name.startswith(".leases/") for name in store.listing())


def test_a_lease_that_is_just_being_acquired_is_given_back_too(store, tmp_path, monkeypatch):
    """The store has it before the process knows: a stop in between left it to go stale."""
    in_store, go_on = threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        lease = acquire(*args, **kwargs)
        in_store.set()
        assert go_on.wait(10)
        return lease

    monkeypatch.setattr("synclones.generate.publish.acquire", slow)
    publisher = Publisher(store, None, tmp_path, steal_lease=False)
    holding = threading.Thread(target=publisher._acquire, args=("train-00000",))
    holding.start()
    assert in_store.wait(10) and list(store.listing(".leases/"))
    releasing = threading.Thread(target=publisher.release_leases)
    releasing.start()
    go_on.set()
    for thread in (holding, releasing):
        thread.join(10)
    assert not list(store.listing(".leases/"))
    assert publisher._acquire("train-00001") is None, "a process that stops acquires nothing more"
    assert not list(store.listing(".leases/"))


def once(function):
    """Gives the first lease only: the workers of a process that ends would die with it."""
    calls = []

    def asking(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs) if len(calls) == 1 else None

    return asking


def test_a_disk_that_loses_bytes_publishes_nothing(store, prompts, dataset, tmp_path, monkeypatch):
    publish = Publisher._publish

    def damaged(self, files, lease):
        with files.tar.open("r+b") as file:
            file.write(b"x")
        return publish(self, files, lease)

    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    with monkeypatch.context() as patch, pytest.raises(MachineError, match="gave back other bytes than were written"):
        patch.setattr(Publisher, "_publish", damaged)
        generate(command)
    assert not [name for name in store.listing() if name.startswith("train-")]
    generate(command)
    assert visible(store) == identity(dataset)


def test_a_start_asks_once_for_all_shards(store, server, prompts, tmp_path):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    generate([*command, "--plan-only"])
    plan = json.loads(store.read("plan.json"))
    assert plan["num_shards"] == 3 and "manifest.json" not in store.listing()
    for number in range(3):
        for kind in ("tar", "parquet", "json"):
            store.put(f"train-{number:05d}.{kind}", b"{}")
    store.put("manifest.json", b"{}")
    server.requests()
    generate(command)
    assert not [path for _, path, _ in server.requests() if "train-" in path]


def test_another_plan_is_refused_with_the_difference(store, prompts, tmp_path):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK, "--plan-only"]
    generate(command)
    with pytest.raises(InputError, match=r"made by another plan: seed 0 there, 7 asked; choose a new --out"):
        generate([*command, "--seed", "7"])
    store.remove("plan.json")
    with pytest.raises(InputError, match="holds 'README.md' but no plan.json; choose an empty prefix as --out"):
        generate(command)


def test_a_store_that_ignores_conditions_is_refused(store, prompts, tmp_path, monkeypatch):
    import s3fs

    conditional = s3fs.S3FileSystem._pipe_file

    async def pipe(self, path, data, mode="overwrite", **kwargs):
        return await conditional(self, path, data, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", pipe)
    monkeypatch.setattr(s3fs.S3FileSystem, "pipe_file", s3fs.core.sync_wrapper(pipe))
    with pytest.raises(InputError, match="the store ignores conditional writes"):
        generate(["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK])


def test_a_shard_in_other_hands_is_left_and_the_closing_line_names_its_holder(
    store, prompts, dataset, tmp_path, capsys
):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    with_heartbeat(store, 5)
    generate(command)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "1 shard left: train-00000 is held by host node7, pid 4711, last seen" in line
    assert "if it is dead, run with --steal-lease" in line and "manifest.json" not in store.listing()
    generate([*command, "--steal-lease"])
    assert visible(store) == identity(dataset) and lease_name("train-00000") not in store.listing()


def test_what_a_dead_machine_left_is_replaced(store, prompts, dataset, tmp_path):
    with_heartbeat(store, 3600)
    store._fs.call_s3("put_object", Bucket=store._bucket, Key=f"{store._prefix}/", Body=b"")  # a console's folder
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    generate([*command, "--plan-only"])
    store.put("train-00000.tar", b"drawn on another device")
    store.put("train-00002.json", b"of objects that somebody removed")
    generate(command)
    assert visible(store) == identity(dataset)


def test_whoever_lost_its_lease_while_drawing_publishes_nothing(store, prompts, dataset, tmp_path, monkeypatch):
    publish = Publisher._publish

    def robbed(self, files, lease):
        if files.name == "train-00001":
            store.put(lease_name(files.name), b'{"owner": "thief", "host": "node8", "pid": 1, "heartbeat": 9e9}')
        return publish(self, files, lease)

    monkeypatch.setattr(Publisher, "_publish", robbed)
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    generate(command)
    assert {name for name in store.listing() if name.startswith("train-00001")} == set()
    monkeypatch.setattr(Publisher, "_publish", publish)
    generate([*command, "--steal-lease"])
    assert visible(store) == identity(dataset)


def test_objects_that_differ_from_their_json_are_found_before_the_set_is_finished(store, prompts, tmp_path):
    command = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK]
    generate(command)
    store.remove("manifest.json")
    store.put("train-00002.tar", b"short")
    with pytest.raises(VerificationError, match=r"train-00002.tar: 5 bytes, \d+ are stated; remove train-00002.json"):
        generate(command)
    store.remove("train-00002.json")
    generate(command)
    assert json.loads(store.read("manifest.json"))["counts"]["ok"] == 60


def test_two_processes_make_the_local_set(store, server, prompts, dataset, tmp_path):
    flags = ["--prompts", str(prompts), "--out", store.url, "--work", str(tmp_path), *QUICK, "--workers", "1"]
    command = [sys.executable, str(ROOT / "generate" / "run.py"), *flags]
    processes = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}, stderr=-1, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert visible(store) == identity(dataset) and store.uploads() == []
    assert not [name for name in store.listing() if name.startswith(".leases/")]


@pytest.mark.parametrize("least", [5, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_generations_end_with_the_bytes_of_an_uninterrupted_one(store, prompts, tmp_path, least):
    command = (sys.executable, str(HARNESS), str(tmp_path), str(prompts), "20261121", store.url, str(least))
    done = run_command(*command, cwd=ROOT, timeout_s=500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    NOTES.append(f"kill -9 while drawing into S3, by phase: {result['kills']}; {result['sets']} sets, all equal")
    for phase in ("sampling", "part", "complete", "lease", "json"):
        assert result["kills"].get(phase, 0) > 0, result
    assert result["wrong"] == [] and result["unequal"] == 0 and result["sets"] > 0, result
    assert result["orphans"] > 0, "kills within uploads leave parts, which gc finds"


# ------------------------------------------------------------------ gc


def test_gc_finds_and_removes_uploads_that_nobody_completed(store, capsys):
    key = f"{store._prefix}/train-00000.tar"
    for name in (key, f"{store._prefix}-other/train-00000.tar"):
        upload = store._fs.call_s3("create_multipart_upload", Bucket=store._bucket, Key=name)
        store._fs.call_s3(
            "upload_part", Bucket=store._bucket, Key=name, UploadId=upload["UploadId"], PartNumber=1, Body=b"part"
        )
    shards(["gc", store.url, "--dry-run"])
    assert "would remove  train-00000.tar: upload begun" in capsys.readouterr().out and len(store.uploads()) == 1
    shards(["gc", store.url])
    assert capsys.readouterr().out.endswith(f"{store.url}: 1 leftovers removed\n") and store.uploads() == []
    assert len(store._fs.list_multipart_uploads(store._bucket)) == 1, "the neighbour's is not ours"


def test_gc_leaves_young_uploads(store, monkeypatch):
    now = datetime.now(UTC)
    uploads = [Upload("old", now - timedelta(hours=25), print), Upload("young", now - timedelta(hours=23), print)]
    monkeypatch.setattr(store, "uploads", lambda: uploads)
    assert [words.partition(":")[0] for words, _ in in_store(store, 86400)] == ["old"]


def test_all_pages_of_uploads_are_read(store, monkeypatch):
    started, asked = datetime.now(UTC), []

    def call(method, **kwargs):
        asked.append(kwargs.get("KeyMarker", ""))
        first = len(asked) == 1
        page = {"Uploads": [{"Key": f"{store._prefix}/{len(asked)}", "UploadId": "u", "Initiated": started}]}
        return page | {"IsTruncated": first, "NextKeyMarker": "here", "NextUploadIdMarker": "u"}

    monkeypatch.setattr(store._fs, "call_s3", call)
    assert [upload.name for upload in store.uploads()] == ["1", "2"] and asked == ["", "here"]


def test_gc_removes_stale_leases_of_a_finished_set_only(store, capsys):
    with_heartbeat(store, 3600)
    shards(["gc", store.url])
    assert lease_name("train-00000") in store.listing(), "somebody will take it over"
    store.put("manifest.json", b"{}")
    shards(["gc", store.url])
    assert store.listing() == {"manifest.json": 2}


def test_gc_of_a_folder_removes_what_nobody_holds(copy_of_dataset, capsys):
    from synclones.shards.lock import claim

    for name in (".train-00000.part", ".train-00000.part.jsonl", ".train-00001.tar.tmp-1-ab", ".train-00007.part"):
        (copy_of_dataset / name).write_bytes(b"left")
    (copy_of_dataset / ".train-00002.lock").touch()
    with claim(copy_of_dataset, "train-00001"):
        shards(["gc", str(copy_of_dataset), "--older-than", "0s"])
        shards(["gc", str(copy_of_dataset), "--older-than", "0s"])
        assert capsys.readouterr().out.endswith("0 leftovers removed\n")
        left = sorted(path.name for path in copy_of_dataset.glob(".*"))
    assert left == [".train-00001.lock", ".train-00007.part"], "the one is held, the other's shard is not complete"


def test_gc_of_a_folder_leaves_what_is_young_and_in_a_dry_run_everything(copy_of_dataset, capsys):
    (copy_of_dataset / ".train-00000.part").write_bytes(b"left")
    assert list(in_folder(copy_of_dataset, 60)) == []
    shards(["gc", str(copy_of_dataset), "--older-than", "0s", "--dry-run"])
    assert "would remove  .train-00000.part" in capsys.readouterr().out
    assert (copy_of_dataset / ".train-00000.part").exists()


@pytest.mark.parametrize(
    "text, seconds", [("90s", 90), ("30min", 1800), ("24h", 86400), ("1.5 h", 5400), ("2d", 172800), (7.0, 7)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-1h", "1 week", "", True, "h"])
def test_other_durations_are_refused(text):
    from synclones.shards.run import GcConfig

    with pytest.raises(ValueError, match="is not a duration; write one such as 90s, 30min, 24h or 2d"):
        parse_duration(text)
    with pytest.raises(InputError, match="--older-than.*expected a duration such as 90s, 30min or 24h"):
        load(GcConfig, ["x", "--older-than", str(text)], "gc")

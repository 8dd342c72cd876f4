"""Sets in a store or on the hub are read as if they were here: whole shards, checked, in a bounded cache."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
from hub_server import TOKEN, Hub
from shard_helpers import write_folder

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.manifest import read_manifest, write_manifest
from synclones.shards.loading.mixture import Item, Mixture
from synclones.shards.loading.parts import open_mixture, single
from synclones.shards.sources import cache as cache_module
from synclones.shards.sources.cache import FileCache, cache_folder, open_remote
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.hub_files import HubFiles
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.remote import RemoteFile, RemoteFiles, StoreFiles
from synclones.shards.sources.remote_set import RemoteSource
from synclones.train.run import main as train

SHARDS, ROWS = 6, 7
TINY = (
    *("--architecture", "vit_tiny_patch16_224", "--image-size-px", "32", "--patch-size", "8", "--embed-dim", "24"),
    *("--depth", "1", "--num-heads", "2", "--batch-size", "8", "--torch-threads", "1"),
)
GB = 10**9
NAME = "someone/digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished set of six shards."""
    folder = write_folder(tmp_path_factory.mktemp("sets") / "x", num_shards=SHARDS)
    write_manifest(folder, "test", {}, [], {"ok": 42}, {}, {"classes": ["a", "b", "c"]})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def largest_tar(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.glob("*.tar"))


class Disk(RemoteFiles):
    """A place that is a folder, and counts what is asked of it."""

    def __init__(self, folder: Path, delay_s: float = 0.0):
        self.url, self._folder, self._delay_s, self.fetched, self.small = (
            f"s3://disk/{folder.name}",
            folder,
            delay_s,
            [],
            [],
        )

    def listing(self):
        return {
            p.name: RemoteFile(p.name, p.stat().st_size, version=str(p.stat().st_mtime_ns))
            for p in self._folder.iterdir()
        }

    def read_small(self, names, max_bytes):
        names = list(names)
        self.small += names
        return {name: (self._folder / name).read_bytes() for name in names}

    def fetch(self, file, folder):
        self.fetched.append(file.name)
        time.sleep(self._delay_s)
        return Path(shutil.copyfile(self._folder / file.name, folder / "data"))


@pytest.fixture
def disk(folder):
    return Disk(folder)


def source(remote: RemoteFiles, tmp_path: Path, tars: float = 100.0, folder: Path | None = None) -> RemoteSource:
    """A source whose cache holds so many of the largest tars."""
    size = largest_tar(folder or remote._folder)
    return RemoteSource(remote.url, cache=tmp_path / "cache", cache_gb=tars * size / GB, remote=remote)


def tars_here(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/files/*.tar"))


def same(one, folder: Path) -> None:
    """The set is that of the folder, image for image."""
    other = DatasetSource(folder)
    assert one.class_ids == other.class_ids and one.content_hash() == other.content_hash()
    assert list(one.images_per_shard) == list(other.images_per_shard) and not one.is_local
    for number in range(SHARDS):
        mine, theirs = one.open(number), other.open(number)
        assert (mine.index == theirs.index).all() and (mine.label == theirs.label).all()
        assert (mine.caption_ids() == theirs.caption_ids()).all()
        for row in range(ROWS):
            assert mine.image(row) == theirs.image(row) and mine.caption(row) == theirs.caption(row)


# ------------------------------------------------------------------ places


def upload(store, folder: Path) -> None:
    for name, data in contents(folder).items():
        store.put(name, data)


def test_a_set_in_a_store_is_the_set_in_a_folder(any_store, folder, tmp_path):
    upload(any_store, folder)
    remote = StoreFiles(any_store)
    read = source(remote, tmp_path, tars=2, folder=folder)
    same(read, folder)
    assert sum(path.stat().st_size for path in tars_here(tmp_path)) <= 2 * largest_tar(folder)
    read.check(quick=True)
    read.check(quick=False)
    assert read.folder == Path(any_store.url)


def test_before_the_first_image_nothing_is_listed_and_one_tar_is_fetched(store, server, folder, tmp_path):
    upload(store, folder)
    server.requests()
    read = source(StoreFiles(store), tmp_path, folder=folder)
    read.open(2).image(0)
    asked = server.requests()
    paths = [path.rpartition("/")[2] for _, path, _ in asked]
    assert not any("list-type" in query for _, _, query in asked)
    assert [name for name in paths if name.endswith(".tar")] == ["train-00002.tar"]
    small = [name for name in paths if not name.endswith(".tar")]
    assert len(set(small)) == len(small) and set(small) <= set(contents(folder)), "each once, none in vain"
    # A second start brings what says whether the set is still the same, and nothing else.
    source(StoreFiles(store), tmp_path, folder=folder).open(2).image(0)
    assert {path.rpartition("/")[2] for _, path, _ in server.requests()} == {"SHA256SUMS"}


def test_which_images_share_a_caption_is_known_again_without_a_tar(disk, tmp_path):
    first = source(disk, tmp_path)
    before = [first.open(number).caption_ids().tolist() for number in range(SHARDS)]
    for tar in tars_here(tmp_path):
        tar.unlink()
    assert disk.fetched
    disk.fetched.clear()
    again = source(disk, tmp_path)
    assert [again.open(number).caption_ids().tolist() for number in range(SHARDS)] == before and not disk.fetched


@pytest.fixture
def hub(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with Hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            running.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        running.repositories[NAME] = {"private": True, "files": contents(folder)}
        yield running


@pytest.mark.parametrize("url", [f"hf://datasets/{NAME}", f"hf://{NAME}@main", f"hf://datasets/{NAME}@{'0' * 40}/sub"])
def test_a_set_on_the_hub_is_the_set_in_a_folder_and_its_commit_is_fixed_once(hub, folder, tmp_path, url):
    files = hub.repositories[NAME]["files"]
    if url.endswith("/sub"):
        files = hub.repositories[NAME]["files"] = {f"sub/{name}": data for name, data in files.items()}
    read = source(open_remote(Path(url)), tmp_path, folder=folder)
    assert read.revision == "0" * 40
    hub.commits[NAME, "0" * 40] = files
    hub.repositories[NAME]["files"] = dict.fromkeys(files, b"changed since")
    same(read, folder)
    asked = [path for _, path, _ in hub.requests if path.startswith("/api/datasets/")]
    assert len(asked) == 1
    assert all("/resolve/" + "0" * 40 in path for _, path, _ in hub.requests if "/resolve/" in path)


@pytest.mark.parametrize(
    "url, words",
    [
        ("hf://datasets/only", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/a/b/../../c", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/nobody/nothing", "Repository .?ot .?ound|404"),
        (f"hf://datasets/{NAME}@nonesuch", "404"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line_of_input(hub, url, words):
    with pytest.raises(InputError, match=words) as error:
        open_remote(url)
    assert "\n" not in str(error.value) and TOKEN not in str(error.value)


def test_a_place_without_a_set_is_named(store, tmp_path):
    with pytest.raises(VerificationError, match=f"{store.url}/SHA256SUMS: missing; give the URL of a finished set"):
        RemoteSource(store.url, cache=tmp_path, remote=StoreFiles(store))


def test_any_file_of_a_store_is_a_local_path_for_the_time_of_its_use(any_store, tmp_path):
    any_store.put("deep/er/foreign.tar", b"some bytes")
    cache = FileCache(StoreFiles(any_store), tmp_path, 1e-6)
    with cache.file("deep/er/foreign.tar") as path:
        assert path.read_bytes() == b"some bytes" and path.suffix == ".tar"
    assert cache.read_range(cache.listed("deep/er/foreign.tar"), 5, 3) == b"byt"
    with pytest.raises(VerificationError, match="other.tar: missing"), cache.file("other.tar"):
        pass


# ------------------------------------------------------------------ changed and damaged


def test_an_object_that_changed_since_it_was_listed_is_named(any_store, tmp_path):
    any_store.put("a.tar", b"1234")
    any_store.put("b.tar", b"1234")
    cache = FileCache(StoreFiles(any_store), tmp_path, 1.0)
    cache.listed("a.tar")
    any_store.put("a.tar", b"5678")
    with pytest.raises(VerificationError, match=f"{any_store.url}/a.tar: has the version .*changed while it was read"):
        cache.file("a.tar").__enter__()
    any_store.remove("b.tar")
    with pytest.raises(VerificationError, match=f"{any_store.url}/b.tar: is gone: the set changed"):
        cache.file("b.tar").__enter__()
    assert not [path for path in tmp_path.glob("*/files/*") if path.suffix == ".tar"]


def changed(folder: Path, tmp_path: Path, name: str, at: int = 700) -> Path:
    copy = Path(shutil.copytree(folder, tmp_path / "changed"))
    data = bytearray((copy / name).read_bytes())
    data[at] ^= 1
    (copy / name).write_bytes(bytes(data))
    return copy


@pytest.mark.parametrize("name", ["train-00001.tar", "train-00001.parquet", "train-00001.json", "info.json"])
def test_what_is_not_what_sha256sums_states_is_named_and_never_used(folder, tmp_path, name):
    remote = Disk(changed(folder, tmp_path, name, 60))
    with pytest.raises(VerificationError, match=f"{remote.url}/{name}: .*the set changed while it was read"):
        source(remote, tmp_path).open(1).image(0)
    assert tars_here(tmp_path) == []


def test_a_set_of_another_state_finds_nothing_of_the_one_before(folder, tmp_path):
    source(Disk(folder), tmp_path).open(0).image(0)
    other = write_folder(tmp_path / "sets" / "x", num_shards=2)
    write_manifest(other, "test", {}, [], {"ok": 14}, {}, {"classes": ["a", "b", "c"]})
    read = source(Disk(other), tmp_path)
    assert len(read.images_per_shard) == 2 and read.open(1).image(0) == DatasetSource(other).open(1).image(0)


def test_damage_on_this_disk_is_fetched_again(disk, folder, tmp_path):
    read = source(disk, tmp_path)
    shard = read.open(0)
    before = shard.image(3)
    for when in ("in this process", "before another one"):
        path = tars_here(tmp_path)[0]
        data = bytearray(path.read_bytes())
        data[:] = bytes(len(data))
        path.write_bytes(bytes(data))  # the same inode: as a disk that lost its bytes
        shard = shard if when == "in this process" else source(disk, tmp_path).open(0)
        assert shard.image(3) == before
    assert disk.fetched == ["train-00000.tar"] * 3


# ------------------------------------------------------------------ bounded, shared, ahead


def test_the_cache_is_bounded_and_evicts_what_was_used_longest_ago(disk, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_TOUCH_S", 0.0)
    read = source(disk, tmp_path, tars=3)
    shards = [read.open(number) for number in range(SHARDS)]
    for number in (0, 1, 2, 0, 3, 0, 1):
        shards[number].image(0)
        time.sleep(0.01)
        assert sum(path.stat().st_size for path in tars_here(tmp_path)) <= 3 * largest_tar(folder)
    assert disk.fetched == [f"train-0000{number}.tar" for number in (0, 1, 2, 3, 1)]


def test_a_file_in_use_is_never_evicted(disk, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_WAIT_S", 0.2)
    cache = FileCache(disk, tmp_path, 2 * largest_tar(folder) / GB)
    with cache.file("train-00000.tar") as one, cache.file("train-00001.tar") as other:
        with pytest.raises(MachineError, match="all it may hold is in use; give the cache more room"):
            cache.file("train-00002.tar").__enter__()
        assert one.exists() and other.exists()
    with cache.file("train-00002.tar"), cache.file("train-00003.tar"):
        assert not one.exists() and not other.exists()


def test_a_file_larger_than_the_cache_is_refused(disk, tmp_path):
    with pytest.raises(InputError, match=r"train-00000.tar: has \d+ bytes, the cache may hold 100"):
        FileCache(disk, tmp_path, 100 / GB).file("train-00000.tar").__enter__()


def test_shards_that_were_asked_for_ahead_are_there_when_they_are_used(folder, tmp_path):
    remote = Disk(folder, delay_s=0.05)
    read = source(remote, tmp_path)
    shards = [read.open(number) for number in range(SHARDS)]
    read.prefetch([4, 2, 0])
    read.prefetch([4, 2, 0])
    wait_until(lambda: len(tars_here(tmp_path)) == 3)
    assert sorted(remote.fetched) == ["train-00000.tar", "train-00002.tar", "train-00004.tar"]
    shards[4].image(1)
    assert len(remote.fetched) == 3


def test_fetching_ahead_takes_no_room_from_what_was_asked_for_before_it(folder, tmp_path):
    remote = Disk(folder)
    read = source(remote, tmp_path, tars=2)
    read.prefetch([0, 1])
    wait_until(lambda: len(tars_here(tmp_path)) == 2)
    before = tars_here(tmp_path)
    read.prefetch([2, 3])
    wait_until(lambda: read._cache._asked.empty())
    time.sleep(0.1)
    assert tars_here(tmp_path) == before
    read.open(2).image(0)  # what is used now goes before what may be used later
    assert "train-00002.tar" in remote.fetched


def test_room_is_set_aside_before_a_file_arrives(disk, folder, tmp_path, monkeypatch):
    gate, fetch = threading.Event(), disk.fetch
    monkeypatch.setattr(disk, "fetch", lambda file, into: (gate.wait(20), fetch(file, into))[1])
    cache = FileCache(disk, tmp_path, 1.5 * largest_tar(folder) / GB)
    cache.prefetch([cache.listed("train-00000.tar")])
    wait_until(lambda: list(tmp_path.glob("*/files/.fetch-*/file")))
    cache.prefetch([cache.listed("train-00001.tar")])
    wait_until(lambda: cache._asked.empty())
    time.sleep(0.2)
    gate.set()
    wait_until(lambda: list(tmp_path.glob("*/files/*.tar")) and not list(tmp_path.glob("*/files/.fetch-*")))
    assert disk.fetched == ["train-00000.tar"]


def wait_until(true, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_threads_that_want_the_same_shard_fetch_it_once(folder, tmp_path):
    remote = Disk(folder, delay_s=0.1)
    shard, images = source(remote, tmp_path).open(0), []
    threads = [threading.Thread(target=lambda row=row: images.append(shard.image(row))) for row in range(ROWS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == ROWS and remote.fetched == ["train-00000.tar"]


READER = """
import random, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_remote_source import Disk, source, SHARDS, ROWS
from synclones.shards.sources.dataset import DatasetSource
folder, tmp, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rng, remote = random.Random(seed), Disk(folder, delay_s=0.002)
read, truth = source(remote, tmp, tars=3), DatasetSource(folder)
shards, true = ([one.open(number) for number in range(SHARDS)] for one in (read, truth))
print("ready", flush=True)
for _ in range(150):
    number, row = rng.randrange(SHARDS), rng.randrange(ROWS)
    read.prefetch([rng.randrange(SHARDS)])
    assert shards[number].image(row) == true[number].image(row)
print("done", flush=True)
"""


def reader(folder: Path, tmp_path: Path, seed: int) -> subprocess.Popen:
    script = READER.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(folder), str(tmp_path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_cache_and_one_may_be_killed(folder, tmp_path):
    readers = [reader(folder, tmp_path, seed) for seed in range(3)]
    assert readers[2].stdout.readline() == "ready\n"
    time.sleep(0.05)
    readers[2].send_signal(signal.SIGKILL)
    readers[2].communicate()
    limit = 3 * largest_tar(folder)
    sizes = []
    while any(process.poll() is None for process in readers):
        with_sizes = [size for path in tars_here(tmp_path) if (size := size_of(path))]
        sizes.append(sum(with_sizes))
        time.sleep(0.005)
    assert [process.communicate()[0].splitlines()[-1] for process in readers[:2]] == ["done", "done"]
    assert max(sizes) <= limit and sum(path.stat().st_size for path in tars_here(tmp_path)) > 0
    # The next one removes what the killed one began.
    read = source(Disk(folder), tmp_path, tars=1)
    for number in range(SHARDS):
        read.open(number).image(0)
    assert not list((tmp_path / "cache").glob("*/files/.fetch-*"))


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# ------------------------------------------------------------------ disks that fail


def test_a_full_disk_first_gives_up_what_the_cache_holds_and_then_says_so(disk, tmp_path, monkeypatch):
    read = source(disk, tmp_path)
    shards = [read.open(number) for number in range(SHARDS)]
    fetch, room = disk.fetch, [2]

    def filling(file, folder):
        if len(tars_here(tmp_path)) >= room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "data"))
        return fetch(file, folder)

    monkeypatch.setattr(disk, "fetch", filling)
    for number in range(4):
        shards[number].image(0)
        assert len(tars_here(tmp_path)) <= 2
    room[0] = 0
    with pytest.raises(MachineError, match="cache/.*: No space left on device; free the disk or choose another"):
        shards[5].image(0)
    assert not list((tmp_path / "cache").glob("*/files/.fetch-*"))


def test_a_full_disk_under_the_stores_own_client_is_this_disks_failure(store, folder, tmp_path, monkeypatch):
    upload(store, folder)
    read = source(StoreFiles(store), tmp_path, folder=folder)

    def full(remote, local, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), local)

    monkeypatch.setattr(store._fs, "get_file", full)
    shard = read.open(0)
    with pytest.raises(MachineError, match="No space left on device; free the disk"):
        shard.image(0)


def test_a_cache_that_cannot_be_written_is_read_on(disk, tmp_path, monkeypatch):
    read = source(disk, tmp_path)
    shards = [read.open(number) for number in range(2)]
    before = shards[0].image(0)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "unlink", "touch"):
        monkeypatch.setattr(Path, name, read_only)
    monkeypatch.setattr(os, "utime", read_only)
    monkeypatch.setattr(cache_module, "claim", read_only)
    assert shards[0].image(0) == before
    with pytest.raises(MachineError, match="cache/.*: Read-only file system; free the disk or choose another one"):
        shards[1].image(0)


# ------------------------------------------------------------------ as training reads it


def test_a_training_reads_the_same_images_in_the_same_order(disk, folder, tmp_path):
    here, there = LabelledSource(folder), LabelledSource(source(disk, tmp_path, tars=2))
    assert len(here) == len(there) and here.content_hash() == there.content_hash()
    for position in np.random.default_rng(0).permutation(len(here))[:20].tolist():
        one, other = here.read(position), there.read(position)
        assert (one.pixels == other.pixels).all() and (one.label, one.index) == (other.label, other.index)
    assert there.where(0).startswith("s3://disk/x/train-00000.tar: sample ")


class ManyShards:
    """A set in a store, of shards of 1 to 100 bytes with an image each; of two classes in turn."""

    folder, class_ids, is_local = Path("s3://disk/many"), ("a", "b"), False
    images_per_shard = [1] * 100

    def __init__(self, cache_bytes: int):
        self.cache_bytes = cache_bytes

    def bytes_per_shard(self):
        return range(1, 101)

    def open(self, shard):
        return SimpleNamespace(label=np.array([shard % 2]))


def mixed(source, **asked):
    return open_mixture(Mixture((Item(path="x", name="many", **asked),)), lambda item: LabelledSource(source))


def test_a_cache_must_hold_what_is_read_in_turns_and_no_more():
    window, everything = sum(range(37, 101)), sum(range(1, 101))
    for needed, asked in ((window, {}), (everything, {"balance": True})):
        mixed(ManyShards(needed), **asked).check_caches()
        with pytest.raises(
            InputError, match=f"of many {'100' if asked else '64'} of 100 .* {needed:,} bytes; .* 0.01,"
        ):
            mixed(ManyShards(needed - 1), **asked).check_caches()


def test_the_smallest_cache_that_is_let_through_fetches_each_shard_once(disk, folder, tmp_path):
    whole = sum(path.stat().st_size for path in folder.glob("*.tar")) / largest_tar(folder)
    read = single(LabelledSource(source(disk, tmp_path, tars=whole)), repeat=3)
    read.check_caches()
    for group in read.order(0).stretch(0, 3 * SHARDS * ROWS).group.tolist():
        read.parts[0].source.encoded(group)
    assert sorted(disk.fetched) == sorted(path.name for path in folder.glob("*.tar"))


def test_a_training_from_a_store_says_how_much_cache_it_takes_and_runs_with_it(store, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    upload(store, folder)
    flags = ["--data", store.url, "--out", str(tmp_path / "run"), *TINY, "--steps", "2", "--checkpoint-every", "1"]
    with pytest.raises(InputError, match=r"--cache-gb: 1e-05, .*; give at least 0\.01, ") as refused:
        train([*flags, "--cache-gb", "1e-5"])
    assert not (tmp_path / "run").exists() and "\n" not in str(refused.value)
    train([*flags, "--cache-gb", "0.01"])
    train([*flags, "--cache-gb", "0.02"])  # another size is the same training: it is complete
    manifest = read_manifest(tmp_path / "run")
    assert manifest["parents"][0]["content_hash"] == DatasetSource(folder).content_hash()


def test_caches_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "synclones" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "synclones" / "shards"


def test_the_files_of_a_hub_are_one_request(hub):
    files = HubFiles(f"hf://{NAME}")
    hub.requests.clear()
    assert files.listing().keys() == contents_keys(hub) and hub.requests == []


def contents_keys(hub):
    return hub.repositories[NAME]["files"].keys()


def test_a_set_without_classes_is_read_where_nobody_asks_for_labels(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    write_manifest(bare, "test", {}, [], {"ok": 42}, {}, {})
    here = LabelledSource(bare, labelled=False)
    far = LabelledSource(RemoteSource("s3://disk/bare", remote=Disk(bare), cache=tmp_path / "cache"), labelled=False)
    assert len(here) == len(far) == SHARDS * ROWS and here.class_ids == far.class_ids == ()
    assert [far.encoded(n) for n in (0, 20, 41)] == [here.encoded(n) for n in (0, 20, 41)]
    with pytest.raises(InputError, match="no labels"):
        LabelledSource(bare)

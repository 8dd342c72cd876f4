"""A set in an object store is verified, shown and redrawn where it is, with a shard at a time on this disk."""

import json
import os
import tempfile
from pathlib import Path

import pytest

import synclones.shards.mirror as places
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.run import main as generate
from synclones.shards.mirror import StoredSet, open_set
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as shards
from synclones.shards.schema import ShardFiles
from synclones.shards.stores.store import ObjectStore, open_store


@pytest.fixture
def stored(store, dataset, monkeypatch):
    """The reference set, as it would be in a bucket. Commands use the test's own client: a new one takes a while."""
    monkeypatch.setattr(places, "open_store", lambda url: store if url == store.url else open_store(url))
    files = [path for path in dataset.rglob("*") if path.is_file() and not path.name.startswith(".")]
    store._fs.pipe({store._path(path.relative_to(dataset).as_posix()): path.read_bytes() for path in files})
    return store


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def blocks(folder: Path) -> dict[str, int]:
    """Name -> bytes on the disk of the files that have any."""
    found = {path.name: path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()}
    return {name: size for name, size in found.items() if size}


def flip(store, name: str, at: int) -> None:
    data = bytearray(store.read(name))
    data[at] ^= 1
    store.put(name, bytes(data))


def test_a_sound_set_is_verified_without_leaving_anything_here(stored, server, temporary, capsys, monkeypatch):
    monkeypatch.setattr(places, "open_store", open_store)
    shards(["verify", stored.url])
    assert capsys.readouterr().out.startswith("ok: 3 shards, 60 samples, ")
    server.requests()
    shards(["verify", stored.url, "--quick"])
    asked = [path for method, path, _ in server.requests() if method == "GET"]
    assert not [path for path in asked if path.endswith((".tar", ".parquet"))] and len(asked) > 3
    assert list(temporary.iterdir()) == []


def flip_a_byte(store):
    row = ShardFolder.rows  # the place of sample 33 is looked up in the parquet of its shard
    with open_set(Path(store.url)) as place:
        found = next(r for r in row(place.shards(), "train-00001") if r.index == 33)
    flip(store, "train-00001.tar", found.jpg_offset + 9)


def cut_a_tar(store):
    store.put("train-00001.tar", store.read("train-00001.tar")[:-20_000])


DAMAGES = {
    "flipped byte": (flip_a_byte, r"train-00001.tar: damaged, first in sample 0000000033 .*delete the three files"),
    "tar cut": (cut_a_tar, r"train-00001.tar: damaged, first in sample 00000000\d\d \(\d+ bytes, \d+ stated\)"),
    "tar missing": (lambda s: s.remove("train-00001.tar"), "train-00001.tar: missing; delete train-00001.json"),
    "json missing": (lambda s: s.remove("train-00001.json"), "train-00001.json: missing; the shard is unfinished"),
    "parquet flipped": (lambda s: flip(s, "train-00001.parquet", 50), "train-00001.parquet: differs from the hash"),
    "swapped": (
        lambda s: s.put("train-00001.json", s.read("train-00002.json")),
        "train-00001.json: describes train-00002",
    ),
    "other plan.json": (lambda s: s.put("plan.json", s.read("plan.json") + b" "), "plan.json: differs from SHA256SUMS"),
    "stranger": (lambda s: s.put("train-00007.tar", b"x"), "train-00007.tar: not a shard of this plan"),
    "no sums": (lambda s: s.remove("SHA256SUMS"), "SHA256SUMS: missing; the folder is unfinished"),
}


def test_damage_in_the_store_is_found_and_named(stored, temporary):
    sound = stored.read_many(stored.listing())
    for break_it, words in DAMAGES.values():
        break_it(stored)
        with pytest.raises(VerificationError, match=f"^{stored.url}/{words}"):
            shards(["verify", stored.url])
        for name in stored.listing():
            stored.remove(name) if name not in sound else None
        stored._fs.pipe({stored._path(name): data for name, data in sound.items()})
    shards(["verify", stored.url])
    assert list(temporary.iterdir()) == []


def test_a_quick_look_finds_a_shard_cut_short_and_names_its_first_bad_sample(stored, server):
    cut_a_tar(stored)
    server.requests()
    with pytest.raises(VerificationError, match=r"train-00001.tar: damaged, first in sample 00000000\d\d"):
        shards(["verify", stored.url, "--quick"])
    tars = {path.rpartition("/")[2] for _, path, _ in server.requests() if path.endswith(".tar")}
    assert tars == {"train-00001.tar"}, "the sound ones stayed where they are"


def test_all_problems_are_said_with_the_place_the_user_gave(stored, capsys):
    stored.remove("train-00002.tar")
    stored.put("train-00000.tar", b"short")
    with pytest.raises(VerificationError, match=f"^{stored.url}/train-00000.tar: damaged"):
        shards(["verify", stored.url])
    assert capsys.readouterr().err.startswith(f"{stored.url}/train-00002.tar: missing")


def test_a_set_in_a_store_is_counted_and_what_it_lacks_is_listed(stored, temporary, capsys):
    shards(["stats", stored.url])
    assert capsys.readouterr().out.startswith(f"{stored.url}: 60 images in 3 shards")
    stored.remove("train-00001.json")
    cut_a_tar(stored)
    shards(["missing", stored.url])
    shown = capsys.readouterr()
    assert shown.out == "1\n" and f"{stored.url}: 1 of 3 shards are not complete" in shown.err
    stored.put("train-00000.tar", b"short")
    shards(["missing", stored.url])
    assert capsys.readouterr().out == "0\n1\n" and list(temporary.iterdir()) == []


def test_one_shard_at_a_time_takes_room_on_this_disk(stored):
    with open_set(Path(stored.url)) as place:
        assert isinstance(place, StoredSet)
        tar = ShardFiles(place.folder, "train-00001").tar
        for name in ("train-00000", "train-00001"):
            with place.at_hand(ShardFiles(place.folder, name)):
                there = {name for name in blocks(place.folder) if name.endswith((".tar", ".parquet"))}
                assert there == {f"{name}.tar", f"{name}.parquet"}
                assert ShardFiles(place.folder, name).tar.read_bytes() == stored.read(f"{name}.tar")
        assert tar.stat().st_size == len(stored.read("train-00001.tar")) and tar.name not in blocks(place.folder)


def test_a_download_that_breaks_off_is_tried_again_and_at_last_a_machine_error(stored, tmp_path, monkeypatch):
    get, broken = stored._fs.get_file, []

    def cut(remote, local, **kwargs):
        get(remote, local, **kwargs)
        broken.append(local)
        if len(broken) in (1, 3, 4, 5):
            os.truncate(local, 10)

    monkeypatch.setattr(stored._fs, "get_file", cut)
    monkeypatch.setattr("synclones.shards.stores.store.time.sleep", lambda _: None)
    size = stored.listing()["train-00000.tar"]
    stored.fetch("train-00000.tar", tmp_path / "t", size)
    assert (tmp_path / "t").read_bytes() == stored.read("train-00000.tar") and len(broken) == 2
    with pytest.raises(MachineError, match=f"train-00000.tar: 10 of {size} bytes arrived; run the same command again"):
        stored.fetch("train-00000.tar", tmp_path / "t", size)
    assert len(broken) == 5


def test_a_faltering_store_is_verified_all_the_same(stored, server, capsys):
    server.fail(3, 500, 503, every=5)
    shards(["verify", stored.url])
    assert capsys.readouterr().out.startswith("ok: 3 shards")


def test_names_that_lead_elsewhere_are_not_followed(stored, temporary):
    for name in ("../../escaped.json", "log/../../escaped.json", ".hidden"):
        stored.put(name, b"x")
    names = stored._fs.find(stored._root.partition("/")[0])
    with open_set(Path(stored.url)) as place:
        here = {path.name for path in temporary.rglob("*")}
        assert "plan.json" in here and not here & {"escaped.json", ".hidden"} and place.shards().split == "train"
    assert any("escaped" in name for name in names), "the store has such an object"


def test_a_prefix_without_objects_is_refused(store):
    with pytest.raises(InputError, match=f"{store.url}: holds no set; give the URL that was --out"):
        shards(["verify", store.url])


def test_show_says_what_it_says_of_a_folder(stored, dataset, tmp_path, capsys):
    for flags in ([], ["--index", "33"]):
        shards(["show", str(dataset), *flags])
        local = capsys.readouterr().out
        shards(["show", stored.url, *flags])
        assert capsys.readouterr().out == local.replace(str(dataset), stored.url)
    shards(["show", stored.url, "--index", "7", "--out", str(tmp_path / "seven.jpg")])
    assert (tmp_path / "seven.jpg").read_bytes() == ShardFolder(dataset).get(7).jpg


def test_all_samples_are_read_in_order(stored, dataset):
    with open_set(Path(stored.url)) as place:
        assert list(place.shards().sequential()) == list(ShardFolder(dataset).sequential())


def test_redraw_of_one_image_reads_its_parquet_and_its_bytes_only(stored, server, monkeypatch, capsys):
    fetch, whole = ObjectStore.fetch, []
    monkeypatch.setattr(ObjectStore, "fetch", lambda self, name, *rest: (whole.append(name), fetch(self, name, *rest)))
    server.requests()
    generate(["redraw", stored.url, "--index", "33"])
    assert "drawn again, the same" in capsys.readouterr().out
    heavy = [path.rpartition("/")[2] for _, path, _ in server.requests() if path.endswith((".tar", ".parquet"))]
    assert set(heavy) == {"train-00001.tar", "train-00001.parquet"} and whole == ["train-00001.parquet"]
    generate(["redraw", stored.url, "--random", "5"])
    assert capsys.readouterr().out == f"{stored.url}: 5 images of 1 random batches drawn again, the same bytes\n"


def test_redraw_finds_an_image_that_is_not_the_plans(stored, dataset):
    flip_a_byte(stored)
    with pytest.raises(VerificationError, match=rf"^{stored.url}/train-00001.tar: sample 0000000033 is damaged"):
        generate(["redraw", stored.url, "--index", "33"])


def test_redraw_refuses_what_it_cannot_draw_and_names_the_url(stored):
    with pytest.raises(InputError, match=f"^{stored.url}: no sample 60;"):
        generate(["redraw", stored.url, "--index", "60"])
    plan = json.loads(stored.read("plan.json")) | {"seed": 7}
    stored.put("plan.json", json.dumps(plan).encode())
    with pytest.raises(InputError, match=f"^{stored.url}: cannot be redrawn here: seed 7 there, 0 asked"):
        generate(["redraw", stored.url, "--index", "3"])

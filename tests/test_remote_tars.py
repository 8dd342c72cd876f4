"""Tars that others wrote are read from a store or the hub: indexed once, checked, in a bounded cache."""

import json

import pytest
from test_foreign_sets import NAMES, content, imagenet_members
from test_remote_source import NAME as REPOSITORY
from test_remote_source import TINY, contents, folder, hub  # noqa: F401 - two are fixtures
from test_sources import write_tar

from synclones.base.errors import InputError, VerificationError
from synclones.shards.loading.parts import single
from synclones.shards.run import main as shards
from synclones.shards.sources.cache import GB
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import index_set, open_source
from synclones.shards.sources.remote_tars import RemoteTarSource
from synclones.train.run import main as train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def listed(tmp_path):
    """Three tars of five, four and four images, with a class list beside them."""
    made = tmp_path / "set"
    for number, rows in enumerate((range(5), range(5, 9), range(9, 13))):
        write_tar(made / f"imagenet-train-{number:04d}.tar", imagenet_members(rows))
    (made / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return made


def upload(store, made) -> None:
    for path in sorted(made.glob("[!.]*")):
        store.put(path.name, path.read_bytes())


def fetched(server) -> list[str]:
    """The tars that were read since the last call, sorted."""
    return sorted(
        path.rpartition("/")[2] for method, path, _ in server.requests() if method == "GET" and path.endswith(".tar")
    )


def kept(cache) -> list:
    """The tars in the cache."""
    return sorted(cache.glob("synclones/shards/*/files/*.tar"))


def rewrite(store, made, number, rows) -> None:
    """Put another tar in the place of one."""
    path = made / f"imagenet-train-{number:04d}.tar"
    write_tar(path, imagenet_members(rows))
    store.put(path.name, path.read_bytes())


# ------------------------------------------------------------------ the same set


def test_tars_in_a_store_are_the_tars_in_a_folder(any_store, listed):
    upload(any_store, listed)
    there, here = open_source(any_store.url), open_source(listed)
    assert isinstance(there, RemoteTarSource) and not there.is_local
    assert content(there) == content(here) and there.class_ids == here.class_ids == NAMES
    assert there.content_hash() == here.content_hash()
    assert list(there.images_per_shard) == [5, 4, 4]
    assert there.open(1).where(0) == f"{any_store.url}/imagenet-train-0001.tar: sample n04152592_5"
    there.check(quick=True)
    there.check(quick=False)


def test_tars_on_the_hub_are_the_tars_in_a_folder_and_another_commit_of_others_is_refused(hub, listed):  # noqa: F811
    hub.repositories[REPOSITORY]["files"] = contents(listed)
    there, here = open_source(f"hf://datasets/{REPOSITORY}"), open_source(listed)
    assert content(there) == content(here) and there.content_hash() == here.content_hash()
    there.check(quick=False)
    write_tar(listed / "imagenet-train-0001.tar", imagenet_members(range(30, 34)))
    hub.repositories[REPOSITORY]["files"] = contents(listed)
    with pytest.raises(VerificationError, match="imagenet-train-0001.tar: changed since it was indexed"):
        open_source(f"hf://datasets/{REPOSITORY}")


def test_an_index_is_made_once_and_later_starts_fetch_what_is_read(store, server, listed, cache, capsys):
    upload(store, listed)
    server.requests()
    open_source(store.url)
    assert fetched(server) == sorted(path.name for path in listed.glob("*.tar"))
    assert f"{store.url}: 13 images in 3 shards" in capsys.readouterr().err
    for tar in kept(cache):
        tar.unlink()
    source = open_source(store.url)
    assert fetched(server) == [] and "indexing" not in capsys.readouterr().err
    source.open(2).image(0)
    assert fetched(server) == ["imagenet-train-0002.tar"]


def test_keys_and_class_lists_are_taken_as_of_a_folder(store, listed, tmp_path):
    (tmp_path / "other.txt").write_text("x\ny\nz\n")
    upload(store, listed)
    assert open_source(store.url, classes=tmp_path / "other.txt").class_ids == ("x", "y", "z")
    source = open_source(store.url, label_key="class_name", caption_key="caption")
    assert source.class_ids == NAMES and source.open(0).caption(1) == "a dog"
    assert source.content_hash() == open_source(listed, label_key="class_name", caption_key="caption").content_hash()


def test_a_class_list_that_was_taken_away_counts_no_more(store, listed):
    upload(store, listed)
    assert open_source(store.url).class_ids == NAMES
    store.remove("classes.txt")
    with pytest.raises(InputError, match="the labels are numbers, 0 to 2, without a meaning"):
        _ = open_source(store.url).class_ids


def test_splits_are_told_by_names(store, listed):
    write_tar(listed / "imagenet-val-0000.tar", imagenet_members(range(20, 22)))
    upload(store, listed)
    with pytest.raises(InputError, match="holds files of train, val"):
        open_source(store.url)
    assert list(open_source(store.url, split="val").images_per_shard) == [2]


def test_img2dataset_s_parquet_files_beside_its_tars_make_no_set_of_ours(store, listed):
    for number, path in enumerate(sorted(listed.glob("*.tar"))):
        store.put(f"{number:05d}.tar", path.read_bytes())
        store.put(f"{number:05d}.parquet", b"whatever")
    source = open_source(store.url, label_key="class_name")
    assert source.class_ids == NAMES and list(source.images_per_shard) == [5, 4, 4]


# ------------------------------------------------------------------ a bounded cache


def test_what_is_kept_is_bounded_and_the_order_reads_each_tar_once(store, server, listed, cache):
    upload(store, listed)
    sizes = [path.stat().st_size for path in listed.glob("*.tar")]
    source = open_source(store.url, cache_gb=sum(sizes) / GB)
    assert source.cache_bytes == sum(source.bytes_per_shard()) == sum(sizes)
    mixed = single(LabelledSource(source), repeat=2)
    assert mixed.parts[0].shuffle == "windowed"
    mixed.check_caches()
    server.requests()
    groups = mixed.order(0).stretch(0, 26).group.tolist()
    assert sorted(groups) == sorted([*range(13)] * 2) and groups[:13] != sorted(groups[:13])
    for group in groups:
        mixed.parts[0].source.encoded(group)
    assert fetched(server) == [], "indexing brought them"
    small = open_source(store.url, cache_gb=max(sizes) / GB)
    with pytest.raises(InputError, match="--cache-gb: .* 3 of 3 shards are read in turns"):
        single(LabelledSource(small)).check_caches()
    for tar in kept(cache):
        tar.unlink()
    assert content(small) == content(open_source(listed))
    assert len(kept(cache)) == 1


def test_indexing_needs_no_more_room_than_the_largest_tar(store, listed, cache, monkeypatch):
    upload(store, listed)
    largest = max(path.stat().st_size for path in listed.glob("*.tar"))
    with pytest.raises(InputError, match="imagenet-train-000[012].tar: has .* bytes, the cache may hold .*--cache-gb"):
        open_source(store.url, cache_gb=(largest - 1) / GB)
    assert list(open_source(store.url, cache_gb=largest / GB).images_per_shard) == [5, 4, 4]
    assert len(kept(cache)) == 1


def test_a_training_reads_them_and_resumes_on_them(store, listed, tmp_path):
    upload(store, listed)
    flags = ["--data", store.url, "--out", str(tmp_path / "run"), *TINY, "--steps", "2"]
    train(flags)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["data"][0]["content_hash"] == open_source(listed).content_hash()
    assert plan["data"][0]["shuffle"] == "windowed"
    train(flags)


def test_the_command_that_makes_an_index_takes_a_url(store, listed, capsys):
    upload(store, listed)
    shards(["index", store.url])
    assert "13 images in 3 shards (tars)" in capsys.readouterr().out


# ------------------------------------------------------------------ what changed


def test_an_object_that_changed_is_refused_until_it_is_indexed_again(store, listed):
    upload(store, listed)
    before = open_source(store.url).content_hash()
    rewrite(store, listed, 1, range(30, 34))
    with pytest.raises(VerificationError, match="imagenet-train-0001.tar: changed since it was indexed") as error:
        open_source(store.url)
    command = str(error.value).rpartition("run: ")[2]
    assert command == f"synclones shards index {store.url}"
    shards(command.split()[2:])
    assert open_source(store.url).content_hash() == open_source(listed).content_hash() != before


def test_an_object_that_changes_while_the_set_is_open_is_refused_where_it_is_read(store, listed, cache):
    upload(store, listed)
    source = open_source(store.url)
    for tar in kept(cache):
        tar.unlink()
    rewrite(store, listed, 1, range(30, 34))
    with pytest.raises(VerificationError, match="imagenet-train-0001.tar: .*the set changed while it was read"):
        source.open(1).image(0)
    with pytest.raises(VerificationError, match="imagenet-train-0001.tar: changed since it was indexed"):
        source.check(quick=True)
    source.open(0).image(0)
    store.remove("imagenet-train-0002.tar")
    rewrite(store, listed, 1, range(5, 9))


def test_the_same_bytes_written_again_are_the_same_set(any_store, listed):
    upload(any_store, listed)
    before = open_source(any_store.url).content_hash()
    upload(any_store, listed)
    assert open_source(any_store.url).content_hash() == before
    open_source(any_store.url).check(quick=True)


def test_added_and_removed_tars_are_named(store, listed):
    upload(store, listed)
    source = open_source(store.url)
    store.remove("imagenet-train-0002.tar")
    with pytest.raises(VerificationError, match="imagenet-train-0002.tar: missing"):
        source.check(quick=True)
    with pytest.raises(
        InputError, match=r"files were added or removed since it was indexed \(imagenet-train-0002.tar\)"
    ):
        open_source(store.url)
    index_set(store.url)
    assert len(LabelledSource(open_source(store.url))) == 9


def test_damage_on_this_disk_is_fetched_again(store, listed, cache):
    upload(store, listed)
    source = open_source(store.url)
    image = source.open(0).image(0)
    for tar in kept(cache):
        tar.write_bytes(b"\0" * tar.stat().st_size)
    assert source.open(0).image(0) == image
    for tar in kept(cache):
        tar.write_bytes(b"\0")
    assert open_source(store.url).open(0).image(0) == image


# ------------------------------------------------------------------ what is refused


def test_what_is_no_set_of_tars_is_one_line(store, listed):
    store.put("readme.md", b"x")
    with pytest.raises(VerificationError, match="SHA256SUMS: missing; give the URL of a finished set .*, or of tars"):
        open_source(store.url)
    with pytest.raises(InputError, match="no tars of others in it"):
        index_set(store.url)
    for name in ("train-00000-of-00001.tar", "plan.json"):
        store.put(name, b"x")
    with pytest.raises(VerificationError, match="SHA256SUMS: missing"):
        open_source(store.url)


def test_a_tar_that_cannot_be_read_is_named_by_its_url(store, listed):
    (listed / "imagenet-train-0001.tar").write_bytes(b"no tar at all" * 100)
    upload(store, listed)
    with pytest.raises((InputError, VerificationError)) as error:
        open_source(store.url)
    text = str(error.value)
    assert f"{store.url}/imagenet-train-0001.tar" in text and "/files/" not in text and "\n" not in text


def test_a_killed_indexing_goes_on_behind_the_last_tar(store, server, listed, cache, monkeypatch):
    import synclones.shards.sources.listing as listing

    upload(store, listed)
    write, done = listing._write, []

    def dying(path, rows, facts):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(facts.name)
        write(path, rows, facts)

    monkeypatch.setattr(listing, "_write", dying)
    monkeypatch.setattr("synclones.base.machine.cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        open_source(store.url)
    monkeypatch.setattr(
        listing, "_write", lambda path, rows, facts: (done.append(facts.name), write(path, rows, facts))
    )
    assert content(open_source(store.url)) == content(open_source(listed))
    assert done[:3] == ["00000", "00001", "00002"]

"""Which images share a caption is read out of a tar once, kept for this very tar, and made again when damaged."""

import os
import shutil

import numpy as np
import pytest
from shard_helpers import picture

import synclones.shards.caption_ids as module
import synclones.shards.kept as kept
from synclones.base.errors import VerificationError
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.manifest import write_manifest
from synclones.shards.index import finish_folder
from synclones.shards.schema import Sample
from synclones.shards.shard import Shard
from synclones.shards.sources.groups import grouped_rows
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter

CAPTIONS = [5, 7, 5, 9, 7, 5, 5, 9]


def _write(folder, captions, prefix="p") -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for shard in range(2):
        ids = [None if caption is None else canonical_json({"caption_id": caption}) for caption in captions]
        with ShardWriter(folder, f"train-{shard:05d}", prefix * 16) as writer:
            first = shard * len(captions)
            writer.add_batch(
                0,
                [
                    Sample(index=first + row, jpg=picture(row), json=text or b"{}", txt="x", label=0)
                    for row, text in enumerate(ids)
                ],
            )
            writer.finish()
    finish_folder(folder)
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": ["a"], "content_hash": "0"})


@pytest.fixture
def folder(tmp_path):
    _write(tmp_path / "set", CAPTIONS)
    return tmp_path / "set"


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The shards whose samples' jsons were read."""
    of, read = [], Shard._sample_jsons
    monkeypatch.setattr(Shard, "_sample_jsons", lambda shard: [of.append(shard.files.name), *read(shard)][1:])
    return of


def _ids(folder) -> list[list[int]]:
    source = LabelledSource(folder, images_per_group=2)
    assert list(source.groups_per_shard) == [4, 4]
    return [source._caption_ids(number).tolist() for number in range(2)]


def test_the_second_start_reads_no_json_of_a_sample(folder, reads):
    assert _ids(folder) == [CAPTIONS, CAPTIONS] and reads == ["train-00000", "train-00001"]
    assert _ids(folder) == [CAPTIONS, CAPTIONS] and len(reads) == 2
    assert sorted(os.listdir(folder / ".synclones" / "captions")) == ["train-00000.ids", "train-00001.ids"]


def test_a_changed_tar_is_read_again_and_another_shard_s_numbers_are_not_taken(folder, reads):
    _ids(folder)
    old = shutil.copytree(folder / ".synclones", folder.parent / "old")
    other = [3, 3, 4, 4, 3, 3, 8, 8]
    _write(folder, other)
    shutil.copytree(old, folder / ".synclones")
    reads.clear()
    assert _ids(folder) == [other, other] and len(reads) == 2
    (folder / ".synclones/captions/train-00001.ids").write_bytes(
        (folder / ".synclones/captions/train-00000.ids").read_bytes()
    )
    reads.clear()
    assert _ids(folder) == [other, other] and reads == ["train-00001"]


def test_a_tar_that_was_mended_is_read_again_though_its_hash_is_the_same(folder, reads):
    tar = folder / "train-00000.tar"
    sound = tar.read_bytes()
    tar.write_bytes(sound.replace(b'{"caption_id":7}', b'{"caption_id":5}', 1))  # damage that is sound JSON
    assert LabelledSource(folder, images_per_group=2)._caption_ids(0).tolist() != CAPTIONS
    tar.write_bytes(sound)
    reads.clear()
    assert _ids(folder) == [CAPTIONS, CAPTIONS] and reads == ["train-00000"]


def test_numbers_of_a_sample_whose_json_is_broken_are_not_kept(folder):
    tar = folder / "train-00000.tar"
    tar.write_bytes(tar.read_bytes().replace(b'{"caption_id":7}', b'{"caption_id":7x', 1))
    LabelledSource(folder, images_per_group=2)
    assert os.listdir(folder / ".synclones" / "captions") == ["train-00001.ids"]


def test_a_damaged_file_is_made_again_whatever_the_damage(folder, reads):
    _ids(folder)
    path = folder / ".synclones/captions/train-00000.ids"
    whole = path.read_bytes()
    identity = parse_json(whole[32:].partition(b"\n")[0])
    assert module._read(path, identity).tolist() == CAPTIONS
    damaged = [b"", whole[:-1], whole[:40], whole + b"x"]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        assert module._read(path, identity) is None
    reads.clear()
    assert _ids(folder) == [CAPTIONS, CAPTIONS] and reads == ["train-00000"] and path.read_bytes() == whole


def test_a_file_that_unpacks_to_more_than_its_shard_has_is_not_unpacked(folder):
    identity = {"format": 1, "rows": 8, "tar_sha256": "0", "tar": []}
    body = canonical_json(identity) + b"\n" + module.zlib.compress(bytes(2**26))
    path = folder / "train-00000.ids"
    path.write_bytes(module.sha256(body).digest() + body)
    assert module._read(path, identity) is None


def test_images_without_a_caption_have_numbers_of_their_own_in_the_kept_file_too(tmp_path, reads):
    _write(tmp_path / "set", [5, None, 5, None])
    for _ in range(2):
        source = LabelledSource(tmp_path / "set", images_per_group=2)
        assert source._caption_ids(1).tolist() == [5, -2, 5, -4] and source.caption_id(1) == -1
        assert list(source.groups_per_shard) == [1, 1]
    assert len(reads) == 2


def test_a_set_that_cannot_be_written_keeps_them_in_the_cache(folder, tmp_path, monkeypatch, reads, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_NOTED", set())
    folder.chmod(0o555)
    try:
        assert _ids(folder) == _ids(folder) == [CAPTIONS, CAPTIONS] and len(reads) == 2
        assert "cannot be written; its list of captions is kept in" in capsys.readouterr().err
        assert len(list((tmp_path / "cache").rglob("*.ids"))) == 2 and not (folder / ".synclones").exists()
    finally:
        folder.chmod(0o755)


def test_a_disk_that_is_full_is_told_of_once_and_stops_nobody(folder, monkeypatch, reads, capsys):
    monkeypatch.setattr(kept, "_NOTED", set())

    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_atomic", full)
    assert _ids(folder) == _ids(folder) == [CAPTIONS, CAPTIONS] and len(reads) == 4
    said = capsys.readouterr().err
    assert said.count("cannot be kept (No space left on device); the next start reads it again") == 1


def test_nothing_is_written_through_a_link(folder, tmp_path, capsys):
    (tmp_path / "outside").mkdir()
    (folder / ".synclones").symlink_to(tmp_path / "outside")
    assert _ids(folder) == [CAPTIONS, CAPTIONS] and not list((tmp_path / "outside").iterdir())


def test_a_missing_tar_is_refused_with_kept_numbers_too(folder):
    _ids(folder)
    (folder / "train-00001.tar").unlink()
    with pytest.raises(VerificationError, match=r"train-00001\.tar: missing"):
        LabelledSource(folder, images_per_group=2)


def test_groups_are_those_of_the_rule_written_out():
    rng = np.random.default_rng(0)
    for size in (2, 3):
        for count in (0, 1, 7, 200):
            captions = rng.integers(-3, 9, count)
            rows = np.sort(rng.permutation(10_000)[:count])
            rows_of: dict[int, list[int]] = {}
            for row, caption in zip(rows.tolist(), captions.tolist(), strict=True):
                rows_of.setdefault(caption, []).append(row)
            expected = [of[at : at + size] for of in rows_of.values() for at in range(0, len(of) - size + 1, size)]
            assert grouped_rows(rows, captions, size).tolist() == expected

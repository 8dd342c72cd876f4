"""A shard's bytes survive any interruption, damage is always found, and reading checks what it gives out."""

import errno
import gc
import os
import random
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import identity
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import PLAN, batches, sample, write_folder, write_set, write_shard

import synclones.shards.journal as journal
import synclones.shards.write as write
from synclones.base.errors import InputError, VerificationError, as_synclones_error
from synclones.shards.index import content_hash, finish_folder
from synclones.shards.lock import claim, remove_locks
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.schema import PARQUET_SCHEMA, FailedSample, Sample, ShardFiles, shard_name
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.decode import decode_image
from synclones.shards.tar import header
from synclones.shards.verify import inspect, verify
from synclones.shards.write import ShardWriter, is_complete


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("reference") / "set")


@pytest.fixture
def folder(reference, tmp_path):
    return shutil.copytree(reference, tmp_path / "set")


# ------------------------------------------------------------------ writing


def test_shard_names_have_five_digits_or_as_many_as_needed():
    assert shard_name("train", 3, 10) == "train-00003"
    assert shard_name("train", 3, 1_000_001) == "train-0000003"


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the writer may depend on it."""


def _writes_of_one_shard(monkeypatch, folder, die_at: int, after: bool) -> bool:
    """Write shard 0 and die at the ``die_at``-th operation on the disk; return whether it came to that."""
    count = 0
    originals = (write.append_durably, write.write_atomic, os.replace, os.fsync)

    def dying(original):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            mine = count
            if mine == die_at and not after:
                raise Killed
            result = original(*args, **kwargs)
            if mine == die_at:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(write, "append_durably", dying(originals[0]))
        patch.setattr(write, "write_atomic", dying(originals[1]))
        patch.setattr(os, "replace", dying(originals[2]))
        patch.setattr(os, "fsync", dying(originals[3]))
        try:
            write_shard(folder, 0)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
def test_dying_at_any_operation_is_repaired_by_the_next_writer(reference, tmp_path, monkeypatch, after):
    died = 0
    for operation in range(1, 200):
        folder = tmp_path / str(operation)
        folder.mkdir()
        if not _writes_of_one_shard(monkeypatch, folder, operation, after):
            break
        died += 1
        if not is_complete(folder, "train-00000"):
            write_shard(folder, 0)
        for suffix in ("tar", "parquet", "json"):
            ours, theirs = (place / f"train-00000.{suffix}" for place in (folder, reference))
            assert ours.read_bytes() == theirs.read_bytes(), (operation, suffix)
    assert died > 15, "the sweep must reach every step"


def test_a_damaged_journalled_batch_is_drawn_again(reference, tmp_path):
    with ShardWriter(tmp_path, "train-00000", PLAN) as writer:
        for number, batch in enumerate(batches(0)):
            writer.add_batch(number, batch)
    part = tmp_path / ".train-00000.part"
    data = bytearray(part.read_bytes())
    data[-700] ^= 1  # in the second batch
    part.write_bytes(data)
    with ShardWriter(tmp_path, "train-00000", PLAN) as writer:
        assert writer.next_batch == 1
    write_shard(tmp_path, 0)
    assert (tmp_path / "train-00000.tar").read_bytes() == (reference / "train-00000.tar").read_bytes()


def test_a_full_disk_leaves_no_final_name_and_the_rerun_has_the_same_bytes(reference, tmp_path, monkeypatch):
    real = os.fsync
    calls = iter(range(1000))

    def full(descriptor):
        if next(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError) as caught:
            write_shard(tmp_path, 0)
    assert as_synclones_error(caught.value).exit_code == 4
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    write_shard(tmp_path, 0)
    assert (tmp_path / "train-00000.tar").read_bytes() == (reference / "train-00000.tar").read_bytes()


def test_a_part_of_another_plan_is_refused(tmp_path):
    with ShardWriter(tmp_path, "train-00000", PLAN) as writer:
        writer.add_batch(0, batches(0)[0])
    with pytest.raises(InputError, match="unfinished shard of plan 0123456789abcdef, expected plan ffff"):
        ShardWriter(tmp_path, "train-00000", "ffff")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([sample(3), sample(2)], "rising index"),
        ([Sample(index=0, jpg=b"", json=b"{}", txt="x")], "image is empty"),
        ([Sample(index=0, jpg=b"x", json=b"x" * 513, txt="x")], "at most 512"),
        ([Sample(index=2**32, jpg=b"x", json=b"{}", txt="x")], "0..2\\^32-1"),
        ([sample(0), Sample(index=1, jpg=b"x", json=b"{}", txt="x")], "label all samples"),
        ([FailedSample(index=0, status="ok", reason="")], "expected 'failed' or 'dropped'"),
        ([Sample(index=0, jpg=b"x", json=b"{}", txt="\ud800")], "no valid Unicode"),
    ],
)
def test_samples_that_the_format_cannot_hold_are_refused(tmp_path, given, message):
    with ShardWriter(tmp_path, "train-00000", PLAN) as writer, pytest.raises(InputError, match=message):
        writer.add_batch(0, given)


def test_batches_come_in_order_and_empty_or_complete_shards_are_refused(tmp_path):
    with ShardWriter(tmp_path, "train-00000", PLAN) as writer:
        with pytest.raises(InputError, match="add batches in order"):
            writer.add_batch(1, batches(0)[1])
        with pytest.raises(InputError, match="at least one planned sample"):
            writer.finish()
    write_shard(tmp_path, 0)
    with pytest.raises(InputError, match="is complete"):
        ShardWriter(tmp_path, "train-00000", PLAN)


def test_a_claim_is_exclusive_until_released(tmp_path):
    first = claim(tmp_path, "train-00000")
    assert first is not None and claim(tmp_path, "train-00000") is None
    remove_locks(tmp_path)
    assert first.path.exists(), "a held lock stays"
    first.release()
    second = claim(tmp_path, "train-00000")
    assert second is not None
    second.release()
    remove_locks(tmp_path)
    assert not list(tmp_path.glob(".*.lock"))


# ------------------------------------------------------------------ damage


def test_a_sound_folder_verifies(folder, capsys):
    main([str(folder)])
    assert capsys.readouterr().out.startswith("ok: 3 shards, 21 samples")


def test_every_kind_of_damage_to_a_tar_is_found_and_named(folder, reference):
    rng = random.Random(7)
    tar = folder / "train-00001.tar"
    whole = tar.read_bytes()
    size = len(whole)
    damaged = [whole[:at] for at in (0, 1, 512, *range(1024, size, 2048), *(rng.randrange(size) for _ in range(30)))]
    for _ in range(120):
        at = rng.randrange(size)
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
    for at in range(0, size, 4096):
        if any(whole[at : at + 4096]):
            damaged.append(whole[:at] + bytes(len(whole[at : at + 4096])) + whole[at + 4096 :])
    silent = 0
    for data in damaged:
        tar.write_bytes(data)
        with pytest.raises(VerificationError, match="train-00001.tar"):
            verify(folder)
        silent += _webdataset_says_nothing(tar)
    assert silent > 0.3 * len(damaged), "the twin: webdataset's strictest reading passes much of the same damage"


def _webdataset_says_nothing(tar) -> bool:
    from webdataset.handlers import reraise_exception
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with open(tar, "rb") as stream:
            source = iter([{"url": str(tar), "stream": stream}])
            list(group_by_keys(tar_file_expander(source, handler=reraise_exception), handler=reraise_exception))
    except Exception:
        return False
    return True


def test_the_first_damaged_sample_is_named(folder):
    shards = ShardFolder(folder)
    row = shards.rows("train-00001")[3]
    tar = folder / "train-00001.tar"
    data = bytearray(tar.read_bytes())
    data[row.jpg_offset + 5] ^= 4
    tar.write_bytes(data)
    with pytest.raises(VerificationError, match=f"first in sample {row.key}"):
        verify(folder)
    with pytest.raises(VerificationError, match=f"sample {row.key} is damaged"):
        list(ShardFolder(folder).sequential())
    with pytest.raises(VerificationError, match="is damaged"):
        ShardFolder(folder).get(row.index)
    skipping = ShardFolder(folder)
    assert len(list(skipping.sequential(on_bad_shard="skip"))) == 20
    assert [(shard, key) for shard, key, _ in skipping.skipped] == [("train-00001", row.key)]
    with pytest.raises(VerificationError, match="1 of 21 samples are damaged, more than skipping allows; the last: "):
        list(ShardFolder(folder).sequential(on_bad_shard="skip", tolerated=0))


def test_skipping_a_whole_shard_counts_its_samples(folder):
    (folder / "train-00001.parquet").write_bytes(b"no longer")
    stored = ShardFolder(folder).samples_per_shard[1]
    reading = ShardFolder(folder)
    for _ in range(2):  # a second reading counts nothing twice
        assert len(list(reading.sequential(on_bad_shard="skip", tolerated=stored))) == reading.num_samples - stored
    with pytest.raises(VerificationError, match=f"{stored} of {reading.num_samples} samples are damaged"):
        list(ShardFolder(folder).sequential(on_bad_shard="skip", tolerated=stored - 1))


def _swap(folder, a, b):
    for suffix in ("tar", "parquet", "json"):
        x, y, spare = (folder / f"{name}.{suffix}" for name in (a, b, "spare"))
        x.rename(spare)
        y.rename(x)
        spare.rename(y)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda f: (f / "train-00002.tar").unlink(), "train-00002.tar: missing"),
        (lambda f: (f / "train-00002.json").unlink(), "train-00002.json: missing"),
        (lambda f: (f / "train-00002.parquet").unlink(), "train-00002.parquet: missing"),
        (lambda f: _swap(f, "train-00000", "train-00002"), "describes train-00002"),
        (lambda f: shutil.copy(f / "train-00000.tar", f / "train-00001.tar"), "train-00001.tar"),
        (lambda f: shutil.copy(f / "train-00000.tar", f / "train-00003.tar"), "not a shard of this plan"),
        (lambda f: (f / "train-00001.json").write_text("{"), "not the json of a shard"),
        (lambda f: (f / "info.json").write_text("{}"), "info.json: differs"),
        (lambda f: (f / "sizes.json").unlink(), "sizes.json: missing"),
        (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS: missing"),
        (lambda f: (f / "SHA256SUMS").write_text("x\n"), "no line of `sha256sum`"),
        (lambda f: (f / "plan.json").write_text('{"plan_id": "other", "num_shards": 3}'), "belongs to plan"),
    ],
)
def test_missing_swapped_extra_and_stale_files_are_named(folder, harm, named):
    harm(folder)
    problems = inspect(folder).problems
    assert any(named in problem for problem in problems), problems


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_shard_of_another_set_is_found_though_it_is_sound_in_itself(tmp_path, split):
    ours, theirs = (write_set(tmp_path / name, split, seed) for name, seed in (("ours", 1), ("theirs", 2)))
    main(["verify", str(ours)])
    for path in theirs.glob(f"{split}-00000.*"):
        shutil.copyfile(path, ours / path.name)
    with pytest.raises(VerificationError, match=f"{split}-00000.json: differs from SHA256SUMS"):
        main(["verify", str(ours)])


def test_the_split_is_read_from_the_folder(tmp_path):
    for split in ("train", "val", "test"):
        folder = write_set(tmp_path / split, split, 1)
        assert ShardFolder(folder).split == DatasetSource(folder).split == split
        assert ShardFolder(folder).shards == [f"{split}-00000"] and verify(folder).num_samples == 1
        assert finish_folder(folder) == content_hash(folder)


def test_a_flipped_bit_in_a_sidecar_is_found(folder):
    for suffix in ("parquet", "json"):
        path = folder / f"train-00001.{suffix}"
        data = bytearray(whole := path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(VerificationError, match="train-00001"):
            verify(folder)
        path.write_bytes(whole)
    verify(folder)


# ------------------------------------------------------------------ reading


def test_reading_gives_back_what_was_written(folder):
    written = [s for shard in range(3) for batch in batches(shard) for s in batch if isinstance(s, Sample)]
    shards = ShardFolder(folder)
    assert list(shards.sequential()) == written and shards.num_samples == 21
    assert [shards.get(s.index) for s in reversed(written)] == written[::-1]


EARLIER = Path(__file__).parent / "earlier"


def test_rows_and_journal_lines_keep_the_bytes_of_earlier_code():
    shards = ShardFolder(EARLIER / "set")
    for name in shards.shards:
        rows = [row.to_dict() for row in shards.rows(name)]
        made = write.parquet_bytes(write.pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA))
        assert pq.read_table(write.pa.BufferReader(made)).equals(pq.read_table(EARLIER / "set" / f"{name}.parquet"))
    parts = sorted((EARLIER / "stopped-set").glob(".*.part.jsonl"))
    assert parts
    for path in parts:
        files = ShardFiles(path.parent, path.name.removeprefix(".").removesuffix(".part.jsonl"))
        header, *lines = path.read_bytes().splitlines(keepends=True)
        stored, end = journal.good_batches(files, len(header))
        assert stored and end <= path.stat().st_size
        assert [journal.encode_line(batch.record()) for batch in stored] == lines[: len(stored)]


def test_what_is_not_there_is_said(folder, tmp_path):
    shards = ShardFolder(folder)
    with pytest.raises(InputError, match="has no image \\(failed: not finite\\)"):
        shards.get(5)
    with pytest.raises(InputError, match="no sample 24"):
        shards.get(24)
    with pytest.raises(InputError, match="no such folder"):
        ShardFolder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished shards"):
        ShardFolder(tmp_path / "empty")
    with pytest.raises(InputError, match="has shards of the split train, none of test; give another folder"):
        ShardFolder(shards.folder, "test")


def test_only_jpeg_png_and_webp_of_bounded_size_are_decoded(tmp_path):
    assert decode_image(sample(1).jpg).shape == (16, 16, 3)
    for data in (b"GIF89a" + bytes(20), b"", b"\xff\xd8broken"):
        with pytest.raises(VerificationError, match="that decodes"):
            decode_image(data)
    with pytest.raises(VerificationError, match="at most 100 are decoded"):
        decode_image(sample(1).jpg, max_pixels=100)


def test_show_prints_counts_and_one_sample(folder, tmp_path, capsys):
    main(["show", str(folder)])
    assert "failed 3, ok 21" in capsys.readouterr().out
    main(["show", str(folder), "--index", "9", "--out", str(tmp_path / "nine.jpg")])
    assert "a photo of 9" in capsys.readouterr().out
    assert (tmp_path / "nine.jpg").read_bytes() == sample(9).jpg


def test_two_folders_of_one_plan_are_identical(reference, tmp_path):
    assert identity(write_folder(tmp_path / "again")) == identity(reference)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("abcXYZ0123456789._-"), min_size=1, max_size=100), st.integers(0, 2**33 - 1))
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    assert header(name, size) == info.tobuf(format=tarfile.USTAR_FORMAT)


def test_a_header_that_ustar_cannot_hold_is_refused():
    for name, size in (("x" * 101, 1), ("x", 2**33)):
        with pytest.raises(ValueError, match="holds no name"):
            header(name, size)


def test_a_folder_of_complete_shards_can_be_finished_by_hand(dataset, copy_of_dataset, capsys):
    for name in ("info.json", "sizes.json", "SHA256SUMS"):
        (copy_of_dataset / name).unlink()
    main(["finish", str(copy_of_dataset)])
    assert "content" in capsys.readouterr().out and identity(copy_of_dataset) == identity(dataset)
    (copy_of_dataset / "train-00001.json").unlink()
    with pytest.raises(InputError, match="1 of 3 shards are unfinished, the first is train-00001"):
        main(["finish", str(copy_of_dataset)])
    with pytest.raises(InputError, match="no such folder"):
        main(["finish", str(copy_of_dataset / "nothing")])


def test_a_json_that_describes_another_shard_is_not_indexed(copy_of_dataset):
    path = copy_of_dataset / "train-00001.json"
    path.write_text(path.read_text().replace("train-00001", "train-00800"))
    with pytest.raises(VerificationError, match="describes train-00800; files were renamed or swapped"):
        main(["finish", str(copy_of_dataset)])


def test_few_tars_stay_open_however_many_are_read_by_threads_and_none_when_their_shards_are_gone(folder, monkeypatch):
    monkeypatch.setattr("synclones.shards.shard.KEPT_DESCRIPTORS", 2)

    def num_open() -> int:
        return sum(os.path.realpath(link).startswith(str(folder)) for link in Path("/proc/self/fd").iterdir())

    whole = ShardFolder(folder)
    shards = [whole.open(shard) for shard in whole.shards]
    expected = [Path(shard.files.tar).read_bytes()[: len(shard.read(0))] for shard in shards]
    assert len(shards) == 3 and num_open() == 2
    order = [number % 3 for number in range(600)]
    with ThreadPoolExecutor(4) as pool:
        first = pool.map(lambda shard: shard.read(0), [shards[number] for number in order])
        assert list(first) == [expected[number] for number in order]
    assert num_open() <= 2
    # A file that was replaced is read by the shard that was opened after it; the one before keeps what it promised.
    tar, before = shards[0].files.tar, shards[0].read(0)
    changed = bytearray(tar.read_bytes())
    changed[600] ^= 1
    os.replace(tar, tar.with_suffix(".old"))
    tar.write_bytes(changed)
    assert shards[0].read(0) == before
    with pytest.raises(VerificationError, match="is damaged"):
        ShardFolder(folder).open(whole.shards[0]).read(0)
    shards.clear()
    gc.collect()
    assert num_open() == 0

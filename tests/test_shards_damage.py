"""Every injected fault is found and named; the same sweep shows what webdataset's reader passes over in silence."""

import random
import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import NOTES
from shard_helpers import write_finished

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import write_manifest
from synclones.shards.index import derived_files
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.parts import single
from synclones.shards.read import ShardFolder
from synclones.shards.schema import SampleRow
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.verify import inspect, verify

HIT, NUM_SHARDS = "train-00001", 3
SUFFIXES = ("tar", "parquet", "json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set that the tests of this file damage in place and mend."""
    return write_finished(tmp_path_factory.mktemp("damage") / "set", NUM_SHARDS)


@pytest.fixture
def mended(folder, tmp_path) -> Iterator[Path]:
    """The set, which is put back afterwards."""
    sound = Path(shutil.copytree(folder, tmp_path / "sound"))
    yield folder
    for path in folder.iterdir():
        path.unlink()
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    verify(folder)


# ------------------------------------------------------------------ bytes of a tar


def truncations(size: int, count: int, rng: random.Random) -> list[int]:
    """Where the tar is cut: at every 512-byte block, then at random bytes."""
    blocks = list(range(0, size, 512))
    return (blocks + [rng.randrange(size) for _ in range(count)])[: max(count, len(blocks))]


def damages(whole: bytes, count: int, seed: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield (kind, first byte that is wrong, bytes of the tar)."""
    rng = random.Random(seed)
    for at in truncations(len(whole), count, rng):
        yield "truncated", at, whole[:at]
    for _ in range(count):
        at = rng.randrange(len(whole))
        yield "one bit flipped", at, whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    for start in range(0, len(whole), 4096):
        block = whole[start : start + 4096]
        if any(block):
            first = start + next(n for n, byte in enumerate(block) if byte)
            yield "4 KiB zeroed", first, whole[:start] + bytes(len(block)) + whole[start + 4096 :]


def first_hit(rows: list[SampleRow], at: int) -> str:
    """Key of the sample that the byte ``at`` belongs to, or nothing behind the last one."""
    return next((row.key for row in rows if row.status == "ok" and at < row.offset + row.nbytes), "")


def webdataset_reads(tar: Path) -> list[dict] | None:
    """The samples that webdataset's strictest reading gives; None when it says that something is wrong."""
    from webdataset.handlers import reraise_exception
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with tar.open("rb") as stream:
            source = iter([{"url": str(tar), "stream": stream}])
            return list(group_by_keys(tar_file_expander(source, handler=reraise_exception), handler=reraise_exception))
    except Exception:
        return None


def sweep(folder: Path, count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Damage a tar in every way; return kind -> (faults, those of them that webdataset passes in silence)."""
    tar, rows = folder / f"{HIT}.tar", ShardFolder(folder).rows(HIT)
    whole, theirs = tar.read_bytes(), webdataset_reads(tar)
    ours = {sample.index: sample for sample in ShardFolder(folder).sequential([HIT])}
    tally: dict[str, tuple[int, int]] = {}
    print(f"seed {seed}")
    try:
        for kind, at, data in damages(whole, count, seed):
            tar.write_bytes(data)
            key = first_hit(rows, at)
            report = inspect(folder)
            assert report.damaged == (HIT,) and len(report.problems) == 1, (kind, at, report.problems)
            named = f"damaged, first in sample {key} " if key else "damaged behind its last sample "
            assert report.problems[0].startswith(f"{tar}: {named}"), (kind, at, report.problems)
            _skipping_drops_whole_samples(folder, ours, key)
            faults, silent = tally.get(kind, (0, 0))
            read = webdataset_reads(tar)
            tally[kind] = faults + 1, silent + (read is not None and read != theirs)
    finally:
        tar.write_bytes(whole)
    verify(folder)
    return tally


def _skipping_drops_whole_samples(folder: Path, ours: dict, first_bad: str) -> None:
    shards = ShardFolder(folder)
    given = list(shards.sequential([HIT], on_bad_shard="skip", tolerated=len(ours)))
    lost = [key for shard, key, _ in shards.skipped if shard == HIT]
    assert all(ours[sample.index] == sample for sample in given), "a sample is given out whole or not at all"
    assert len(given) + len(lost) == len(ours) and {f"{s.index:010d}" for s in given}.isdisjoint(lost)
    assert (lost[:1] or [""]) == [first_bad], "what is lost is counted and named"


def _note(tally: dict[str, tuple[int, int]]) -> None:
    for kind, (faults, silent) in tally.items():
        NOTES.append(f"shards {kind}: {faults} of {faults} found and named; webdataset silent on {silent / faults:.0%}")


# The twin must fail: what our check finds every time, a plain reader passes over at least as often as this.
SILENT = {"truncated": 0.25, "one bit flipped": 0.35, "4 KiB zeroed": 0.8}


def _twin_is_silent(tally: dict[str, tuple[int, int]]) -> None:
    assert tally.keys() == SILENT.keys()
    for kind, (faults, silent) in tally.items():
        assert silent >= SILENT[kind] * faults, (kind, faults, silent)


def test_a_damaged_tar_is_found_and_its_first_bad_sample_named_where_webdataset_says_nothing(folder):
    _twin_is_silent(sweep(folder, 60, seed=1))


@pytest.mark.slow
def test_two_thousand_truncations_and_bit_flips_are_all_found(folder):
    tally = sweep(folder, 2000, seed=2)
    assert tally["truncated"][0] == tally["one bit flipped"][0] == 2000
    _note(tally)
    _twin_is_silent(tally)


# ------------------------------------------------------------------ bytes of the other files


def _flip_files(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    names = [f"{HIT}.parquet", f"{HIT}.json", "SHA256SUMS", "info.json", "sizes.json", "plan.json"]
    for name in names:
        path = folder / name
        whole = path.read_bytes()
        for _ in range(count):
            at = rng.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            try:
                problems = list(inspect(folder).problems)
            except VerificationError as error:  # a plan that is no JSON any more
                problems = [str(error)]
            assert problems, (name, at)
            if name.startswith(HIT):
                assert HIT in problems[0], (name, at, problems)
        path.write_bytes(whole)
    verify(folder)


def test_a_flipped_bit_in_a_sidecar_or_an_index_is_found(folder):
    _flip_files(folder, 12, seed=3)


@pytest.mark.slow
def test_hundreds_of_flipped_bits_in_sidecars_and_indexes_are_found(folder):
    _flip_files(folder, 400, seed=4)


# ------------------------------------------------------------------ whole files


def _swap(*paths: tuple[Path, Path]) -> None:
    for one, other in paths:
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)


def _rename(folder: Path, suffix: str, name: str) -> None:
    (folder / f"{HIT}.{suffix}").rename(folder / f"{name}.{suffix}")


def _stale_indexes(folder: Path) -> None:
    """Indexes that agree with each other and were written when there was one shard less."""
    plan = (folder / "plan.json").read_bytes()
    names = [f"train-{number:05d}" for number in range(NUM_SHARDS - 1)]
    for name, data in derived_files(folder, names, "train").items():
        (folder / name).write_bytes(data)
    assert (folder / "plan.json").read_bytes() == plan


def _stale_info(folder: Path) -> None:
    """An info.json of another time, and a SHA256SUMS written over it."""
    path, sums = folder / "info.json", folder / "SHA256SUMS"
    before = sha256_file(path)
    path.write_bytes(path.read_bytes().replace(b'"num_samples": 21', b'"num_samples": 20'))
    sums.write_bytes(sums.read_bytes().replace(before.encode(), sha256_file(path).encode()))
    (folder / "manifest.json").unlink()


def _other_hash(folder: Path) -> None:
    """A digest in SHA256SUMS that is as long as the right one, with no manifest to compare."""
    sums = folder / "SHA256SUMS"
    tar = sha256_file(folder / f"{HIT}.tar")
    sums.write_bytes(sums.read_bytes().replace(tar.encode(), tar[::-1].encode()))
    (folder / "manifest.json").unlink()


def whole_file_faults() -> dict[str, tuple[Callable[[Path], object], str]]:
    """Fault -> (what does it to a folder, what must be named)."""
    faults: dict[str, tuple[Callable[[Path], object], str]] = {}
    names = [f"train-{number:05d}" for number in range(NUM_SHARDS)]
    for a, b in combinations(names, 2):
        for suffixes in (SUFFIXES, *((suffix,) for suffix in SUFFIXES), ("tar", "parquet")):
            pairs = [(f"{a}.{suffix}", f"{b}.{suffix}") for suffix in suffixes]
            faults[f"{a} and {b} swapped: {' '.join(suffixes)}"] = (
                lambda f, pairs=pairs: _swap(*((f / x, f / y) for x, y in pairs)),
                a,
            )
    for suffix in SUFFIXES:
        faults |= {
            f"{suffix} missing": (lambda f, s=suffix: (f / f"{HIT}.{s}").unlink(), HIT),
            f"{suffix} empty": (lambda f, s=suffix: (f / f"{HIT}.{s}").write_bytes(b""), HIT),
            f"{suffix} twice, as the next": (
                lambda f, s=suffix: shutil.copy(f / f"{HIT}.{s}", f / f"train-00003.{s}"),
                "train-00003",
            ),
            f"{suffix} twice, in another's place": (
                lambda f, s=suffix: shutil.copy(f / f"{HIT}.{s}", f / f"train-00002.{s}"),
                "train-00002",
            ),
            f"{suffix} twice, as another split": (
                lambda f, s=suffix: shutil.copy(f / f"{HIT}.{s}", f / f"val-00001.{s}"),
                "val-00001",
            ),
            f"{suffix} renamed": (lambda f, s=suffix: _rename(f, s, "train-00007"), "train-00007"),
        }
    return faults | {
        "whole shard missing": (lambda f: [(f / f"{HIT}.{s}").unlink() for s in SUFFIXES], HIT),
        "whole shard renamed": (lambda f: [_rename(f, s, "train-00009") for s in SUFFIXES], HIT),
        "tar beside, of no such name": (lambda f: shutil.copy(f / f"{HIT}.tar", f / "copy of 1.tar"), "copy of 1.tar"),
        "indexes of fewer shards": (_stale_indexes, "SHA256SUMS"),
        "info.json of another time": (_stale_info, "info.json: is not what follows from the shards"),
        "another digest of a tar": (_other_hash, "SHA256SUMS: is not what follows from the shards"),
        "manifest of another set": (
            lambda f: write_manifest(f, "test", {}, [], {}, {}, {"content_hash": "0" * 64}),
            "manifest.json: states content 0000000000000000",
        ),
        "manifest cut": (lambda f: (f / "manifest.json").write_bytes(b"{"), "manifest.json: states content damaged"),
    }


@pytest.mark.parametrize("fault", whole_file_faults())
def test_swapped_missing_doubled_renamed_and_stale_files_are_named(mended, fault):
    harm, named = whole_file_faults()[fault]
    harm(mended)
    report = inspect(mended)
    assert any(named in problem for problem in report.problems), report.problems
    with pytest.raises(VerificationError):
        verify(mended)


def test_which_of_two_that_disagree_was_changed_is_told_by_the_manifest(mended):
    sums = (mended / "SHA256SUMS").read_bytes()
    (mended / "SHA256SUMS").write_bytes(sums.replace(sha256_file(mended / f"{HIT}.json").encode(), b"0" * 64))
    report = inspect(mended)
    assert report.damaged == () and report.stale == ("SHA256SUMS",)


# ------------------------------------------------------------------ training on a damaged set


def _batches(folder: Path, steps: int) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    loader = BatchLoader(
        single(LabelledSource(folder)), batch_size=7, seed=0, crops=Crops(size_px=16), on_bad_sample="skip"
    )
    read = list(loader.batches(0, steps))
    return [b.pixels.numpy() for b in read], [b.weights.numpy() for b in read], loader.skipped


def test_training_that_skips_gives_whole_images_or_none_and_names_what_is_left_out(folder):
    tar = folder / f"{HIT}.tar"
    whole, (pixels, _, _) = tar.read_bytes(), _batches(folder, 3)
    hit = 0
    try:
        for _, at, data in damages(whole, 12, seed=5):
            tar.write_bytes(data)
            got, weights, skipped = _batches(folder, 3)
            assert sum(int((w == 0).sum()) for w in weights) == len(skipped)
            assert all(HIT in line and "sample 00000000" in line for line in skipped)
            for ours, sound, weight in zip(got, pixels, weights, strict=True):
                assert (ours[weight == 1] == sound[weight == 1]).all() and not ours[weight == 0].any()
            assert bool(skipped) == bool(first_hit(ShardFolder(folder).rows(HIT), at))
            hit += bool(skipped)
    finally:
        tar.write_bytes(whole)
    assert hit > 20


def test_training_that_skips_stops_when_too_much_is_damaged(folder):
    tar = folder / f"{HIT}.tar"
    whole = tar.read_bytes()
    try:
        tar.write_bytes(bytes(len(whole)))
        with pytest.raises(
            VerificationError, match=r"of \d+ images are damaged, more than skipping allows; the last: "
        ):
            _batches(folder, 9)
    finally:
        tar.write_bytes(whole)

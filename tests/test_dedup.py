"""Near-duplicates inside a set: exactly those that all pairs would show, and nothing but a list is written."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
from conftest import synclones
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import PLAN, sample, write_folder

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.json_file import canonical_json
from synclones.shards.index import content_hash, finish_folder, identity_files
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.schema import Sample
from synclones.shards.similarity.near import MAX_DISTANCE, drop_list, near_pairs, nearest_of
from synclones.shards.write import ShardWriter


def brute_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    gaps = np.bitwise_count(hashes[:, None] ^ hashes[None])
    i, j = np.nonzero(np.triu(gaps <= distance, 1))
    return list(zip(i.tolist(), j.tolist(), gaps[i, j].tolist(), strict=True))


def brute_drop_list(hashes: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    kept, dropped = [], []
    for place, one in enumerate(hashes):
        near = [(int(np.bitwise_count(one ^ hashes[k])), k) for k in kept]
        near = [found for found in near if found[0] <= distance]
        if near:
            gap, first = min(near)
            dropped.append((place, first, gap))
        else:
            kept.append(place)
    return dropped


def planted(seed: int, n: int, distance: int) -> np.ndarray:
    """Random hashes; many are copies of others with up to two bits more than ``distance`` flipped, some in chains."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    for place in rng.permutation(n)[: n // 2]:
        flipped = rng.permutation(64)[: rng.integers(0, distance + 3)]
        mask = np.bitwise_or.reduce(np.uint64(1) << flipped.astype(np.uint64), initial=np.uint64(0))
        hashes[place] = hashes[rng.integers(n)] ^ mask
    return hashes


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, MAX_DISTANCE))
def test_pairs_are_those_of_all_comparisons(seed, n, distance):
    hashes = np.unique(planted(seed, n, distance))
    found = list(zip(*(column.tolist() for column in near_pairs(hashes, distance)), strict=True))
    assert found == brute_pairs(hashes, distance)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, MAX_DISTANCE))
def test_the_drop_list_is_that_of_all_comparisons(seed, n, distance):
    hashes = planted(seed, n, distance)
    found = list(zip(*(column.tolist() for column in drop_list(hashes, distance)), strict=True))
    assert found == brute_drop_list(hashes, distance)


@pytest.mark.parametrize("distance", [0, 4])
def test_large_clusters_are_exact_too(distance):
    rng = np.random.default_rng(0)
    hashes = np.uint64(1) << rng.integers(0, 64, 1500).astype(np.uint64)  # any two differ in 0 or 2 bits
    hashes = np.concatenate([hashes, planted(1, 500, 4), np.zeros(20, np.uint64)])
    found = list(zip(*(column.tolist() for column in drop_list(hashes, distance)), strict=True))
    assert found == brute_drop_list(hashes, distance)


def test_a_search_in_one_band_only_misses_pairs():
    """The must-fail twin: hashes sorted once are compared with their neighbours."""
    hashes = np.unique(planted(0, 300, 4))
    once = [(i, i + 1) for i in range(len(hashes) - 1) if np.bitwise_count(hashes[i] ^ hashes[i + 1]) <= 4]
    assert len(once) < len(brute_pairs(hashes, 4))


def smooth(index: int) -> np.ndarray:
    """A picture of 64x64 px with its own large shapes."""
    small = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420")


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures in three shards; 5 has the bytes of 1, 10 is 2 at another quality, 11 is 2 a little darker."""
    pictures = {index: jpeg(smooth(index)) for index in range(12)}
    pictures |= {5: pictures[1], 10: jpeg(smooth(2), 60), 11: jpeg((smooth(2) * 0.95).astype(np.uint8))}
    out = tmp_path / "set"
    out.mkdir()
    (out / "plan.json").write_bytes(canonical_json({"plan_id": PLAN, "num_shards": 3}))
    for shard in range(3):
        rows = [Sample(**{**vars(sample(i)), "jpg": pictures[i]}) for i in range(4 * shard, 4 * shard + 4)]
        with ShardWriter(out, f"train-0000{shard}", PLAN) as writer:
            writer.add_batch(0, rows)
            writer.finish()
    finish_folder(out)
    return out


def test_duplicates_across_shards_are_listed_and_the_set_is_left_alone(folder, capsys):
    before = {path.name: sha256_file(path) for path in identity_files(folder)}
    main(["dedup", str(folder)])
    printed = capsys.readouterr().out
    assert "3 of 12 images within 4 of 64 bits" in printed and "1 with the same bytes" in printed
    table = pq.read_table(folder / "duplicates.parquet")
    rows = table.to_pylist()
    assert [(row["index"], row["kept_index"], row["same_bytes"]) for row in rows] == [
        *((5, 1, True), (10, 2, False), (11, 2, False))
    ]
    assert rows[0]["distance"] == 0 and all(row["distance"] <= 4 for row in rows)
    facts = json.loads(table.schema.metadata[b"synclones"])
    assert facts == {"content_hash": content_hash(folder), "max_distance": 4}
    main(["verify", str(folder)])
    assert {path.name: sha256_file(path) for path in identity_files(folder)} == before
    assert ShardFolder(folder).num_samples == 12


def test_the_list_can_go_elsewhere_and_is_the_same_twice(folder, tmp_path, capsys):
    for name in ("a.parquet", "b.parquet"):
        main(["dedup", str(folder), "--out", str(tmp_path / name), "--max-distance", "0"])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert not (folder / "duplicates.parquet").exists()
    assert pq.read_table(tmp_path / "a.parquet")["index"].to_pylist()[0] == 5


def test_a_set_without_duplicates_has_an_empty_list(tmp_path, capsys):
    write_folder(tmp_path / "noise")
    main(["dedup", str(tmp_path / "noise")])
    assert "0 of 21 images" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "noise" / "duplicates.parquet").num_rows == 0


def test_an_unfinished_a_missing_or_a_damaged_set_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        main(["dedup", str(tmp_path / "none")])
    with pytest.raises(InputError, match="--max-distance: 30 was given, expected 0 to 8"):
        main(["dedup", str(folder), "--max-distance", "30"])
    tar = folder / "train-00001.tar"
    tar.write_bytes(tar.read_bytes()[:600] + b"x" + tar.read_bytes()[601:])
    done = synclones("shards", "dedup", str(folder), cwd=tmp_path)
    assert done.returncode == 3 and "sample 0000000004 is damaged" in done.stderr
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(VerificationError, match="unfinished"):
        main(["dedup", str(folder)])
    assert not (folder / "duplicates.parquet").exists()


# ------------------------------------------------------------------ against a test set


def brute_nearest(hashes: np.ndarray, others: np.ndarray, distance: int) -> list[tuple[int, int, int]]:
    if not len(others):
        return []
    gaps = np.bitwise_count(hashes[:, None] ^ others[None])
    nearest = gaps.argmin(1)
    return [(n, int(nearest[n]), int(gaps[n, nearest[n]])) for n in range(len(hashes)) if gaps[n].min() <= distance]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 200), st.integers(0, 60), st.integers(0, MAX_DISTANCE))
def test_the_nearest_of_others_are_those_of_all_comparisons(seed, n, m, distance):
    both = planted(seed, n + m, distance)
    columns = nearest_of(both[:n], both[n:], distance)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == brute_nearest(
        both[:n], both[n:], distance
    )


def images_to_test_on(tmp_path) -> Path:
    """Image 3 recompressed, the very bytes of image 7, and one of its own."""
    images = tmp_path / "test" / "some class"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(jpeg(smooth(3), 50))
    (images / "b.jpg").write_bytes(jpeg(smooth(7)))
    (images / "c.jpg").write_bytes(jpeg(smooth(99)))
    return images.parent


def in_a_tar(images: Path, path: Path) -> Path:
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(sorted(images.rglob("*.jpg"))):
            tar.add(file, f"{number:05d}.jpg")
    return path


@pytest.mark.parametrize("form", ["folder", "tar", "folder of tars"])
def test_near_duplicates_of_test_images_are_listed_and_the_set_is_left_alone(folder, tmp_path, capsys, form):
    images = images_to_test_on(tmp_path)
    tar = in_a_tar(images, tmp_path / "tars" / "test.tar")
    before = {path.name: sha256_file(path) for path in identity_files(folder)}
    main(["dedup", str(folder), "--against", str({"folder": images, "tar": tar}.get(form, tar.parent))])
    printed = capsys.readouterr().out
    assert (
        "2 of 12 images within 4 of 64 bits of 2 of the 3 images of" in printed and "1 with the same bytes" in printed
    )
    table = pq.read_table(folder / "test_duplicates.parquet")
    assert [(row["index"], row["same_bytes"], row["distance"] <= 4) for row in table.to_pylist()] == [
        (3, False, True),
        (7, True, True),
    ]
    names = ["some class/a.jpg", "some class/b.jpg"] if form == "folder" else ["test/00000", "test/00001"]
    assert all(key.endswith(name) for key, name in zip(table["test_image"].to_pylist(), names, strict=True))
    facts = json.loads(table.schema.metadata[b"synclones"])
    assert facts["content_hash"] == content_hash(folder) and len(facts["test_set_sha256"]) == 64
    assert {path.name: sha256_file(path) for path in identity_files(folder)} == before


def test_another_set_is_a_test_set_too_and_must_be_finished(folder, tmp_path, capsys):
    tests = write_folder(tmp_path / "tests")
    main(["dedup", str(folder), "--against", str(tests), "--out", str(tmp_path / "list.parquet")])
    assert "0 of 12 images" in capsys.readouterr().out and len(pq.read_table(tmp_path / "list.parquet")) == 0
    (tests / "SHA256SUMS").unlink()
    with pytest.raises(VerificationError, match="unfinished"):
        main(["dedup", str(folder), "--against", str(tests)])


def test_test_images_that_are_none_are_refused_by_their_flag(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.jpg").write_bytes(b"no image")
    for where, error, line in (
        (tmp_path / "none", InputError, "--against: no folder"),
        (tmp_path / "empty", InputError, "--against: .* holds no"),
        (Path("s3://bucket/x"), InputError, "is read from a disk only"),
        (tmp_path / "broken", VerificationError, "x.jpg: .*mend the image"),
    ):
        with pytest.raises(error, match=line):
            main(["dedup", str(folder), "--against", str(where)])
    assert not (folder / "test_duplicates.parquet").exists()

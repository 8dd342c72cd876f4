"""The readers people already have read our shards unchanged."""

import io
import json
import subprocess
import tarfile

import pytest
import webdataset
from shard_helpers import batches, picture, sample, write_folder

from synclones.shards.dataset import open_dataset
from synclones.shards.schema import Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("shards") / "set")


@pytest.fixture(scope="module")
def stored() -> list[Sample]:
    return [s for shard in range(3) for batch in batches(shard) for s in batch if isinstance(s, Sample)]


def test_webdataset_reads_every_sample(folder, stored):
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in read] == [f"{s.index:010d}" for s in stored]
    assert [(s["jpg"], s["json"], s["txt"].decode(), int(s["cls"])) for s in read] == [
        (s.jpg, s.json, s.txt, s.label) for s in stored
    ]


def test_open_dataset_gives_webdataset_the_finished_shards(folder, stored, monkeypatch):
    monkeypatch.chdir(folder.parent)  # a relative path works too
    for where in (folder, folder.name):
        read = list(open_dataset(where).webdataset())
        assert [(s["__key__"], s["jpg"], s["cls"], s["json"]) for s in read] == [
            (f"{s.index:010d}", s.jpg, str(s.label).encode(), s.json) for s in stored
        ]


def test_its_options_and_methods_are_webdatasets_own(folder, stored):
    pipeline = open_dataset(folder).webdataset(shardshuffle=3, seed=1).decode("rgb8").to_tuple("jpg", "cls")
    pairs = list(pipeline)
    assert sorted(label for _, label in pairs) == sorted(s.label for s in stored)
    assert {pixels.shape for pixels, _ in pairs} == {(16, 16, 3)}


def test_hugging_face_loads_the_folder_as_it_is(folder, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    loaded = load_dataset(str(folder), cache_dir=str(tmp_path))["train"]
    assert len(loaded) == len(stored)
    assert loaded[3]["txt"] == stored[3].txt and loaded[3]["cls"] == stored[3].label
    assert loaded[3]["json"]["index"] == stored[3].index and loaded[3]["jpg"].size == (16, 16)


def test_hugging_face_loads_what_the_main_job_makes(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    loaded = load_dataset(str(dataset), cache_dir=str(tmp_path))["train"]
    assert len(loaded) == 60 and loaded[11]["json"]["index"] == 11 and loaded[11]["jpg"].size == (32, 32)


def test_timm_reads_the_folder_through_info_json(folder, stored):
    from timm.data import create_dataset

    dataset = create_dataset("wds/set", root=str(folder), split="train", is_training=False, batch_size=1)
    read = list(dataset)
    assert len(dataset) == len(stored)
    assert sorted(label for _, label in read) == sorted(s.label for s in stored)
    assert read[0][0].size == (16, 16)


def test_open_clip_counts_samples_through_sizes_json(folder, stored):
    sizes = json.loads((folder / "sizes.json").read_text())
    assert sizes == {f"train-0000{n}.tar": 7 for n in range(3)}  # open_clip sums int(sizes[basename(shard)])
    assert sum(sizes.values()) == len(stored)


def test_tar_lists_and_sha256sum_agrees(folder):
    listed = subprocess.run(["tar", "tf", folder / "train-00000.tar"], capture_output=True, text=True, check=True)
    names = listed.stdout.split()
    assert names[:4] == [f"0000000000.{member}" for member in ("cls", "jpg", "json", "txt")] and len(names) == 28
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_members_are_the_bytes_that_webdatasets_writer_makes():
    from synclones.shards.tar import encode_sample, trailer

    stream = io.BytesIO()
    writer = webdataset.TarWriter(stream, mtime=0, user="", group="", mode=0o444)
    made = sample(5)
    writer.write({"__key__": "0000000005", "cls": b"2", "jpg": made.jpg, "json": made.json, "txt": made.txt.encode()})
    writer.close()
    ours = encode_sample(made)[0]
    theirs = tarfile.open(fileobj=io.BytesIO(stream.getvalue()))
    mine = tarfile.open(fileobj=io.BytesIO(ours + trailer(len(ours))))
    for a, b in zip(mine.getmembers(), theirs.getmembers(), strict=True):
        assert (a.name, a.size, a.mtime, a.mode, a.type) == (b.name, b.size, b.mtime, b.mode, b.type)
        assert mine.extractfile(a).read() == theirs.extractfile(b).read()  # a stream, nothing is unpacked
    assert picture(5) == made.jpg

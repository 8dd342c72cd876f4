"""Sets that others made are opened in place: equal to their own readers, checked, never confused, never written to."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, synclones
from hostile_corpus import END, TARS
from PIL import Image
from shard_helpers import write_folder
from test_sources import jpg, write_tar

from synclones.base.errors import InputError, SynclonesError, VerificationError
from synclones.base.files import sha256_file
from synclones.shards.sources import image_files
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.indexed import IndexedSource
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import index_set, open_source

NAMES = ("cat", "dog", "fox")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def imagenet_members(numbers) -> list[tuple[str, bytes]]:
    """As the Hub's imagenet-1k-wds: the key names nothing, cls counts from 0."""
    members = []
    for n in numbers:
        facts = {"label": n % 3, "class_name": NAMES[n % 3], "caption": f"a {NAMES[n % 3]}"}
        key = f"n0415259{n % 3}_{n}"
        members += [
            (f"{key}.jpg", jpg(n)),
            (f"{key}.cls", b"%d" % (n % 3)),
            (f"{key}.json", json.dumps(facts).encode()),
        ]
    return members


@pytest.fixture
def tars(tmp_path) -> Path:
    """Two tars of the same split, five images and four."""
    folder = tmp_path / "set"
    write_tar(folder / "imagenet-train-0000.tar", imagenet_members(range(5)))
    write_tar(folder / "imagenet-train-0001.tar", imagenet_members(range(5, 9)))
    return folder


@pytest.fixture
def listed(tars) -> Path:
    """The same with a class list beside it."""
    (tars / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return tars


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images in folders of classes, at two depths, with a name that is not UTF-8."""
    root = tmp_path / "images"
    for n in range(9):
        place = root / NAMES[n % 3] / ("deep" if n > 5 else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n}.{'JPG' if n == 4 else 'jpg'}").write_bytes(jpg(n))
    return root


@pytest.fixture
def hub(tmp_path) -> Path:
    """Parquet files as `datasets` writes them, of two row groups each."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(NAMES)),
            "caption": datasets.Value("string"),
        }
    )
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part in range(2):
        rows = [
            {"image": {"bytes": png(n), "path": f"{n}.png"}, "label": n % 3, "caption": f"a {NAMES[n % 3]}"}
            for n in range(5 * part, 5 * part + 5)
        ]
        made = datasets.Dataset.from_list(rows, features=features)
        made.to_parquet(str(tmp_path / "hub" / "data" / f"train-0000{part}-of-00002.parquet"), batch_size=3)
    return tmp_path / "hub"


def content(source) -> list[tuple[str, bytes, str]]:
    """(class, encoded image, caption) of every image, in order."""
    rows = []
    for number, count in enumerate(source.images_per_shard):
        shard = source.open(number)
        assert len(shard) == count
        rows += [(source.class_ids[shard.label[r]], shard.image(r), shard.caption(r)) for r in range(count)]
    return rows


def index_files(source: IndexedSource) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in source.index.where.glob("[!.]*")}


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """What a set holds, without what is ours."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".synclones" not in path.parts]
    return {str(path): (path.stat().st_mtime_ns, sha256_file(path)) for path in files}


# ------------------------------------------------------------------ equal to their own readers


def test_tars_are_read_as_webdataset_reads_them(listed, capsys):
    import webdataset

    before = state(listed)
    source = open_source(listed)
    names = [str(path) for path in sorted(listed.glob("*.tar"))]
    theirs = list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False))
    assert content(source) == [(NAMES[int(s["cls"])], s["jpg"], "") for s in theirs] and len(theirs) == 9
    assert source.images_per_shard == [5, 4] and source.class_ids == NAMES and source.is_local
    assert source.open(1).index.tolist() == [5, 6, 7, 8] and source.open(1).where(0).endswith(
        "0001.tar: sample n04152592_5"
    )
    said = capsys.readouterr().err
    assert "indexing, once; kept in" in said and "9 images in 2 shards" in said and "classes are the 3 of" in said
    open_source(listed)
    assert "index" not in capsys.readouterr().err, "the second time there is nothing to do"
    assert state(listed) == before


def test_members_in_any_order_formats_and_folders_are_one_sample(tmp_path):
    members = [("a/1.json", b'{"t": "red fox"}'), ("a/1.PNG", png(1)), ("a/1.cls", b"1"), ("b c/é.cls", b"0\n")]
    members += [("b c/é.txt", b" a cat "), ("b c/é.jpeg", jpg(2))]
    write_tar(tmp_path / "t" / "0.tar", members)
    (tmp_path / "classes.json").write_text(json.dumps({"dog": 1, "cat": 0}))
    source = open_source(tmp_path / "t", classes=tmp_path / "classes.json")
    assert content(source) == [("dog", png(1), ""), ("cat", jpg(2), "a cat")]
    asked = open_source(tmp_path / "t", classes=tmp_path / "classes.json", caption_key="t")
    assert [caption for *_, caption in content(asked)] == ["red fox", ""]
    assert asked.index.where != source.index.where, "each way to read has an index of its own"


def test_folders_are_read_as_torchvision_reads_them(folder, tmp_path):
    from torchvision.datasets import ImageFolder

    before = state(folder)
    source = open_source(folder)
    theirs = ImageFolder(str(folder))
    assert source.class_ids == tuple(theirs.classes)
    expected = sorted((theirs.classes[label], Path(path).read_bytes()) for path, label in theirs.samples)
    assert sorted(row[:2] for row in content(source)) == expected and len(expected) == 9
    assert ImageFolder(str(folder)).classes == theirs.classes, "no folder of ours is a class to them"
    assert state(folder) == before and source.index.where.is_relative_to(tmp_path / "cache")


def test_parquet_is_read_as_datasets_reads_it(hub):
    import datasets

    theirs = datasets.load_dataset("parquet", data_files=str(hub / "data" / "*.parquet"), split="train")
    theirs = theirs.cast_column("image", datasets.Image(decode=False))
    source = open_source(hub)
    assert content(source) == [(NAMES[row["label"]], row["image"]["bytes"], row["caption"]) for row in theirs]
    assert source.class_ids == NAMES and not source.is_local and source.images_per_shard == [5, 5]
    backwards = [source.open(1).image(row) for row in range(4, -1, -1)]
    assert backwards == [png(n) for n in range(9, 4, -1)], "rows of any row group, in any order"
    captions = [source.open(number).caption_ids() for number in range(2)]
    assert captions[0][0] == captions[0][3] == captions[1][1] != captions[0][1]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_of_paths_are_read_with_labels_or_ids(folder, suffix):
    comma = "," if suffix == "csv" else "\t"
    files = sorted(folder.rglob("*.jpg"))
    lines = [comma.join((str(f.relative_to(folder)), f.relative_to(folder).parts[0], '"an ""a"""')) for f in files]
    table = folder / f"images.{suffix}"
    table.write_text("\n".join([comma.join(("path", "class_id", "caption")), *lines]) + "\n")
    source = open_source(table)
    assert content(source) == [(f.relative_to(folder).parts[0], f.read_bytes(), 'an "a"') for f in files]
    numbered = [
        line.replace(f"{comma}{name}{comma}", f"{comma}{NAMES.index(name)}{comma}")
        for line in lines
        for name in NAMES
        if f"{comma}{name}{comma}" in line
    ]
    table.write_text("\n".join([comma.join(("path", "label", "caption")), *numbered]) + "\n")
    index_set(table)
    with pytest.raises(InputError, match="labels are numbers, 0 to 2, without a meaning; give a class list"):
        _ = open_source(table).class_ids
    (folder / "c.txt").write_text("\n".join(NAMES))
    assert [row[:2] for row in content(open_source(table, classes=folder / "c.txt"))] == [
        (f.relative_to(folder).parts[0], f.read_bytes()) for f in files
    ]


def test_tables_without_header_are_paths_and_captions(folder):
    (folder / "all.csv").write_text('cat/0.jpg,"a cat, at home"\ndog/1.jpg,a dog\n')
    source = open_source(folder / "all.csv")
    shard = source.open(0)
    assert [shard.caption(r) for r in range(2)] == ["a cat, at home", "a dog"] and shard.label.tolist() == [-1, -1]
    assert shard.image(1) == jpg(1)
    with pytest.raises(InputError, match="the images have no labels"):
        _ = source.class_ids


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label\n../outside.jpg,0\n", ":2: '../outside.jpg' is no path below"),
        ("path,label\n/etc/passwd.jpg,0\n", ":2: '/etc/passwd.jpg' is no path below"),
        ("path,label\ncat/0.gif,0\n", ":2: 'cat/0.gif' is no .jpg"),
        ("path,label\ncat/0.jpg\n", ":2: 1 columns, expected 2"),
        ("file,label\ncat/0.jpg,0\n", ":1: the header is"),
        ("path,label\ncat/nowhere.jpg,0\n", "nowhere.jpg: missing"),
        ("path,label\ncat/0.jpg,0\ndog/1.jpg,dog\n", "labels are numbers .0. and texts .'dog'."),
        ("path,path\ncat/0.jpg,0\n", "each once"),
        ('path,label\n"cat/0.jpg,0\n', "no line of a table"),
    ],
)
def test_tables_that_lead_astray_are_refused(folder, text, message):
    (folder / "images.csv").write_text(text)
    with pytest.raises(SynclonesError, match=message):
        open_source(folder / "images.csv")


def test_folders_of_this_project_are_what_they_were(tmp_path):
    made = write_folder(tmp_path / "ours", 2)
    assert isinstance(open_source(made), DatasetSource)
    with pytest.raises(InputError, match="leave out a label key"):
        open_source(made, label_key="x")
    with pytest.raises(InputError, match="has its own index"):
        index_set(made)


# ------------------------------------------------------------------ splits and patterns


def test_a_folder_of_several_splits_is_no_choice(listed):
    write_tar(listed / "imagenet-validation-0000.tar", imagenet_members(range(9, 11)))
    with pytest.raises(InputError, match="holds files of train, val; choose one, as split=val"):
        open_source(listed)
    assert len(LabelledSource(open_source(listed, split="train"))) == 9
    assert len(LabelledSource(open_source(listed, split="val"))) == 2
    with pytest.raises(InputError, match="no file of the split 'test'; names speak of train, val"):
        open_source(listed, split="test")
    with pytest.raises(InputError, match="holds files of train, val"):
        open_source(f"{listed}/*.tar")
    (listed / "imagenet-validation-0000.tar").rename(listed / "imagenet.tar")
    assert len(LabelledSource(open_source(listed))) == 11
    (listed / "imagenet-train-0000.tar").rename(listed / "imagenet-test-0000.tar")
    (listed / "imagenet-train-0001.tar").unlink()
    with pytest.raises(InputError, match="holds files of test and of no split"):
        open_source(listed)


def test_folders_of_splits_are_chosen_between(folder, tmp_path):
    root = tmp_path / "both"
    shutil.copytree(folder, root / "train")
    assert open_source(root).class_ids == NAMES, "one folder of a split is what is in it"
    shutil.copytree(folder / "cat", root / "val" / "cat")
    with pytest.raises(InputError, match="holds files of train, val"):
        open_source(root)
    assert open_source(root, split="train").class_ids == NAMES
    assert open_source(root, split="validation").class_ids == ("cat",)
    shutil.copytree(folder / "cat", root / "bus")
    with pytest.raises(InputError, match="train, val beside other folders"):
        open_source(root, split="train")
    shutil.rmtree(root / "val")
    assert open_source(root).class_ids == ("bus", "train"), "a train among vehicles"
    with pytest.raises(InputError, match="has no folder of the split 'train'"):
        open_source(root, split="train")


def test_patterns_name_files(listed):
    write_tar(listed / "imagenet-test-0000.tar", imagenet_members(range(9, 11)))
    for pattern in ("imagenet-train-*.tar", "imagenet-train-{0000..0001}.tar", "imagenet-{train,train}-000[01].tar"):
        assert open_source(f"{listed}/{pattern}").images_per_shard == [5, 4], pattern
    assert open_source(listed / "imagenet-test-0000.tar").images_per_shard == [2]
    for pattern, message in (
        ("imagenet-train-{0000..0002}.tar", "no file '.*0002.tar'"),
        ("nothing-*.tar", "no file"),
        ("{5..1}.tar", "is no range"),
        ("{abc}.tar", "is no range"),
        ("{1..9999999}.tar", "is no range of at most"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(f"{listed}/{pattern}")


@pytest.mark.parametrize(
    "names, message",
    [
        (["a.txt"], "no set of images; the first of 1 files is"),
        ([], "no set of images"),
        (["._a.jpg", "__MACOSX/a.jpg"], "no set of images .*passed over 2 hidden"),
        (["a.parquet"], "no Parquet file with a column of images"),
    ],
)
def test_what_is_no_set_is_refused_by_what_it_is(tmp_path, names, message):
    (tmp_path / "x").mkdir()
    for name in names:
        (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "x")
    with pytest.raises(InputError, match="no such folder or file; give tars"):
        open_source(tmp_path / "y")


# ------------------------------------------------------------------ labels


def test_numbers_mean_what_a_list_says_and_nothing_without(tars, tmp_path):
    with pytest.raises(InputError, match="numbers, 0 to 2, without a meaning; give a class list: .txt"):
        _ = open_source(tars).class_ids
    assert open_source(tars).open(0).label.tolist() == [0, 1, 2, 0, 1]
    given = tmp_path / "c.csv"
    given.write_text("class_id,name\nA,a\nB,b\nC,c\nD,d\n")
    assert open_source(tars, classes=given).class_ids == ("A", "B", "C", "D"), "not every class must occur"
    given.write_text("class_id,name\nA,a\nB,b\n")
    with pytest.raises(InputError, match="label 2 is beyond the 2 classes of .*c.csv, which are 0 to 1"):
        open_source(tars, classes=given)
    (tars / "classes.txt").write_text("A\nB\n")
    with pytest.raises(InputError, match="label 2 is beyond the 2 classes of .*classes.txt"):
        open_source(tars)


def test_labels_that_count_from_one_are_noticed(tmp_path):
    members = [(f"{n}.{e}", d) for n in range(6) for e, d in (("jpg", jpg(n)), ("cls", b"%d" % (n % 3 + 1)))]
    write_tar(tmp_path / "t" / "0.tar", members)
    (tmp_path / "t" / "classes.txt").write_text("\n".join(NAMES))
    with pytest.raises(InputError, match="label 3 is beyond the 3 classes .*seem to count from 1"):
        open_source(tmp_path / "t")


def test_labels_come_from_a_key(tars, tmp_path):
    source = open_source(tars, label_key="class_name", caption_key="caption")
    assert source.class_ids == NAMES and content(source)[4] == ("dog", jpg(4), "a dog")
    (tmp_path / "order.json").write_text(json.dumps(["fox", "dog", "cat"]))
    assert open_source(tars, label_key="class_name", classes=tmp_path / "order.json").open(0).label[:3].tolist() == [
        2,
        1,
        0,
    ]
    (tmp_path / "short.txt").write_text("fox\ndog\n")
    with pytest.raises(InputError, match="1 labels are no class of .*short.txt: 'cat'"):
        open_source(tars, label_key="class_name", classes=tmp_path / "short.txt")
    with pytest.raises(InputError, match="the images have no labels"):
        _ = open_source(tars, label_key="nothing").class_ids
    with pytest.raises(InputError, match="numbers, 0 to 2"):
        _ = open_source(tars, label_key="label").class_ids
    hashes = {open_source(tars, label_key=key).content_hash() for key in ("class_name", "label", None)}
    assert len(hashes) == 3, "other labels are another set"


def test_a_set_that_is_partly_labelled_has_no_classes(tmp_path, capsys):
    members = [*imagenet_members(range(3)), ("x.jpg", jpg(9)), ("y.cls", b"0"), ("z.npy", b"x"), ("._x.jpg", b"x")]
    write_tar(tmp_path / "t" / "0.tar", members)
    (tmp_path / "t" / "classes.txt").write_text("\n".join(NAMES))
    source = open_source(tmp_path / "t")
    assert source.open(0).label.tolist() == [0, 1, 2, -1], "captions may be all that somebody wants"
    with pytest.raises(InputError, match="1 images have no label .the first: x., 3 have one"):
        _ = source.class_ids
    said = capsys.readouterr().err
    for words in ("1 a sample without an image (the first: y)", "1 hidden", "1 no member named"):
        assert words in said
    stated = json.loads((source.index.where / "index.json").read_text())
    assert (stated["images"], stated["images_without_label"]) == (4, 1)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.txt", "a\n\nb\n", "'' is no class id"),
        ("c.txt", "a\na\n", "class 'a' appears twice"),
        ("c.txt", "", "names no class"),
        ("c.csv", "name\na\n", "without class_id"),
        ("c.csv", "class_id,label\na,1\nb,0\n", "row 1 states the label '1', but its position is 0"),
        ("c.json", '{"a": 0, "b": 2}', "not 0, 1, 2"),
        ("c.json", '{"0": "a"}', "must be a class_to_idx"),
        ("c.json", "[1, 2]", "expected ids as texts"),
        ("c.json", "{", "no class list"),
        ("c.xls", "a", "a class list ends in"),
    ],
)
def test_class_lists_that_are_none_are_refused(tars, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        open_source(tars, classes=tmp_path / name)


# ------------------------------------------------------------------ the index


def test_the_index_has_the_same_bytes_however_it_was_made(listed, monkeypatch):
    first = index_files(open_source(listed))
    shutil.rmtree(listed / ".synclones")
    monkeypatch.setattr("synclones.shards.sources.indexing._THREADS", 1)
    assert index_files(open_source(listed)) == first and len(first) == 3
    (where,) = (listed / ".synclones").iterdir()
    rows = pq.read_table(where / "00001.parquet").to_pylist()
    data = (listed / "imagenet-train-0001.tar").read_bytes()
    for row, number in zip(rows, range(5, 9), strict=True):
        assert data[row["offset"] : row["offset"] + row["size"]] == jpg(number)
        assert row["crc32"] == zlib.crc32(jpg(number)) and row["key"] == f"n0415259{number % 3}_{number}"


def test_equal_sets_have_one_identity_wherever_they_lie(listed, folder, tmp_path):
    for original in (listed, folder):
        copy = Path(shutil.copytree(original, tmp_path / f"copy-{original.name}", ignore=lambda *_: [".synclones"]))
        assert open_source(copy).content_hash() == open_source(original).content_hash()
    (folder / "cat" / "0.jpg").write_bytes(jpg(77))
    index_set(folder)
    assert open_source(folder).content_hash() != open_source(copy).content_hash()


def test_files_that_were_touched_are_read_again_and_files_that_changed_are_refused(listed, capsys):
    tar = listed / "imagenet-train-0000.tar"
    before = open_source(listed).content_hash()
    os.utime(tar, ns=(1, 1))
    capsys.readouterr()
    assert open_source(listed).content_hash() == before
    assert "reading again" in capsys.readouterr().err
    open_source(listed)
    assert capsys.readouterr().err == ""
    write_tar(tar, imagenet_members([1, 1 + 3, 2, 3, 4 + 6]))
    command = f"synclones shards index {listed}"
    with pytest.raises(
        VerificationError,
        match=f"imagenet-train-0000.tar: changed since it was indexed; if that is right, run: {command}",
    ):
        open_source(listed)
    with pytest.raises(VerificationError):
        open_source(listed)
    index_set(listed)
    assert open_source(listed).content_hash() != before
    write_tar(listed / "imagenet-train-0002.tar", imagenet_members([20]))
    with pytest.raises(InputError, match=f"files were added or removed .*0002.tar.*: {command}"):
        open_source(listed)


def test_an_image_added_to_a_folder_or_a_line_to_a_table_is_noticed(folder):
    open_source(folder)
    (folder / "cat" / "new.jpg").write_bytes(jpg(50))
    with pytest.raises(InputError, match="files were added or removed since it was indexed; .*shards index"):
        open_source(folder)
    (folder / "images.csv").write_text("path,class_id\ncat/0.jpg,cat\n")
    before = open_source(folder / "images.csv").content_hash()
    os.utime(folder / "images.csv", ns=(1, 1))
    assert open_source(folder / "images.csv").content_hash() == before
    (folder / "images.csv").write_text("path,class_id\ncat/0.jpg,dog\n")
    with pytest.raises(VerificationError, match="changed since it was indexed"):
        open_source(folder / "images.csv")


@pytest.mark.parametrize("kind", ["listed", "folder", "hub"])
def test_a_file_that_changes_is_noticed_when_it_is_read_and_when_it_is_checked(kind, request):
    source = open_source(request.getfixturevalue(kind))
    source.check(quick=True)
    source.check(quick=False)
    shard = source.open(0)
    path = next(
        p
        for p in sorted(source.root.rglob("*"))
        if p.suffix in (".tar", ".parquet", ".jpg") and ".synclones" not in p.parts
    )
    data, times = bytearray(path.read_bytes()), path.stat()
    at = data.index(shard.image(0)) + len(shard.image(0)) // 2
    data[at] ^= 1
    with path.open("r+b") as file:  # in place: the file that a reader holds open changes too
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    source.check(quick=True)
    with pytest.raises(VerificationError, match=path.name):
        open_source(source.folder).open(0).image(0)
    with pytest.raises(VerificationError, match=path.name):
        source.check(quick=False)
    data[at] ^= 1
    path.write_bytes(data[:-1])
    for read in (lambda: shard.image(0), lambda: source.check(quick=True)):
        with pytest.raises(VerificationError, match=path.name):
            read()
    path.unlink()
    with pytest.raises(VerificationError, match=f"{path.name}: missing"):
        source.check(quick=True)


def test_a_damaged_or_swapped_index_is_refused_and_made_again(listed):
    source = open_source(listed)
    where = source.index.where
    whole = (where / "00000.parquet").read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(4, len(whole), 40):
        data = bytearray(whole)
        data[at] ^= 0xFF
        (where / "00000.parquet").write_bytes(data)
        try:
            shard = source.open(0)
            rows = [(shard.image(r), shard.label[r]) for r in range(5)]
        except VerificationError as error:
            assert "run: synclones shards index" in str(error) or "damaged or changed" in str(error)
        else:
            assert rows == [(jpg(n), n % 3) for n in range(5)], "what is read all the same is right"
    (where / "00000.parquet").write_bytes((where / "00001.parquet").read_bytes())
    with pytest.raises(VerificationError, match="of another index"):
        source.open(0)
    index_set(listed)
    assert (where / "00000.parquet").read_bytes() == whole
    (where / "index.json").write_text("{")
    assert open_source(listed).content_hash() == source.content_hash()


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", "a/../../b.tar"])
def test_an_index_that_leads_out_of_its_set_is_none(listed, name, capsys):
    source = open_source(listed)
    path = source.index.where / "index.json"
    path.write_text(path.read_text().replace("imagenet-train-0000.tar", name))
    capsys.readouterr()
    assert open_source(listed).content_hash() == source.content_hash()
    assert "indexing" in capsys.readouterr().err


def test_nothing_is_written_through_a_link(listed, tmp_path):
    (tmp_path / "outside").mkdir()
    (listed / ".synclones").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="a link, where the index of a set is kept"):
        open_source(listed)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_set_that_cannot_be_written_is_indexed_elsewhere_and_left_alone(listed, cache, capsys):
    listed.chmod(0o555)
    try:
        source = open_source(listed)
        assert source.index.where.is_relative_to(cache) and len(content(source)) == 9
        assert not (listed / ".synclones").exists()
        assert "cannot be written; its index is kept in" in capsys.readouterr().err
        open_source(listed)
        assert capsys.readouterr().err == ""
        os.utime(listed / "imagenet-train-0000.tar", ns=(5, 5))
        assert "reading again" in _said_at_opening(listed, capsys) and _said_at_opening(listed, capsys) == ""
    finally:
        listed.chmod(0o755)


def test_an_index_beside_a_set_that_is_closed_later_serves_on(listed, cache, capsys):
    open_source(listed)
    listed.chmod(0o555)
    try:
        for time_ns in (5, 6):
            os.utime(listed / "imagenet-train-0000.tar", ns=(time_ns, time_ns))
            assert "reading again" in _said_at_opening(listed, capsys)
            assert _said_at_opening(listed, capsys) == "" and list(cache.rglob("index.json"))
    finally:
        listed.chmod(0o755)


def _said_at_opening(path: Path, capsys) -> str:
    capsys.readouterr()
    open_source(path)
    return capsys.readouterr().err


def test_what_others_see_of_a_set_stays_the_same(listed):
    from synclones.shards.sources.files import PassedOver
    from synclones.shards.sources.images import list_images

    before = list(list_images(listed))
    open_source(listed)
    passed = PassedOver()
    assert list(list_images(listed, passed)) == before and "hidden" not in passed.text(listed)


# ------------------------------------------------------------------ several at once, and kills


def many_tars(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        write_tar(folder / f"{number:05d}.tar", imagenet_members(range(20 * number, 20 * number + 20)))
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


OPEN = (
    "import sys; from synclones.shards.sources.open import open_source; print(open_source(sys.argv[1]).content_hash())"
)


def test_processes_and_threads_that_index_at_once_make_one_index(tmp_path):
    folder = many_tars(tmp_path / "set")
    command = [sys.executable, "-c", OPEN, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    hashes: list[str] = []
    threads = [threading.Thread(target=lambda: hashes.append(open_source(folder).content_hash())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = [process.communicate(timeout=60) for process in running]
    assert {*hashes, *(out.strip() for out, _ in ends)} == {open_source(folder).content_hash()} and len(hashes) == 3
    assert sum("images in 12 shards" in err for _, err in ends) <= 1


def test_an_index_whose_making_is_killed_is_finished_by_the_next(tmp_path):
    folder = many_tars(tmp_path / "set", 40)
    whole = index_files(open_source(folder))
    for after in (1, 10, 30):
        shutil.rmtree(folder / ".synclones")
        process = subprocess.Popen(
            [sys.executable, "-c", OPEN, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(folder.glob(".synclones/*/*.parquet"))) < after:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = {path.name: path.stat().st_mtime_ns for path in folder.glob(".synclones/*/*.parquet")}
        assert len(done) >= after
        source = open_source(folder)
        assert index_files(source) == whole and not list(source.index.where.glob(".*.tmp-*"))
        assert all((source.index.where / name).stat().st_mtime_ns == at for name, at in done.items()), (
            "none is made twice"
        )


# ------------------------------------------------------------------ hostile sets


@pytest.mark.parametrize("name", TARS)
def test_hostile_tars_are_refused_in_one_line_or_give_plain_images(tmp_path, name):
    path = tmp_path / "set" / "0.tar"
    path.parent.mkdir()
    path.write_bytes(TARS[name] + END)
    try:
        source = open_source(path)
        rows = [source.open(0).image(row) for row in range(source.images_per_shard[0])]
    except SynclonesError as error:
        assert str(error).isprintable()
        assert not list(path.parent.glob(".synclones/*/index.json"))
    else:
        assert set(rows) == {b"abc"}
        assert "/../" not in source.open(0).where(0) and source.open(0).where(0).isprintable()
    assert {p.name for p in tmp_path.iterdir()} <= {"set", "cache"}


def test_every_cut_of_a_tar_is_noticed(tmp_path):
    tar = write_tar(tmp_path / "t" / "0.tar", imagenet_members(range(2)))
    data = tar.read_bytes()
    end = len(data.rstrip(b"\0"))
    for length in [*range(512, end, 512), *np.random.default_rng(0).integers(1, end, 30).tolist()]:
        tar.write_bytes(data[:length])
        with pytest.raises(SynclonesError):
            open_source(tar)
        assert not list(tmp_path.glob("t/.synclones/*/index.json"))


def test_a_bomb_is_indexed_and_never_decoded(tmp_path):
    Image.new("1", (10_000, 10_000)).save(buffer := io.BytesIO(), "PNG")
    write_tar(tmp_path / "t" / "0.tar", [("0.png", buffer.getvalue()), ("0.cls", b"0")])
    (tmp_path / "t" / "classes.txt").write_text("a\n")
    with pytest.raises(VerificationError, match="0.tar: sample 0: 10000x10000 pixels in .*bomb"):
        LabelledSource(open_source(tmp_path / "t")).read(0)


def test_parquet_that_is_not_as_it_says_is_refused(hub, tmp_path):
    path = tmp_path / "p" / "train.parquet"
    path.parent.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def write(images, **columns) -> None:
        pq.write_table(pa.table({"image": pa.array(images, kind), **columns}), path)

    write([{"bytes": None, "path": "/etc/passwd"}])
    with pytest.raises(InputError, match="row 0 is missing or only a path"):
        open_source(path)
    write([{"bytes": b"x", "path": ""}], label=pa.array([1.5]))
    with pytest.raises(InputError, match="'label' holds double, expected texts"):
        open_source(path)
    write([{"bytes": b"x", "path": ""}], label=pa.array([-1]))
    assert open_source(path).open(0).label.tolist() == [-1]
    write([{"bytes": b"x", "path": ""}], fine=pa.array([0]))
    with pytest.raises(InputError, match="no column 'coarse'; its columns are image, fine"):
        open_source(path, label_key="coarse")
    data = bytearray((hub / "data" / "train-00000-of-00002.parquet").read_bytes())
    for cut in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(SynclonesError):
            open_source(path)


# ------------------------------------------------------------------ size, users and the command


def test_evaluation_takes_any_labelled_set(listed, folder):
    from synclones.evaluate.predict import TestSet

    for path in (listed, folder):
        test_set = TestSet(path)
        assert len(test_set) == 9 and test_set.class_ids == NAMES
        first = test_set[0]
        assert (first.label, first.index) == (0, 0) and np.array_equal(first.pixels, decode_image(jpg(0)))


def test_a_shard_in_memory_is_small(listed):
    shard = open_source(listed).open(0)
    arrays = [value for value in vars(shard).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 32 * len(shard) and len(arrays) == 5


def test_runs_of_a_folder_are_shards(folder, monkeypatch):
    whole = content(open_source(folder))
    monkeypatch.setattr(image_files, "IMAGES_PER_SHARD", 4)
    index_set(folder)
    assert open_source(folder).images_per_shard == [4, 4, 1] and content(open_source(folder)) == whole


def test_the_command_says_what_it_found(listed, tmp_path):
    done = synclones("shards", "index", str(listed), "--label-key", "class_name", "--caption-key", "caption", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"{listed}: 9 images in 2 shards (tars); index in {listed}/.synclones/all-" in done.stdout
    assert "labels  3 by json:class_name (cat: 3, dog: 3, fox: 3)" in done.stdout
    assert (
        "classes are its 3 labels, sorted; the first is cat" in done.stdout
        and "caption 9 images have one" in done.stdout
    )
    bad = synclones("shards", "index", str(listed), "--classes", str(tmp_path / "no.txt"), cwd=ROOT)
    assert bad.returncode == 2 and "no such class list" in bad.stderr

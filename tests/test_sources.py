"""What of a folder or tar counts as an image: one walk and one parser for tables, captions, test sets and drawing."""

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import synclones
from PIL import Image

from synclones.base.errors import InputError
from synclones.generate.generators.source_images import SourceImages
from synclones.prompts.build import make_table
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.classes.lists import ClassInfo, ClassList
from synclones.prompts.recipe import Inputs
from synclones.prompts.table import PromptTable
from synclones.shards.similarity.phash import hash_folder
from synclones.shards.sources.files import PassedOver, plain_text
from synclones.shards.sources.images import find_images, list_images, read_images
from synclones.shards.sources.tars import image_offsets, read_image, read_samples, read_texts

CLASSES = ClassList("c", tuple(ClassInfo(name, name) for name in ("zero", "one", "two")))


def jpg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


@pytest.fixture
def real(tmp_path):
    """Three classes of three images."""
    for number, name in enumerate(("zero", "one", "two")):
        (tmp_path / "real" / name).mkdir(parents=True)
        for n in range(3):
            (tmp_path / "real" / name / f"{n}.jpg").write_bytes(jpg(3 * number + n))
    return tmp_path / "real"


def seen_by_all(path: Path) -> list[str]:
    """The images that tables, captions, the near-duplicate gate and drawing see: the same ones."""
    keys = sorted(key for key, _ in list_images(path))
    assert sorted(image.source_key for image in read_images(path)) == keys
    sources = SourceImages(path)
    table = make_table("real-images", Inputs(classes=CLASSES, images=path), None)
    assert sorted(row["source_key"] for block in table.blocks() for row in block.to_pylist()) == keys
    assert len(sources.read(keys, 16)) == len(keys)
    names = [key.partition("/")[2] for key in keys]
    if not find_images(path)[2]:
        assert sorted(hash_folder(path, "DIR").keys) == names
    return names


ORDINARY = [f"{name}/{n}.jpg" for name in ("one", "two", "zero") for n in range(3)]


# ------------------------------------------------------------------ folders


def test_hidden_files_are_passed_over_aloud(real, capsys):
    before = find_images(real)[0]
    (real / "zero" / ".ipynb_checkpoints").mkdir()
    shutil.copy(real / "zero" / "0.jpg", real / "zero" / ".ipynb_checkpoints" / "0-checkpoint.jpg")
    (real / "one" / "._0.jpg").write_bytes(b"\0\5\x16\7Mac OS X")
    (real / "__MACOSX" / "two").mkdir(parents=True)
    (real / "__MACOSX" / "two" / "._0.jpg").write_bytes(b"\0\5\x16\7Mac OS X")
    (real / "labels.txt").write_text("zero")
    (real / "two" / "scan.tif").write_bytes(b"II*\0")
    assert seen_by_all(real) == ORDINARY
    assert find_images(real)[0] == before, "what does not count is no part of the source's hash either"
    passed = PassedOver()
    list(list_images(real, passed))
    assert "3 hidden (the first: " in passed.text(real) and "2 no image by its name (the first: " in passed.text(real)
    assert capsys.readouterr().err.count("real: passed over") == 2, "drawing and the gate say it themselves"


def test_links_are_followed_and_loops_cut(real, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "zero").symlink_to(real / "zero")
    (linked / "one").symlink_to("../real/one")
    (linked / "two").mkdir()
    for n in range(3):
        (linked / "two" / f"{n}.jpg").symlink_to(real / "two" / f"{n}.jpg")
    assert seen_by_all(linked) == seen_by_all(real) == ORDINARY
    assert find_images(linked)[0] == find_images(real)[0], "names and sizes are the same"
    (linked / "two" / "again").symlink_to(linked)
    (linked / "two" / "3.jpg").symlink_to(linked / "nowhere.jpg")
    (linked / "two" / "round.jpg").symlink_to(linked / "two" / "round.jpg")
    (linked / "two" / "dot").symlink_to(".")
    assert seen_by_all(linked) == ORDINARY
    passed = PassedOver()
    find_images(linked, passed)
    assert "2 a link that leads back" in passed.text(linked) and "2 no file, or a link to none" in passed.text(linked)


def test_a_folder_that_cannot_be_read_is_no_empty_folder(real, monkeypatch):
    scan = os.scandir

    def refused(path):
        if Path(path).name == "two":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        find_images(real)


@pytest.mark.parametrize(
    "name", ["caf\udce9.jpg", "a\nb.jpg", "\u202egpj.exe.jpg", "é\u3000\u00a0\u200b.jpg", "a\\b.jpg"]
)
def test_any_file_name_makes_a_key_that_finds_the_file(real, tmp_path, name):
    shutil.copyfile(real / "one" / "0.jpg", real / "one" / name)
    (real / "one" / name).write_bytes(jpg(77))
    make_table("real-images", Inputs(classes=CLASSES, images=real), None).write(tmp_path / "p.parquet")
    table = PromptTable(tmp_path / "p.parquet")
    table.check()
    (key,) = {row.source_key for row in table.rows(0, table.num_rows)} - set(
        f"{find_images(real)[0]}/{other}" for other in ORDINARY
    )
    sources = SourceImages(real)
    sources.check(table, table.num_rows)
    shown = np.asarray(sources.read([key], 16)[0])
    assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(jpg(77)), formats=["JPEG"])))
    assert plain_text(name) in hash_folder(real, "DIR").keys[3:] or f"one/{plain_text(name)}" == key[13:]
    json.dumps(hash_folder(real, "DIR").keys, ensure_ascii=False).encode()


def test_names_that_tables_could_hold_before_are_kept_as_they_are():
    for name in ("n01440764/tench 1.jpg", "é\u3000\u00a0\u200b/日本.png", "a\\b", "\u05d0\u05d1.jpg", "\U0001f41f.png"):
        assert plain_text(name) == name
    assert plain_text("caf\udce9\x1b[2J\u2028") == "caf\\udce9\\x1b[2J\\u2028"


def test_two_names_of_one_key_are_refused(real):
    for name in ("caf\udce9.jpg", "caf\\udce9.jpg"):
        (real / "one" / name).write_bytes(jpg(1))
    with pytest.raises(InputError, match="two images of one key"):
        SourceImages(real)


def test_the_commands_end_well_with_a_name_that_is_not_utf8(real):
    classes = real.parent / "c.csv"
    classes.write_text("id,name\nzero,zero\none,one\ntwo,two\n")
    (real / "one" / "caf\udce9.jpg").write_bytes(b"cut")
    build = ("prompts", "build", "--recipe", "real-images", "--classes", str(classes), "--images", "real")
    done = synclones(*build, "--out", "p.parquet", cwd=real.parent)
    assert done.returncode == 0, done.stderr
    done = synclones("prompts", "show", "p.parquet", "--index", "9", cwd=real.parent, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    with pytest.raises(InputError, match=r"class 'x\\\\udce9' is none of c"):
        (real / "x\udce9").mkdir()
        (real / "x\udce9" / "0.jpg").touch()
        make_table("real-images", Inputs(classes=CLASSES, images=real), None)


# ------------------------------------------------------------------ tars


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(prefix: str, numbers=range(3)) -> list[tuple[str, bytes]]:
    parts = (("cls", lambda n: b"%d" % n), ("jpg", jpg), ("txt", lambda n: b"caption %d" % n))
    return [(f"{prefix}{n:04d}.{extension}", data(n)) for n in numbers for extension, data in parts]


@pytest.mark.parametrize("prefix", ["", "./", "././", "train.v1/", "./a.b/c.d/"])
def test_keys_are_those_of_webdataset_in_every_reader(tmp_path, prefix):
    import webdataset

    tar = write_tar(tmp_path / "t" / "0.tar", samples(prefix))
    theirs = webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False)
    keys = [sample["__key__"] for sample in theirs]
    ours = [key.removeprefix("0/") for key in seen_by_all(tmp_path / "t")]
    assert ours == [key.replace("./", "") if prefix.startswith(".") else key for key in keys] and len(ours) == 3
    assert [text for _, text in list_images(tmp_path / "t")] == ["0", "1", "2"]
    rows = CaptionFile(tmp_path / "t").rows(0, 3).to_pylist()
    assert [row["caption"] for row in rows] == ["caption 0", "caption 1", "caption 2"]
    assert [row["source_key"] for row in rows] == [key for key, _ in list_images(tmp_path / "t")]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read_in_both_forms_and_found_again(tmp_path, form):
    import webdataset

    deep = "a folder/" + "b" * 120 + "/日本/"
    tar = tmp_path / "0.tar"
    with tarfile.open(tar, "w", format=form) as file:
        for name, data in samples(deep):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if form == tarfile.PAX_FORMAT else 1
            file.addfile(info, io.BytesIO(data))
    theirs = webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False)
    assert (
        [s.key for s in read_samples(tar)]
        == [sample["__key__"] for sample in theirs]
        == [f"{deep}{n:04d}" for n in range(3)]
    )
    assert [read_image(tar, offset) for _, offset in image_offsets(tar)] == [jpg(n) for n in range(3)]
    for number, sample in enumerate(list(read_samples(tar))):
        assert next(read_samples(tar, sample.offset)).key == f"{deep}{number:04d}", "reading starts at any sample"


def test_what_is_not_read_is_said_by_member(tmp_path):
    rest = [
        ("0002.npy", b"x"),
        ("0002.seg.png", b"x"),
        ("README", b"x"),
        ("./._0002.jpg", b"x"),
        ("__MACOSX/1.jpg", b"x"),
    ]
    write_tar(tmp_path / "t" / "0.tar", samples("") + rest)
    assert seen_by_all(tmp_path / "t") == ["0/0000", "0/0001", "0/0002"]
    captions, passed = CaptionFile(tmp_path / "t"), PassedOver()
    list(list_images(tmp_path / "t", passed))
    for text in (passed.text(tmp_path), *captions.notes()):
        assert "2 hidden (the first: ._0002.jpg)" in text
        assert "3 no member named KEY.jpg|jpeg|png|webp|cls|json|txt (the first: 0002.npy)" in text


def test_a_sample_without_an_image_has_no_row_and_is_counted(tmp_path):
    members = [(name, data) for name, data in samples("") if name != "0001.jpg"]
    write_tar(tmp_path / "t" / "0.tar", members)
    assert seen_by_all(tmp_path / "t") == ["0/0000", "0/0002"]
    notes = make_table("real-images", Inputs(classes=CLASSES, images=tmp_path / "t"), None).notes
    assert any("1 a sample without an image (the first: 0001)" in note for note in notes)
    assert CaptionFile(tmp_path / "t").num_rows == 3, "captions need no image"
    write_tar(tmp_path / "bare" / "0.tar", [("1.cls", b"0")])
    with pytest.raises(InputError, match="no sample of .*bare has an image"):
        make_table("real-images", Inputs(classes=CLASSES, images=tmp_path / "bare"), None)


@pytest.mark.parametrize(
    "members, message",
    [
        ([*samples(""), ("0002.png", b"x")], "0.tar: sample 0002 has two images"),
        ([*samples(""), ("0000.json", b"{}")], "0.tar: sample 0000 appears twice"),
        ([*samples(""), ("0002.txt", b"x")], "0.tar: member '0002.txt' appears twice"),
        ([("0.jpg", b"x"), ("0.cls", b"cat")], "0.tar: sample 0 has a cls that is no number"),
        ([("../0.jpg", b"x")], "0.tar: member '../0.jpg' has no plain name"),
    ],
)
def test_every_reader_refuses_the_same(tmp_path, members, message):
    write_tar(tmp_path / "t" / "0.tar", members)
    readers = [list_images, read_images, lambda path: read_texts(path / "0.tar"), CaptionFile]
    readers += [SourceImages] if "no number" not in message else []  # drawing reads no labels
    for reader in readers:
        with pytest.raises(InputError, match=message):
            list(reader(tmp_path / "t"))


def test_a_compressed_tar_is_no_damaged_one(tmp_path):
    tar = write_tar(tmp_path / "t" / "0.tar", samples(""))
    data = tar.read_bytes()
    for packed, program in ((gzip.compress(data), "gzip"), (b"\x28\xb5\x2f\xfd" + data, "zstd"), (b"PK\3\4", "zip")):
        tar.write_bytes(packed)
        with pytest.raises(InputError, match=f"0.tar: compressed by {program}, expected a plain tar; run: g?un"):
            list(list_images(tmp_path / "t"))
    write_tar(tar, [("BZh.jpg", jpg(0))])
    assert [key[13:] for key, _ in list_images(tmp_path / "t")] == ["0/BZh"]


def test_hidden_tars_are_none_and_images_beside_tars_are_told(tmp_path):
    folder = write_tar(tmp_path / "t" / "0.tar", samples("")).parent
    (folder / "._0.tar").write_bytes(b"\0\5\x16\7Mac OS X")
    write_tar(folder / "more" / "1.tar", samples(""))
    shutil.copy(folder / "0.tar", folder / "2.tar.gz")
    (folder / "0.parquet").touch()
    assert seen_by_all(folder) == ["0/0000", "0/0001", "0/0002"]
    assert CaptionFile(folder).num_rows == 3
    passed = PassedOver()
    find_images(folder, passed)
    assert "1 hidden (the first: ._0.tar)" in passed.text(folder)
    assert "2 beside or below the tars" in passed.text(folder)


# ------------------------------------------------------------------ byte order marks


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    mark = b"\xef\xbb\xbf"
    (tmp_path / "c.txt").write_bytes(mark + b"a caption\nsecond\n")
    (tmp_path / "c.jsonl").write_bytes(mark + b'{"caption": "a caption"}\n{"caption": "second"}\n')
    (tmp_path / "c.csv").write_bytes(mark + b"caption\na caption\nsecond\n")
    members = [("0.txt", mark + b"a caption"), ("1.json", mark + b'{"caption": "second"}'), ("1.cls", mark + b"1")]
    write_tar(tmp_path / "t" / "0.tar", members)
    for name in ("c.txt", "c.jsonl", "c.csv", "t"):
        assert CaptionFile(tmp_path / name).rows(0, 2)["caption"].to_pylist() == ["a caption", "second"], name
    assert [sample.label for sample in read_texts(tmp_path / "t" / "0.tar")] == [None, 1]
    (tmp_path / "empty.txt").write_bytes(mark)
    with pytest.raises(InputError, match="no captions"):
        CaptionFile(tmp_path / "empty.txt")
    (tmp_path / "wide.txt").write_bytes("a caption\n".encode("utf-16"))
    with pytest.raises(InputError, match="not UTF-8"):
        CaptionFile(tmp_path / "wide.txt")


def test_captions_of_tars_that_are_no_text_are_named(tmp_path):
    write_tar(tmp_path / "t" / "0.tar", [("0.txt", b"good"), ("1.txt", b"caf\xe9")])
    with pytest.raises(InputError, match="caption 1 .*is not UTF-8 text"):
        CaptionFile(tmp_path / "t")
    write_tar(tmp_path / "u" / "0.tar", [("0.json", b'{"caption": ["a", "b"]}')])
    with pytest.raises(InputError, match="the caption is empty"):
        CaptionFile(tmp_path / "u")


def test_a_column_or_key_that_stands_twice_is_no_choice(tmp_path):
    (tmp_path / "c.csv").write_text("caption,caption\na,b\n")
    with pytest.raises(InputError, match="c.csv: the column 'caption' appears twice; rename one"):
        CaptionFile(tmp_path / "c.csv")
    (tmp_path / "c.jsonl").write_text('{"caption": "a"}\n{"caption": "a", "caption": "b"}\n')
    with pytest.raises(InputError, match="c.jsonl:2: .*stands twice"):
        CaptionFile(tmp_path / "c.jsonl")

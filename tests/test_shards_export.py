"""What is exported loads in the tools it is for, is whole or absent, and never takes the place of another's files."""

import json
import signal
import sys
from pathlib import Path

import pytest
from conftest import run_command
from shard_helpers import write_finished, write_folder
from test_shards_made import KILLED

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import trace
from synclones.shards.index import content_hash
from synclones.shards.read import ShardFolder
from synclones.shards.run import main

FORMS = ("imagefolder", "hf", "wds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_finished(tmp_path_factory.mktemp("export") / "set")


@pytest.fixture(scope="module")
def stored(folder) -> list:
    return list(ShardFolder(folder).sequential())


def export(folder: Path, form: str, out: Path) -> Path:
    main(["export", str(folder), "--to", form, "--out", str(out)])
    return out


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def test_torchvision_loads_the_class_folders(folder, stored, tmp_path):
    from torchvision.datasets import ImageFolder

    loaded = ImageFolder(str(export(folder, "imagefolder", tmp_path / "out")))
    assert loaded.classes == ["a", "b", "c"]
    by_key = {Path(path).stem: (Path(path).read_bytes(), label) for path, label in loaded.samples}
    assert by_key == {f"{s.index:010d}": (s.jpg, s.label) for s in stored}
    assert loaded[0][0].size == (16, 16)


def test_hugging_face_loads_images_and_class_labels(folder, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import ClassLabel, Image, load_dataset

    loaded = load_dataset(str(export(folder, "hf", tmp_path / "out")), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["image"] == Image() and loaded.features["label"] == ClassLabel(names=["a", "b", "c"])
    assert [(r["label"], r["text"], r["index"], r["seed"]) for r in loaded] == [
        (s.label, s.txt, s.index, s.seed) for s in stored
    ]
    raw = loaded.cast_column("image", Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == [s.jpg for s in stored] and loaded[3]["image"].size == (16, 16)


def test_webdataset_loads_the_plain_tars(folder, stored, tmp_path):
    import webdataset

    out = export(folder, "wds", tmp_path / "out")
    assert {path.suffix for path in out.iterdir()} == {".tar", ".json"}, "tars and the manifest"
    read = list(webdataset.WebDataset([str(path) for path in sorted(out.glob("*.tar"))], shardshuffle=False))
    assert [(s["__key__"], s["jpg"], s["cls"], s["json"], s["txt"]) for s in read] == [
        (f"{s.index:010d}", s.jpg, str(s.label).encode(), s.json, s.txt.encode()) for s in stored
    ]
    assert not (out / "train-00000.tar").samefile(folder / "train-00000.tar"), "it does not change with the set"


@pytest.mark.parametrize("form", FORMS)
def test_an_export_names_its_set_and_repeated_does_nothing(folder, tmp_path, form, capsys):
    out = export(folder, form, tmp_path / "out")
    assert content_hash(folder)[:16] in trace(out)
    before = out.stat().st_ino, hashes(out)
    export(folder, form, out)
    assert "is there already" in capsys.readouterr().out and (out.stat().st_ino, hashes(out)) == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_export_is_absent_and_the_next_one_whole(folder, tmp_path, form):
    whole = hashes(export(folder, form, tmp_path / "whole"))
    out = tmp_path / "out"
    command = (sys.executable, "-c", KILLED, "2", "export", str(folder), "--to", form, "--out", str(out))
    assert run_command(*command, cwd=tmp_path).returncode == -signal.SIGKILL
    assert not out.exists() and list(tmp_path.glob(".out.*")), "what is half done has a hidden name"
    assert hashes(export(folder, form, out)) == whole and not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_set_leaves_no_export(tmp_path, form):
    folder = write_finished(tmp_path / "set")
    tar = folder / "train-00001.tar"
    tar.write_bytes(tar.read_bytes()[:3000] + b"x" + tar.read_bytes()[3001:])
    with pytest.raises(VerificationError, match=r"train-00001.tar: .*damaged"):
        export(folder, form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def _with_classes(folder: Path, classes: list[str]) -> Path:
    record = json.loads((folder / "manifest.json").read_text()) | {"classes": classes}
    (folder / "manifest.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "a\nb", " a", "B", "x" * 201, "a\\b", "con:", "manifest.json"]
)
def test_class_ids_that_are_no_folder_names_are_refused_by_name(tmp_path, name):
    folder = _with_classes(write_finished(tmp_path / "set"), ["a", "b", name])
    with pytest.raises(InputError, match="use --to hf or wds"):
        export(folder, "imagefolder", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(folder, "hf", tmp_path / "out")


def test_labels_beyond_the_class_list_and_unlabelled_sets_are_refused(tmp_path):
    with pytest.raises(InputError, match="label 2, which is no class of the set"):
        export(_with_classes(write_finished(tmp_path / "two"), ["a", "b"]), "imagefolder", tmp_path / "out")
    with pytest.raises(InputError, match="the images have no labels"):
        export(_with_classes(write_finished(tmp_path / "none"), []), "imagefolder", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
def test_bad_places_are_refused(folder, tmp_path, form):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    unfinished = write_folder(tmp_path / "unfinished")
    for name in ("SHA256SUMS", "info.json"):
        (unfinished / name).unlink()
    for source, out, error, line in (
        (tmp_path / "no", tmp_path / "out", InputError, "no such folder"),
        (Path("s3://bucket/x"), tmp_path / "out", InputError, "is read from a disk only"),
        (folder, Path("s3://bucket/x"), InputError, "is read from a disk only"),
        (folder, mine, InputError, "is there and is no such export"),
        (folder, folder, InputError, "is there and is no such export"),
        (folder, mine / "notes.txt", InputError, "is there and is no such export|Not a directory"),
        (unfinished, tmp_path / "out", VerificationError, "unfinished"),
    ):
        with pytest.raises(error, match=line):
            export(source, form, out)
    assert not (tmp_path / "out").exists() and (mine / "notes.txt").read_text() == "mine"

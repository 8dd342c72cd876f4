"""The doctor of image sets: every set is looked at before any model, and what is wrong is said with what to do."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_trees import IDS, write_annotations, write_images

from synclones.base.errors import InputError
from synclones.evaluate import layout as layout_module
from synclones.evaluate.checks.doctor import examine, report, run_doctor
from synclones.evaluate.checks.doctor_settings import DoctorConfig
from synclones.evaluate.layout import ROLES, check_options, layouts
from synclones.evaluate.run import main

SUITES = sorted((Path(layout_module.__file__).parent / "suites").glob("*.yaml"))


@dataclass(frozen=True, kw_only=True)
class OneSet:
    """A set as a suite states it."""

    name: str
    layout: str
    path: str
    role: str = "shifted"
    images: int | None = None
    licence: str = ""
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)


CLEAN = OneSet(name="clean", layout="folders", path="val", role="reference", images=8)
FOG = OneSet(name="fog", layout="corrupted", path="c", role="corrupted", images=8, options={"severities": [1]})
FAR = OneSet(name="far", layout="outliers", path="far", role="outliers", licence="CC BY 4.0", url="https://a.b/far")


@pytest.fixture
def root(tmp_path):
    for folder in ("val", "c/fog/1"):
        write_images(tmp_path / folder, [f"{name}/{n}.jpg" for name in IDS for n in range(2)])
    write_images(tmp_path / "far", ["x/0.jpg"])
    return tmp_path


def test_whole_sets_can_be_evaluated_and_end_the_command_well(root, capsys):
    run_doctor(DoctorConfig(suite="mine", data_root=root), [CLEAN, FOG, FAR], IDS)
    assert "3 of 3 sets can be evaluated; 0 faults, 0 warnings" in capsys.readouterr().out


def test_a_missing_set_is_said_with_its_source_and_the_others_are_looked_at(root, capsys):
    shutil.rmtree(root / "far")
    (root / "val/cat/1.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 3 sets of mine cannot be evaluated as they are \(far\)") as refusal:
        run_doctor(DoctorConfig(suite="mine", data_root=root), [FAR, CLEAN, FOG], IDS)
    assert refusal.value.exit_code == 2
    printed = capsys.readouterr().out
    assert "far: missing, expected images as any folders/*; it is from https://a.b/far (licence: CC BY 4.0)" in printed
    assert "7 images of 4 classes, expected 8" in printed
    assert "clean  (can be evaluated)" in printed and "far  (CANNOT be evaluated)" in printed


def test_a_reference_without_a_class_a_missing_cell_and_an_empty_set_are_faults(root):
    shutil.rmtree(root / "val/dog")
    shutil.rmtree(root / "far/x")
    both = OneSet(name="fog", layout="corrupted", path="c", options={"severities": [1, 2]})
    texts = [
        "\n".join(f.text for f in each.findings if f.kind == "fault") for each in examine([CLEAN, both, FAR], root, IDS)
    ]
    assert "1 of 4 classes (dog)" in texts[0]
    assert "fog/2" in texts[1]
    assert "far: empty, expected images" in texts[2] and "it is from https://a.b/far" in texts[2]


@pytest.mark.parametrize("name", sorted(layouts()))
def test_an_empty_folder_is_no_set_of_any_layout(name, tmp_path):
    members = {"members": {"insect": ["ant"], "pet": ["dog"]}, "uncommon": {"insect": {}, "pet": {}}}
    options = {key: value for key, value in members.items() if key in layouts()[name].options}
    (tmp_path / "set").mkdir()
    (empty,) = examine([OneSet(name="x", layout=name, path="set", options=options)], tmp_path, IDS)
    assert not empty.can_be_evaluated


def test_decoding_counts_what_headers_do_not_show(root):
    path = root / "val/bee/1.jpg"
    path.write_bytes(path.read_bytes()[:-40] + b"\xff\xd9")  # its end is there, and not all before it
    (quick,) = examine([CLEAN], root, IDS)
    assert quick.can_be_evaluated
    (decoded,) = examine([CLEAN], root, IDS, decode=True)
    assert not decoded.can_be_evaluated
    assert "1 of 8 images cannot be decoded" in "\n".join(report([decoded]))


def test_whole_images_are_said_to_be_decoded(root):
    (whole,) = examine([FAR], root, IDS, decode=True)
    assert "all 1 images were decoded" in "\n".join(report([whole]))


def test_a_broken_database_is_a_fault_of_its_set_alone(root):
    write_images(root / "focus", ["x/1.jpg"])
    (root / "focus/annotations.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 200)
    options = {"members": {"insect": ["ant"], "pet": ["dog"]}, "uncommon": {"insect": {}, "pet": {}}}
    sets = [OneSet(name="focus", layout="focus", path="focus", options=options), FAR]
    broken, other = examine(sets, root, IDS)
    assert (broken.can_be_evaluated, other.can_be_evaluated) == (False, True)
    (root / "focus/annotations.db").unlink()
    write_annotations(root / "focus/annotations.db", [("/x/1.jpg", "pet", "day", "sunny", "none")])
    assert examine(sets, root, IDS)[0].can_be_evaluated


def test_names_with_line_breaks_stay_on_their_line(root):
    write_images(root / "val", ["cow\nFAULT/0.jpg"])
    lines = report(examine([CLEAN], root, IDS))
    assert len(lines) == 4 and "\\n" in lines[1]


def test_a_missing_folder_of_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        examine([CLEAN], tmp_path / "nowhere", IDS)


def test_nothing_is_written_where_only_names_and_headers_are_read(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(root.rglob("*"))
    examine([CLEAN, FOG, FAR], root, IDS)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_states_sets_that_layouts_understand_with_source_and_licence(path):
    suite = yaml.safe_load(path.read_text())
    assert set(suite) == {"title", "classes", "sets"}
    sets = suite["sets"]
    assert [each.get("role") for each in sets].count("reference") == 1
    assert len({each["name"] for each in sets}) == len(sets)
    common = {"name", "role", "layout", "path", "images", "licence", "url"}
    for each in sets:
        assert each["licence"] and (each.get("url", "").startswith("https://") or "made here" in each["licence"])
        assert each.get("role", layouts()[each["layout"]].role) in ROLES
        check_options(layouts()[each["layout"]], {key: value for key, value in each.items() if key not in common})


def test_the_suite_of_the_paper_has_its_sets_and_counts():
    suite = yaml.safe_load(next(path for path in SUITES if path.stem == "synthetic-clones").read_text())
    sets = {each["name"]: each for each in suite["sets"]}
    assert {name: each["images"] for name, each in sets.items()} == {
        **{"ImageNet": 50_000, "ImageNet-R": 30_000, "ImageNet-A": 7_500, "ImageNet-C": 50_000},
        **{"ImageNet-3DCC": 50_000, "iNaturalist": 10_000, "SUN": 10_000, "Places": 10_000},
        **{"cue-conflict": 1_280, "ImageNet-9": 4_050, "FOCUS": 20_815},
    }
    assert sum(sets["FOCUS"]["by_uncommon"]) == sets["FOCUS"]["images"]
    assert len(sets["ImageNet-C"]["corruptions"]) == len(sets["ImageNet-3DCC"]["corruptions"]) == 5


def test_without_a_suite_the_sets_of_the_paper_are_looked_for(tmp_path, capsys):
    (tmp_path / "imagenet" / "val").mkdir(parents=True)  # somebody began
    with pytest.raises(InputError, match="evaluate"):
        main(["doctor", "--data-root", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "imagenet/val: empty, expected 50,000 images" in printed and "imagenet-c: missing, expected" in printed


def test_a_set_with_a_fault_says_what_it_is_when_whole_and_where_it_is_from(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "readme.txt").write_text("no image")
    (examined,) = examine([FAR], tmp_path, IDS)
    last = examined.findings[-1]
    assert last.kind == "note" and "it is from https://a.b/far (licence: CC BY 4.0)" in last.text


def test_a_folder_that_may_not_be_looked_into_is_a_fault_of_its_set_alone(root, monkeypatch):
    listed = Path.iterdir

    def iterdir(path):
        if path == root / "far":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    clean, far = examine([CLEAN, FAR], root, IDS)
    assert clean.can_be_evaluated and far.path == root / "far"

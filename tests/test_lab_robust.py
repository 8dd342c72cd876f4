"""The lab's robustness sets: real test digits in the layouts of the real benchmarks, the same bytes every time."""

import io
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from synclones.base.errors import InputError
from synclones.base.manifest import read_manifest
from synclones.base.yaml_file import read_yaml
from synclones.evaluate.corruptions.corrupted_set import corrupt_set, generated_settings
from synclones.evaluate.corruptions.corrupted_settings import CorruptConfig
from synclones.lab import robust_images, robust_sets, world
from synclones.lab.digits import load_split
from synclones.lab.real_digits import write_real_digits
from synclones.lab.render import PLAIN_INK, PLAIN_PAPER
from synclones.lab.robust_images import HARD_CLASSES, RENDERED_CLASSES, hard_digits, renditions
from synclones.lab.robust_scenes import AT_HOME_AT_NIGHT, backgrounds, cue_conflict, uncommon_locations
from synclones.lab.robust_sets import FORMAT, identity, write_robust_sets
from synclones.shards.sources.labelled import LabelledSource

SUITE = {key: item.plain() for key, item in read_yaml(ROOT / "evaluate" / "suites" / "lab.yaml").items()}
SETS = {item["name"]: item for item in SUITE["sets"]}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As they are written: on a busy machine several threads wait for each other over images of 32 px."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    return write_robust_sets(tmp_path_factory.mktemp("robust") / "lab-robust")


def read(source: Path | bytes) -> np.ndarray:
    data = io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())
    return np.asarray(Image.open(data, formats=("PNG", "JPEG")).convert("RGB"))


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def test_every_set_of_the_suite_is_there_with_as_many_images_as_it_says(sets):
    for item in SETS.values():
        folder, parts = sets / item["path"], [sets / item["path"]]
        if item["layout"] == "corrupted":
            parts = [folder / name / str(severity) for name in item["corruptions"] for severity in range(1, 6)]
        elif item["layout"] == "backgrounds":
            parts = [folder / variant / "val" for variant in ("original", "mixed_same", "mixed_rand")]
        assert [len(images(part)) for part in parts] == [item["images"]] * len(parts), item["name"]
        assert sum(len(images(part)) for part in parts) == len(images(folder)), item["name"]
    assert all(read(path).shape == (32, 32, 3) for path in images(sets)[::97])
    assert sum(path.stat().st_size for path in sets.rglob("*") if path.is_file()) < 12_000_000
    assert read_manifest(sets)["content_hash"] == identity(sets)


def test_labels_are_the_folders_and_subsets_leave_classes_out(sets):
    every = {str(digit) for digit in range(10)}
    assert {path.name for path in (sets / "lab-val").iterdir()} == every == set(SUITE["classes"])
    assert {path.name for path in (sets / "lab-R").iterdir()} == {str(digit) for digit in RENDERED_CLASSES} < every
    assert {path.name for path in (sets / "lab-A").iterdir()} == {str(digit) for digit in HARD_CLASSES} < every
    clean = {path.relative_to(sets / "lab-val").with_suffix(".png") for path in images(sets / "lab-val")}
    for severity in ("1", "5"):
        corrupted = sets / "lab-C" / "snow" / severity
        names = {path.relative_to(corrupted) for path in images(corrupted)}
        assert names < clean and set(Counter(name.parent.name for name in names).values()) == {10}


def test_the_reference_holds_the_images_of_the_labs_test_set(sets, tmp_path):
    source = LabelledSource(write_real_digits(tmp_path / "test", "test"))
    for position in range(0, 537, 41):
        path = sets / "lab-val" / str(source.label(position)) / f"{position:010d}.jpg"
        assert path.read_bytes() == source.encoded(position), position


def test_the_corrupted_set_is_what_the_public_command_writes(sets, tmp_path):
    for path in images(sets / "lab-C" / "snow" / "5")[::9]:
        (tmp_path / "some" / path.parent.name).mkdir(parents=True, exist_ok=True)
        name = f"{path.parent.name}/{path.stem}.jpg"
        shutil.copy(sets / "lab-val" / name, tmp_path / "some" / name)
    asked = {"corruptions": ("snow", "pixelate"), "severities": (5,), "table": 224, "image_format": "png"}
    corrupt_set(CorruptConfig(data=tmp_path / "some", out=tmp_path / "c", **asked))
    written = images(tmp_path / "c")
    assert len(written) == 2 * 12
    for path in written:
        assert path.read_bytes() == (sets / "lab-C" / path.relative_to(tmp_path / "c")).read_bytes(), path
    assert generated_settings(sets / "lab-C" / "snow" / "5") is not None


def test_corruptions_go_further_from_the_image_with_severity(sets):
    for name in ("shot_noise", "motion_blur", "jpeg_compression"):
        far = []
        for severity in "12345":
            paths = images(sets / "lab-C" / name / severity)
            clean = [sets / "lab-val" / path.parent.name / f"{path.stem}.jpg" for path in paths]
            differences = [read(a).astype(float) - read(b) for a, b in zip(paths, clean, strict=True)]
            far.append(np.abs(differences).mean())
        assert far == sorted(far) and far[4] > 1.5 * far[0], (name, far)


def test_every_shape_meets_every_texture_equally_often(sets):
    pairs = Counter()
    for path in images(sets / "lab-cue-conflict"):
        shape = path.parent.name
        assert re.fullmatch(rf"{shape}\d+-[a-z]+\d+\.png", path.name)
        # How the original's names are read: behind the last hyphen, without digits.
        pairs[shape, re.sub(r"\d", "", path.stem.split("-")[-1])] += 1
    names = set(SETS["lab-cue-conflict"]["members"])
    assert pairs == Counter(dict.fromkeys([(a, b) for a in names for b in names], 5))


def test_backgrounds_change_and_the_digit_stays(sets):
    root = sets / "lab-IN9"
    groups = [f"{number:02d}_{name}" for number, name in enumerate(SETS["lab-IN9"]["members"])]
    assert sorted(path.name for path in (root / "original" / "val").iterdir()) == groups
    names = [path.relative_to(root / "original") for path in images(root / "original")]
    for variant in ("mixed_same", "mixed_rand"):
        assert [path.relative_to(root / variant) for path in images(root / variant)] == names
    for name in names[::29]:
        shown = [read(root / variant / name) for variant in ("original", "mixed_same", "mixed_rand")]
        ink = (shown[0] == PLAIN_INK).all(2)
        # At the rims of strokes a trace of the background shows through.
        assert ink.sum() > 20 and all(np.abs(other[ink] - np.array(PLAIN_INK)).max() <= 8 for other in shown)
        assert all((shown[0] != other)[~ink].mean() > 0.3 for other in shown[1:])


def test_only_in_mixed_rand_a_background_is_that_of_another_group(sets):
    def watery(folder: Path) -> list[bool]:
        shown = [np.median(read(path).astype(float), (0, 1)) for path in images(folder)]
        return [bool(blue - red > 40) for red, _, blue in shown]

    root, group = sets / "lab-IN9", "03_four nine"
    assert all(watery(root / "original" / "val" / group)) and all(watery(root / "mixed_same" / "val" / group))
    assert not any(watery(root / "mixed_rand" / "val" / group))
    others = watery(root / "mixed_rand" / "val" / "04_five eight")
    assert 0.1 < np.mean(others) < 0.45 and not any(watery(root / "original" / "val" / "04_five eight"))


def annotations(sets: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(sets / "lab-FOCUS" / "annotations.db") as database:
        return list(database.execute("SELECT file_name, category, time, weather, locations, humans FROM annotations"))


def test_annotations_have_the_schema_and_the_words_of_the_original(sets):
    with sqlite3.connect(sets / "lab-FOCUS" / "annotations.db") as database:
        columns = {row[1]: row[5] for row in database.execute("PRAGMA table_info(annotations)")}
    assert columns == {"file_name": 1, "category": 0, "time": 0, "weather": 0, "locations": 0, "humans": 0}
    rows, files = annotations(sets), {path.relative_to(sets / "lab-FOCUS") for path in images(sets / "lab-FOCUS")}
    assert len(rows) == len(files) == 537
    words = {"forest", "grass", "indoors", "rocks", "sand", "street", "snow", "water", "none"}
    several = 0
    for name, category, hour, weather, locations, humans in rows:
        assert name.startswith("/") and Path(name[1:]) in files and name.startswith(f"/{category}-")
        assert hour in {"day", "night", "none"} and humans in {"yes", "no"}
        assert weather in {"cloudy", "foggy", "partly cloudy", "raining", "snowing", "sunny", "none"}
        assert set(locations.split(", ")) <= words and locations.split(", ") == sorted(locations.split(", "))
        several += ", " in locations
    assert several > 10


def test_every_number_of_uncommon_attributes_has_images(sets):
    uncommon, counts, at_night = SETS["lab-FOCUS"]["uncommon"], Counter(), Counter()
    for _, category, hour, weather, locations, _ in annotations(sets):
        odd = uncommon[category]
        k = (
            (hour in odd["time"])
            + (weather in odd["weather"])
            + bool(set(locations.split(", ")) & set(odd["locations"]))
        )
        counts[k] += 1
        at_night[category, k] += 1
    assert [counts[k] for k in range(4)] == SETS["lab-FOCUS"]["by_uncommon"] and len(counts) == 4
    assert min(counts.values()) >= 50
    assert at_night[AT_HOME_AT_NIGHT, 3] == 0 and all(at_night[name, 0] >= 15 for name in uncommon)


def test_the_suite_states_the_groups_and_tables_that_are_drawn():
    names = list(SETS["lab-FOCUS"]["members"])
    for name, digit in zip(names, range(10), strict=True):
        odd = SETS["lab-FOCUS"]["uncommon"][name]
        assert odd["locations"] == list(uncommon_locations(digit)) and bool(odd["time"]) == (name != AT_HOME_AT_NIGHT)
    for item in ("lab-FOCUS", "lab-IN9", "lab-cue-conflict"):
        assert sorted(digit for ids in SETS[item]["members"].values() for digit in ids) == SUITE["classes"]


def test_no_outlier_is_there_twice(sets):
    for kind in ("letters", "textures", "photographs"):
        assert len({path.read_bytes() for path in images(sets / "lab-OOD" / kind)}) == 300


def test_every_digit_that_is_shown_is_one_of_those_given(monkeypatch):
    """Of blank strokes nothing is drawn: no set fetches digits of its own, such as some that a clone has learnt."""
    strokes, labels = load_split("test")
    blank = np.zeros_like(strokes)
    paper = np.array(PLAIN_PAPER)
    assert all((read(data) == paper).all() for _, data in list(cue_conflict(blank, labels, 0))[::50])
    assert all(read(data).min() > 120 for _, data in list(backgrounds(blank, labels, 0))[::50])
    assert all(
        np.ptp(read(data), (0, 1)).max() == 0 for name, data in renditions(blank, labels, 0) if "outline" in name
    )
    hard = [read(data) for _, data in hard_digits(blank, labels, 0)]
    assert hard and all(np.ptp(image, (0, 1)).max() == 0 for image in hard)
    asked = []
    monkeypatch.setattr(robust_images, "load_split", lambda split: asked.append(split) or load_split(split))
    monkeypatch.setattr(robust_images, "draw_real_digits", lambda split: pytest.fail(f"{split} was drawn"))
    list(hard_digits(strokes, labels, 0))
    assert asked == ["classifier-train"], "means of real training digits choose; the digits shown are those given"


WRITE = "import sys; from synclones.lab.robust_sets import write_robust_sets; write_robust_sets(sys.argv[1])"


def test_killed_while_writing_nothing_is_there_and_the_rerun_gives_the_same_bytes(sets, tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path / "again")]
    process = subprocess.Popen(command, cwd=tmp_path)
    half = tmp_path / ".again.tmp" / "lab-C" / "snow" / "5"
    while process.poll() is None and not half.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and half.exists() and not (tmp_path / "again").exists()
    assert subprocess.run(command, cwd=tmp_path, timeout=300).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    assert identity(tmp_path / "again") == identity(sets)


@pytest.fixture
def few(monkeypatch) -> None:
    """One set of two files, whose bytes are the seed."""
    files = {"x": lambda strokes, labels, seed: iter([("a/1.png", b"%d" % seed), ("a/2.png", b"2")])}
    monkeypatch.setattr(robust_sets, "SETS", files)


def test_what_is_finished_is_kept_and_of_another_version_made_again(few, tmp_path, monkeypatch, capsys):
    folder = write_robust_sets(tmp_path / "r")
    before = (folder / "manifest.json").stat().st_mtime_ns
    write_robust_sets(folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == before and capsys.readouterr().err == ""
    monkeypatch.setattr(robust_sets, "FORMAT", FORMAT + 1)
    (folder / "x" / "left-over.png").write_bytes(b"of the older version")
    write_robust_sets(folder)
    assert f"format {FORMAT} then, {FORMAT + 1} now; it is made again" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "x" / "a").iterdir()) == ["1.png", "2.png"]
    assert not (folder / "x" / "left-over.png").exists()
    write_robust_sets(folder, seed=7)
    assert (folder / "x" / "a" / "1.png").read_bytes() == b"7"


@pytest.mark.parametrize("content", ["a file", "a folder", "another's manifest"])
def test_what_is_not_ours_is_refused_and_stays(few, tmp_path, content):
    path = tmp_path / "r"
    if content == "a file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    if content == "another's manifest":
        write_real_digits(tmp_path / "digits", "test")
        shutil.copy(tmp_path / "digits" / "manifest.json", path)
    with pytest.raises(InputError, match="holds something else than the lab's robustness sets; move it away"):
        write_robust_sets(path)
    assert (path if path.is_file() else path / "mine.txt").read_text() == "mine"


def test_the_lab_writes_them_once_when_a_command_is_given_none(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert world.ensure_robust() == Path("data/lab-robust") and Path("data/lab-robust/x/a/1.png").exists()
    assert "writing data/lab-robust" in capsys.readouterr().err
    world.ensure_robust()
    assert capsys.readouterr().err == ""

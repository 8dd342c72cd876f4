"""A source image that cannot be used: all are named before anything is drawn, or their rows are dropped."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import identity
from PIL import Image

from synclones.base.errors import InputError, VerificationError
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.prompts.build import make_table
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import Inputs
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import image_fault

QUICK = ("--model", "lab", "--strength", "0.5", "--batch-size", "4", "--images-per-shard", "8")
CUT, BROKEN = "3/05.jpg", "7/02.jpg"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Sixteen images of two digits, and what is drawn from them."""
    made = tmp_path_factory.mktemp("sound")
    noise = np.random.default_rng(0)
    for name in "37":
        (made / "real" / name).mkdir(parents=True)
        for n in range(8):
            pixels = noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(made / "real" / name / f"{n:02}.jpg")
    _build(made)
    _draw(made)
    return made


def _build(folder):
    inputs = Inputs(classes=load_classes("lab-digits"), images=folder / "real")
    make_table("real-images", inputs, None).write(folder / "p.parquet")


def _draw(folder, *more):
    flags = ["--images", str(folder / "real"), "--prompts", str(folder / "p.parquet"), "--out", str(folder / "x")]
    main([*flags, "--num-inference-steps", "4", "--workers", "1", *QUICK, *more])


@pytest.fixture
def folder(sound, tmp_path):
    """The images and nothing drawn."""
    shutil.copytree(sound / "real", tmp_path / "real")
    shutil.copy(sound / "p.parquet", tmp_path)
    return tmp_path


def _cut(path):
    """As a transfer that broke off: the header is right, the end is missing."""
    path.write_bytes(path.read_bytes()[:-300])


def _break(path):
    """Pixels that do not decode, in a file whose header and end are right: no look without decoding finds it."""
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\xff\xda") + 30] + b"\xff\xd9")
    assert image_fault(path.read_bytes()) == "", "else it would be refused before"


def _indices(folder, name):
    rows = PromptTable(folder / "p.parquet").rows(0, 16)
    return [row.index for row in rows if row.source_key.endswith(name)]


def test_all_bad_images_are_named_at_once_and_nothing_is_written(folder):
    _cut(folder / "real" / CUT)
    (folder / "real" / BROKEN).write_bytes(b"no image")
    _build(folder)
    with pytest.raises(InputError, match=r"2 of 16 images cannot be used") as error:
        _draw(folder)
    assert CUT in str(error.value) and BROKEN in str(error.value) and "--on-bad-source drop" in str(error.value)
    assert not (folder / "x").exists()


def test_rows_of_bad_images_are_dropped_and_the_rest_are_drawn(folder, sound, capsys):
    _cut(folder / "real" / CUT)
    _build(folder)
    _draw(folder, "--on-bad-source", "drop")
    assert f"rows of these images are dropped: {CUT} (" in capsys.readouterr().err
    (dropped,) = _indices(folder, CUT)
    drawn = ShardFolder(folder / "x")
    rows = [row for shard in drawn.shards for row in drawn.rows(shard)]
    assert {row.index: row.reason for row in rows if row.status == "dropped"} == {dropped: "source image unusable"}
    # The others have the bytes that they have in a set without a bad image: the batch keeps its size.
    whole = ShardFolder(sound / "x")
    assert drawn.num_samples == 15
    assert all(drawn.get(n).jpg == whole.get(n).jpg for n in range(16) if n != dropped)
    main(["redraw", str(folder / "x"), "--random", "16"])


def test_a_policy_without_bad_images_leaves_plan_and_bytes_as_they_are(folder, sound):
    _draw(folder, "--on-bad-source", "drop")
    assert identity(folder / "x") == identity(sound / "x")


def test_dropped_rows_stay_dropped_when_a_set_is_retried(folder):
    _cut(folder / "real" / CUT)
    _build(folder)
    _draw(folder, "--on-bad-source", "drop")
    main(["--parent", str(folder / "x"), "--retry", "dropped", "--out", str(folder / "y")])
    assert ShardFolder(folder / "y").num_samples == 15


def test_a_policy_without_images_is_refused(folder):
    with pytest.raises(InputError, match="--on-bad-source: is for --images"):
        main(["--model", "lab", "--prompts", str(folder / "p.parquet"), "--on-bad-source", "drop", "--out", "x"])


@pytest.fixture
def stopped(folder, sound):
    """A set that stopped at an image which only decoding shows to be bad; and that image as it should be."""
    _break(folder / "real" / BROKEN)
    _build(folder)
    told = rf"{BROKEN}: .*mend the file and run the same command, or add --on-bad-source drop"
    for _ in range(2):
        with pytest.raises(VerificationError, match=told):
            _draw(folder)
    assert read_plan(folder / "x").num_samples == 16
    return folder


def test_mending_a_file_lets_the_same_command_go_on(stopped, sound):
    """Also when it has another size, which every key of the table begins with the hash of."""
    planned = read_plan(stopped / "x")
    shutil.copy(sound / "real" / BROKEN, stopped / "real" / BROKEN)
    _draw(stopped)
    assert read_plan(stopped / "x") == planned
    assert ShardFolder(stopped / "x").num_samples == 16
    (mended,) = _indices(stopped, BROKEN)
    assert ShardFolder(stopped / "x").get(mended).jpg == ShardFolder(sound / "x").get(mended).jpg
    main(["redraw", str(stopped / "x"), "--index", str(mended)])
    record = json.loads((stopped / "x" / "mended_sources.json").read_text())
    assert list(record["files"]) == [BROKEN]


def test_mending_one_file_excuses_no_other(stopped, sound):
    shutil.copy(sound / "real" / BROKEN, stopped / "real" / BROKEN)
    other = stopped / "real" / "3" / "00.jpg"
    other.write_bytes(other.read_bytes() + b"more")
    with pytest.raises(InputError, match="made by another plan: images_sha256"):
        _draw(stopped)


def test_dropping_goes_on_with_the_same_plan(stopped):
    planned = read_plan(stopped / "x")
    _draw(stopped, "--on-bad-source", "drop")
    assert read_plan(stopped / "x") == planned
    assert ShardFolder(stopped / "x").num_samples == 15


@pytest.mark.parametrize("content", ["[]", "{", '{"source": 1, "files": {}}', '{"source": "a", "files": {"a": 1}}'])
def test_a_record_that_is_none_is_refused(stopped, content):
    (stopped / "x" / "mended_sources.json").write_text(content)
    with pytest.raises(InputError, match=re.escape("mended_sources.json: not a record of synclones")):
        _draw(stopped)

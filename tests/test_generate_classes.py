"""A generator of few classes draws no others; the next command that is printed works where synclones is installed."""

import re
import shlex
import shutil

import pytest
from conftest import GENERATOR, QUICK
from test_house import ROOMS, files, read

from synclones.base.errors import InputError
from synclones.generate.generators.model import find_model
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.lab.digits import DIGIT_NAMES
from synclones.prompts.run import main as prompts_main
from synclones.prompts.status import status as prompts_status


def _table(tmp_path, *names, recipe="class-name"):
    (tmp_path / "own.csv").write_text("id,name\n" + "".join(f"c{n},{name}\n" for n, name in enumerate(names)))
    path = tmp_path / "p.parquet"
    flags = ("--recipe", recipe, "--classes", str(tmp_path / "own.csv"), "--num-images", "5", "--out", str(path))
    prompts_main(["build", *flags])
    return path


def test_the_labs_generator_says_which_classes_it_was_trained_on():
    assert find_model(str(GENERATOR)).classes == DIGIT_NAMES


@pytest.mark.parametrize("flags", [("--model", "lab"), ("--preset", "lab"), ("--model", str(GENERATOR)), ()])
@pytest.mark.parametrize("recipe", ["class-name", "clip-templates"])
def test_own_classes_are_never_drawn_as_digits(tmp_path, monkeypatch, flags, recipe):
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    table = _table(tmp_path, "zero", "red panda", recipe=recipe)
    told = r"class 'red panda' is none of the 10 classes that generator draws \(zero, one, two, \.\.\.\).*--preset fast"
    with pytest.raises(InputError, match=told):
        main([*flags, "--prompts", str(table), "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


def test_a_part_of_the_digits_in_an_own_list_is_drawn(tmp_path):
    table = _table(tmp_path, "Seven", "two")
    main(["--prompts", str(table), "--out", str(tmp_path / "x"), *QUICK])
    assert read_plan(tmp_path / "x").num_samples == 5


@pytest.mark.parametrize(
    "captions, told", [("a seven\na red panda\n", r"row 1: prompt 'a red panda'"), ("a Seven, red\n", "")]
)
def test_captions_without_classes_must_name_one(tmp_path, captions, told):
    (tmp_path / "c.txt").write_text(captions)
    table = tmp_path / "p.parquet"
    prompts_main(["build", "--recipe", "text-file", "--captions", str(tmp_path / "c.txt"), "--out", str(table)])
    flags = ["--prompts", str(table), "--out", str(tmp_path / "x"), *QUICK]
    if not told:
        main(flags)
        return
    with pytest.raises(InputError, match=told):
        main(flags)


@pytest.mark.parametrize(
    "content", ['{"draws_only": "zero"}', '{"draws_only": []}', '{"draws_only": [1]}', "{}", "[]", "{"]
)
def test_a_record_that_lists_no_classes_is_refused(tmp_path, content):
    model = shutil.copytree(GENERATOR, tmp_path / "m")
    (model / "synclones.json").write_text(content)
    with pytest.raises(InputError, match="synclones.json"):
        find_model(str(model))


def test_the_record_is_no_part_of_the_models_identity(tmp_path):
    """Sets that were drawn before it existed are resumed and redrawn."""
    model = shutil.copytree(GENERATOR, tmp_path / "m")
    (model / "synclones.json").unlink()
    assert find_model(str(model)).sha256 == find_model(str(GENERATOR)).sha256


@pytest.mark.parametrize("names, preset", [(("seven", "two"), "lab"), (("seven", "red panda"), "fast")])
def test_the_next_command_of_a_build_has_a_preset_for_its_classes(tmp_path, capsys, names, preset):
    _table(tmp_path, *names)
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["next:", "synclones", "generate"]
    assert words[3:] == ["--preset", preset, "--prompts", str(tmp_path / "p.parquet"), "--out", "data/p"]
    assert shlex.split(prompts_status(tmp_path / "p.parquet").next) == words[1:], "said alike on Monday"


def test_the_next_command_of_a_table_of_real_images_draws_from_them(tmp_path, capsys, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("seven", "two"):
        (tmp_path / "real photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (9, 99, 9)).save(tmp_path / "real photos" / name / "a.png")
    flags = ("--classes", "lab-digits", "--images", "real photos", "--num-images", "2", "--out", "p.parquet")
    prompts_main(["build", "--recipe", "real-images", *flags])
    _, *command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[command.index("--images") :][:4] == ["--images", "real photos", "--strength", "0.6"]
    main([*command[2:], *QUICK])
    assert (tmp_path / "data" / "p" / "manifest.json").exists()


def test_a_refusal_makes_no_default_table(tmp_path, monkeypatch):
    """Exit code 2 promises that nothing was written; so does a dry run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    for flags in (("--out", "x"), ("--out", "y", "--num-images", "2k"), ("--out", "y", "--size-px", "30")):
        with pytest.raises(InputError):
            main([*flags])
    main(["--out", "y", "--dry-run", *QUICK])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "x"]


SCRIPT = re.compile(rf"\b(python3?|torchrun|launch)\b[^\n`]*\s({'|'.join(ROOMS)})/[\w/]+\.py")


def test_no_text_names_a_command_that_exists_in_a_checkout_only():
    history = ("docs/decisions.md", "CHANGELOG.md")
    names = [name for name in files() if name.endswith((".md", ".yaml", ".py")) and name not in history]
    names = [name for name in names if not name.startswith(("tests/", "benchmarks/", "."))]
    stray = {name: found[0] for name in names if (found := SCRIPT.search(read(name).replace("\\\n", " ")))}
    assert stray == {}
    assert SCRIPT.search("torchrun --nproc-per-node 2 \\\n    generate/run.py".replace("\\\n", " ")), "the twin"

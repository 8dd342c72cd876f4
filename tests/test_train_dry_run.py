"""A dry run without data shows what the recipe states and what flags change of it, and writes nothing."""

import json
from dataclasses import dataclass, replace

import pytest
from conftest import ROOT

from synclones.base.errors import InputError
from synclones.train.dry_run import _measured
from synclones.train.run import main
from synclones.train.settings import TrainConfig

RECIPES = sorted(path.stem for path in (ROOT / "train" / "recipes").glob("*.yaml"))

BEGINS = {"mtg-last-layers"}  # what it states holds for weights that a training begins from


@dataclass(frozen=True)
class Planned:
    """What a dry run asks of a job before it measures."""

    config: TrainConfig
    device: str
    world_size: int


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_printed_as_it_stands(recipe, capsys):
    begins = ["--weights", "runs/x"] if recipe in BEGINS else []
    main(["--recipe", recipe, "--dry-run", *begins])
    text = (ROOT / "train" / "recipes" / f"{recipe}.yaml").read_text()
    printed = capsys.readouterr().out
    assert printed.startswith(text.rstrip())
    rest = printed.removeprefix(text.rstrip()).splitlines()
    here = ["here       weights: runs/x, in place of none"] if begins else []
    assert [line for line in rest if line][:-1] == here and rest[-1].startswith("data       none given; ")
    assert ("would first draw data/lab" in printed) == recipe.startswith("lab")


def test_what_flags_change_is_named_beside_what_the_recipe_says(capsys):
    main(["--recipe", "synvit-b", "--dry-run", "--batch-size", "1024", "--epochs", "3", "--out", "runs/x"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("here")]
    assert sorted(line.removeprefix("here       ") for line in lines) == [
        "batch_size: 1024, in place of 4096",
        "epochs: 3, in place of 0",
        "samples: 0, in place of 384000000",
    ]


def test_settings_are_values_of_json(capsys):
    main(["--recipe", "synclip", "--dry-run", "--json", "--seed", "7"])
    value = json.loads(capsys.readouterr().out)
    assert value["recipe"] == "synclip" and value["data"] == [] and "44.4 %" in value["expected"][0]
    assert value["settings"]["seed"] == 7 and value["settings"]["batch_size"] == 32768


def test_without_arguments_the_lab_s_recipe_is_shown_and_nothing_is_drawn(capsys):
    main(["--dry-run"])
    assert "a training would first draw data/lab" in capsys.readouterr().out


def test_a_recipe_of_a_paper_is_not_trained_on_the_lab_s_digits_unasked():
    with pytest.raises(InputError, match="--data: none was given, and the recipe vit-b16 is not the lab's"):
        main(["--recipe", "vit-b16"])


@pytest.mark.parametrize(
    ("given", "world_size", "images"),
    [
        ({"batch_size": 1024, "image_size_px": 224}, 1, 20),
        ({"batch_size": 1024, "image_size_px": 128, "views": 2, "objective": "multipositive"}, 1, 30),
        ({"batch_size": 1024, "image_size_px": 224, "views": 2, "local_views": 6, "local_size_px": 96}, 1, 6),
        ({"batch_size": 4096, "image_size_px": 224, "images_per_caption": 4}, 4, 32),
        ({"batch_size": 16, "image_size_px": 224}, 1, 16),
        ({"batch_size": 256, "image_size_px": 32}, 1, 256),
    ],
)
def test_on_a_cpu_a_rate_is_measured_on_batches_that_it_has_memory_for(given, world_size, images):
    job = Planned(TrainConfig(**given, steps=1), "cpu", world_size)
    assert _measured(job).config.batch_size == images
    on_gpu = replace(job, device="cuda")
    assert _measured(on_gpu) is on_gpu  # there it is asked whether the batch fits

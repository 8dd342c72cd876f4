"""The recipes: each states what its source reached, and describes a training that can be built."""

from pathlib import Path

import pytest

from synclones.base.config import load
from synclones.train.job import check_settings
from synclones.train.objective import load_objective
from synclones.train.run import STAGE
from synclones.train.settings import TrainConfig

RECIPES = sorted(path.stem for path in Path(STAGE.presets).glob("*.yaml"))
NEEDS_WEIGHTS = ("mtg-last-layers", "unmet-promise-finetune")


def _config(recipe: str, *flags: str) -> TrainConfig:
    weights = ["--weights", "runs/x"] if recipe in NEEDS_WEIGHTS else []
    return load(TrainConfig, ["--recipe", recipe, "--data", "data/x", *weights, *flags], "train", STAGE.presets)


# No source at hand states a number for ImageNet.
WITHOUT_A_NUMBER = ("unmet-promise-finetune",)


@pytest.mark.parametrize("recipe", [n for n in RECIPES if not n.startswith("lab") and n not in WITHOUT_A_NUMBER])
def test_a_recipe_of_a_paper_states_what_it_reached_on_what_and_how(recipe):
    expected = _config(recipe).expected
    assert expected
    for line in expected:
        value, images, trainings, source, augmentation = line.split(" | ")
        assert "%" in value and "image" in images and "training" in trainings and len(source) > 5
        assert augmentation in ("no test-time augmentation", "with test-time augmentation")


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in NEEDS_WEIGHTS])
def test_a_recipe_describes_a_network_that_can_be_trained(recipe):
    config = _config(recipe, "--batch-size", "128", "--samples", "0", "--epochs", "0", "--steps", "10")
    assert check_settings(config, 1).name == load_objective(config.objective).name

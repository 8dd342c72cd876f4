"""Where a command puts what it makes when nobody says: named by what was given, and never as the lab's own."""

from pathlib import Path

import pytest

from synclones.base.derived import derived, name_of
from synclones.evaluate.settings import EvaluateConfig
from synclones.generate.settings import GenerateConfig
from synclones.prompts.settings import DEFAULT_OUT, BuildConfig
from synclones.train.settings import TrainConfig


@pytest.mark.parametrize(
    "source, name",
    [
        ("data/animals", "animals"),
        ("data/animals/", "animals"),
        ("data/prompts/animals.parquet", "animals"),
        ("/sets/imagenet/train", "imagenet-train"),
        ("runs/x/export", "x"),
        ("s3://bucket/sets/laion", "laion"),
        ("hf://datasets/owner/set", "set"),
        ("stabilityai/sd-turbo", "sd-turbo"),
        ("red panda", "red-panda"),
        ("zebra's; rm -rf", "zebra-s-rm-rf"),
        ("../..", None),
        ("/", "given"),
        ("v1.5", "v1.5"),
        ("Füchse", "Füchse"),
        ("x\n../../y", "y"),
    ],
)
def test_a_path_url_or_name_becomes_one_word(source, name):
    assert name_of(source) == name if name else "/" not in name_of(source)
    assert Path(derived("data", source)).parent == Path("data") and "\n" not in str(derived("data", source))


def test_several_are_joined_once_each_and_many_are_counted():
    assert derived("runs", "data/a", "data/b", "other/a") == Path("runs/a+b")
    assert derived("runs", *"abcde") == Path("runs/a+b+3-more")
    assert len(derived("runs", "x" * 300).name) == 60


@pytest.mark.parametrize("source", ["lab", "mine/lab", "lab.parquet", "s3://bucket/lab"])
def test_nobody_s_data_goes_by_the_lab_s_name(source):
    assert derived("data", source) == Path("data/lab-given")


@pytest.mark.parametrize(
    "config, out",
    [
        (BuildConfig(), DEFAULT_OUT),
        (BuildConfig(dry_run=True), DEFAULT_OUT),
        (BuildConfig(classes="red panda, sea otter"), "data/prompts/red-panda+sea-otter-clip-templates.parquet"),
        (BuildConfig(classes="my/a.csv", recipe="class-name", num_images=300), "data/prompts/a-class-name-300.parquet"),
        (BuildConfig(recipe="text-file", captions=Path("c.txt")), "data/prompts/c-text-file.parquet"),
        (BuildConfig(seed=1), "data/prompts/lab-digits-clip-templates.parquet"),
        (GenerateConfig(model="lab"), "data/lab"),
        (GenerateConfig(model="lab", prompts=Path("p/animals.parquet")), "data/animals"),
        (GenerateConfig(model="stabilityai/sd-turbo"), "data/sd-turbo"),
        (TrainConfig(samples=1), "runs/lab"),
        (TrainConfig(samples=1, data=("data/a", "data/b:3", "data/c,fraction=1/8")), "runs/a+b+c"),
        (TrainConfig(samples=1, data=("data/lab",)), "runs/lab-given"),
        (EvaluateConfig(), "results/lab"),
        (EvaluateConfig(model=("runs/x",)), "results/lab"),
        (EvaluateConfig(model=("runs/x",), data=Path("data/photos")), "results/photos"),
        (EvaluateConfig(suite="lab"), "results/lab-suite"),
        (EvaluateConfig(suite="suites/mine.yaml", data_root=Path("d")), "results/mine-suite"),
        (EvaluateConfig(data=Path("data/photos"), out=Path("results/lab")), "results/lab"),
    ],
)  # fmt: skip
def test_every_stage_names_what_it_makes_by_what_it_was_given(config, out):
    assert config.out == Path(out)


def test_a_yaml_file_of_sets_gives_its_own_name(tmp_path):
    (tmp_path / "half.yaml").write_text("sources:\n  a: data/a\n  b: data/b\n")
    assert TrainConfig(samples=1, data=(str(tmp_path / "half.yaml"),)).out == Path("runs/half")

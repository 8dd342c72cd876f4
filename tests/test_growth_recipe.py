"""A prompt recipe is one file: added to a copy of the package, it is listed and used."""

import pyarrow.parquet as pq
from growth import copy, example  # noqa: F401

RECIPE = example("prompts/recipes/greeting.py")


def test_a_recipe_that_was_added_is_listed_and_builds_a_table(copy):  # noqa: F811
    assert "greeting" not in copy.command("prompts", "list").stdout
    copy.add("prompts/recipes/greeting.py", RECIPE)
    assert "greeting" in copy.command("prompts", "list").stdout
    flags = ("--recipe", "greeting", "--classes", "lab-digits", "--num-images", "20", "--out", "p.parquet")
    done = copy.command("prompts", "build", *flags)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(copy.work / "p.parquet")["prompt"].to_pylist()[:2] == ["hello zero", "hello one"]

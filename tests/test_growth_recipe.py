"""A prompt recipe is one file: added to a copy of the package, it is listed and used."""

import pyarrow.parquet as pq
from growth import copy  # noqa: F401

RECIPE = '''"""The class name behind a greeting.

Text: hello c
Example: hello tench
Paper: none
"""

from synclones.prompts.recipe import Bound, Inputs, class_captions, json_texts


def bind(inputs: Inputs) -> Bound:
    """Bind the classes."""
    names = [f"hello {info.name}" for info in inputs.classes.classes]
    return Bound(class_captions(names, [""] * len(names)))
'''


def test_a_recipe_that_was_added_is_listed_and_builds_a_table(copy):  # noqa: F811
    assert "greeting" not in copy.command("prompts", "list").stdout
    copy.add("prompts/recipes/greeting.py", RECIPE)
    assert "greeting" in copy.command("prompts", "list").stdout
    flags = ("--recipe", "greeting", "--classes", "lab-digits", "--num-images", "20", "--out", "p.parquet")
    done = copy.command("prompts", "build", *flags)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(copy.work / "p.parquet")["prompt"].to_pylist()[:2] == ["hello zero", "hello one"]

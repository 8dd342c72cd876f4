"""Tree, prompt recipes and deviations in the documents are what `make tree` writes today."""

import runpy
from pathlib import Path

from synclones.prompts.recipe import recipe_names

TREE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "docs" / "tree.py"))


def test_the_tree_of_the_design_page_is_current():
    page = TREE["PAGE"].read_text(encoding="utf-8")
    assert page == TREE["renewed"](page), "run `make tree`"


def test_the_table_of_recipes_is_what_they_say_of_themselves():
    page = TREE["PROMPTS_PAGE"].read_text(encoding="utf-8")
    assert page == TREE["renewed"](page, TREE["recipe_table"]()), "run `make tree`"
    assert page.count("arXiv") > 5 and all(f"| `{name}` |" in page for name in recipe_names())


def test_the_deviations_of_the_published_evaluation_are_those_of_the_data():
    page = TREE["DEVIATIONS_PAGE"].read_text(encoding="utf-8")
    assert page == TREE["renewed"](page, TREE["deviation_table"]()), "run `make tree`"
    assert all(f"| D{number} |" in page for number in range(1, 13))


def test_an_older_tree_is_noticed():
    page = TREE["PAGE"].read_text(encoding="utf-8")
    assert "\n  errors.py " in page, "the tree shows the files of base/"
    older = page.replace("\n  errors.py ", "\n  mistake.py ", 1)
    assert TREE["renewed"](older) != older


def test_every_file_of_the_package_has_a_phrase():
    names = [name for name in TREE["package_files"]() if name.endswith((".py", ".yaml"))]
    assert [name for name in names if not TREE["phrase"](name)] == []

"""Tree, prompt recipes, metrics and deviations in the documents are what `make tree` writes today."""

import re
import runpy
from pathlib import Path

from synclones.evaluate.axis import metrics
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


def test_the_metrics_page_has_every_metric_as_its_axis_states_it_and_a_formula():
    page = TREE["METRICS_PAGE"].read_text(encoding="utf-8")
    assert page == TREE["renewed"](page, TREE["metric_tables"]()), "run `make tree`"
    formulas = [line.split("|")[1] for line in page.partition(TREE["BEGIN"])[0].splitlines() if line.startswith("| `")]
    named = [name for cell in formulas for name in re.findall("`([^`]*)`", cell)]
    assert sorted(named) == sorted(metrics())  # each once
    assert sum(bool(re.search(r"\w", word)) for word in page.split()) <= 1200


def test_an_older_tree_is_noticed():
    page = TREE["PAGE"].read_text(encoding="utf-8")
    assert "\n  errors.py " in page, "the tree shows the files of base/"
    older = page.replace("\n  errors.py ", "\n  mistake.py ", 1)
    assert TREE["renewed"](older) != older


def test_every_file_of_the_package_has_a_phrase():
    names = [name for name in TREE["package_files"]() if name.endswith((".py", ".yaml"))]
    assert [name for name in names if not TREE["phrase"](name)] == []

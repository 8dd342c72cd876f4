"""The tree in docs/design.md is what `make tree` writes today."""

import runpy
from pathlib import Path

TREE = runpy.run_path(str(Path(__file__).resolve().parent.parent / "docs" / "tree.py"))


def test_the_tree_of_the_design_page_is_current():
    page = TREE["PAGE"].read_text(encoding="utf-8")
    assert page == TREE["renewed"](page), "run `make tree`"


def test_an_older_tree_is_noticed():
    page = TREE["PAGE"].read_text(encoding="utf-8")
    assert "\n  errors.py " in page, "the tree shows the files of base/"
    older = page.replace("\n  errors.py ", "\n  mistake.py ", 1)
    assert TREE["renewed"](older) != older


def test_every_file_of_the_package_has_a_phrase():
    names = [name for name in TREE["package_files"]() if name.endswith((".py", ".yaml"))]
    assert [name for name in names if not TREE["phrase"](name)] == []

"""The README keeps its promises: the tree it shows is the tree the command makes."""

import re

from conftest import ROOT


def test_the_tree_of_the_readme_is_what_a_run_makes(dataset):
    tree = re.search(r"data/lab/\n(.*?)data/lab-real-test/", (ROOT / "README.md").read_text(), re.S)[1]
    shown = set(re.findall(r"(?<![\w-])([\w-]+\.(?:json|md|tar|parquet|html|yaml))|(SHA256SUMS)|(log)/", tree))
    named = {next(filter(None, groups)) for groups in shown} - {"train-00000.tar"} | {"train-00000.tar"}
    there = {path.name for path in dataset.iterdir() if not re.match(r"train-0000[12]", path.name)}
    assert named == there

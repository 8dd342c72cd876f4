"""The notebook of the Python API runs from an empty folder: its cells in their order, as a reader runs them."""

import json
import sys

from conftest import ROOT, run_command

NOTEBOOK = ROOT / "docs" / "python.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
# What a notebook does: the value of a cell's last expression is shown.
READER = """
import ast, json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1])):
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print("" if value is None else f"shown: {value!r}", flush=True)
"""


def test_the_notebook_runs_from_an_empty_folder(tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps(CODE))
    done = run_command(sys.executable, "-c", READER, "cells.json", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    shown = [line for line in done.stdout.splitlines() if line.startswith("shown: ")]
    assert "PosixPath('data/prompts/lab-digits-class-name-200.parquet')" in shown[0]
    assert "(32, 32)" in shown[1] and shown[2].startswith("shown: (200, ('0', '1'")
    assert "torch.Size([100, 3, 32, 32])" in shown[3]
    assert "did you mean 'num_images'" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"cells.json", "data", "runs", "results"}


def test_the_notebook_is_stored_without_what_one_machine_printed():
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if cell["cell_type"] == "code"
    )
    assert sum(len("".join(cell["source"]).split()) for cell in CELLS if cell["cell_type"] == "markdown") <= 1200

"""A copy of the package in which a test adds one file and sees it listed and used.

In: the checkout, a test's folder. Out: `Copy`, whose commands import the copy and nothing of the checkout.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_house import ROOT, files

BESIDE = ("tests/", "docs/", "benchmarks/", ".ci/")
WITHOUT_EDITABLE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]; "


PAGE = ROOT / "docs" / "add_your_own.md"


def example(name: str) -> str:
    """The file of that name as the page about adding one's own shows it."""
    _, heading, rest = PAGE.read_text(encoding="utf-8").partition(f"`{name}`:\n\n```")
    assert heading, f"{PAGE.name} shows no {name}"
    return rest.partition("\n")[2].partition("```")[0]


class Copy:
    """A copied package: files can be added to it, Python code and commands run against it."""

    def __init__(self, folder: Path):
        self.root, self.work = folder / "path" / "synclones", folder / "work"
        for name in files():
            if not name.startswith(BESIDE):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.root / name)
        self.work.mkdir()

    def add(self, name: str, text: str) -> None:
        """Write one new file of the package."""
        assert not (self.root / name).exists(), f"{name} is there already"
        (self.root / name).write_text(text, encoding="utf-8")

    def python(self, code: str, timeout_s: int = 300) -> str:
        """What ``code`` prints, run against the copy alone; its failure is the test's."""
        done = self._run(code, timeout_s)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, *args: str, timeout_s: int = 300) -> subprocess.CompletedProcess:
        """``synclones ARGS`` of the copy, in an empty folder of its own."""
        return self._run(f"sys.argv[1:] = {list(args)!r}; from synclones.cli import main; main()", timeout_s)

    def _run(self, code: str, timeout_s: int) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(self.root.parent), "COLUMNS": "120"}
        command = [sys.executable, "-c", WITHOUT_EDITABLE + code]
        return subprocess.run(
            command, cwd=self.work, env=environment, capture_output=True, text=True, timeout=timeout_s
        )


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(tmp_path)

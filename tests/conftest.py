"""What the tests share: the requirement switch, and the smallest real generation."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from browser import chromium  # noqa: F401 - a fixture
from stores import any_store, gs_server, gs_store, server, store  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "lab" / "generator"
WORDNET = Path("/usr/share/wordnet")
NEEDS = {
    "root": (lambda: os.geteuid() == 0, "needs root"),
    "strace": (lambda: shutil.which("strace") is not None, "needs strace"),
    "wordnet": (lambda: (WORDNET / "data.noun").is_file(), "needs the WordNet of Debian's wordnet-base"),
    "chromium": (lambda: shutil.which("chromium") is not None, "needs chromium"),
}
_missing: Counter[str] = Counter()
NOTES: list[str] = []  # figures of tests that the closing summary prints


def pytest_runtest_setup(item):
    required = os.environ.get("SYNCLONES_REQUIRE", "").split(",")
    for marker, (there, reason) in NEEDS.items():
        if item.get_closest_marker(marker) and not there():
            if marker in required:
                pytest.fail(f"{reason}, and SYNCLONES_REQUIRE asks for it")
            _missing[marker] += 1
            pytest.skip(reason)


def pytest_sessionfinish(session):
    sent = getattr(session.config, "workeroutput", None)  # there in the workers of pytest-xdist
    if sent is not None:
        sent.update(notes=NOTES, missing=dict(_missing))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    sent = getattr(node, "workeroutput", {})  # not there when it crashed
    NOTES.extend(sent.get("notes", ()))
    _missing.update(sent.get("missing", {}))


def pytest_terminal_summary(terminalreporter):
    for note in NOTES:
        terminalreporter.write_line(note)
    for marker, count in _missing.items():
        terminalreporter.write_line(f"{count} tests not run: {NEEDS[marker][1]}")


def run_command(*command: str, cwd: Path, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Run a command in ``cwd`` and return it with its text output."""
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout_s
    )


def synclones(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """Run the installed command."""
    return run_command(sys.executable, "-m", "synclones.cli", *args, cwd=cwd, **env)


def identity(folder: Path) -> dict[str, str]:
    """name -> sha256 of the identity set of a dataset folder."""
    from synclones.base.files import sha256_file
    from synclones.shards.index import identity_files

    return {path.name: sha256_file(path) for path in identity_files(folder)}


@pytest.fixture(scope="session")
def prompts(tmp_path_factory) -> Path:
    """60 prompts of CLIP templates over the lab's digits."""
    from synclones.prompts.build import build
    from synclones.prompts.classes.lists import load_classes

    path = tmp_path_factory.mktemp("prompts") / "p.parquet"
    build("clip-templates", load_classes("lab-digits"), 60, 0, path)
    return path


QUICK = ("--model", "lab", "--batch-size", "5", "--images-per-shard", "20", "--num-inference-steps", "2")


@pytest.fixture(scope="session")
def dataset(prompts, tmp_path_factory) -> Path:
    """The 60 images of ``prompts`` in three shards, drawn in this process without interruption."""
    from synclones.generate.run import main

    folder = tmp_path_factory.mktemp("data") / "reference"
    main(["--prompts", str(prompts), "--out", str(folder), *QUICK])
    return folder


@pytest.fixture
def copy_of_dataset(dataset, tmp_path) -> Path:
    """A copy of the dataset that a test may damage."""
    return Path(shutil.copytree(dataset, tmp_path / "copy"))

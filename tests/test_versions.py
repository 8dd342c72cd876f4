"""Libraries with known holes in their loaders are refused, and the holes named, before a model or picture is read."""

import sys
import tomllib
from importlib import metadata

import pytest
from conftest import ROOT, run_command
from packaging.requirements import Requirement

from synclones.base import weights
from synclones.base.errors import InputError
from synclones.base.weights import SAFE_VERSIONS, refuse_old_libraries


@pytest.fixture
def installed(monkeypatch):
    """What is installed, by name; a test may change it."""
    found = {name: metadata.version(name) for name in SAFE_VERSIONS}

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(weights.metadata, "version", version)
    refuse_old_libraries.cache_clear()
    yield found
    refuse_old_libraries.cache_clear()


def test_what_is_installed_here_is_accepted(installed):
    refuse_old_libraries()


def test_the_first_safe_release_is_accepted_with_any_suffix(installed):
    installed |= {"torch": "2.10.0+cu128", "diffusers": "0.38.0", "transformers": "5.3.0.post1", "pillow": "12.3"}
    refuse_old_libraries()


@pytest.mark.parametrize(
    ("name", "version", "holes"),
    [
        ("torch", "2.9.1+cpu", "CVE-2025-32434, CVE-2026-24747"),
        ("torch", "2.10.0rc1", "CVE-2025-32434, CVE-2026-24747"),
        ("torch", "2.5", "CVE-2025-32434"),
        ("diffusers", "0.37.9", "CVE-2026-44513"),
        ("transformers", "5.2.0", "CVE-2026-4372, CVE-2026-5241"),
        ("transformers", "4.57.1", "CVE-2026-4372"),
        ("pillow", "12.2.0", "CVE-2026-40192, CVE-2026-55380"),
        ("pillow", "not a version", "CVE-2026-40192"),
    ],
)
def test_an_old_release_is_refused_with_its_holes_and_the_line_that_mends_it(installed, name, version, holes):
    installed[name] = version
    with pytest.raises(InputError) as caught:
        refuse_old_libraries()
    least = SAFE_VERSIONS[name][0]
    assert str(caught.value).startswith(name) and holes in str(caught.value)
    assert str(caught.value).endswith(f"run: pip install '{name} >= {least}'")


def test_a_library_that_is_not_installed_is_no_safe_one(installed):
    del installed["diffusers"]
    with pytest.raises(InputError, match="diffusers of an unknown version.*pip install 'diffusers >= 0.38'"):
        refuse_old_libraries()


def test_pyproject_asks_for_the_same_and_names_the_same_holes():
    text = (ROOT / "pyproject.toml").read_text()
    asked = {need.name: need for need in map(Requirement, tomllib.loads(text)["project"]["dependencies"])}
    for name, (least, holes) in SAFE_VERSIONS.items():
        assert str(asked[name].specifier) == f">={least}"
        line = next(line for line in text.splitlines() if line.strip().startswith(f'"{name} '))
        assert holes in line
    assert [
        line for line in text.splitlines() if "CVE-" in line and not any(f'"{n} ' in line for n in SAFE_VERSIONS)
    ] == []


COMMANDS = {
    "generate": ["generate", "--prompts", "p.parquet", "--model", "lab"],
    "train": ["train", "--data", "{dataset}", "--steps", "1", "--out", "run"],
    "evaluate": ["evaluate", "--model", "m", "--data", "{dataset}", "--out", "out"],
    "dedup": ["shards", "dedup", "{dataset}"],
    "caption": ["prompts", "caption", "--images", "{dataset}", "--out", "c.parquet"],
}
PROGRAM = """
import sys
from importlib import metadata
real = metadata.version
metadata.version = lambda name: "1.0" if name == "torch" else real(name)
from synclones.cli import main
main()
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_loads_models_or_pictures_asks_first(command, dataset, tmp_path):
    flags = [flag.replace("{dataset}", str(dataset)) for flag in COMMANDS[command]]
    done = run_command(sys.executable, "-c", PROGRAM, *flags, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("synclones: error: torch 1.0: releases before 2.10")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_asking_imports_no_library():
    program = "import sys; from synclones.base.weights import refuse_old_libraries as ask; ask(); print(*sys.modules)"
    done = run_command(sys.executable, "-c", program, cwd=ROOT)
    assert done.returncode == 0 and not {"torch", "diffusers", "transformers", "PIL"} & set(done.stdout.split())

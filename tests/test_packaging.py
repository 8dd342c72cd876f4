"""Packaging: the wheel holds exactly the checkout's modules and data, and a checkout hides nobody else's package."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_house import ROOMS, ROOT, files, product

DATA = (".yaml", ".csv", ".txt", ".json", ".safetensors", ".md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names in the wheel of the checkout's files, built in a copy (a build writes into its source), without network."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_holds_every_module_of_the_checkout_and_no_other(wheel):
    assert {name for name in wheel if name.endswith(".py")} == {f"synclones/{name}" for name in product()}


def test_the_wheel_holds_every_data_file_of_the_rooms(wheel):
    data = {name for name in files() if name.endswith(DATA) and name.partition("/")[0] in ROOMS}
    assert {f"synclones/{name}" for name in data} <= wheel
    assert any(name.endswith("classes/imagenet1k.csv") for name in data)
    assert any(name.endswith(".safetensors") for name in data)


def test_the_wheel_says_that_it_is_typed(wheel):
    assert "synclones/py.typed" in wheel


def test_tests_documents_and_other_files_stay_out_of_the_wheel(wheel):
    own = {name for name in wheel if not name.startswith("synclones-")}
    assert all(name.startswith("synclones/") for name in own)
    inside = {name.removeprefix("synclones/").partition("/")[0] for name in own}
    assert inside <= ROOMS | {"py.typed"} | {name for name in product() if "/" not in name}


def test_the_wheel_carries_licence_and_notice(wheel):
    names = {Path(name).name for name in wheel if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE"} <= names


def test_the_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="synclones")
    assert command.value == "synclones.cli:main"
    assert command.load()


@pytest.fixture
def other_evaluate(tmp_path) -> Path:
    """A regular package called like one of our rooms, as Hugging Face's is."""
    package = tmp_path / "site" / "evaluate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("whose = 'the library'\n")
    return package.parent


def imported(checkout: Path, library: Path) -> str:
    """What ``import evaluate`` gives when the checkout comes first on the path."""
    code = "import evaluate; print(getattr(evaluate, 'whose', 'the room'))"
    env = {"PYTHONPATH": f"{checkout}:{library}"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    ).stdout.strip()


def test_a_checkout_on_the_path_does_not_hide_the_library_called_evaluate(other_evaluate, tmp_path):
    room = tmp_path / "checkout" / "evaluate"
    room.mkdir(parents=True)
    (room / "run.py").write_text("")
    for checkout in (tmp_path / "checkout", ROOT):
        assert imported(checkout, other_evaluate) == "the library"


def test_with_an_init_file_in_the_room_it_would(other_evaluate, tmp_path):
    room = tmp_path / "checkout" / "evaluate"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("")
    assert imported(tmp_path / "checkout", other_evaluate) == "the room"


def test_every_module_can_be_imported_by_its_full_name():
    names = [name.removesuffix(".py").replace("/", ".") for name in product()]
    code = (
        "import importlib.util, sys; print([n for n in sys.argv[1:] if not importlib.util.find_spec('synclones.' + n)])"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

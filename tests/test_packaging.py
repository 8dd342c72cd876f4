"""Packaging: the wheel holds exactly the checkout's modules and data, and a checkout hides nobody else's package."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
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


# ------------------------------------------------------------------ the wheel for others


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """The wheel of `make wheel`, unpacked by pip into a folder of its own."""
    out = tmp_path_factory.mktemp("released")
    build = [sys.executable, str(ROOT / "docs" / "wheel.py"), "--repository", "https://git.example.org/us/synclones/"]
    done = subprocess.run([*build, "--out", str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(out / "site")]
    subprocess.run([*install, str(built)], check=True, capture_output=True, timeout=120)
    return out / "site"


def metadata_of(site: Path) -> importlib.metadata.PackageMetadata:
    (found,) = importlib.metadata.distributions(path=[str(site)])
    return found.metadata


def test_pictures_and_links_of_the_released_readme_are_whole(released):
    text = metadata_of(released)["Description"] or str(metadata_of(released).get_payload())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text)
    assert len(targets) > 10 and pictures and all(target.startswith(("https://", "#")) for target in targets)
    assert all(picture.startswith("https://git.example.org/us/synclones/raw/v") for picture in pictures)
    own = [target for target in targets if target.startswith("https://git.example.org/us/synclones/")]
    names = {target.partition("/v")[2].partition("/")[2].partition("#")[0] for target in own}
    assert names and all((ROOT / name).exists() for name in names)


def test_the_released_metadata_say_what_it_is_and_where_it_lies(released):
    facts = metadata_of(released)
    urls = dict(line.split(", ", 1) for line in facts.get_all("Project-URL"))
    assert urls["Repository"] == "https://git.example.org/us/synclones" and urls["Issues"].endswith("/issues")
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(facts.get_all("Classifier"))
    assert facts["License-Expression"] == "Apache-2.0" and facts["Description-Content-Type"] == "text/markdown"
    assert facts["Requires-Python"] and facts["Keywords"]


def test_the_released_package_runs_from_its_own_files(released, tmp_path):
    """The command and the API, with nothing of the checkout on the path."""
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]; "
        "import synclones, synclones.api, synclones.cli as cli; "
        f"assert cli.__file__.startswith({str(released)!r}), cli.__file__; "
        "synclones.api.build_prompts(['red panda', 'sea otter'], num_images=4); "
        "cli.dispatch(['generate', '--dry-run']); cli.dispatch(['demo', '--seeds', '0'])"
    )
    environment = os.environ | {"PYTHONPATH": str(released)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "InputError: --seeds: 0 was given" in done.stderr, done.stderr
    assert "plan " in done.stdout and "sea-otter" in str(list((tmp_path / "data" / "prompts").iterdir()))


@pytest.mark.parametrize("address", ["", "synclones", "http://x/y", "git@github.com:us/synclones.git"])
def test_a_wheel_for_others_needs_the_address(address, tmp_path):
    build = [
        sys.executable,
        str(ROOT / "docs" / "wheel.py"),
        f"--repository={address}",
        "--out",
        str(tmp_path / "dist"),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 2 and "--repository: got" in done.stderr and not (tmp_path / "dist").exists()


# ------------------------------------------------------------------ beside the wheel


def test_the_citation_names_version_and_the_authors_of_every_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["cff-version"], cited["version"], cited["license"]) == (
        "1.2.0",
        project["version"],
        project["license"],
    )
    assert {"message", "title", "type", "authors"} <= cited.keys()
    urls = {reference["url"] for reference in cited["references"]}
    assert urls == set(project["urls"].values()) and len(urls) == 3
    for reference in cited["references"]:
        assert all(author["family-names"] and author["given-names"] for author in reference["authors"])


def test_the_container_copies_all_that_the_wheel_is_built_of():
    lines = (ROOT / ".dockerignore").read_text().split()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    needed = {name.partition("/")[0] for name in product() if "/" in name} | {"pyproject.toml", "py.typed", "README.md"}
    assert lines[0] == "*" and needed <= kept and "*.py" in kept and {"LICENSE", "NOTICE", "requirements.lock"} <= kept
    recipe = (ROOT / "Containerfile").read_text()
    extras = re.search(r"/src\[([\w,]+)\]", recipe)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= project["optional-dependencies"].keys()
    assert 'ENTRYPOINT ["synclones"]' in recipe
    # One that the lock does not have may want what it forbids: trackio did, and pip went back to its first releases.
    named = [name for one in extras for name in project["optional-dependencies"][one]]
    named += re.search(r"/src\[.*?\]' (.*?) \\", recipe)[1].split()
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert {re.match(r"[\w-]+", name)[0] for name in named} <= set(locked) and "tensorboard" in named


def test_issue_forms_are_forms():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"] and all(part["attributes"]["label"] for part in form["body"])
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) and any(part.get("validations", {}).get("required") for part in form["body"])


def test_git_tracks_no_package_and_nothing_larger_than_the_lab_s_generator():
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert names and not [name for name in names if name.endswith((".whl", ".tar.gz"))]
    assert not [name for name in names if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 5_000_000]

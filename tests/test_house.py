"""The house rules that a machine can hold: who imports whom, names, sizes, and calls that run foreign code."""

import ast
import contextlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"base", "prompts", "generate", "shards", "models", "train", "evaluate", "lab", "ablate", "serve"}
ARROWS: dict[str, set[str]] = {
    "base": set(),
    "cli": {"base"},
    "api": {"base", "prompts", "generate", "shards", "train", "evaluate", "models"},
    "__init__": set(),
    "__main__": {"cli"},
    "shards": {"base"},
    "models": {"base"},
    "prompts": {"base", "shards"},
    "generate": {"base", "prompts", "shards"},
    "train": {"base", "shards", "models"},
    "evaluate": {"base", "shards", "models"},
    "lab": {"base", "prompts", "generate", "shards", "evaluate.corruptions"},
    "ablate": {"base", "prompts", "shards", "models", "evaluate"},
    "serve": {"base", "prompts", "shards", "train", "evaluate"},
}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60


def files(suffix: str = "") -> list[str]:
    """Tracked files and new ones that git does not ignore, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if name.endswith(suffix) and (ROOT / name).is_file()]


def product() -> list[str]:
    """The package's own Python files: root modules and rooms."""
    return [name for name in files(".py") if name.partition("/")[0] in ROOMS or "/" not in name]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------ arrows


def imports(source: str) -> list[str]:
    """Every imported module, dotted; ``from x import y`` counts as ``x.y``; relative ones begin with a dot."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return found


def strays(name: str, source: str) -> list[str]:
    """Imports of the file ``name`` that the arrows do not allow."""
    own = name.partition("/")[0].removesuffix(".py")
    allowed = ARROWS.get(own, set()) | ({own} if own in ROOMS else set())
    wrong = []
    for module in imports(source):
        parts = module.split(".")
        if parts[0] == "" or parts[0] in ROOMS:
            wrong.append(f"{name}: {module} is not absolute; write synclones.{module.lstrip('.')}")
        if parts[0] != "synclones" or len(parts) == 1:
            continue
        target = parts[1:]
        if target[1:2] == ["run"] and own != "api":
            wrong.append(f"{name}: imports {module}; only cli and api may import a run.py")
        elif target[:2] == ["lab", "world"] and (name.endswith(("/run.py", "/status.py")) or own == "lab"):
            continue
        elif not {target[0], ".".join(target[:2])} & allowed:
            wrong.append(f"{name}: {own} may not import {module}")
    return wrong


@pytest.mark.parametrize("name", product())
def test_imports_follow_the_arrows_and_are_absolute(name):
    assert strays(name, read(name)) == []


@pytest.mark.parametrize(
    "name, source",
    [
        ("shards/x.py", "from synclones.prompts.table import PromptTable"),
        ("shards/x.py", "def f():\n    import synclones.generate.plan"),
        ("shards/x.py", "from synclones import generate"),
        ("prompts/x.py", "from synclones.generate.plan import Plan"),
        ("generate/x.py", "from synclones.lab.world import GENERATOR"),
        ("generate/run.py", "from synclones.lab.render import render"),
        ("generate/x.py", "from synclones.prompts.run import main"),
        ("ablate/x.py", "from synclones.train.run import main"),
        ("lab/x.py", "from synclones.evaluate.metrics import ece"),
        ("lab/x.py", "from synclones.train.data import x"),
        ("generate/x.py", "from .plan import Plan"),
        ("generate/x.py", "from generate.plan import Plan"),
        ("generate/x.py", "import shards.read"),
        ("base/x.py", "from synclones.shards.read import ShardFolder"),
        ("models/x.py", "from synclones.shards.read import ShardFolder"),
        ("unknown/x.py", "from synclones.shards.read import ShardFolder"),
    ],
)
def test_a_stray_import_is_found(name, source):
    assert strays(name, source)


@pytest.mark.parametrize(
    "name, source",
    [
        (
            "generate/x.py",
            "import numpy\nfrom synclones.generate.plan import Plan\nfrom synclones.shards.read import x",
        ),
        ("generate/run.py", "from synclones.lab.world import GENERATOR"),
    ],
)
def test_an_import_along_the_arrows_is_none(name, source):
    assert strays(name, source) == []


def test_every_arrow_that_is_granted_is_used():
    used = {own: set[str]() for own in ARROWS}
    for name in product():
        own = name.partition("/")[0].removesuffix(".py")
        for parts in (module.split(".") for module in imports(read(name)) if module.startswith("synclones.")):
            used[own] |= {parts[1], ".".join(parts[1:3])}
    assert {own: allowed - used[own] for own, allowed in ARROWS.items() if allowed - used[own]} == {}


def inner_arrows(sources: dict[str, str], depth: int) -> dict[str, set[str]]:
    """Which unit imports which of the same folder, for every folder ``depth`` deep; a sub-folder is one unit."""
    modules = {f"synclones.{name.removesuffix('.py').replace('/', '.')}": name for name in sources}
    arrows: dict[str, set[str]] = {}
    for name, source in sources.items():
        targets = {modules[m] for full in imports(source) for m in (full, full.rpartition(".")[0]) if m in modules}
        folder = name.split("/")[:depth]
        here = [target for target in targets if len(target.split("/")) > depth and target.split("/")[:depth] == folder]
        if len(name.split("/")) > depth:
            own = "/".join(name.split("/")[: depth + 1])
            arrows.setdefault(own, set()).update("/".join(target.split("/")[: depth + 1]) for target in here)
            arrows[own].discard(own)
    return arrows


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """What stands on a circle or above one: what is left when those without arrows are taken away, again and again."""
    left = dict(arrows)
    while free := [unit for unit, targets in left.items() if not targets & left.keys()]:
        for unit in free:
            del left[unit]
    return sorted(left)


@pytest.mark.parametrize("depth", [1, 2])
def test_arrows_inside_rooms_and_sub_rooms_point_one_way(depth):
    assert circle(inner_arrows({name: read(name) for name in product()}, depth)) == []


@pytest.mark.parametrize(
    "sources",
    [
        {"shards/a.py": "from synclones.shards.b import x", "shards/b.py": "def f():\n    import synclones.shards.a"},
        {"shards/a/x.py": "from synclones.shards.b import y", "shards/b.py": "from synclones.shards.a.x import y"},
        {"shards/a/x.py": "from synclones.shards.a.y import q", "shards/a/y.py": "from synclones.shards.a import x"},
    ],
)
def test_a_circle_is_found(sources):
    assert circle(inner_arrows(sources, 1)) + circle(inner_arrows(sources, 2))


def test_a_folder_and_a_file_beside_it_never_share_a_stem():
    # Of `gates.py` and `gates/` Python takes the file, and everything in the folder is gone.
    stems = {name.removesuffix(".py") for name in product()}
    folders = {str(Path(name).parent) for name in files()}
    assert stems & folders == set()


# ------------------------------------------------------------------ names


def dependency_modules() -> set[str]:
    """Top-level modules of everything that ``pip install -e '.[dev]'`` brings along."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    todo = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    found: set[str] = set()
    while todo:
        need = todo.pop()
        name = _normal(need.name)
        if name in found or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):  # it is for another platform or Python
            todo += [Requirement(text) for text in metadata.requires(name) or []]
    owners = metadata.packages_distributions()
    return {module for module, names in owners.items() if found & {_normal(name) for name in names}}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_is_named_like_a_module_of_python_or_of_a_dependency():
    # A script's own folder comes first on its path: generate/queue.py would be everybody's `queue`.
    taken = (set(sys.stdlib_module_names) | dependency_modules() | {"evaluate"}) - {"synclones"}
    assert {"yaml", "torch", "PIL", "webdataset", "datasets", "queue"} <= taken
    assert [name for name in files(".py") if Path(name).stem in taken] == []


def test_no_folder_of_ours_is_a_regular_package():
    # With an __init__.py in evaluate/, a checkout on the path would hide Hugging Face's `evaluate`.
    assert [name for name in files() if name.endswith("__init__.py")] == ["__init__.py"]  # of the package itself


def test_rooms_have_one_level_of_folders():
    assert [name for name in product() if name.count("/") > 2] == []


def test_no_file_mentions_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.])/(?:tmp|work|root|home)\b")
    texts = {name: (ROOT / name).read_bytes().decode("utf-8", "ignore") for name in files() if _is_text(name)}
    assert [name for name, text in texts.items() if place.search(text)] == []


def _is_text(name: str) -> bool:
    return b"\0" not in (ROOT / name).read_bytes()[:4096]


def test_set_up_uses_plain_pip():
    text = read("Makefile") + read(".ci/run")
    assert "pip install" in text
    assert re.findall(r"\buv\b|--(?:extra-)?index-url|--find-links|--trusted-host", text) == []


# ------------------------------------------------------------------ sizes


def functions(source: str) -> dict[str, int]:
    """Lines of every function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in found}


def too_long(name: str, source: str) -> list[str]:
    long = [f"{name}: {function} has {n} lines" for function, n in functions(source).items() if n > MAX_FUNCTION_LINES]
    lines = source.count("\n")
    return long + ([f"{name}: {lines} lines"] if lines > MAX_FILE_LINES else [])


@pytest.mark.parametrize("name", [name for name in files(".py") if not name.startswith("tests/")])
def test_files_and_functions_stay_small_and_say_what_they_are(name):
    source = read(name)
    assert too_long(name, source) == []
    assert ast.get_docstring(ast.parse(source)), f"{name}: the file's docstring is missing"


def test_a_long_file_and_a_long_function_are_found():
    function = "def f():\n" + "    pass\n" * 60
    assert too_long("shards/x.py", function) and too_long("shards/x.py", "x = 1\n" * 351)


# ------------------------------------------------------------------ one mechanism per job

# What only one file may call, and that file: everybody else goes through its functions.
OWNED_CALLS = {
    "json.loads": {"base/json_file.py"},
    "json.load": {"base/json_file.py"},
    "os.fsync": {"base/files.py"},
    "os.link": {"base/files.py"},
    "os.replace": {"base/files.py", "shards/write.py"},  # a part becomes a tar, and a tar a part again: both synced
    "os.sched_getaffinity": {"base/machine.py"},
    "torch.cuda.is_bf16_supported": {"base/machine.py"},
    "torch.cpu.get_capabilities": {"base/machine.py"},
}


def second_mechanisms(name: str, source: str) -> list[str]:
    """Calls in the file ``name`` that belong to another file."""
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    owned = [call for call in calls if call in OWNED_CALLS]
    return [f"{name}: {call} belongs to {OWNED_CALLS[call]}" for call in owned if name not in OWNED_CALLS[call]]


@pytest.mark.parametrize("name", product())
def test_every_job_has_one_mechanism(name):
    assert second_mechanisms(name, read(name)) == []


_VERB = "[a-z]+ [a-z-]+|status|serve|demo|trace"


def commands_not_quoted(name: str, source: str) -> list[str]:
    """Printed commands that hold a value bare, as `shards verify {folder}`: `base.resume.typed` quotes it."""
    found = []
    for text in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)):
        before = ""
        for part in text.values:
            if isinstance(part, ast.Constant):
                before += part.value
            elif re.search(rf"(`|run:? )synclones ({_VERB})( [^`]*)? $", before):
                found.append(f"{name}: {ast.unparse(part)}")
    return found


@pytest.mark.parametrize("name", product())
def test_printed_commands_are_quoted(name):
    assert commands_not_quoted(name, read(name)) == []


def test_a_command_with_a_bare_folder_is_found():
    assert commands_not_quoted("x.py", 'f"run `synclones shards verify {folder}`"')
    assert commands_not_quoted("x.py", 'f"run synclones status --json {folder}"')
    assert not commands_not_quoted("x.py", "f\"run `{typed(['status', str(folder)])}`\"")


@pytest.mark.parametrize("call", OWNED_CALLS)
def test_a_second_mechanism_is_found_and_the_first_is_used(call):
    assert second_mechanisms("train/x.py", f"def f():\n    return {call}(1)")
    assert all(f"{call}(" in read(owner) for owner in OWNED_CALLS[call] if call != "json.load")


# ------------------------------------------------------------------ calls that run foreign code

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
BANNED_NAMES = {"torch.load", "yaml.load", "PIL.Image.open", "os.system", "os.popen", "subprocess.getoutput"}
BANNED_CALLS = {
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec", "__import__"),
}


def dangers(source: str) -> list[str]:
    """Calls and imports that can run code out of data, or that read an image format nobody asked for."""
    found = [module for module in imports(source) if module.split(".")[0] in BANNED_MODULES or module in BANNED_NAMES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += _dangers_of_call(node)
    return found


def _dangers_of_call(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    found = [called] if called in BANNED_CALLS or called.endswith((".extractall", ".extract")) else []
    if called.endswith("torch.load") and keywords.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    if called.endswith("Image.open") and "formats" not in keywords:
        found.append("Image.open without formats=")
    for word, safe in (("shell", "False"), ("trust_remote_code", "False"), ("allow_pickle", "False")):
        if keywords.get(word, safe) != safe:
            found.append(f"{word}={keywords[word]}")
    if keywords.get("weights_only", "True") != "True":
        found.append("weights_only is not True")
    return found


@pytest.mark.parametrize("name", files(".py"))
def test_nothing_runs_code_out_of_data(name):
    assert dangers(read(name)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as c",
        "def f():\n    import joblib",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "torch.load('x', weights_only=flag)",
        "from torch import load",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "from yaml import load",
        "eval('1')",
        "exec(text)",
        "subprocess.run('ls', shell=True)",
        "tar.extractall(path)",
        "tarfile.open(p).extract(m)",
        "os.system('ls')",
        "from os import system",
        "Image.open(path)",
        "PIL.Image.open(path)",
        "from PIL.Image import open",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_code_that_runs_data_is_found(source):
    assert dangers(source)


def test_their_safe_forms_are_allowed():
    safe = """
torch.load(path, weights_only=True)
yaml.safe_load(text)
Image.open(file, formats=["PNG"])
subprocess.run(["ls"], shell=False)
model.eval()
re.compile("a")
tar.extractfile(member)
"""
    assert dangers(safe) == []

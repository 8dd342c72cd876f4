"""The documents: their code blocks print what they show, their links lead somewhere, and the site needs no network."""

import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from browser import serious_barriers
from conftest import ROOT

from synclones.base.errors import InputError
from synclones.cli import stages

DOCS = ROOT / "docs"
BLOCKS = runpy.run_path(str(DOCS / "blocks.py"))
COMMANDS = runpy.run_path(str(DOCS / "commands.py"))
FOR_DEVELOPERS = {DOCS / "design.md", DOCS / "decisions.md"}
PAGES = sorted(set(DOCS.rglob("*.md")) - FOR_DEVELOPERS)
READ = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
WITH_BLOCKS = [page for page in PAGES if any(block.runs for block in BLOCKS["blocks_of"](page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ------------------------------------------------------------------ code blocks


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return BLOCKS["Folders"](tmp_path_factory.mktemp("docs"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] * ("slow" in BLOCKS["options_of"](page)))
        for page in WITH_BLOCKS
    ],
)
def test_blocks_run_and_print_what_the_page_shows(page, folders):
    assert folders.run(page) == []


def test_the_tutorial_takes_six_commands_from_classes_to_a_report(folders):
    """Of the page itself: the class list is a file, the script of photographs stands for the reader's own."""
    page = DOCS / "tutorials" / "own_classes.md"
    blocks = [block for block in BLOCKS["blocks_of"](page) if block.runs and not block.title]
    commands = [block.text for block in blocks]
    report = next(n for n, text in enumerate(commands) if "look: results/mine/report.html" in text)
    assert report + 1 <= 6 and all(len(BLOCKS["commands_of"](b.text)) <= 1 for b in blocks if b.kind == "console")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_ends_in_the_report_and_its_table_is_the_readme_s(folders):
    page = DOCS / "tutorials" / "own_classes.md"
    folders.run(page)
    assert (folders.folder(page) / "results" / "mine" / "report.html").is_file()
    readme = (ROOT / "README.md").read_text()
    consoles = [block.text for block in BLOCKS["blocks_of"](page) if block.kind == "console"]
    commands = [command for text in consoles for command, _ in BLOCKS["commands_of"](text)]
    assert [command for command in commands if command not in readme] == ["synclones trace results/mine"]
    shown = re.findall(r"^\| (clone|real) \| ([^|]+)", page.read_text(), re.MULTILINE)
    assert len(shown) == 2 and all(f"| {model} | {accuracy}" in readme for model, accuracy in shown)


@pytest.mark.parametrize(
    "shown, printed, numbers, same",
    [
        ("$ x\n3 images in 4 s\n", "$ x\n3 images in 17 s\n", True, True),
        ("$ x\n3 images in 4 s\n", "$ x\n5 images in 4 s\n", True, False),
        ("$ x\n3 images\n", "$ x\n5 images\n", False, True),
        ("$ x\n3 images\n", "$ x\n3 shards\n", False, False),
        ("$ x\na\n...\nz\n", "$ x\na\nb\nc\nz\n", True, True),
        ("$ x\na\n...\nz\n", "$ x\na\nb\nc\n", True, False),
        ("$ x\n", "$ x\nsurprise\n", True, False),
        ("$ x\nhash d4d947a7ba7704ad\n", "$ x\nhash 0123456789abcdef\n", True, True),
    ],
)
def test_what_is_shown_is_compared_with_what_is_printed(shown, printed, numbers, same):
    assert BLOCKS["agree"](shown, printed, numbers) is same


def test_another_output_and_a_failing_command_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```txt title="a.txt"\none\n```\n\n```console\n$ cat a.txt\ntwo\n```\n')
    assert "printed is\n$ cat a.txt\none" in BLOCKS["differences"](page, tmp_path)[0]
    BLOCKS["differences"](page, tmp_path, renew=True)
    assert BLOCKS["differences"](page, tmp_path) == []
    page.write_text("```console\n$ cat missing.txt\n```\n")
    with pytest.raises(RuntimeError, match="missing.txt"):
        BLOCKS["differences"](page, tmp_path)


def synclones_commands(page: Path) -> list[list[str]]:
    """The words of every `synclones` command that stands alone on a line of a bash or console block."""
    texts = [block.text for block in BLOCKS["blocks_of"](page) if block.kind in ("bash", "console")]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    commands = [re.search(r"^(?:\$ )?(?:srun )?synclones (.*)", line) for line in lines]
    words = [shlex.split(match[1], comments=True) for match in commands if match]
    return [each for each in words if "..." not in each and each[0] in stages()]


@pytest.mark.parametrize("page", [*READ, *PAGES], ids=name)
def test_every_command_of_a_page_has_flags_that_exist(page):
    for words in synclones_commands(page):
        words = words[: next((n for n, word in enumerate(words) if re.match(r"[0-9]?>|[|&]", word)), None)]
        try:
            import_module(f"synclones.{words[0]}.run").STAGE.check(words[1:])
        except InputError as error:
            # What is missing on this disk is no mistake of the page.
            assert re.search(r"(?i)no such|no .*folder|cannot be read", str(error)), (words, str(error))


# ------------------------------------------------------------------ links


def slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(match) for match in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def generated() -> set[Path]:
    pages = {DOCS / path for of_stage in COMMANDS["command_pages"]().values() for path in of_stage}
    return {*pages, DOCS / "reference" / "commands.md"}


@pytest.mark.parametrize("page", [*READ, *PAGES, *sorted(FOR_DEVELOPERS)], ids=name)
def test_links_and_their_anchors_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() or file in generated(), target
        if anchor and file.exists():
            assert anchor in anchors(file), target


def test_pages_that_code_names_exist():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in tracked:
        if file.endswith((".py", ".yaml")) and not file.startswith("tests/"):
            text = (ROOT / file).read_text(encoding="utf-8")
            for page in re.findall(r"\bdocs/[\w/]+\.md\b", text):
                assert (ROOT / page).exists() or page == "docs/x.md", (file, page)


# ------------------------------------------------------------------ the site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning, such as a page outside the navigation, ends the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_builds_and_holds_every_page_but_the_developers(site):
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {page.relative_to(DOCS) for page in PAGES} | {page.relative_to(DOCS) for page in generated()} <= built
    assert not any((site / page.name).with_suffix(".html").exists() for page in FOR_DEVELOPERS)


def test_the_site_fetches_nothing(site):
    fetched = re.compile(
        r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'> ]+"
        r"|<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preconnect|icon|preload))[^>]*href=[\"']?(?:https?:)?//[^\"'> ]+"
        r"|@import[^;]*//|url\([\"']?(?:https?:)?//"
    )
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert fetched.findall(file.read_text(encoding="utf-8")) == [], file.name


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "page",
    [
        "index",
        "tutorials/own_classes",
        "evaluate",
        "ablate",
        "reference/train-run-text",
        "reference/commands",
        "grids/table6",
    ],
)
def test_a_page_of_the_site_fits_a_telephone_and_has_no_serious_barrier(site, chromium, page, scheme):
    context = chromium.new_context(viewport={"width": 390, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto((site / f"{page}.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious_barriers(tab) == []
    context.close()


def test_every_page_has_at_most_1200_words():
    texts = {name(page): page.read_text(encoding="utf-8") for page in PAGES}
    texts |= {path: text for of_stage in COMMANDS["command_pages"]().values() for path, text in of_stage.items()}
    texts["reference/commands.md"] = COMMANDS["list_of_commands"]()
    sizes = {path: COMMANDS["num_words"](text) for path, text in texts.items()}
    assert {path: words for path, words in sizes.items() if words > 1200} == {}


def test_the_reference_has_every_flag_of_every_verb_with_its_yaml_key():
    from synclones.base.config import flags_of

    pages = COMMANDS["command_pages"]()
    for stage in stages():
        for word, verb in import_module(f"synclones.{stage}.run").STAGE.verbs.items():
            texts = "".join(text for path, text in pages[stage].items() if path.startswith(f"reference/{stage}-{word}"))
            for flag in flags_of(verb.settings):
                assert f"### `{flag}`" in texts, (stage, word, flag)

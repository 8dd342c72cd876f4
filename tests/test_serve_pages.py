"""The browser's pages in a real Chromium: no prompt's script runs, all fits a telephone, nothing is a barrier."""

import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
from browser import serious_barriers
from serve_world import HOSTILE, serving, write_world
from test_serve import PAGES, SET

pytestmark = pytest.mark.chromium
WIDTHS = (390, 1200)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def server(world):
    with serving("data", "earlier", "runs", cwd=world) as running:
        yield running


@pytest.fixture
def tab(chromium, request):
    """A tab; its parameter holds further options of its context."""
    options = getattr(request, "param", {})
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, **options)
    page = context.new_page()
    page.on("dialog", lambda dialog: pytest.fail("a page opened a dialog"))
    yield page
    context.close()


def open_page(tab, server, path: str, **parameters) -> None:
    tab.goto(f"{server.address}{path}?{urlencode(parameters, doseq=True)}")
    tab.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    tab.wait_for_load_state("networkidle")


@pytest.mark.parametrize("path", PAGES)
def test_nothing_that_a_prompt_a_class_or_a_reason_says_is_run(tab, server, path):
    refused = []
    tab.on("console", lambda message: refused.append(message.text))
    open_page(tab, server, path, **PAGES[path])
    assert tab.evaluate("window.hacked") is None and tab.evaluate("document.scripts.length") == 0
    assert tab.evaluate("document.querySelectorAll('img[onerror], [src=x]').length") == 0
    assert refused == []  # not even tried: the texts are texts
    if path in ("/images", "/image"):
        assert HOSTILE in tab.inner_text("main")


def test_a_report_that_somebody_sent_runs_no_script_either(tab, world, tmp_path):
    shutil.copytree(world / "earlier" / "results", tmp_path / "results")
    script = "<h1 id=a>a report</h1><script>window.hacked=1;document.getElementById('a').remove()</script>"
    (tmp_path / "results" / "report.html").write_text(f"<!doctype html>{script}<img src=x onerror=window.hacked=1>")
    with serving("results", cwd=tmp_path) as running:
        open_page(tab, running, "/results", folder="results")
        tab.click("text=report with figures")
        assert tab.inner_text("h1") == "a report" and tab.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_its_window_and_all_its_images_are_there(tab, server, path, width):
    tab.set_viewport_size({"width": width, "height": 800})
    open_page(tab, server, path, **PAGES[path])
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    images = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert all(side == 16 for side in images) and (len(images) > 50 if path == "/images" else True)


@pytest.mark.parametrize("tab", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_page_is_light_or_dark_as_the_reader_s_machine_is(tab, server, request):
    open_page(tab, server, "/runs", **PAGES["/runs"])
    brightness = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    ink = tab.evaluate("getComputedStyle(document.querySelector('svg.curve text')).fill.match(/\\d+/g).map(Number)[0]")
    is_dark = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (brightness < 60 and ink > 180) if is_dark else (brightness > 220 and ink < 60)


@pytest.mark.parametrize(
    "tab", [{"color_scheme": scheme, "bypass_csp": True} for scheme in ("light", "dark")], indirect=True
)
@pytest.mark.parametrize("path", [*PAGES, "/nothing"])
def test_no_page_has_a_serious_barrier(tab, server, path):
    open_page(tab, server, path, **PAGES.get(path, {}))
    assert serious_barriers(tab) == []


def test_a_reader_goes_from_all_folders_to_one_image_and_back(tab, server):
    open_page(tab, server, "/")
    tab.click(f"text={SET}")
    tab.fill("input[name=text]", "of blue")
    tab.select_option("select[name=status]", "ok")
    tab.click("text=Search")
    assert tab.locator(".wall figure").count() > 20 and tab.input_value("input[name=text]") == "of blue"
    first = tab.locator(".wall a").first
    assert "of blue" in first.inner_text()
    first.click()
    assert tab.inner_text("h1") == f"{SET}: image 0" and tab.locator(".strip .this").count() == 1
    tab.click("text=1 →")
    assert tab.inner_text("h1") == f"{SET}: image 1"
    tab.click("text=all folders")
    assert tab.inner_text("h1") == "synclones"


def test_chosen_runs_stand_side_by_side(tab, server):
    open_page(tab, server, "/")
    for name in ("earlier/run", "runs/other"):
        tab.check(f"input[value='{name}']")
    tab.click("text=Show the chosen ones side by side")
    assert tab.inner_text("h1") == "2 training runs" and tab.locator("svg.curve").count() == 4
    assert tab.locator("svg.curve").first.get_attribute("aria-label").startswith("loss over images seen: earlier/run")


def test_a_page_of_what_is_being_drawn_renews_itself_and_shows_what_came(tab, tmp_path):
    from playwright.sync_api import expect
    from shard_helpers import PLAN, sample

    from synclones.shards.write import ShardWriter

    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "plan.json").write_text(f'{{"plan_id": "{PLAN}", "num_shards": 1}}')
    with serving("set", cwd=tmp_path) as running, ShardWriter(folder, "train-00000", PLAN) as writer:
        writer.add_batch(0, [sample(index) for index in range(3)])
        open_page(tab, running, "/images", folder="set")
        assert tab.locator(".wall figure").count() == 3
        writer.add_batch(1, [sample(index) for index in range(3, 8)])
        expect(tab.locator(".wall figure")).to_have_count(8, timeout=30_000)

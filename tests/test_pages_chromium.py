"""Reports, contact sheet, overview and statistics in a real Chromium: they fit a telephone, are light or dark as the
reader's machine is, load nothing, and have no serious barrier for readers with other eyes or without a mouse (axe)."""

import re

import pytest
from browser import serious_barriers
from report_cells import MODELS, Images, of_paper, predicted
from test_report_verdict import family_of

pytestmark = pytest.mark.chromium
PAGES = ("report", "report of 20", "grid", "sheet", "overview", "statistics")
WIDTHS = (390, 1200)
SCHEMES = ("light", "dark")


def _reports(root):
    from synclones.evaluate.reports.html_report import Evaluation, write_report
    from synclones.evaluate.reports.names import names_of
    from synclones.evaluate.stored.origins import Origin

    images, written = Images(), {}
    for name, count in (("report", 2), ("report of 20", 20)):
        cells = [
            c for model in MODELS[:count] for c in of_paper(model) if c.settings.get("corruption") in (None, "snow")
        ]
        models = [f"{MODELS[k % len(MODELS)]}{'' if k < len(MODELS) else f' again {k}'}" for k in range(count)]
        answered = [predicted(model, [0, 0, 1, 1, 1, k % 2], images, (1, 3)) for k, model in enumerate(models)]
        compared = family_of({model: k / 30 for k, model in enumerate(models)})
        names = names_of(cells)
        origin = Origin(source="runs/a", weights_sha256="0" * 64, evaluated="2026-01-01", recipe="lab", images_seen=5)
        made = Evaluation(images, answered, cells, names, compared, dict.fromkeys(names.models, origin), "synclones x")
        written[name] = root / f"{name}.html"
        write_report(written[name], made, 20)
    return written


def _grid(root):
    from grid_example import example

    from synclones.ablate.reports.html_report import report
    from synclones.ablate.study import Study

    (root / "grid.html").write_bytes(report(Study(example(root / "cells"), resamples=50)))
    return root / "grid.html"


def _sheet(root):
    from fuzz_targets import some_plan
    from shard_helpers import write_folder

    from synclones.generate.preview.sheet import PREVIEW, write_preview

    write_folder(root / "set", 3)
    write_preview(root / "set", some_plan(num_samples=24, images_per_shard=8, batch_size=4), {})
    return root / "set" / PREVIEW


def _tables(root):
    from synclones.prompts.overview import Summary, page
    from synclones.shards.read import ShardFolder
    from synclones.shards.tools.counting import count
    from synclones.shards.tools.stats_page import stats_page

    summary = Summary({"rows": "5"}, [(70, "a long prompt " * 20)], [(0, "cat", "a cat"), (3, "dog", "a dog")], 0.0)
    (root / "overview.html").write_bytes(page("prompts.parquet", summary))
    (root / "statistics.html").write_bytes(stats_page(count(ShardFolder(root / "set"))))
    return {"overview": root / "overview.html", "statistics": root / "statistics.html"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> file."""
    root = tmp_path_factory.mktemp("pages")
    return _reports(root) | {"grid": _grid(root), "sheet": _sheet(root)} | _tables(root)


@pytest.fixture
def opened(chromium, pages):
    """Open a page by name; details are unfolded, and what it asks for elsewhere is noted."""
    contexts = []

    def go(name, width=1200, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.asked = []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(pages[name].as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        return tab

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_asks_for_no_other_file(opened, name, width):
    tab = opened(name, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in tab.asked if not url.startswith("data:")] == tab.asked[:1]
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    drawings = "[...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') !== 'true')"
    assert tab.evaluate(f"{drawings}.every(svg => svg.getAttribute('role') === 'img' && svg.querySelector('title'))")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_barrier(opened, name, scheme):
    assert serious_barriers(opened(name, 390, scheme)) == []


def test_a_barrier_would_be_noticed(opened):
    tab = opened("report")
    tab.add_style_tag(content=".facts{color:#bbb}")
    assert "color-contrast" in {rule for rule, _ in serious_barriers(tab)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_drawings_are_light_or_dark_as_the_page_is(opened, scheme):
    tab = opened("report", 1200, scheme)
    read = "getComputedStyle(document.querySelector('{0}')).{1}.match(/\\d+/g).slice(0, 3).map(Number)"
    paper, ink = (tab.evaluate(read.format(*what)) for what in (("body", "backgroundColor"), (".figures text", "fill")))
    assert (min(paper) > 200 and max(ink) < 90) if scheme == "light" else (max(paper) < 60 and min(ink) > 150)
    assert not re.search(r"(fill|stroke): #(000000|ffffff)", tab.content())


def test_a_reader_without_a_mouse_can_scroll_every_table(opened):
    tab = opened("report of 20", 390)
    assert tab.evaluate(
        "[...document.querySelectorAll('.table')].every(table => table.scrollWidth <= table.clientWidth ||"
        " (table.tabIndex === 0 && getComputedStyle(table).overflowX === 'auto'))"
    )

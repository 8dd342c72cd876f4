"""One page style: what is text is escaped, wide tables scroll by themselves, a page needs no other file."""

from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest

from synclones.base.page import data_uri, image_figure, image_row, page, table
from synclones.base.page_style import DARK, LIGHT, SERIES, STYLE, of_page, themed

EVIL = "</title><script>alert(1)</script>\"'&"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_titles_captions_notes_and_headings_are_escaped():
    figure = image_figure(data_uri(b"\xff\xd8"), EVIL, EVIL, EVIL, EVIL)
    text = page(EVIL, [table([["1", "2"]], (EVIL, "b"), numbers=True), image_row([figure])]).decode()
    read = Tags()
    read.feed(text)
    assert "script" not in read.tags and text.count("&lt;script&gt;") == 8
    assert "data:image/jpeg;base64,/9g=" in text and "http" not in text


def test_pages_fit_a_telephone_and_tables_scroll_by_themselves():
    text = page("t", [table([["name", '<td class="real">1</td>']], first="th")], small_images=True).decode()
    assert "width=device-width" in text and 'aria-label="table" tabindex="0"><table>' in text
    assert '<tr><th>name</th><td class="real">1</td></tr>' in text and "image-rendering:pixelated" in text


# ------------------------------------------------------------------ colours

# How people without one kind of cone see linear RGB (Machado, Oliveira and Fernandes 2009, table 1, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no M": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no L": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no S": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
THEMES = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2: contrast ratio."""
    low, high = sorted(float(linear(colour) @ TO_XYZ[1]) + 0.05 for colour in (a, b))
    return high / low


def lab(colour, seen):
    ratio = TO_XYZ @ np.clip(seen @ linear(colour), 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@THEMES
def test_text_has_a_contrast_of_4_5_and_lines_of_3(colours):
    for name in ("ink", "soft", "warn", "note", "link", "seen"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours[name], colours["panel"]) >= 4.5, name
    for number in range(len(SERIES)):
        assert contrast(colours[f"c{number}"], colours["paper"]) >= 3, number


@THEMES
@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_the_colours_of_series_are_told_apart_with_any_kind_of_colour_vision(colours, seen):
    series = [lab(colours[f"c{number}"], seen) for number in range(len(SERIES))]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(series, 2)) > 25


def test_drawings_take_their_colours_from_the_page_and_others_stay():
    assert set(DARK) == set(LIGHT) and all(f"--{name}:{DARK[name]};" in STYLE for name in DARK)
    drawn = themed(f'style="fill: {SERIES[1]}; stroke: #000000" href="#ab12" d="#12345"')
    assert drawn == 'style="fill: var(--c1); stroke: var(--ink)" href="#ab12" d="#12345"'
    assert of_page(SERIES[0]) == "var(--c0)" and of_page("#123456") == "#123456"

"""Names that somebody else chose: in Markdown and spreadsheets they show their characters and do nothing."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from synclones.base.escape import csv_text, markdown_code, markdown_text

HOSTILE = "|\\`*_[]()<>&!~#\n\r\x1b\u202e\ud800ab /:"


@pytest.mark.parametrize("escape", [markdown_text, markdown_code])
@example("``*x*``")
@example("`<a>")
@given(st.text(alphabet=HOSTILE, min_size=1, max_size=20).filter(str.strip))
def test_a_table_keeps_its_shape_and_holds_plain_text_alone(escape, name):
    cell = escape(name)
    assert cell.isprintable()
    html = MarkdownIt("commonmark").enable("table").render(f"| a | b |\n|---|---|\n| {cell} | 1 |\n")
    assert html.count("<td>") == 2 and html.count("<tr>") == 2
    inside = html.split("<td>")[1].partition("</td>")[0]
    assert not [tag for tag in ("<a", "<em", "<strong", "<img", "<script", "<s>") if tag in inside], inside


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "plain", "a,b", 'a"b', "a\nb"])
def test_a_spreadsheet_computes_nothing(name):
    text = io.StringIO()
    csv.writer(text).writerow([csv_text(name), 1])
    cells = next(csv.reader(io.StringIO(text.getvalue())))
    assert len(cells) == 2 and not cells[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_text("plain-name_1") == markdown_text("plain-name_1") == "plain-name_1"

"""The overview: counts that a plain computation confirms, CLIP's own tokens, pages that can be opened."""

from html.parser import HTMLParser

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclones.base.errors import InputError
from synclones.prompts import overview as overview_module
from synclones.prompts.build import make_table
from synclones.prompts.classes.lists import ClassList, load_classes
from synclones.prompts.clip_tokens import count_tokens
from synclones.prompts.overview import Overview
from synclones.prompts.recipe import Inputs
from synclones.prompts.run import main

IMAGENET = load_classes("imagenet1k")
CLIP = open_clip.tokenizer.SimpleTokenizer()


def _summary(table):
    overview = Overview(table.num_images, len(table.inputs.classes.classes))
    for block in table.blocks():
        overview.update(block)
    return overview.finish()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&"), max_size=60))
def test_tokens_are_counted_as_clip_counts_them(text):  # without &: open_clip also undoes HTML entities
    assert count_tokens([text]) == [len(CLIP.encode(text)) + 2]


def test_tokens_of_every_class_and_template_are_those_of_clip():
    texts = next(make_table("clip-templates", Inputs(classes=IMAGENET), 4000).blocks())["prompt"].to_pylist()
    texts += [info.more["definition"] for info in IMAGENET.classes] + ["Łódź café — don't 3D 2012", "日本", "😀"]
    assert count_tokens(texts) == [len(CLIP.encode(text)) + 2 for text in texts]


def test_counts_are_those_of_a_plain_computation(monkeypatch):
    monkeypatch.setattr(overview_module, "MERGE_AT", 5000)
    table = make_table("clip-templates", Inputs(classes=IMAGENET), 250_000)
    summary = _summary(table)
    rows = [
        (p, k)
        for block in table.blocks()
        for p, k in zip(*(block[c].to_pylist() for c in ("prompt", "label")), strict=True)
    ]
    distinct = {prompt for prompt, _ in rows}
    assert summary.facts["distinct prompts"].startswith(f"{len(distinct):,},")
    shared = len(set(rows)) - len(distinct)
    assert shared == 160 and summary.facts["shared prompts"].startswith("160 stand for more than one class")
    assert summary.facts["class balance"] == "1,000 classes, 250 rows each"
    assert summary.longest[0][0] == max(count_tokens(list(distinct)))
    assert [index for index, *_ in summary.examples] == np.linspace(0, 249_999, 10).astype(int).tolist()


def test_prompts_shared_far_apart_are_counted_without_an_example(tmp_path):
    rows = [f"caption {n},{n % 10}" for n in range(9, 250_000)]
    (tmp_path / "c.csv").write_text("caption,class\nthe same,1\n" + "\n".join(rows) + "\nthe same,2\n")
    inputs = Inputs(classes=load_classes("lab-digits"), captions=tmp_path / "c.csv")
    assert _summary(make_table("text-file", inputs, None)).facts["shared prompts"] == "1 stand for more than one class"


def test_prompts_too_long_for_clip_are_counted_and_warned_of(tmp_path, capsys, monkeypatch):
    short, long = [f"short {n}" for n in range(30)], [f"long {n} " + "word " * 80 for n in range(10)]
    (tmp_path / "c.txt").write_text("\n".join(short + long))
    summary = _summary(
        make_table("text-file", Inputs(classes=ClassList("none", ()), captions=tmp_path / "c.txt"), None)
    )
    assert summary.share_cut == pytest.approx(0.25)
    assert [count for count, _ in summary.longest] == [84, 84, 84]
    main(["--recipe", "text-file", "--captions", str(tmp_path / "c.txt"), "--out", str(tmp_path / "p.parquet")])
    assert "warning: 25 % of distinct prompts are above 77" in capsys.readouterr().err
    monkeypatch.setattr(overview_module, "MAX_TOKENISED", 4)
    again = _summary(make_table("text-file", Inputs(classes=ClassList("none", ()), captions=tmp_path / "c.txt"), None))
    assert again.share_cut == pytest.approx(0.25) and "counted on 4 of the long ones" in again.facts["CLIP tokens"]


def test_pages_hold_the_facts_and_escape_prompts(tmp_path, capsys):
    (tmp_path / "c.txt").write_text("<script>alert(1)</script> | x\nfine\n")
    table = str(tmp_path / "p.parquet")
    main(["--recipe", "text-file", "--captions", str(tmp_path / "c.txt"), "--out", table])
    for name in ("o.html", "o.md"):
        main(["show", table, "--out", str(tmp_path / name)])
        assert f"look: {tmp_path / name}" in capsys.readouterr().out
    page, text = (tmp_path / "o.html").read_text(), (tmp_path / "o.md").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "\\| x" in text
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(page)
    assert tags.count("table") == 3 and "2, each drawn 1 times" in page
    assert "text-file" in page and f"{tmp_path / 'c.txt'} " in page, "what the table was built from"
    with pytest.raises(InputError, match="ends in '.pdf', expected .html or .md"):
        main(["show", table, "--out", str(tmp_path / "o.pdf")])

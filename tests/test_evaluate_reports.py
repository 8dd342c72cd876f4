"""Reports: figures and tables say the numbers of the cells, in narrow tables; nothing is lost where some are absent."""

import base64
import csv
import io
import re
from html import unescape

import numpy as np
import pytest
import simplejpeg
from report_cells import ALL_TEN, MODELS, SHAPES, Images, cell, of_paper, predicted, stands_beside

from synclones.base.page import page
from synclones.evaluate.axes.calibration import reliability
from synclones.evaluate.axis import axes, metrics
from synclones.evaluate.compare import Comparison
from synclones.evaluate.published.beside import column_of, is_clone, model_of, published_for, published_of
from synclones.evaluate.published.corrected import TEN, correction
from synclones.evaluate.published.figures import figures as logged
from synclones.evaluate.published.tables import read_csv, tables
from synclones.evaluate.reports import (
    curves,
    examples,
    figures,
    forest,
    published_section,
    radar,
    result_tables,
    scatter,
    shape,
)
from synclones.evaluate.reports.cell_text import percent
from synclones.evaluate.reports.class_names import ClassNames
from synclones.evaluate.reports.figure_data import figures_csv
from synclones.evaluate.reports.figures import reliability_svg
from synclones.evaluate.reports.grids import MOST_COLUMNS, grids
from synclones.evaluate.reports.html_report import Evaluation, write_report
from synclones.evaluate.reports.latex import latex
from synclones.evaluate.reports.names import names_of
from synclones.evaluate.reports.shown import shown
from synclones.evaluate.reports.tables import markdown, write_tables

NAMED = ClassNames(Images.class_ids)
FIGURES = (radar, scatter, curves, shape)
TWO = ("ResNet50", "SynCLR")


@pytest.fixture(scope="module")
def cells():
    """All numbers of two of the paper's models."""
    return [item for model in TWO for item in of_paper(model)]


@pytest.fixture(scope="module")
def models(cells):
    return shown(cells, names_of(cells))


@pytest.fixture(scope="module")
def sections(cells, models):
    """Every section that is made of cells alone, by name."""
    names = names_of(cells)
    drawn = {module.__name__.rpartition(".")[2]: module.section(models) for module in FIGURES}
    return drawn | {
        "tables": result_tables.section(cells, names),
        "published": published_section.section(cells, names),
        "forest": forest.section(models, names),
    }


def fewer(cells):
    """Return the cells of two corruptions alone, and all that are of none: quicker to draw."""
    return [c for c in cells if c.settings.get("corruption") in (None, "snow", "fog_3d")]


def lines_of(cells):
    return list(csv.DictReader(io.StringIO(figures_csv(cells, names_of(cells)))))


def words_of(section):
    return [unescape(text) for text in re.findall(r'<svg role="img" aria-label="([^"]*)"', section)]


# ------------------------------------------------------------------ figures say what cells say


def test_every_point_of_a_figure_is_a_cell_with_its_interval(cells):
    values = {(c.model, c.metric, c.dataset, str(c.settings)): c for c in cells}
    lines = lines_of(cells)
    assert {line["figure"] for line in lines} == {
        *("radar", "error_vs_ece", "severity", "shape_bias", "shape_bias_by_class")
    }
    severities = [c for c in cells if c.metric == "accuracy_corruption_severity"]
    drawn = {(line["model"], line["panel"], line["x"]): line for line in lines if line["figure"] == "severity"}
    for c in severities:
        line = drawn[c.model, f"{c.settings['corruption']} ({c.settings['set']})", str(float(c.settings["severity"]))]
        assert (float(line["y"]), float(line["y_low"]), float(line["y_high"])) == (c.value, c.ci_low, c.ci_high)
    for line in (line for line in lines if line["figure"] == "error_vs_ece"):
        ece = values[line["model"], "ece", line["panel"], "{'bins': 20}"]
        accuracy = values[line["model"], "accuracy", line["panel"], "{}"]
        assert float(line["y"]) == ece.value and float(line["x"]) == 1 - accuracy.value
        assert float(line["x_low"]) == 1 - accuracy.ci_high and float(line["y_high"]) == ece.ci_high
    by_class = [line for line in lines if line["figure"] == "shape_bias_by_class"]
    assert len(by_class) == len(TWO) * len(SHAPES) * 2 and {line["label"] for line in by_class} == set(SHAPES)


def test_the_words_of_a_figure_are_its_numbers(cells, sections):
    for c in (c for c in cells if c.metric in ("ece", "shape_bias")):
        told = words_of(sections["scatter" if c.metric == "ece" else "shape"])
        assert any(c.model in text and f"{100 * c.value:.1f} %" in text for text in told), c.metric
    for model in TWO:
        (text,) = (text for text in words_of(sections["radar"]) if text.startswith(f"Radar of {model}:"))
        r_cc = next(c.value for c in cells if c.model == model and c.metric == "r_cc")
        assert f"corruptions {100 * r_cc:.1f} %" in text and "calibration" in text
    text = next(text for text in words_of(sections["curves"]) if "snow (ImageNet-C)" in text)
    snow = [c for c in cells if c.model == TWO[0] and c.metric == "accuracy_corruption_severity"]
    shares = ", ".join(f"{100 * c.value:.1f} %" for c in snow if c.settings["corruption"] == "snow")
    assert f"{TWO[0]} " in text and shares in text


def test_every_drawing_has_words_for_those_who_do_not_see_it(sections):
    drawings = sum(text.count("<svg") for text in sections.values())
    assert drawings == sum(len(words_of(text)) for text in sections.values()) > 10


def test_a_spoke_says_how_its_radius_is_made_and_less_is_outwards_where_less_is_better(models, sections):
    for spoke in radar.SPOKES:
        assert spoke.transform in unescape(sections["radar"])
        assert (spoke.rim > spoke.centre) == (metrics()[spoke.metric].better == "more")
        assert (spoke.radius(spoke.centre), spoke.radius(spoke.rim)) == (0, 1) and spoke.radius(9) in (0, 1)
    ece = next(spoke for spoke in radar.SPOKES if spoke.metric == "ece")
    assert ece.radius(0.1) == pytest.approx(0.8)
    # Of several sets the reference's, and of outliers the mean over sets.
    own = {spoke.name: radar.value_of(models[0], spoke) for spoke in radar.SPOKES}
    assert own["calibration"] == 0.0872 and models[0].reference.startswith("ImageNet-hash")
    assert own["outliers"] == pytest.approx((0.84 + 0.91 + 0.82) / 3)


def test_severity_0_is_the_clean_set_only_where_a_ratio_says_that_both_ask_the_same(cells):
    clean = {"set": "ImageNet-C", "corruptions": 5}
    more = [*cells, cell(TWO[0], "r_cc", 0.6, **clean)]
    starts = [line for line in lines_of(more) if line["figure"] == "severity" and line["x"] == "0.0"]
    assert {(line["model"], line["y"]) for line in starts} == {(TWO[0], "0.8012")} and len(starts) == 5


def test_hollow_and_dashed_is_what_is_known_to_be_synthetic(models):
    assert [model.synthetic for model in models] == [False, True]
    assert models[0].glyph == "●" and models[1].glyph == "□"
    own = [cell("mine", "accuracy", 0.5)]
    assert not shown(own, names_of(own))[0].synthetic and shown(own, names_of(own), {"mine": True})[0].synthetic


# ------------------------------------------------------------------ tables


def test_no_table_is_wider_than_a_phone_and_none_loses_a_number(cells, sections):
    names = names_of(cells)
    held = [id(c) for grid in grids(cells, names) for row in grid.rows for c in row.cells.values()]
    wanted = [id(c) for c in cells if metrics()[c.metric].tabled]
    assert sorted(held) == sorted(wanted)
    for grid in grids(cells, names):
        assert len(grid.heads) <= MOST_COLUMNS
    for section in sections.values():
        for head in re.findall(r"<thead>(.*?)</thead>", section):
            assert 1 < head.count("<th>") <= 2 + MOST_COLUMNS
    text = markdown(cells)
    assert all(len(line.split(" | ")) <= 2 + MOST_COLUMNS for line in text.splitlines())
    assert all(percent(c) in text for c in cells if metrics()[c.metric].tabled)
    for axis in axes():
        assert f"### {axis.name}" in text


def test_a_number_is_printed_in_the_unit_of_its_metric():
    assert percent(cell("a", "accuracy", 0.912)) == "91.2 [90.2, 92.2]"
    assert percent(cell("a", "nll", 1.25, width=0.05)) == "1.250 nats [1.200, 1.300]"
    assert percent(cell("a", "bg_gap", 0.0568)) == "5.7 points [4.7, 6.7]"
    assert percent(cell("a", "metric of another version", 0.5)) == "50.0 [49.0, 51.0]"
    assert percent(cell("a", "nll", None)) == "undefined"


def test_numbers_of_both_protocols_stand_in_lines_of_their_own(tmp_path):
    both = [cell("a", "r_cc", 0.6, set="C"), cell("a", "r_cc", 0.7, protocol="paper", set="C")]
    names = names_of(both)
    (grid,) = grids(both, names)
    assert [(row.protocol, row.cells["R_cc C"].value) for row in grid.rows] == [("corrected", 0.6), ("paper", 0.7)]
    for text in (markdown(both), result_tables.section(both, names)):
        assert "60.0" in text and "70.0" in text and "protocol" in text
    write_tables(tmp_path, both)
    assert "Protocol paper" in (tmp_path / "table.md").read_text()
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["protocol", "corrected", "paper"]
    tex = (tmp_path / "table.tex").read_text()
    assert tex.count("\\begin{table*}") == 2 and "Protocol paper" in tex
    labels = re.findall(r"\\label\{([^}]*)\}", tex)
    assert len(set(labels)) == len(labels) == 2
    # Figures show one of them, and that is the corrected one.
    assert [c.value for c in shown(both, names)[0].cells] == [0.6]


# ------------------------------------------------------------------ LaTeX


def test_latex_is_balanced_and_bold_is_the_best_of_each_group():
    cells = [item for model in MODELS for item in of_paper(model)]
    tex = latex(cells, names_of(cells))
    assert tex.count("{") == tex.count("}") and tex.count("$") % 2 == 0
    for name in ("table*", "tabular"):
        assert tex.count(f"\\begin{{{name}}}") == tex.count(f"\\end{{{name}}}") == 7
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.S):
        plain = re.sub(r"\\multicolumn\{(\d)\}\{c\}\{[^}]*\}", lambda m: " &" * (int(m[1]) - 1), table[1])
        lines = [line for line in plain.splitlines() if line.endswith(r"\\")]
        assert {line.count("&") for line in lines} == {len(table[0]) - 1}
    # As the paper's Table 2 has it: of its supervised models DeiT, of the self-supervised ones DINOv2, and CLIP.
    bold = [line.split(" & ")[0] for line in tex.splitlines() if "\\textbf{62.92}" in line or "\\textbf{22.61}" in line]
    assert bold == ["DeiT", "DINOv2"] and "\\textbf{12.82}" in tex and "\\textbf{49.33}" not in tex
    # Less is better where the metric says so.
    assert "\\textbf{3.31}" in tex and "\\textbf{9.46}" not in tex


def test_one_number_alone_is_not_the_best_of_anything():
    cells = [cell("mine", "cb1", 0.6, "FOCUS")]
    assert "60.00" in latex(cells, names_of(cells)) and "textbf" not in latex(cells, names_of(cells))


# ------------------------------------------------------------------ the caller's matplotlib


def test_figures_are_of_one_style_whatever_the_caller_s_is_and_leave_it_alone(monkeypatch):
    import matplotlib

    def drawn():
        return reliability_svg(reliability(np.full(40, 0.6), np.zeros(40), 5), "a")

    before = drawn()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9)
    own = dict(matplotlib.rcParams)
    assert drawn() == before and dict(matplotlib.rcParams) == own


# ------------------------------------------------------------------ beside the published numbers


def test_what_the_figures_are_drawn_from_stands_beside_measured_numbers():
    own = [
        cell("ResNet50", "ece", 0.16, "ImageNet-R", bins=20),
        cell("ResNet50", "accuracy", 0.4, "ImageNet-R"),
        cell("SynCLIP", "shape_bias", 0.5753, "cue-conflict"),
    ]
    printed = {item.result.metric: item for item in published_section.beside_of(own)}
    assert printed["ece"].published.value == 0.1548 and printed["ece"].published.place == "Figure 3"
    assert printed["accuracy"].difference == pytest.approx(0.4 - 0.4059)
    assert printed["shape_bias"].difference == 0 and printed["shape_bias"].published.place == "Figure 4"
    text = published_section.section(own, names_of(own))
    assert "Figure 3" in text and "15.48" in text and "+0.5" in text and "57.53" in text
    assert published_of("ResNet50", cell("ResNet50", "ece", 0.16, "ImageNet-R", bins=15)) is None


def test_the_logs_behind_the_figures_agree_with_the_tables():
    for line in read_csv("figures.csv"):
        printed = tables()[2].rows[line["model"]]["accuracy"].value
        assert 100 * printed == pytest.approx(100 - float(line["error_imagenet"]), abs=0.0201), line["model"]
    synthetic = {6: ("SynViT-B", "class name 16M"), 7: ("SynCLIP", "synthetic 371M")}
    for number, (model, row) in synthetic.items():
        cells = tables()[number].rows[row]
        for key, other in (("ece", "ece_imagenet"), ("shape_bias", "shape_bias")):
            assert cells[key].value == pytest.approx(logged()[model][other].value, abs=cells[key].step + 5e-5), model


def test_only_what_touches_the_paper_s_models_remains_in_the_figures():
    assert correction(logged()["ResNet50"]["ece_imagenet"]).code == "as-printed"
    for item in logged().values():
        assert all(correction(cell).value is None for cell in item.values())


def test_every_number_of_tables_1_to_5_finds_its_place():
    for model in MODELS:
        own = of_paper(model)
        places = {column_of(c) for c in own} - {None}
        means = {(1, "auroc_mean"), (1, "fpr95_mean"), (1, "images"), (3, "accuracy")}
        assert places == set(published_for(model)) - means
        for c in own:
            printed = stands_beside(c)
            assert (
                printed is None or printed == published_of(model, c) and c.value in (printed.value, max(0.03, c.value))
            )


def test_figures_show_no_number_of_the_paper_s_way_beside_corrected_ones():
    cells = [cell("a", "accuracy", 0.9), cell("a", "auroc", 0.6, outliers="o", score="max-probability")]
    papers = [cell("a", "auroc", 0.7, protocol="paper", outliers="o", score="entropy")]
    (model,) = shown(cells + papers, names_of(cells + papers))
    assert [item.value for item in model.cells] == [0.9, 0.6]
    (alone,) = shown(papers, names_of(papers))
    assert [item.value for item in alone.cells] == [0.7]


def test_the_difference_is_to_the_corrected_number_or_under_protocol_paper_to_the_printed_one():
    for protocol, which in (("corrected", "corrected"), ("paper", "published")):
        own = [cell("ResNet50", "r_cc", 0.661, protocol=protocol, set=ALL_TEN, corruptions=len(TEN))]
        (item,) = published_section.beside_of(own)
        assert item.expected[1] == which and item.published.printed == "66.10"
        value = item.published.value if protocol == "paper" else correction(item.published).value
        assert item.difference == pytest.approx(0.661 - value)
        text = published_section.section(own, names_of(own))
        assert f"{100 * item.difference:+.1f}" in text and "66.10" in text and "60.37" in text and which in text


@pytest.mark.parametrize(
    "name, model",
    [
        ("resnet50", "ResNet50"),
        ("timm:convnext_base.fb_in22k_ft_in1k", "ConvNeXt"),
        ("SynCLR", "SynCLR"),
        ("my-resnet50-finetuned", None),
        ("", None),
    ],
)
def test_models_of_the_paper_are_known_by_name(name, model):
    assert model_of(name) == model and is_clone(model_of(name)) == (name == "SynCLR")
    assert bool(published_for(name)) == (model is not None)


def test_other_sets_and_settings_stand_beside_nothing():
    for other in (
        cell("ResNet50", "accuracy", 0.5, "digits"),
        cell("ResNet50", "accuracy_fgsm", 0.5, epsilon_255=8.0),
        cell("ResNet50", "r_cc", 0.5, set="ImageNet-C", corruptions=5),
        cell("ResNet50", "accuracy_corruption", 0.5, set="ImageNet-C", corruption="snow", severities=[1, 2]),
        cell("ResNet50", "auroc", 0.5, outliers="svhn", score="entropy"),
    ):
        assert published_of("ResNet50", other) is None
    assert published_section.section([other], names_of([other])) == ""


# ------------------------------------------------------------------ what is absent, odd or much


@pytest.mark.parametrize("absent", ["accuracy", "ece", "r_cc", "accuracy_corruption_severity", "shape_bias", "bg_gap"])
def test_without_a_metric_the_rest_is_there(cells, absent):
    left = [c for c in fewer(cells) if c.metric != absent]
    names = names_of(left)
    models = shown(left, names)
    drawn = "".join(module.section(models) for module in FIGURES) + forest.section(models, names)
    tables = result_tables.section(left, names) + result_tables.legend(left) + published_section.section(left, names)
    held = [c for grid in grids(left, names) for row in grid.rows for c in row.cells.values()]
    assert drawn and tables and len(held) == sum(metrics()[c.metric].tabled for c in left)
    assert latex(left, names) and lines_of(left)


def test_undefined_numbers_are_said_and_not_drawn():
    cells = [
        cell("a", "accuracy", 0.0),
        cell("a", "r_adv", None, epsilon_255=1.0),
        cell("b", "r_adv", 0.5, epsilon_255=1.0),
    ]
    names = names_of(cells)
    models = shown(cells, names)
    assert "undefined" in result_tables.section(cells, names) and "undefined" in markdown(cells)
    assert [p.model for p in radar.points(models) if p.label == "adversarial"] == ["b"]
    assert radar.section(models) == scatter.section(models) == curves.section(models) == shape.section(models) == ""
    tex = latex(cells, names)
    assert "a & 0.00 & --" in tex and "b & -- & 50.00" in tex


@pytest.mark.parametrize("name", ["<script>x</script>", "a&b", "100%_of{it}", "$x^2$", "a\\b", "=1+1", 'a"b'])
def test_names_do_nothing_in_figures_tables_and_latex(name, cells):
    renamed = [c.__class__(**{**c.__dict__, "model": name}) for c in fewer(cells) if c.model == TWO[0]]
    names = names_of(renamed)
    models = shown(renamed, names)
    html = "".join(module.section(models) for module in FIGURES) + forest.section(models, names)
    html += result_tables.section(renamed, names)
    assert "<script" not in html and 'b"' not in re.sub(r'="[^"]*"', "", html)
    tex = latex(renamed, names)
    bare = re.sub(r"\\[{}$%]", "", tex)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert {line["model"] for line in lines_of(renamed)} == {"'=1+1" if name == "=1+1" else name}


def test_the_same_cells_give_the_same_bytes(cells, sections, models, tmp_path):
    assert {m.__name__.rpartition(".")[2]: m.section(models) for m in FIGURES}.items() <= sections.items()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_tables(folder, cells)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_page_loads_nothing_and_stays_small_for_a_large_suite(sections):
    whole = page("t", sections.values(), style=forest.STYLE)
    assert len(whole) < 1_000_000
    text = whole.decode().replace("http://www.w3.org/", "")
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\((?!#)|<script""", text)


def test_what_is_too_much_to_draw_is_counted(cells, monkeypatch, models):
    monkeypatch.setattr(curves, "MAX_PANELS", 3)
    monkeypatch.setattr(forest, "MAX_LINES", 10)
    text = curves.section(models)
    assert text.count("<svg") == 3 and "The first 3 of 10 are drawn" in text
    assert re.search(r"\d+ of \d+ numbers are drawn", forest.section(models, names_of(cells)))


# ------------------------------------------------------------------ photographs


def captions(section):
    return [unescape(text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", section)]


def test_images_that_one_model_gets_right_and_the_other_wrong_are_shown_both_ways():
    images = Images()
    a, b = predicted("a", [0, 0, 1, 1, 1, 1], images), predicted("b", [1, 0, 0, 1, 0, 1], images)
    section = examples.disagreements([a, b], NAMED)
    assert "<b>a</b> right, <b>b</b> wrong: 2 of 6" in section and "<b>b</b> right, <b>a</b> wrong: 1 of 6" in section
    # The surest wrong answer is the first.
    said = [re.sub(r" ?\(\d+%\)", "", text) for text in captions(section)]
    assert said == ["is <dog>, said cat", "is cat, said <dog>", "is cat, said <dog>"]
    assert examples.disagreements([a], NAMED) == "" and "<dog>" not in section


def test_the_surest_mistakes_come_first_and_models_are_counted(monkeypatch):
    images = Images()
    models = [predicted(name, [1, 1, 0, 1, 1, 0], images) for name in "ab"]
    assert "said cat" in captions(examples.mistakes(models[:1], NAMED))[0]
    assert "3 of 6 images wrong" in examples.mistakes(models, NAMED)
    monkeypatch.setattr(examples, "MAX_MODELS", 1)
    assert "The first 1 of 2 models are shown" in examples.mistakes(models, NAMED)


def test_corruptions_are_shown_at_severities_1_3_and_5():
    images = Images()
    section = examples.corruptions([predicted("a", [0] * 6, images, (1, 2, 3, 4, 5))], NAMED)
    assert captions(section) == [f"fog (C) {severity}: said none of the classes" for severity in (1, 3, 5)]
    assert examples.corruptions([predicted("a", [0] * 6, images)], NAMED) == ""


def test_large_photographs_are_made_smaller_and_small_ones_stay():
    for side, expected in ((8, (8, 16)), (500, (112, 224))):
        uri = figures.jpeg_uri(Images(side)[1].pixels)
        pixels = simplejpeg.decode_jpeg(base64.b64decode(uri.partition(",")[2]))
        assert pixels.shape[:2] == expected and abs(int(pixels.mean()) - 40) < 2


def test_a_report_of_a_suite_is_whole_and_the_same_each_time(tmp_path, cells):
    images, own = Images(), fewer(cells)
    models = [predicted(name, [0, 0, 1, 1, 1, index], images, (1, 3)) for index, name in enumerate(TWO)]
    names = names_of(own)
    made = Evaluation(images, models, own, names, [Comparison(*TWO, "accuracy", None)], command="synclones evaluate")
    for path in (tmp_path / "a", tmp_path / "b"):
        write_report(path, made, 20)
    text = (tmp_path / "a").read_text()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        *("Every number with its interval", "The models", "Differences", "Results, in percent"),
        *("What the numbers mean", "Beside the published numbers", "All kinds of robustness at a glance"),
        *(
            "Errors and calibration",
            "Corruptions by severity",
            "Shape or texture",
            "Does confidence mean what it says?",
        ),
        *("Class by class", "The most confident mistakes", "Right for one, wrong for the other"),
        *("What corruptions look like", "The test images", "How this was made"),
    ]
    assert text.count("<svg") == text.count("</title>") - 1 > 10  # and the page has one
    assert "<script" not in text and text.count("<svg") == text.count('role="img"')
    assert all(' alt="' in image for image in re.findall(r"<img[^>]*>", text))

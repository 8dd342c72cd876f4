"""The head of a report: noise is no difference, signs say who is better, chance is marked, classes have names."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from report_cells import Images, cell, predicted

from synclones.base.manifest import Parent, write_manifest
from synclones.evaluate.bounds.family import holm
from synclones.evaluate.bounds.intervals import Interval
from synclones.evaluate.compare import Comparison, family_note
from synclones.evaluate.reports import classes, differences, forest, verdict
from synclones.evaluate.reports.chance import at_chance, chance_of
from synclones.evaluate.reports.class_names import ClassNames, class_names
from synclones.evaluate.reports.figures import reliability_svg
from synclones.evaluate.reports.names import names_of
from synclones.evaluate.reports.scale import Scale, ticks
from synclones.evaluate.reports.shown import shown

NAMED = ClassNames(Images.class_ids)


def item(first, second, value, half=0.01, name="accuracy", heading=None):
    """A comparison whose interval has that half width."""
    difference = None if value is None else Interval(value, value - half, value + half)
    return Comparison(first, second, heading or name, difference, name)


def judged(*items):
    """The family of these comparisons."""
    adjusted = holm([each.p for each in items])
    return [replace(each, adjusted=p) for each, p in zip(items, adjusted, strict=True)]


# ------------------------------------------------------------------ what is said of a difference


def test_a_difference_is_clear_only_where_it_holds_among_all():
    one = judged(item("a", "b", 0.012))
    assert one[0].verdict == "differs" and one[0].p == pytest.approx(0.0187, abs=1e-4)
    many = judged(item("a", "b", 0.012), *(item("a", "b", 0.001, heading=f"h{k}") for k in range(9)))
    assert many[0].verdict == "may be chance" and {each.verdict for each in many[1:]} == {"inside the noise"}
    assert item("a", "b", None).verdict == item("a", "b", 0.2, 0.0).verdict == "cannot be told"
    assert "Of 10 comparisons 0 are clear. 1 more has an interval without 0" in family_note(many)


def test_of_equal_models_hardly_ever_one_is_called_better():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        values = rng.normal(0, 0.01 / 1.96, 40)  # of 40 comparisons two lie outside their own interval
        family = judged(*(item("a", "b", value, heading=str(k)) for k, value in enumerate(values)))
        wrong += any(each.verdict == "differs" for each in family)
    assert wrong < 22  # 5 % of 200 are 10; 22 or more come once in a thousand


def test_the_sentences_of_two_models_say_sign_and_size_and_never_call_noise_a_difference():
    family = judged(
        item("a", "b", 0.123), item("a", "b", -0.05, name="ece", heading="ECE"), item("a", "b", 0.002, heading="CB_1")
    )
    first, second = verdict.verdict(family)
    assert first == (
        "a is clearly better than b in accuracy (+12.3 points, +11.3 to +13.3) and ECE (−5.0 points, −6.0 to −4.0)."
    )
    assert second == "These images cannot tell them apart in CB_1."
    other, _ = verdict.verdict(judged(item("a", "b", -0.3), item("a", "b", 0.2, name="ece", heading="ECE")))
    assert other.startswith("b is clearly better than a in accuracy (+30.0 points, +29.0 to +31.0)")
    neutral, _ = verdict.verdict(judged(item("a", "b", 0.2, name="texture_decisions")))
    assert "better" not in neutral.replace("neither way is better", "")
    for noise in (item("a", "b", 0.009), item("a", "b", None)):
        first, second = verdict.verdict(judged(noise))
        assert first == "No difference between a and b is clear." and "cannot tell them apart in accuracy" in second


def family_of(values, half=0.01):
    """All pairs of models with these values (name -> accuracy)."""
    names = list(values)
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    return judged(*(item(a, b, values[a] - values[b], half) for a, b in pairs))


def test_the_sentences_of_many_models_name_who_is_ahead_of_whom():
    family = family_of({"low": 0.5, "high": 0.9, "near": 0.895, "middle": 0.7})
    first, second = verdict.verdict(family)
    assert first == (
        "In accuracy high is clearly ahead of 2 of 3 other models, by +20.0 points (middle) to +40.0 points (low)."
    )
    assert "cannot tell high apart from near there" in second and "of all 6 comparisons in all numbers 5" in second
    assert "no model is clearly ahead" in verdict.verdict(family_of({"a": 0.5, "b": 0.501, "c": 0.502}))[0]
    assert "near" not in verdict.verdict(family, at_chance=["near", "low"])[0]
    less = [replace(each, name="ece") for each in family]
    assert verdict.leader(less)[0] == "low"


def test_one_model_is_compared_with_nothing():
    first, second = verdict.verdict([], "a answers 50.0 % right.")
    assert first == "a answers 50.0 % right." and "nothing to compare" in second


# ------------------------------------------------------------------ figures and matrices of differences


def test_few_pairs_are_drawn_and_many_are_a_matrix_that_holds_every_difference():
    few = differences.section(family_of({"a": 0.5, "<b>": 0.7}), [])
    assert few.count('class="dot"') == 1 and "<table" not in few and "<b>−20.0 [−21.0, −19.0]</b>" in few
    values = {f"m{k}": k / 40 for k in range(20)}
    family = family_of(values)
    many = differences.section(family, ["other"])
    cells = re.findall(r'<td class="(\w+)"(?: title="([^"]*)")?>([^<]*)', many)
    assert len(cells) == 400 and sum(kind == "self" for kind, *_ in cells) == 20
    told = {unescape(tip).split(":")[0]: (kind, text) for kind, tip, text in cells if kind != "self"}
    for a in values:
        for b in values:
            if a != b:
                kind, text = told[f"{a} − {b}"]
                assert text == f"{100 * (values[a] - values[b]):+.1f}".replace("-", "−")
                assert kind == ("better" if values[a] > values[b] else "worse")
    assert "Not compared" in many and "other" in many and "Not compared" not in few
    noise = differences.section(family_of(dict.fromkeys(values, 0.5)), [])
    assert 'class="better"' not in noise and 'class="worse"' not in noise


def test_every_line_of_a_figure_lies_where_its_value_is():
    cells = [cell("a", "accuracy", 0.8), cell("b", "accuracy", 0.9), cell("c", "accuracy", None)]
    section = forest.section(shown(cells, names_of(cells)), names_of(cells), chance=0.1)
    assert [float(x) for x in re.findall(r'<b class="full" style="left:([0-9.]+)%', section)] == [75.0, 25.0]
    assert "<s " not in section and "accuracy on ImageNet\N{NO-BREAK SPACE}↑" in section
    assert re.findall(r"<small>([0-9.]+)</small>", section) == ["75", "80", "85", "90", "95"]
    low = [cell("a", "accuracy", 0.12)]
    assert "The dashed line is chance" in forest.section(shown(low, names_of(low)), names_of(low), chance=0.12)


@pytest.mark.parametrize("low, high", [(0, 1), (0.88, 0.93), (-0.1, 0.2), (0.5, 0.5), (-3.0, 250.0), (0.0, 0.0)])
def test_scales_hold_their_values_and_have_round_marks(low, high):
    marks = ticks(low, high)
    steps = np.diff(marks)
    assert marks[0] <= low + 1e-9 and marks[-1] >= high - 1e-9 and 2 <= len(marks) <= 8
    assert np.allclose(steps, steps[0]) and float(f"{steps[0]:.2g}") == pytest.approx(steps[0])
    scale = Scale(low, high)
    assert scale.at(marks[0]) == 0 and scale.at(marks[-1]) == 100 and scale.at(marks[-1] + 1) == 100


# ------------------------------------------------------------------ chance, classes


def test_a_model_whose_interval_holds_chance_is_marked():
    images = Images()
    assert chance_of(images) == 0.5
    cells = [cell("guess", "accuracy", 0.505, "six"), cell("knows", "accuracy", 0.52, "six"), cell("x", "ece", 0.1)]
    cells = [replace(each, dataset_sha256=images.content_hash) for each in cells]
    marked = at_chance(cells, names_of(cells), images)
    assert marked == {"guess": "accuracy 50.5 [49.5, 51.5], chance 50.0"}
    assert "At chance: guess" in verdict.section([], "", marked) and "At chance" not in verdict.section([], "", {})
    images.class_ids = ("one",)
    assert chance_of(images) is None and at_chance(cells, names_of(cells), images) == {}


def test_classes_and_confusions_are_counted_and_named():
    images = Images()
    section = classes.section([predicted("m", [1, 1, 0, 1, 1, 0], images)], NAMED)
    assert "33 % of 3" in section and "67 % of 3" in section and section.index("33 %") < section.index("67 %")
    assert "<td>cat</td><td>&lt;dog&gt;</td><td>2 of 3</td>" in section and "<dog>" not in section
    assert "No image is answered wrong" in classes.section([predicted("m", [0, 0, 0, 1, 1, 1], images)], NAMED)


def test_classes_are_called_by_the_prompts_behind_the_model_or_by_wordnet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    from synclones.base.json_file import canonical_json

    facts = canonical_json({"class_names": {"c1": "red panda", "c2": "cat", "c3": "cat"}})
    table = pyarrow.table({"prompt": ["x"]}).replace_schema_metadata({b"synclones": facts})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    for folder, stage, parent in (("data", "generate", "p.parquet"), ("run", "train", "data")):
        (tmp_path / folder).mkdir()
        write_manifest(tmp_path / folder, stage, {}, [Parent("x", str(tmp_path / parent), "0")], {}, {})
    called = class_names(("c1", "c2", "c3", "c4", "n01440764"), [tmp_path / "nothing", tmp_path / "run"])
    assert [called.of(k) for k in range(-1, 5)] == [
        *("none of the classes", "red panda", "cat (c2)", "cat (c3)", "c4", "tench"),
    ]
    assert called.among(("c3",)).of(0) == "cat"


def test_bins_of_few_images_are_faint_and_each_has_its_interval():
    from synclones.evaluate.axes.calibration import Reliability

    diagram = Reliability(np.array([0, 2, 400]), np.array([0, 0.5, 0.9]), np.array([0, 0.0, 0.95]))
    drawn = reliability_svg(diagram, "m")
    words = unescape(re.search(r'aria-label="([^"]*)"', drawn)[1])
    assert words == (
        "Confidence and accuracy of m: 50 % sure, 0 % right (0 to 66, 2 images); "
        "90 % sure, 95 % right (92 to 97, 400 images)"
    )
    faint = [float(value) for value in re.findall(r"stroke-opacity: ([0-9.]+)", drawn)]
    assert min(faint) == pytest.approx(0.2 + 0.8 * 2 / 30, abs=0.01)
    assert "var(--c0)" in drawn and "var(--c1)" in drawn and "<title>Confidence and accuracy of m</title>" in drawn

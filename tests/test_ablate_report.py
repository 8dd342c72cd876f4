"""The report of a grid: each column is the right number, the missing is missing, names of others do nothing."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from grid_example import ACCURACIES, EIGHT, answers, example, write_results

from synclones.ablate.arms import arms_of, compare_arms, size_axis, size_of
from synclones.ablate.columns import COLUMNS, columns_named, number_of
from synclones.ablate.comparisons import Difference
from synclones.ablate.grid import read_grid
from synclones.ablate.observations import FILE, judge, observations_of
from synclones.ablate.paper import paper_value
from synclones.ablate.report import FILES, write_report
from synclones.ablate.reports import words
from synclones.ablate.reports.figures import number_of_text
from synclones.ablate.reports.html_report import report
from synclones.ablate.resampled import resample_column
from synclones.ablate.study import Study
from synclones.base.errors import InputError
from synclones.base.yaml_file import read_yaml
from synclones.evaluate.stored.logits_file import read_kept
from synclones.evaluate.stored.results import read_cells


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return example(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def study(grid):
    return Study(grid, resamples=200)


def arm(study, name):
    return next(arm for arm in study.arms if arm.name == name)


HOSTILE = ("<script>alert(1)</script>", "=1+1|`x`", "\\input{x}<img src=x onerror=y>")


def test_a_page_says_how_many_images_a_row_stands_for_and_how_sure_a_single_training_is(tmp_path, study):
    assert "scale 1/4000: 1M is 250 here, 16M is 4,000 here" in "\n".join(words.facts(study))
    alone = Study(example(tmp_path, seeds=1, sizes=("1M",), columns=("accuracy",), missing=False), resamples=10)
    low, high = alone.arms[0].interval("accuracy")
    assert words.beside(alone.arms[0], COLUMNS["accuracy"]).startswith(f"{100 * low:.1f} to {100 * high:.1f}; paper ")
    assert words.beside(arm(study, "class name, 16M"), COLUMNS["accuracy"]).startswith("paper ")


# ------------------------------------------------------------------ columns


def results(*cells):
    """Results with these (metric, value, settings); as an evaluation of one model has them."""
    from report_cells import cell

    return [cell("m", metric, value, **settings) for metric, value, settings in cells]


def test_fgsm_is_of_the_papers_strength_and_relative():
    measured = results(("r_adv", 0.1, {"epsilon_255": 8.0}), ("r_adv", 0.6, {"epsilon_255": 1.0}))
    assert number_of(COLUMNS["fgsm"], measured).value == 0.6
    assert "not measured" in number_of(COLUMNS["fgsm"], measured[:1])


def test_outliers_are_sun_as_in_the_paper_and_without_it_the_mean_of_all_sets():
    known = {"score": "max-probability"}
    two = [("fpr95_id_positive", v, {"outliers": o, **known}) for v, o in ((0.2, "letters"), (0.4, "textures"))]
    sun = ("fpr95_id_positive", 0.9, {"outliers": "SUN", **known})
    other = ("fpr95_id_positive", 0.99, {"outliers": "letters", "score": "energy"})
    assert number_of(COLUMNS["fpr95"], results(*two, other)).value == pytest.approx(0.3)
    assert number_of(COLUMNS["fpr95"], results(*two, sun)).value == 0.9


def test_corruptions_are_imagenet_c_alone_as_in_the_ablations():
    sets = ("ImageNet-3DCC", "ImageNet-C", "ImageNet-C and ImageNet-3DCC")
    measured = results(*(("r_cc", v, {"set": s}) for v, s in zip((0.3, 0.5, 0.4), sets, strict=True)))
    assert number_of(COLUMNS["corruption"], measured).value == 0.5


def test_accuracy_is_that_of_the_clean_set_and_not_of_a_shifted_one():
    from report_cells import cell

    measured = [cell("m", "accuracy", 0.2, "ImageNet-A"), cell("m", "accuracy", 0.7), cell("m", "r_cc", 0.5, set="C")]
    assert number_of(COLUMNS["accuracy"], measured).value == 0.7


def test_what_is_undefined_or_follows_the_papers_code_is_missing_and_not_zero():
    from report_cells import cell

    assert "undefined" in number_of(COLUMNS["context"], results(("cb2", None, {})))
    assert "not measured" in number_of(COLUMNS["context"], [cell("m", "cb2", 0.5, protocol="paper")])


def test_a_column_that_there_is_none_of_is_refused():
    with pytest.raises(InputError, match="'accurracy'.*expected some of accuracy, fgsm"):
        columns_named(["accuracy", "accurracy"])


def test_papers_numbers_stand_beside_their_cells():
    assert paper_value("table6", ["Class names", "16M"], COLUMNS["accuracy"]) == pytest.approx(0.5096)
    assert paper_value("table7", ["real", "64M"], COLUMNS["background"]) == pytest.approx(0.0736)  # printed as .73
    assert paper_value("table7", ["real", "64M"], COLUMNS["fgsm"]) == pytest.approx(5.24 / 54.60)
    assert paper_value("tables1-5", ["SynCLIP"], COLUMNS["context"]) == pytest.approx(0.5439)
    assert paper_value("table6", ["class name", "2M"], COLUMNS["accuracy"]) is None
    assert paper_value("", ["class name", "16M"], COLUMNS["accuracy"]) is None


# ------------------------------------------------------------------ arms and what resamples rest on


def test_missing_numbers_are_missing_with_their_reason(study):
    absent, damaged, lacking = (arm(study, n) for n in ("CLIP templates, 16M", "class name, 1M", "captions, 1M"))
    assert absent.spread("accuracy") is None and "real.tar" in absent.missing["accuracy"]
    assert len(damaged.numbers["accuracy"]) == 2 and "cannot be read" in damaged.missing["accuracy"]
    assert set(lacking.missing) == {"shape", "context"} and len(lacking.numbers["accuracy"]) == 3


def test_sizes_are_those_of_the_scale(grid):
    assert size_axis(grid) == "images" and size_of(grid, "16M") == 4000


def test_every_column_with_logits_is_resampled_and_its_value_comes_back(study):
    for column in ("accuracy", "fgsm", "ece", "fpr95", "corruption"):
        trainings = [(folder, number) for _, folder, number in arm(study, "captions, 16M").results(column)]
        for (_, number), drawn in zip(trainings, resample_column(trainings, 200), strict=True):
            assert drawn is not None and len(drawn) == 200, column
            assert abs(np.median(drawn) - number.value) < 4 * drawn.std() + 1e-9, column
    shape = [(folder, number) for _, folder, number in arm(study, "captions, 16M").results("shape")]
    assert resample_column(shape) == [None] * 3


def test_logits_that_do_not_give_the_number_are_not_resampled(tmp_path):
    from dataclasses import replace

    folder = write_results(tmp_path / "r", 0.8, 0)
    number = number_of(COLUMNS["accuracy"], read_cells(folder))
    assert resample_column([(folder, replace(number, value=number.value + 0.01))], 50) == [None]
    (folder / "logits" / ("0" * 16 + ".safetensors")).unlink()
    assert resample_column([(folder, number)], 50) == [None]


def test_models_are_paired_on_the_same_resamples(study):
    """Of models that find the same images hard, the difference varies less than as if images were others."""
    pairs = {(p.first.name, p.second.name): p.difference for p in study.pairs if p.column.name == "accuracy"}
    own = pairs["class name, 16M", "captions, 16M"]
    assert isinstance(own, Difference) and own.paired and own.value < 0
    unpaired = np.sqrt(2 * 0.8 * 0.2 / 120)
    assert 0 < own.se_images < unpaired
    shape = next(p.difference for p in study.pairs if p.column.name == "shape")
    assert not shape.paired and shape.se_images == pytest.approx(np.sqrt(2) * 0.03 / 1.96, rel=1e-3)


def test_arms_are_compared_where_one_axis_differs(study):
    names = {(p.first.name, p.second.name) for p in study.pairs}
    assert ("class name, 1M", "class name, 16M") in names and ("class name, 1M", "captions, 1M") in names
    assert ("class name, 1M", "captions, 16M") not in names


# ------------------------------------------------------------------ sentences


def test_a_sentence_holds_only_where_all_of_it_is_measured_and_clear(tmp_path, study):
    answers_by = {item.observation.says: item for item in study.sentences}
    rises = answers_by["Accuracy rises with the number of images"]
    assert rises.answer == "cannot be told" and "1 not measured" in rises.why
    whole = example(tmp_path, columns=("accuracy",), sizes=("1M", "16M"), missing=False)
    pairs = compare_arms(whole, arms_of(whole), 200)
    first = observations_of("table6")[0]
    assert judge(first, whole, pairs).answer == "holds"
    assert judge(turned(first), whole, pairs).answer == "does not hold"


def turned(observation):
    return replace(observation, rule="falls")


def test_every_sentence_of_the_file_is_about_a_column_and_has_a_source():
    for grid in read_yaml(FILE):
        for item in observations_of(grid):
            assert item.column in COLUMNS and item.source and item.says[0].isupper()
            assert set(item.at) <= set(read_grid(grid).axes), item.says
    assert observations_of("somebody's own grid") == ()


# ------------------------------------------------------------------ the files


def test_the_same_results_give_the_same_files(tmp_path):
    small = example(tmp_path / "r", seeds=2, columns=("accuracy", "shape"), sizes=("1M", "4M"), missing=False)
    for name in ("a", "b"):
        write_report(small, tmp_path / name)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_page_shows_what_is_there_and_what_is_not(study):
    page = report(study).decode()
    for text in ("missing", "2 of 3 trainings", "data/real.tar", "paper 60.4", "synclones train --seed 2", "61 s"):
        assert text in page, text
    assert page.count("<svg") == 8 + 3  # a curve per column, a radar per kind
    assert 'src="http' not in page and 'href="http' not in page


def test_the_table_has_no_number_for_what_is_missing(study):
    from synclones.ablate.reports.tables import table_csv

    rows = list(csv.DictReader(io.StringIO(table_csv(study))))
    assert len(rows) == 6 * len(EIGHT)
    absent = [row for row in rows if (row["prompts"], row["images"]) == ("CLIP templates", "16M")]
    assert all(row["mean"] == row["low"] == row["difference"] == "" and row["trainings"] == "0" for row in absent)
    assert {row["missing"] for row in absent} == {"step clone: data/real.tar is not there"}
    own = next(r for r in rows if (r["prompts"], r["images"], r["column"]) == ("captions", "16M", "accuracy"))
    values = [n.value for n in arm(study, "captions, 16M").numbers["accuracy"].values()]
    assert float(own["mean"]) == pytest.approx(np.mean(values))
    assert float(own["difference"]) == pytest.approx(np.mean(values) - 0.6040)


def test_the_verdict_is_two_sentences_with_what_is_best(study):
    said = words.verdict_of(study)
    assert said.startswith("14 of 18 trainings are measured; the best accuracy is that of captions, 16M")
    assert said.count(". ") == 1 and said.endswith("on the mean over its cells.")


def test_a_number_in_a_sentence_has_its_axis_before_it(study):
    named = {"layers": "real alone", "real": "1/8", "images": "16M", "guidance": "7.5", "share": "12.5 %"}
    assert replace(study.arms[0], values=named).sentence_name == "real alone, real 1/8, 16M, guidance 7.5, share 12.5 %"


def test_a_grid_without_any_results_says_so(grid, tmp_path):
    from dataclasses import replace

    cells = tuple(replace(cell, results=None, missing="not drawn") for cell in grid.cells)
    write_report(replace(grid, cells=cells), tmp_path)
    assert "None of 18 trainings is measured yet" in (tmp_path / "report.md").read_text()


def test_one_training_each_tells_no_kinds_apart(tmp_path):
    single = example(tmp_path, seeds=1, columns=("accuracy", "shape"), sizes=("1M", "4M"), missing=False)
    study = Study(single, {})
    assert {words.said(pair) for pair in study.pairs if pair.column.name == "accuracy"} <= {
        *("differs (these trainings)", "inside the noise (these trainings)", "may be chance (these trainings)"),
    }
    assert "only these trainings" in words.noise_note(study)
    of_accuracy = [item.why for item in study.sentences if item.observation.column == "accuracy"]
    assert of_accuracy and all("these trainings alone" in why for why in of_accuracy)


def test_names_of_others_do_nothing_in_any_file(tmp_path):
    names = dict(zip(ACCURACIES, HOSTILE, strict=True))
    hostile = example(tmp_path / "r", seeds=1, prompts=names, columns=("accuracy",), sizes=("1M", "4M"), missing=False)
    write_report(hostile, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page
    for row in csv.reader(io.StringIO((tmp_path / "out" / "table.csv").read_text())):
        assert not any(cell.startswith(("=", "@")) for cell in row)


def test_a_judge_of_the_images_is_read_from_its_results(grid, tmp_path):
    folder = write_results(tmp_path / "judge", 0.9, 5, ("accuracy",), name="judge")
    (item,) = Study(grid, {"captions": folder, "gone": tmp_path / "none"}).image_sets
    kept = read_kept(folder, "0" * 16)
    assert item.recognised.value == pytest.approx(kept.correct.mean()) and item.judge == "judge"
    assert 1 < item.diversity.effective < item.diversity.images == 12


@pytest.mark.parametrize("text, value", [("12.5 %", 12.5), ("1/8", 0.125), ("4M", 4e6), ("2.0", 2.0), ("poems", None)])
def test_values_of_an_axis_are_numbers_where_they_look_like_some(text, value):
    assert number_of_text(text) == value


def test_the_example_answers_about_as_often_as_it_says():
    labels = np.arange(3000) % 10
    share = (answers(np.random.default_rng(1), 0.8, labels).argmax(1) == labels).mean()
    assert abs(share - 0.8) < 0.05 and json.dumps(float(share))


def test_a_comparison_of_one_training_with_itself_says_nothing_either_way():
    """Of two contexts one is the same model twice, the other is clear: the sentence is about the other alone."""
    from types import SimpleNamespace

    from synclones.ablate.observations import Observation

    def pair(size, value, p):
        arms = [SimpleNamespace(values={"data": data, "method": size}) for data in ("retrieved", "synthetic")]
        item = Difference(value, value - 0.01, value + 0.01, p, 3, 0.001, 0.001, True)
        return SimpleNamespace(
            first=arms[0], second=arms[1], axis="data", column=COLUMNS["accuracy"], difference=item, adjusted=p
        )

    results = SimpleNamespace(
        axes={"data": ("synthetic", "retrieved"), "method": ("zero-shot", "tuned")},
        cells=[SimpleNamespace(values={"data": "synthetic", "method": m}) for m in ("zero-shot", "tuned")],
    )
    sentence = Observation("Says", "source", "accuracy", "more", ("retrieved", "synthetic"))
    same, clear = pair("zero-shot", 0.0, None), pair("tuned", 0.05, 0.001)
    assert judge(sentence, results, [same, clear]).answer == "holds"
    assert judge(sentence, results, [same, pair("tuned", -0.05, 0.001)]).answer == "does not hold"
    assert judge(sentence, results, [same]).answer == "cannot be told"
    assert judge(sentence, results, [same, pair("tuned", 0.05, 0.3)]).answer == "cannot be told"
    here = replace(sentence, at={"method": "tuned"})
    other = pair("zero-shot", -0.05, 0.001)
    assert judge(sentence, results, [other, clear]).answer == "does not hold"
    assert judge(here, results, [other, clear]).answer == "holds"
    for nowhere in ({"method": "probed"}, {"metod": "tuned"}):
        judged = judge(replace(sentence, at=nowhere), results, [other, clear])
        assert judged.answer == "cannot be told" and "no such values" in judged.why

"""Grids, reports and what-if: faults that a review found, each with the right value."""

# ruff: noqa: F811 - fixtures of another file
import re
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace as N

import numpy as np
import pytest
from grid_example import example, write_results
from report_cells import cell
from test_ablate_what_if import change, config, drawn, trained, world  # noqa: F401
from test_report_verdict import family_of

from synclones.ablate.cells import Cell, GridResults
from synclones.ablate.columns import COLUMNS
from synclones.ablate.comparisons import Difference
from synclones.ablate.study import Study
from synclones.base.errors import InputError
from synclones.evaluate.reports.latex import latex
from synclones.evaluate.reports.names import names_of


def test_an_average_is_of_all_its_cells_and_of_one_protocol():
    known = {"score": "entropy"}
    own = [
        replace(cell("a", "fpr95_id_positive", v, outliers=o, **known), protocol=p, deviations=d)
        for o in ("SUN", "Places")
        for p, v, d in (("paper", 0.5, ("D4",)), ("corrected", 0.7, ()))
    ]
    lines = [line for line in latex(own, names_of(own)).splitlines() if line.startswith("a &")]
    assert lines == [r"a & 70.00 & 70.00 & 70.00 \\", r"a & 50.00 & 50.00 & 50.00 \\"]
    three = [cell("a", "auroc", v, outliers=o, **known) for o, v in (("x", 0.9), ("y", 0.5), ("z", 0.4))]
    text = latex([*three, cell("b", "auroc", 0.8, outliers="x", **known)], names_of([*three, cell("b", "auroc", 0.8)]))
    assert r"b & 80.00 & -- & -- & -- \\" in text


@pytest.mark.parametrize("how", ["count=20", "fraction=1/2"])
def test_what_was_read_by_count_is_not_left_out_of(world, how):
    trained(world / "some", [f"{world}/syn,{how}"], world / "syn")
    (world / "one.txt").write_text("3\n")
    with pytest.raises(InputError, match="others would be chosen"):
        change(world, run=world / "some", without=world / "one.txt")


def test_no_training_stands_on_both_sides(world):
    for seed in (3, 5, 6):
        with pytest.raises(InputError, match="give another, 3 or more away"):
            change(world, train_seed=seed, seeds=3)
    assert change(world, train_seed=7, seeds=3).seed == 7 and change(world, train_seed=5).seed == 5


def test_numbers_of_classes_are_those_that_were_seen(world):
    trained(world / "first", [f"{world}/syn,first=20"], world / "syn")
    assert change(world, run=world / "first", without_classes=("7",)).numbers.tolist() == [7, 17]
    (world / "out.txt").write_text("7\n17\n")
    trained(world / "earlier", [f"{world}/syn,without={world}/out.txt"], world / "syn")
    made = change(world, run=world / "earlier", classes=("7",), prompts=world / "templates.parquet")
    (step,) = made.draw
    assert step.command[step.command.index("--num-images") + 1] == "1" and "with 1 images of 7" in made.says
    assert made.numbers.tolist() == [7, 17, 27]


def test_an_interval_for_one_more_training_is_of_one(tmp_path):
    study = Study(example(tmp_path, seeds=3, sizes=("1M", "4M", "8M", "16M"), columns=("accuracy",), missing=False))
    from synclones.ablate.scaling import expected_accuracy
    from synclones.ablate.study import sigma_of_one

    for arms, curve in zip(study.kinds().values(), study.curves, strict=True):
        sds = [arm.spread("accuracy").sd for arm in arms]
        assert sigma_of_one(arms) ** 2 >= np.mean(np.square(sds))
        assert str(curve.next) == str(expected_accuracy(curve.points, 16000, sigma_of_one(arms)))


def test_what_may_be_chance_is_not_called_noise():
    from synclones.ablate.observations import Observation, judge

    def pair(size, value, p):
        arms = [N(values={"data": d, "size": size}) for d in ("a", "b")]
        item = Difference(value, value - 0.01, value + 0.01, p, 3, 0.001, 0.001, True)
        return N(first=arms[0], second=arms[1], axis="data", column=COLUMNS["accuracy"], difference=item, adjusted=p)

    results = N(axes={"data": ("a", "b")}, cells=[N(values={"data": "a", "size": s}) for s in "12"])
    why = judge(
        Observation("Says", "s", "accuracy", "more", ("a", "b")), results, [pair("1", -0.05, 0.03), pair("2", 0.0, 0.9)]
    ).why
    assert why == "0 of 2 comparisons clearly its way, 1 the other way, which may be chance, 1 within the noise"


def results(axes, cells, seeds=3, scale=Fraction(1), **more):
    """Results of a grid of one column, accuracy."""
    return GridResults("x", "t", "", "", "lab", scale, axes, seeds, ("accuracy",), "", tuple(cells), **more)


def arms(tmp_path, *accuracies, axis="policy", seeds=3):
    cells = [
        Cell({axis: f"p{k}"}, s, write_results(tmp_path / f"{k}{s}", a + 0.003 * (s - 1), s, ("accuracy",)))
        for k, a in enumerate(accuracies)
        for s in range(seeds)
    ]
    return results({axis: tuple(f"p{k}" for k in range(len(accuracies)))}, cells, seeds)


def test_a_grid_of_one_axis_has_its_best_in_bold(tmp_path):
    from synclones.ablate.reports.html_report import report

    assert (
        report(Study(arms(tmp_path, 0.95, 0.4, 0.5))).decode().count('<td class="real">95') == 1
        or 'class="real">9' in report(Study(arms(tmp_path / "b", 0.95, 0.4, 0.5))).decode()
    )


def test_practice_reads_the_accuracy_of_the_reference(tmp_path):
    from synclones.ablate.practice_table import _measured
    from synclones.ablate.rounds import Arm, Clone
    from synclones.evaluate.stored.results import write_cells

    own = [cell("m", "accuracy", v, d) for v, d in ((0.9, "val"), (0.3, "ImageNet-Sketch"), (0.5, "zz"))]
    (tmp_path / "seed-0" / "results").mkdir(parents=True)
    write_cells(tmp_path / "seed-0" / "results", [*own, cell("m", "r_adv", 0.6, "val", epsilon_255=1.0)])
    clone = Clone(name="r", round=1, images=1, drawn=1, samples=1)
    (line,) = _measured(
        tmp_path, [Arm(policy="entropy", seed=0, clones=(clone,))], {tmp_path / "r": own[0].weights_sha256}
    )
    assert line.accuracy == 0.9


def test_a_training_beside_itself_says_nothing_of_seeds(tmp_path):
    zero = [write_results(tmp_path / f"z{s}", 0.7, 0, ("accuracy",), name="z") for s in range(3)]
    cells = []
    for s in range(3):
        for d, a in (("x", 0.8), ("y", 0.86)):
            cells.append(Cell({"method": "zero", "data": d}, s, zero[s]))
            cells.append(
                Cell(
                    {"method": "tuned", "data": d},
                    s,
                    write_results(tmp_path / f"{d}{s}", a + 0.03 * (s - 1), s, ("accuracy",)),
                )
            )
    study = Study(results({"method": ("zero", "tuned"), "data": ("x", "y")}, cells))
    sds = [p.difference.sd_seeds for p in study.pairs if p.difference.p is not None]
    assert len(sds) == 3 and study.seeds_for_a_point(study.columns[0])[0] == pytest.approx(
        np.sqrt(np.mean(np.square(sds)))
    )


def test_pairs_are_those_of_a_plain_loop():
    from synclones.ablate import arms as a

    many = [N(values={"x": str(i), "y": str(j), "z": str(k)}) for i in range(4) for j in range(3) for k in range(2)]

    def one(p, q):
        return [n for n in p.values if p.values[n] != q.values[n]]

    slow = [
        (i, j, one(p, q)[0]) for i, p in enumerate(many) for j, q in enumerate(many) if i < j and len(one(p, q)) == 1
    ]
    assert a._neighbours(many) == slow


def test_more_models_than_are_compared_are_told_of():
    from synclones.evaluate.reports import differences

    few = differences.section(family_of({f"m{k}": k / 40 for k in range(40)}), [], 45)
    assert "The first 40 of 45 models are compared" in few
    assert "of 2 models are compared" not in differences.section(family_of({"a": 0.1, "b": 0.2}), [], 2)


def test_two_sets_of_one_name_have_two_diagrams():
    from synclones.evaluate.reports import scatter
    from synclones.evaluate.reports.shown import shown

    own = [
        replace(cell(m, metric, v, "val", **({"bins": 20} if metric == "ece" else {})), dataset_sha256=h * 64)
        for m in "ab"
        for h, v in (("1", 0.9), ("2", 0.5))
        for metric in ("accuracy", "ece")
    ]
    assert len({p.panel for p in scatter.points(shown(own, names_of(own)))}) == 2
    assert latex(own, names_of(own)).count(r"\multicolumn{2}{c}{val (") == 2


def test_the_line_of_chance_stands_at_chance():
    from synclones.evaluate.reports import forest
    from synclones.evaluate.reports.shown import shown

    own = [cell("a", "accuracy", 0.3), cell("b", "accuracy", 0.32)]
    drawn = forest.section(shown(own, names_of(own)), names_of(own), chance=0.6)
    ends = [float(x) for x in re.findall(r"<small>([0-9.]+)</small>", drawn)]
    (at,) = {float(x) for x in re.findall(r'<s style="left:([0-9.]+)%', drawn)}
    assert ends[0] + at / 100 * (ends[-1] - ends[0]) == pytest.approx(60)


def test_a_right_law_of_many_sizes_is_rarely_refused():
    from synclones.ablate.scaling import Point, Refusal, fit

    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        points = [Point(100 * 1.4**i, 0.05 + 0.4 * 1.4 ** (-0.5 * i) + rng.normal(0, 0.003), 0.003) for i in range(24)]
        refused += isinstance(fit(points), Refusal)
    assert refused < 6


def test_a_difference_of_all_images_has_an_interval():
    from synclones.ablate.difference import _shown, paired

    apart = paired(np.ones(50), np.zeros(50))
    assert apart is not None and "+100.0" in _shown(apart) and paired(np.ones(5), np.ones(5)) is None


def test_an_axis_of_any_name_is_drawn(tmp_path):
    from synclones.ablate.reports.html_report import report

    own = arms(tmp_path, 0.9, 0.5, 0.6, axis=r"weight $\foo$")
    values = {"p0": "1", "p1": "2", "p2": "3"}
    own = replace(
        own,
        axes={r"weight $\foo$": ("1", "2", "3")},
        cells=tuple(replace(c, values={a: values[v] for a, v in c.values.items()}) for c in own.cells),
    )
    assert r"weight $\foo$" in report(Study(own)).decode()


def test_an_axis_that_is_not_scaled_is_shown_as_it_is():
    from synclones.ablate.reports import words

    own = results({"images": ("250", "4000")}, (), 1, Fraction(1, 4000), scaled=())
    assert words.facts(Study(own)) == ["world lab, scale 1/4000"]
    assert "250 is 0 here" not in str(words.facts(Study(own)))


def test_classes_of_logits_that_disagree_are_not_shown(tmp_path):
    from synclones.evaluate.answers.predictions import Predictions
    from synclones.evaluate.stored.logits_file import read_kept, write_logits

    def turned(folder, accuracy):
        kept = read_kept(write_results(folder, accuracy, 0, ("accuracy",)), "0" * 16)
        write_logits(
            folder, "0" * 16, Predictions(np.ascontiguousarray(kept.logits[:, ::-1]), kept.labels, kept.index), {}
        )
        return folder

    cells = tuple(Cell({"images": s}, 0, turned(tmp_path / s, a)) for s, a in (("1M", 0.6), ("16M", 0.9)))
    study = Study(
        results({"images": ("1M", "16M")}, cells, 1),
        {"a": turned(tmp_path / "j", 0.9)},
    )
    assert study.classes == {} and study.image_sets == []


def test_why_no_number_of_seeds_suffices_is_said(tmp_path):
    from synclones.ablate.reports import html_report

    for images, words in ((0.0001, "more than 1,000"), (0.02, "none: too few test images")):
        study = N(columns=[COLUMNS["accuracy"]], seeds_for_a_point=lambda c, i=images: (0.2, i, None))
        assert words in html_report._seeds(study)


def test_what_is_damaged_is_not_measured(tmp_path):
    study = Study(example(tmp_path))
    assert study.measured == 14  # three are absent, one is damaged

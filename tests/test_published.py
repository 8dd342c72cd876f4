"""The published tables: every cell as printed, no corrected value but by a derivation that is computed again here."""

import csv
import io
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import accumulate
from statistics import fmean

import pytest

from synclones.base.errors import InputError
from synclones.evaluate.axis import metrics
from synclones.evaluate.published.corrected import FORMULAS, TEN, correction
from synclones.evaluate.published.deviations import deviations, of_metric
from synclones.evaluate.published.grids import WIDTH, markdown
from synclones.evaluate.published.records import csv_of, json_of
from synclones.evaluate.published.tables import read_csv, tables
from synclones.evaluate.run import main

MODELS = (
    *("ResNet50", "SynResNet50", "Swin-B", "ConvNeXt", "DeiT", "ViT-B", "SynViT-B"),
    *("MAE", "DINOv2", "MOCOv3", "SynCLR", "CLIP", "SynCLIP"),
)
COLUMNS = {1: 9, 2: 5, 3: 13, 4: 2, 5: 4, 6: 8, 7: 8}


def cell(table: int, row: str, column: str):
    return tables()[table].rows[row][column]


def value(table: int, row: str, column: str) -> float:
    return cell(table, row, column).value


def fixed(table: int, row: str, column: str) -> float:
    found = correction(cell(table, row, column)).value
    assert found is not None
    return found


# ------------------------------------------------------------------ as printed


def test_every_cell_of_the_seven_tables_is_stored():
    assert list(tables()) == list(COLUMNS)
    for number, table in tables().items():
        assert len(table.columns) == COLUMNS[number]
        assert tuple(table.rows) == MODELS if number < 6 else len(table.rows) == 12
        assert all(len(row) == len(table.columns) for row in table.rows.values())
    assert sum(len(table.cells) for table in tables().values()) == 621


@pytest.mark.parametrize(
    "table, row, column, printed",
    [
        (1, "DINOv2", "fpr95_inaturalist", "0.09"),
        (1, "SynCLR", "images", "600M"),
        (2, "MAE", "accuracy_pgd", "1.34"),
        (3, "SynCLIP", "r_cc", "42.64"),
        (3, "ViT-B", "pixelate", "46.95"),
        (4, "SynCLR", "cb2", "58.42"),
        (5, "MOCOv3", "bg_gap", "9.46"),
        (6, "captions 1M", "bg_gap", "0.85"),
        (7, "synthetic + real 256M", "cb2", "0.63"),
    ],
)
def test_a_cell_has_the_characters_on_the_page(table, row, column, printed):
    assert cell(table, row, column).printed == printed


def test_values_are_fractions_whatever_the_table_prints():
    assert value(2, "ResNet50", "accuracy") == pytest.approx(0.8012)
    assert value(6, "class name 16M", "accuracy") == pytest.approx(0.51)
    assert value(1, "CLIP", "images") == 4e8 and cell(1, "CLIP", "images").unit == "images"
    fractions = [cell for table in tables().values() for cell in table.cells if cell.unit == "fraction"]
    assert all(0 <= item.value <= 1 and item.step > 0 for item in fractions)


def test_cells_follow_from_each_other_as_the_paper_says():
    # What was typed wrongly would break one of these sums: they hold on the page, to its digits.
    for model in MODELS:
        for kind in ("auroc", "fpr95"):
            mean = fmean(value(1, model, f"{kind}_{name}") for name in ("sun", "inaturalist", "places"))
            assert value(1, model, f"{kind}_mean") == pytest.approx(mean, abs=0.0101)
        clean = value(2, model, "accuracy")
        assert value(3, model, "accuracy") == clean
        for attack in ("fgsm", "pgd"):
            ratio = value(2, model, f"accuracy_{attack}") / clean
            assert value(2, model, f"r_adv_{attack}") == pytest.approx(ratio, abs=2.5e-4)
        mean = fmean(value(3, model, name) for name in TEN)
        assert value(3, model, "accuracy_corrupted") == pytest.approx(mean, abs=1.01e-4)
        assert value(3, model, "r_cc") == pytest.approx(value(3, model, "accuracy_corrupted") / clean, abs=2.1e-4)
        gap = value(5, model, "accuracy_mixed_same") - value(5, model, "accuracy_mixed_rand")
        assert value(5, model, "bg_gap") == pytest.approx(gap, abs=1.01e-4)


@pytest.mark.parametrize("table, row, model", [(6, "class name 16M", "SynViT-B"), (7, "synthetic 371M", "SynCLIP")])
def test_the_checkpoint_that_is_in_two_tables_has_the_same_numbers_in_both(table, row, model):
    assert value(table, row, "accuracy") == pytest.approx(value(2, model, "accuracy"), abs=0.005)
    assert value(table, row, "r_adv_fgsm") == pytest.approx(value(2, model, "r_adv_fgsm"), abs=0.005)
    assert value(table, row, "cb2") == pytest.approx(value(4, model, "cb2"), abs=0.005)
    assert value(table, row, "fpr95_sun") == pytest.approx(value(1, model, "fpr95_sun"), abs=1e-9)
    assert value(table, row, "bg_gap") / 10 == pytest.approx(value(5, model, "bg_gap"), abs=0.0005)  # D7
    assert fixed(table, row, "bg_gap") == pytest.approx(value(5, model, "bg_gap"), abs=1e-9)
    assert cell(table, row, "accuracy").model == model


# ------------------------------------------------------------------ corrected


def computed(derivation: dict) -> float:
    """The value of a derivation, by formulas that are written out a second time."""
    v = [item["value"] for item in derivation["inputs"]]
    if derivation["formula"] == "mean":
        return sum(v) / len(v)
    if derivation["formula"] == "ratio":
        return v[0] / v[1]
    if derivation["formula"] == "ratio of shares":
        return v[0] * v[3] / (v[1] * v[2])
    assert derivation["formula"] == "taken from the logs" and len(v) == 1
    return v[0]


def underived(record: dict) -> list[str]:
    """What is wrong with a record: a corrected value that does not follow from what stands beside it, or no reason."""
    derivation, corrected = record["derivation"], record["corrected"]
    if corrected is None:
        states = {"needs-run": bool(record["remains"]), "as-printed": not record["remains"]}
        wrong = [] if states.get(record["status"]) and record["reason"] else ["no reason"]
        return wrong + (["a derivation of nothing"] if derivation else [])
    if not derivation:
        return ["no derivation"]
    wrong = [] if math.isclose(computed(derivation), corrected, rel_tol=1e-12) else ["another value"]
    wrong += [] if all(item["source"] for item in derivation["inputs"]) else ["an input without source"]
    wrong += [] if record["undone"] and derivation["text"] else ["nothing that was undone"]
    return wrong + ([] if math.isclose(record["difference"], corrected - record["published"]) else ["difference"])


def records() -> list[dict]:
    return [record for part in json.loads(json_of(tables().values()))["tables"] for record in part["cells"]]


def test_no_value_is_corrected_without_a_derivation_that_gives_it_and_none_is_left_without_a_reason():
    assert [(record["source"], underived(record)) for record in records() if underived(record)] == []
    states = Counter(record["status"] for record in records())
    assert states == {"needs-run": 289, "corrected-in-part": 226, "as-printed": 72, "corrected": 34}


def test_a_value_without_its_derivation_is_noticed():
    record = next(record for record in records() if record["corrected"] is not None)
    inputs = [item | {"value": item["value"] + 0.01} for item in record["derivation"]["inputs"]]
    for change in (
        {"derivation": None},
        {"corrected": record["corrected"] + 1e-4},
        {"derivation": record["derivation"] | {"inputs": inputs}},
        {"corrected": None, "status": "as-printed"},
    ):
        assert underived(record | change)


def test_the_formulas_are_all_used():
    used = {record["derivation"]["formula"] for record in records() if record["derivation"]}
    assert used == set(FORMULAS)


def test_table_3_follows_from_the_recovered_accuracies_as_stated_elsewhere():
    for line in read_csv("corruptions.csv"):
        model = line["model"]
        assert fixed(3, model, "accuracy_corrupted") == pytest.approx(float(line["stated_mean"]) / 100, abs=1.01e-4)
        assert fixed(3, model, "r_cc") == pytest.approx(float(line["stated_r_cc"]) / 100, abs=1.01e-4)


@pytest.mark.parametrize(
    "model, before, after", [("ResNet50", 66.10, 60.37), ("SynCLR", 61.99, 53.94), ("SynCLIP", 42.64, 34.50)]
)
def test_the_running_mean_undone_lowers_r_cc(model, before, after):
    assert (100 * value(3, model, "r_cc"), 100 * fixed(3, model, "r_cc")) == pytest.approx((before, after), abs=0.006)


def test_running_means_of_the_25_stored_sets_are_what_is_printed():
    # The derivation backwards: accuracies of single sets, averaged as the published code did, give the page.
    rows = read_csv("severities.csv")
    sets = [float(row[str(severity)]) for row in rows for severity in range(1, 6)]
    running = [total / n for n, total in enumerate(accumulate(sets), 1)]
    for k, row in enumerate(rows):
        means = fmean(running[5 * k : 5 * k + 5])
        assert cell(3, row["model"], row["corruption"]).printed == f"{means:.2f}"
        recovered = correction(cell(3, row["model"], row["corruption"])).derivation
        assert recovered is not None and recovered.recomputable and len(recovered.inputs) == 5
        (stated,) = (line for line in read_csv("corruptions.csv") if line["model"] == row["model"])
        assert f"{100 * recovered.value:.2f}" == stated[row["corruption"]]


def test_tables_6_and_7_follow_from_counts_and_means_as_stated_elsewhere():
    for table in (6, 7):
        for row in tables()[table].rows:
            (line,) = (line for line in read_csv("ablations.csv") if f"{line['data']} {line['images']}" == row)
            assert fixed(table, row, "r_cc_2d") == pytest.approx(float(line["stated_r_cc"]), abs=7e-4)
            assert fixed(table, row, "cb2") == pytest.approx(float(line["stated_cb2"]), abs=7e-4)


def test_corrected_real_images_alone_resist_corruptions_better_than_mixed_ones_from_128m_on():
    gaps = []
    for size in ("64M", "128M", "256M", "371M"):
        real, mixed = (f"{name} {size}" for name in ("real", "synthetic + real"))
        assert value(7, mixed, "r_cc_2d") >= value(7, real, "r_cc_2d"), "as printed, the mixture wins everywhere"
        gaps.append(fixed(7, mixed, "r_cc_2d") - fixed(7, real, "r_cc_2d"))
    assert gaps[0] > 0 > max(gaps[1:])


def test_twelve_cells_are_cut_off_and_three_are_other_numbers():
    words = Counter(word for record in records() for word in record["undone"])
    assert words == {"D1": 180, "D7": 24, "D11": 50, "truncated": 12, "misprint": 3}
    wrong = {(record["row"], record["column"]) for record in records() if "misprint" in record["undone"]}
    mixed = "synthetic + real 256M"
    assert wrong == {("class name 8M", "shape_bias"), (mixed, "cb2"), (mixed, "bg_gap")}
    assert fixed(7, mixed, "bg_gap") == pytest.approx(0.0533) and fixed(6, "class name 8M", "shape_bias") == 0.547


@pytest.mark.parametrize(
    "table, row, column, reason",
    [
        (1, "ResNet50", "auroc_sun", "needs a run (D4, D5)"),
        (2, "MAE", "accuracy_pgd", "needs a run (D3)"),
        (2, "MAE", "accuracy_fgsm", "as printed"),
        (2, "ViT-B", "accuracy", "needs a run (D9)"),
        (5, "CLIP", "bg_gap", "needs a run (D6)"),
        (5, "ViT-B", "accuracy_original", "needs a run (D6)"),
        (7, "synthetic 371M", "ece", "as printed"),
        (7, "real 64M", "ece", "needs a run (D12)"),
        (7, "real 64M", "accuracy", "as printed"),
    ],
)
def test_what_cannot_be_corrected_says_why(table, row, column, reason):
    assert correction(cell(table, row, column)).reason == reason


def test_what_remains_in_a_corrected_value_is_said():
    assert correction(cell(3, "CLIP", "r_cc")).remains == ("D2",)
    assert correction(cell(3, "ViT-B", "snow")).remains == ("D2", "D9")
    assert correction(cell(4, "CLIP", "cb2")).remains == ()
    assert correction(cell(3, "DeiT", "r_cc")).identity == "D8" and not correction(cell(3, "CLIP", "r_cc")).identity


# ------------------------------------------------------------------ deviations


def test_the_deviations_are_d1_to_d12_each_touching_what_it_says():
    assert list(deviations()) == [f"D{n}" for n in range(1, 13)]
    for item in deviations().values():
        touched = {
            number
            for number, table in tables().items()
            for cell in table.cells
            if item.touches(number, cell.column.metric, cell.model)
        }
        assert touched == set(item.tables), item.id
        assert item.mends in ("logs", "run", "none") and all((item.title, item.paper, item.code, item.effect))
    assert {item.id for item in deviations().values() if item.mends == "logs"} == {"D1", "D7", "D11"}


def test_what_is_undone_is_what_logs_mend():
    mended = {item.id for item in deviations().values() if item.mends == "logs"} | {"truncated", "misprint"}
    assert {word for record in records() for word in record["undone"]} == mended
    assert not {word for record in records() for word in record["remains"]} & mended


def test_explaining_a_metric_names_the_deviations_that_concern_it(capsys):
    main(["explain", "ECE"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("published")]
    assert [line.split()[1] for line in lines] == ["D9:", "D12:"]
    assert {metric: [item.id for item in of_metric(metric)] for metric in metrics()} == {
        "accuracy": ["D9"],
        **dict.fromkeys(("ece", "ece_adaptive", "ece_classwise", "nll", "brier"), ["D9", "D12"]),
        **dict.fromkeys(("r_adv", "accuracy_fgsm", "r_adv_autoattack", "accuracy_autoattack"), ["D9", "D12"]),
        "r_adv_pgd": ["D3", "D9", "D12"],
        "accuracy_pgd": ["D3", "D9", "D12"],
        **dict.fromkeys(("auroc", "fpr95_id_positive", "fpr95_outliers_positive"), ["D4", "D5", "D9", "D12"]),
        "r_cc": ["D1", "D2", "D9"],
        "mce": ["D1", "D2", "D9"],
        "mce_unnormalised": ["D1", "D2", "D9"],
        **dict.fromkeys(
            ("accuracy_corrupted", "accuracy_corruption", "accuracy_corruption_severity"), ["D1", "D2", "D9"]
        ),
        **dict.fromkeys(("shape_bias", "shape_decisions", "texture_decisions"), ["D9", "D12"]),
        **dict.fromkeys(("shape_bias_of_class", "shape_bias_per_class_answered"), ["D9", "D10", "D12"]),
        **dict.fromkeys(("accuracy_original", "accuracy_mixed_same", "accuracy_mixed_rand"), ["D6"]),
        **{"accuracy_background": ["D6"], "bg_gap": ["D6", "D7"]},
        **dict.fromkeys(("cb1", "cb2", "cb3", "accuracy_context"), ["D9", "D11"]),
    }


@pytest.mark.parametrize("word", ["D3", "d3"])
def test_a_deviation_is_explained(word, capsys):
    main(["explain", word])
    text = capsys.readouterr().out
    assert text.startswith("D3. the step of PGD") and "2/225" in text and "Table 2" in text
    with pytest.raises(InputError, match="'D13' is no metric; expected one of .* or D1 to D12"):
        main(["explain", "D13"])


# ------------------------------------------------------------------ reproduce-tables


def printed(capsys, *flags) -> str:
    main(["reproduce-tables", *flags])
    return capsys.readouterr().out


def test_all_tables_are_printed_in_120_columns_with_every_cell(capsys):
    lines = printed(capsys).splitlines()
    assert max(map(len, lines)) <= WIDTH
    titles = [line for line in lines if line.startswith("## Table")]
    assert [line.split(".")[0] for line in titles] == [f"## Table {number}" for number in range(1, 8)]
    for table in tables().values():
        text = markdown([table])
        for column in table.columns:
            assert f"| {column.heading}" in text, "a column is not shown"
        assert sum(line.startswith("| ResNet50 ") for line in text.splitlines()) >= (table.number < 6)


def test_a_corrected_number_stands_between_the_published_one_and_the_difference(capsys):
    (line,) = [row for row in printed(capsys, "--table", "3").splitlines() if "66.10" in row]
    assert [part.strip() for part in line.split("|")][-4:-1] == ["66.10", "60.37*", "-5.73"]
    text = printed(capsys, "--table", "2", "7")
    assert "needs a run (D3)" in text and "Table 3" not in text
    (line,) = [row for row in text.splitlines() if row.startswith("| synthetic + real 256M") and "61.63" in row]
    assert "-1.37" in line


def test_points_are_printed_and_fractions_written(capsys):
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "--format", "csv"))))
    assert len(rows) == 621 and {row["unit"] for row in rows} == {"fraction", "images"}
    (row,) = [row for row in rows if (row["table"], row["row"], row["column"]) == ("6", "captions 1M", "bg_gap")]
    assert (row["printed"], row["published"], row["corrected"]) == ("0.85", "0.85", "0.0854")
    assert (row["undone"], row["remains"], row["better"]) == ("D7", "D6", "lower")
    assert "85       | 8.54*     | -76.46" in printed(capsys, "--table", "6")


def test_json_holds_sources_and_inputs(capsys):
    (table,) = json.loads(printed(capsys, "--format", "json", "--table", "4"))["tables"]
    record = table["cells"][0]
    assert record["source"] == "Table 4, ResNet50, CB_1" and record["status"] == "corrected"
    assert [item["value"] for item in record["derivation"]["inputs"]] == [2652, 5974, 10248, 14146]
    assert "predictions.npy" in record["derivation"]["inputs"][0]["source"]


def test_latex_is_balanced_and_escaped(capsys):
    text = printed(capsys, "--format", "latex")
    assert text.count(r"\begin{") == text.count(r"\end{") > 20 and "↑" not in text
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert "_" not in line.replace(r"\_", "") and "%" not in line.replace(r"\%", "")


def test_a_folder_gets_all_four_forms_and_is_not_shared(tmp_path, capsys):
    out = tmp_path / "published"
    assert "wrote" in printed(capsys, "--out", str(out))
    names = {"tables.md", "tables.csv", "tables.tex", "tables.json", "manifest.json"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "tables.csv").read_text(encoding="utf-8") == csv_of(tables().values())
    assert json.loads((out / "manifest.json").read_text())["counts"] == {"numbers": 621}
    main(["reproduce-tables", "--out", str(out), "--table", "4"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="holds something else .results.jsonl.; give a new folder"):
        main(["reproduce-tables", "--out", str(tmp_path / "other")])
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["results.jsonl"]


def test_another_table_is_refused():
    with pytest.raises(InputError, match="--table: 8 was given, expected 1 to 7"):
        main(["reproduce-tables", "--table", "8"])


def test_tables_need_no_network_library():
    code = (
        "import sys; from synclones.evaluate.run import main; main(['reproduce-tables', '--table', '4']); "
        "print(sorted({'torch', 'timm', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

"""Auditing an evaluation: what went wrong is seen in hand-made logs of the official scripts' shape, and mended."""

import json
import random
from pathlib import Path

import pytest

from synclones.base.errors import InputError, VerificationError
from synclones.evaluate.audit.audit import findings
from synclones.evaluate.audit.logs import MAX_BYTES, read_logs
from synclones.evaluate.audit.running_mean import judge, regained, running_means, undone
from synclones.evaluate.published.tables import read_csv
from synclones.evaluate.run import main
from synclones.shards.sources.files import PassedOver

CORRUPTIONS = ("shot_noise", "motion_blur", "snow", "pixelate", "jpeg_compression")
# Accuracies of five corruptions over five severities, as of no model in particular; snow has the known kink at 3.
TRUE = (
    *(62.0, 55.5, 44.25, 28.0, 18.5),
    *(64.5, 57.0, 43.0, 27.25, 20.0),
    *(58.0, 40.5, 42.0, 33.0, 26.5),
    *(65.0, 61.5, 52.0, 38.5, 29.0),
    *(63.0, 60.0, 57.5, 50.0, 41.0),
)


def corruption_log(values, model="net", **more) -> list[dict]:
    """A list as the official scripts write it; prompts and size stand in the fifth entry alone."""
    names = [(name, severity) for name in CORRUPTIONS for severity in range(1, 6)]
    entries = [
        {"model": model, "corruption": name, "severity": severity, "acc": value}
        for (name, severity), value in zip(names, values, strict=True)
    ]
    entries[4] |= more
    return entries


def attack(name, clean, robust, model="net", **more) -> list[dict]:
    return [{"model": model, "attack": name, "clean_acc": clean, "robust_acc": robust, **more}]


def backgrounds(original=0.95, same=0.87, other=0.81, model="net", **more) -> dict:
    return {"model": model, "original_acc": original, "mixed_same_acc": same, "mixed_rand_acc": other, **more}


def outliers(auroc=0.82, fpr=0.7361, aupr=0.9577, score="entropy", model="net") -> dict:
    return {
        **{"model": model, "in_dist": "imagenet", "ood_dist": "SUN"},
        **{"auroc": auroc, "aupr": aupr, "fpr": fpr, "score": score},
    }


def write(folder: Path, **logs) -> Path:
    """Write logs by name, two underscores for a folder."""
    for name, value in logs.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def seen(folder: Path) -> list[tuple[str, str]]:
    """(id, certainty) of what is found."""
    return [(item.id, item.certainty) for item in findings(read_logs(folder, PassedOver()))]


def averaged(values=TRUE, digits=4) -> list[float]:
    return [round(mean, digits) for mean in running_means(values)]


# ------------------------------------------------------------------ running means


def groups(values) -> list[list[float]]:
    return [list(values[start : start + 5]) for start in range(0, len(values), 5)]


def test_undoing_gives_back_what_was_averaged_up_to_rounding():
    verdict = judge(groups(averaged()), 100, 4)
    assert verdict.certainty == "certain" and verdict.error == pytest.approx(0.00245)
    assert max(abs(a - b) for a, b in zip(verdict.recovered, TRUE, strict=True)) <= verdict.error
    assert undone(running_means(TRUE)) == pytest.approx(TRUE)


def test_the_accuracies_themselves_are_not_taken_for_running_means():
    verdict = judge(groups(TRUE), 100, 2)
    assert verdict.certainty == "no" and not all(-1 <= value <= 101 for value in verdict.recovered)
    assert (regained(groups(TRUE)), regained(groups(averaged()))) == pytest.approx((1.0, 0.3), abs=0.3)


def test_a_published_model_is_recognised_and_its_true_accuracies_are_not():
    rows = [[float(row[str(severity)]) for severity in range(1, 6)] for row in read_csv("severities.csv")]
    values = [value for row in rows for value in row]
    assert judge(groups(averaged(values)), 100, 4).certainty == "certain"
    assert judge(rows, 100, 2).certainty == "no"


def test_made_evaluations_are_told_apart():
    rng = random.Random(7)
    for _ in range(200):
        clean, series = rng.uniform(0.3, 0.9), []
        for _ in CORRUPTIONS:
            strength = rng.uniform(0.1, 0.9)
            series += [clean * (1 - strength * s / 5) + rng.gauss(0, 0.002) for s in range(1, 6)]
        assert judge(groups(averaged(series, 6)), 1, 6).certainty == "certain"
        assert judge(groups([round(value, 6) for value in series]), 1, 6).certainty == "no"


@pytest.mark.parametrize("values", [(50.0, 40.0, 30.0), (10.0,) * 25])
def test_what_fits_both_readings_stays_open(values):
    assert judge(groups(values), 100, 2).certainty == "open"


def test_a_verdict_on_two_corruptions_is_not_certain():
    few = [[60.0, 50.0, 40.0], [58.0, 52.0, 45.0]]
    means = [round(mean, 4) for mean in running_means([value for group in few for value in group])]
    assert judge([means[:3], means[3:]], 100, 4).certainty == "likely"


def test_running_means_are_found_in_percent_and_as_fractions(tmp_path):
    fractions = [round(value / 100, 6) for value in averaged()]
    write(tmp_path, a=corruption_log(averaged()), b=corruption_log(fractions), c=corruption_log(TRUE))
    found = findings(read_logs(tmp_path, PassedOver()))
    assert [(item.id, item.certainty, item.log) for item in found] == [
        ("D1", "certain", "a.json"),
        ("D1", "certain", "b.json"),
    ]
    before, after = sum(averaged()) / 25, sum(TRUE) / 25
    assert all(f"{before:.2f} %, {after:.2f} % recovered" in item.text for item in found)


def test_a_log_out_of_order_is_not_judged(tmp_path):
    entries = corruption_log(averaged())
    write(tmp_path, a=sorted(entries, key=lambda entry: entry["severity"]), b=[*entries[1:5], entries[0], *entries[5:]])
    assert seen(tmp_path) == [("D1", "note"), ("D1", "note")]
    write(tmp_path, a=[entry | {"severity": "1"} for entry in entries], b=[entry | {"acc": "?"} for entry in entries])
    assert ("D1", "certain") not in seen(tmp_path)


# ------------------------------------------------------------------ repairs


def test_a_log_is_repaired_into_a_new_file(tmp_path, capsys):
    path = write(tmp_path, net=corruption_log(averaged(), prompt_type="captions", dataset_size="1M")) / "net.json"
    before, out = path.read_bytes(), tmp_path / "mended.json"
    with pytest.raises(VerificationError, match="certain findings: 1"):
        main(["audit", str(path), "--out", str(out)])
    entries = json.loads(out.read_text())
    assert [entry["acc"] for entry in entries] == pytest.approx(TRUE, abs=0.0025)
    assert [entry["acc_running_mean"] for entry in entries] == averaged()
    assert [(entry["corruption"], entry["severity"]) for entry in entries[4:6]] == [
        ("shot_noise", 5),
        ("motion_blur", 1),
    ]
    assert entries[4]["prompt_type"] == "captions" and path.read_bytes() == before
    capsys.readouterr()
    main(["audit", str(out)])
    assert "findings    0" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds running means, so that there is nothing to repair"):
        main(["audit", str(out), "--out", str(tmp_path / "third.json")])


def test_a_folder_is_repaired_file_by_file_and_nothing_is_overwritten(tmp_path, capsys):
    logs = write(tmp_path / "logs", a__x=corruption_log(averaged()), b=corruption_log(TRUE), c=backgrounds())
    out = tmp_path / "out"
    with pytest.raises(VerificationError):
        main(["audit", str(logs), "--out", str(out)])
    assert [str(path.relative_to(out)) for path in out.rglob("*.json")] == ["a/x.json"]
    kept = (out / "a" / "x.json").read_bytes()
    capsys.readouterr()
    with pytest.raises(InputError, match="exists already; nothing is overwritten"):
        main(["audit", str(logs), "--out", str(out)])
    assert capsys.readouterr().out == "" and (out / "a" / "x.json").read_bytes() == kept


# ------------------------------------------------------------------ the other checks


@pytest.mark.parametrize(
    "logs, expected",
    [
        ({"a": attack("fgsm", 67.6, 0.67), "b": attack("pgd", 67.6, 1.34)}, [("D3", "certain")]),
        ({"a": attack("fgsm", 67.6, 1.34), "b": attack("pgd", 67.6, 1.5)}, [("D3", "likely")]),
        ({"a": attack("fgsm", 67.6, 1.34), "b": attack("pgd", 67.6, 0.67)}, []),
        ({"a": attack("fgsm", 67.6, 0.67, eps=1), "b": attack("pgd", 67.6, 1.34, eps=0.5)}, []),
        ({"a": attack("fgsm", 67.6, 0.67), "b": attack("pgd", 67.6, 1.34, model="other")}, []),
        ({"a": attack("pgd", 67.6, 1.0, eps=1 / 255, alpha=2 / 225)}, [("D3", "certain")]),
        ({"a": attack("pgd", 67.6, 1.0, eps=8 / 255, alpha=2 / 255)}, []),
        ({"a": attack("fgsm", 67.6, 0.5), "b": backgrounds(0.57, 0.46, 0.41)}, [("D6", "likely")]),
        ({"a": attack("fgsm", 67.6, 0.5), "b": backgrounds(0.95)}, []),
        ({"a": attack("fgsm", 76.78, 27.4, model="vit-b")}, [("D9", "likely")]),
        ({"a": attack("fgsm", 80.12, 27.0, model="resnet50")}, []),
        ({"a": attack("fgsm", 67.600, 0.7), "b": attack("pgd", 67.586, 0.5)}, []),
        ({"a": attack("fgsm", 67.6, 0.7), "b": attack("pgd", 66.6, 0.5)}, [("clean", "likely")]),
        ({"a": outliers()}, [("D4", "note")]),
        ({"a": outliers(score="msp")}, []),
        ({"a": outliers(score="msp", aupr=0.45)}, [("D4", "likely")]),
        ({"a": outliers(score="msp", auroc=0.5, fpr=0.01)}, [("unit", "certain")]),
        ({"a": outliers(score="msp", auroc=82, aupr=95, fpr=73)}, [("unit", "certain")] * 3),
        ({"a": backgrounds(bg_gap=0.06)}, []),
        ({"a": backgrounds(bg_gap=6.0)}, []),
        ({"a": backgrounds(bg_gap=0.6)}, [("D7", "certain")]),
        ({"a": backgrounds(bg_gap=0.03)}, [("unit", "likely")]),
        ({"a": backgrounds(bg_gap=-0.06)}, [("unit", "likely")]),
        ({"a": backgrounds(same=0.811, other=0.81, bg_gap=0.0)}, []),
        ({"a": attack("fgsm", 80.0, 20.0, r_adv=0.25)}, []),
        ({"a": attack("fgsm", 80.0, 20.0, r_adv=2.5)}, [("D7", "certain")]),
        ({"a": backgrounds(95.0)}, [("unit", "certain")]),
        ({"a": attack("fgsm", 180.0, 20.0)}, [("unit", "certain")]),
    ],
)
def test_a_fault_is_found_and_its_absence_is_not(tmp_path, logs, expected):
    assert seen(write(tmp_path, **logs)) == expected


def bins(shift=0.0, total=20) -> dict[str, dict]:
    """Twenty bins whose accuracy is 0.05 below the confidence, stated with ``shift`` in the last one's confidence."""
    rows = {}
    for index in range(total):
        count, confidence = (0, 0.0) if index < 2 else (100, (index + 0.5) / total)
        accuracy = confidence - 0.05 if count else 0.0
        rows[str(index)] = {
            **{"count": count, "conf": count * confidence, "acc": count * accuracy},
            **{"bin_acc": accuracy, "bin_conf": confidence + (shift if index == total - 1 else 0)},
        }
    return rows


def calibration(ece=0.05, error=1 - 0.5 * (2.5 + 19.5) / 20 + 0.05, model="net") -> dict:
    return {"model": model, "dataset": "imagenet", "test_error": error, "test_nll": 1.0, "ece": ece, "ada ece": ece}


@pytest.mark.parametrize(
    "logs, expected",
    [
        ({"rel_plot_x": bins(), "x": calibration()}, []),
        ({"rel_plot_x": bins(), "x": calibration(ece=0.06)}, [("bins", "certain")]),
        ({"rel_plot_x": bins(), "x": calibration(error=0.6)}, [("bins", "certain")]),
        ({"rel_plot_x": bins()}, [("bins", "note")]),
        ({"rel_plot_x": bins(shift=-0.06), "x": calibration()}, [("bins", "certain")] * 2),
    ],
)
def test_calibration_is_counted_again_from_its_bins(tmp_path, logs, expected):
    assert seen(write(tmp_path, **logs)) == expected


def result(metric, value, protocol="paper", **settings) -> dict:
    return {
        **{"model": "m", "weights_sha256": "a" * 64, "dataset": "d", "dataset_sha256": "b" * 64, "metric": metric},
        **{"settings": settings, "value": value, "ci_low": 0.0, "ci_high": 1.0, "n": 500},
        **{"protocol": protocol, "preprocessing": "p", "seed": 0},
    }


@pytest.mark.parametrize(
    "logs, expected",
    [
        ({"a": result("accuracy", 0.9), "b": result("ece", 0.1)}, []),
        ({"a": result("accuracy", 0.9), "b": result("accuracy", 0.8, "corrected")}, [("protocol", "note")]),
        ({"a": result("accuracy_pgd", 0.1, alpha_255=2.0, epsilon_255=1.0)}, [("D3", "certain")]),
        (
            {"a": result("accuracy_fgsm", 0.1, epsilon_255=1.0), "b": result("accuracy_pgd", 0.2, epsilon_255=1.0)},
            [("D3", "certain")],
        ),
        ({"a": result("accuracy_fgsm", 0.1, epsilon_255=1.0), "b": result("accuracy_pgd", 0.2, epsilon_255=0.5)}, []),
    ],
)
def test_results_of_this_project_are_audited_too(tmp_path, logs, expected):
    assert seen(write(tmp_path, **logs)) == expected


def test_what_is_said_of_many_logs_alike_is_said_once(tmp_path, capsys):
    main(["audit", str(write(tmp_path, **{f"x{n}": outliers(model=f"m{n}") for n in range(5)}))])
    text = capsys.readouterr().out
    assert "5 logs (the first: x0.json): the score is entropy" in text and "x1.json" not in text
    assert "note: D4, out-of-distribution scores are entropies (5)" in text and "models      5" in text


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "text, why",
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' * 80 + "1" + "}" * 80, "nested more than 64 deep"),
        ('[{"model": "x", "attack": "fgsm", "clean_acc": NaN, "robust_acc": 1}]', "NaN is no JSON number"),
        ('{"ece": 1e999, "test_error": 0}', "too large a number"),
        ("{", "Expecting"),
        ("", "Expecting value"),
        ('{"a": 1, "a": 2}', "stands twice"),
        (" " * (MAX_BYTES + 1), "more than"),
        ("[" + ",".join(['{"corruption":"a","severity":1,"acc":1}'] * 10_001) + "]", "more than 10000 entries"),
        ('{"loss": 1}', "no results that are known here"),
        ("[]", "no results that are known here"),
        ("[1, 2]", "no results that are known here"),
        ('"text"', "no results that are known here"),
        ("\x00\xff", ""),
    ],
)
def test_a_hostile_file_ends_in_one_line(tmp_path, text, why):
    path = write(tmp_path, x=text) / "x.json"
    with pytest.raises(InputError, match=why) as caught:
        main(["audit", str(path), "--out", str(tmp_path / "out.json")])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("bad", ["text", None, [], {"a": 1}, True, 10**400, -1, {"a": [1, {"b": None}]}])
def test_a_value_of_another_kind_never_breaks_an_audit(tmp_path, bad):
    def spoilt(entry):
        return [{key: bad if key == wrong else value for key, value in entry.items()} for wrong in entry]

    logs = {}
    for name, entry in (
        *(("a", attack("pgd", 80.0, 20.0, eps=1, alpha=2, r_adv=0.3)[0]), ("b", backgrounds(bg_gap=0.1))),
        *(("o", outliers()), ("c", calibration()), ("r", result("accuracy_pgd", 0.2, epsilon_255=1.0))),
    ):
        logs |= {f"{name}{n}": value for n, value in enumerate(spoilt(entry))}
    for n, wrong in enumerate(("model", "corruption", "severity", "acc")):
        logs[f"s{n}"] = [entry | {wrong: bad} for entry in corruption_log(averaged())]
    logs |= {f"rel_plot_{n}": {"0": entry} for n, entry in enumerate(spoilt(bins()["5"]))}
    for item in findings(read_logs(write(tmp_path, **logs), PassedOver())):
        assert "\n" not in item.text + item.log


def test_what_is_passed_over_in_a_folder_is_counted_and_told(tmp_path, capsys):
    write(tmp_path, a=outliers(score="msp"), b="{", c={"loss": 1})
    (tmp_path / "p.npy").write_bytes(b"\x93NUMPY")
    main(["audit", str(tmp_path)])
    told = capsys.readouterr().err
    assert all(words in told for words in ("1 unreadable (the first: b.json", "1 of no known kind", "1 no JSON by its"))


def test_a_folder_without_results_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="is empty; expected JSON files of results"):
        main(["audit", str(tmp_path)])
    write(tmp_path, a="{")
    with pytest.raises(InputError, match=r"1 unreadable \(the first: a.json.*expected JSON files of results"):
        main(["audit", str(tmp_path)])
    with pytest.raises(FileNotFoundError):
        main(["audit", str(tmp_path / "none.json")])
    with pytest.raises(InputError, match="results: required by `synclones evaluate audit`"):
        main(["audit"])

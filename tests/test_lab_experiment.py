"""The lab's experiment and the no-argument commands, from an empty folder to a report."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_command
from scipy import stats

from synclones.base.errors import InputError
from synclones.lab import commands
from synclones.lab.experiment import RECIPES
from synclones.lab.experiment_table import GRIDS, MARK, STATEMENT, difference, differences, write_part, write_table
from synclones.lab.objectives import ObjectivesConfig, conclusions
from synclones.lab.real_digits import write_real_digits
from synclones.prompts.run import main as build_prompts
from synclones.train.run import main as train

HEAD = "model,dataset,metric,settings,value,ci_low,ci_high,n,interval,weights_sha256\n"


def test_the_table_has_means_spreads_and_says_which_differences_are_noise(tmp_path):
    for seed, (a, b, c) in enumerate([(0.90, 0.80, 0.81), (0.91, 0.82, 0.79), (0.92, 0.81, 0.82)]):
        (tmp_path / str(seed)).mkdir()
        rows = [
            f"{name},test,accuracy,{{}},{value},0,1,537,wilson,x" for name, value in zip("abc", (a, b, c), strict=True)
        ]
        rows += [f'{name},test,r_adv,"{{""epsilon_255"": 8.0}}",0.5,0,1,537,bootstrap,x' for name in "abc"]
        (tmp_path / str(seed) / "table.csv").write_text(HEAD + "\n".join(rows) + "\n")
    write_table(tmp_path / "t.md", [tmp_path / str(seed) for seed in range(3)], ["--seeds", "3"], "1 min")
    text = (tmp_path / "t.md").read_text()
    assert "| a | 91.0 ± 1.0 | 50.0 ± 0.0 |" in text and "| clone | accuracy | R_adv 8/255 |" in text
    assert "| a − b | **+10.0 ± 2.3** | +0.0 ± 0.0, noise |" in text
    assert "| b − c | +0.3 ± 3.1, noise |" in text
    assert "These are 6 differences" in text and "0.3 intervals would miss 0 by chance" in text
    # Where the grids' pages lie beside it, as in the documents, it leads to them.
    assert "overview.md" not in text and GRIDS[0] in (ROOT / "docs" / "results.md").read_text().splitlines()
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "overview.md").touch()
    write_table(tmp_path / "t.md", [tmp_path / str(seed) for seed in range(3)], [], "1 min")
    assert f"\n\n{GRIDS[0]}\n\n| clone" in (tmp_path / "t.md").read_text()


def test_intervals_between_few_trainings_hold_the_truth_as_often_as_they_say():
    """Of three trainings each, two standard errors hold a true difference in 82 to 88 of 100, Student's t in 95."""
    rng, trials = np.random.default_rng(0), 3000
    hits = {"t": 0, "two standard errors": 0}
    for spread in (1.0, 3.0) * (trials // 2):
        a, b = rng.normal(5, 1, 3), rng.normal(4, spread, 3)
        item = difference(list(a), list(b))
        error = (a.var(ddof=1) / 3 + b.var(ddof=1) / 3) ** 0.5
        hits["t"] += abs(item.value - 1) <= item.half_width
        hits["two standard errors"] += abs(item.value - 1) <= 2 * error
    assert 0.935 <= hits["t"] / trials <= 0.975 and hits["two standard errors"] / trials < 0.9


def test_a_difference_is_that_of_scipy_and_certain_where_nothing_varies():
    a, b = [92.0, 93.0, 94.5], [90.0, 90.1, 92.0, 91.0]
    assert difference(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert difference(a, b).half_width == pytest.approx((interval.high - interval.low) / 2)
    assert difference([1.0, 1.0], [1.0, 1.0]).p == 1 and difference([2.0, 2.0], [1.0, 1.0]).p == 0


def test_of_many_comparisons_of_the_same_clones_few_tables_hold_a_bold_one():
    """If no two clones differ, at most 5 of 100 tables may say so somewhere; without Holm most of them would."""
    rng, tables = np.random.default_rng(1), 300
    models, metrics = list("abcde"), ["accuracy", "ECE", "R_adv"]
    bold = single = 0
    for _ in range(tables):
        values = {metric: {model: list(rng.normal(0, 1, 3)) for model in models} for metric in metrics}
        compared = differences(values, metrics, models).values()
        bold += any(item.holds for item in compared)
        single += any(item.p < 0.05 for item in compared)
    assert bold / tables <= 0.08 and single / tables > 0.4


def _table(tmp_path, accuracies):
    """Write the table of clones with these accuracies, a list of one per seed each."""
    for seed in range(len(next(iter(accuracies.values())))):
        (tmp_path / str(seed)).mkdir()
        rows = [f"{name},test,accuracy,{{}},{values[seed]},0,1,537,wilson,x" for name, values in accuracies.items()]
        (tmp_path / str(seed) / "table.csv").write_text(HEAD + "\n".join(rows) + "\n")
    folders = [tmp_path / str(seed) for seed in range(len(next(iter(accuracies.values()))))]
    write_table(tmp_path / "t.md", folders, [], "1 min")
    return (tmp_path / "t.md").read_text()


def test_one_sentence_says_what_class_names_real_images_and_both_come_to(tmp_path):
    text = _table(
        tmp_path,
        {
            "class-name": [0.900, 0.901, 0.902],
            "class-name+real": [0.940, 0.941, 0.942],
            "real": [0.925, 0.950, 0.945],
        },
    )
    line = next(line for line in text.splitlines() if line.startswith(STATEMENT))
    assert "over 3 trainings of each" in line
    assert "`class-name` and `class-name+real` differ (-4.0 ± 0.2 points of accuracy)" in line
    assert "`class-name` and `real` may differ (-3.9" in line
    assert "`class-name+real` and `real` cannot be told apart (+0.1" in line


def test_one_training_is_not_compared(tmp_path):
    text = _table(tmp_path, {"a": [0.9], "b": [0.5]})
    assert "One training of each clone says nothing" in text and "**" not in text


def test_two_experiments_write_one_file_and_keep_each_other_s_part(tmp_path):
    _table(tmp_path, {"a": [0.9, 0.91], "b": [0.5, 0.52]})
    write_part(tmp_path / "t.md", ["## more", "one"])
    write_part(tmp_path / "t.md", ["## more", "two"])
    write_table(tmp_path / "t.md", [tmp_path / "0", tmp_path / "1"], [], "2 min")
    text = (tmp_path / "t.md").read_text()
    assert text.count(MARK) == 1 and text.rstrip().endswith("two") and "one\n" not in text
    assert "2 min of" in text or "2 min." in text


def test_what_few_real_images_bring_is_said_in_shares_of_the_gap():
    accuracies = {
        **{"clone": [80.0, 80.2, 79.8], "real": [90.0, 90.1, 89.9], "real-eighth": [60.0, 61.0, 59.0]},
        **{"last-1": [84.0, 84.1, 83.9], "last-2": [86.0, 85.9, 86.1], "all": [87.0, 87.2, 86.8]},
        **{"probe-fresh": [30.0, 31.0, 29.0], "probe-several": [85.0, 85.5, 84.5]},
    }
    text = "\n".join(conclusions(accuracies))
    assert "is +55.0 ± " in text and "is -10.0 ± " in text
    assert "the last block: +4.0" in text and "40 % of that gap" in text and "60 % of that gap" in text
    assert "without the clone: -20.0" in text


def test_the_second_experiment_asks_for_the_sets_of_the_first(tmp_path):
    with pytest.raises(InputError, match="has no data/class-name; run `synclones demo"):
        ObjectivesConfig(experiment=tmp_path)


def test_readme_and_results_make_one_statement():
    """Whatever the README says about telling these clones apart is the sentence that `make results` wrote."""
    readme, results = ((ROOT / name).read_text() for name in ("README.md", "docs/results.md"))
    sentence = next((line for line in results.splitlines() if line.startswith(STATEMENT)), "")
    rest = " ".join(readme.split()).replace(sentence, "") if sentence else " ".join(readme.split())
    assert "told apart" not in rest and "docs/results.md" in readme


def test_training_without_data_but_with_settings_uses_the_lab_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--samples, --steps, --epochs: none of them was given"):
        train(["--data", "x"])


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_the_experiment_ends_with_a_table_and_is_not_repeated(tmp_path):
    command = (sys.executable, str(ROOT / "lab" / "experiment.py"), "--images", "250", "--samples", "3k")
    first = run_command(*command, cwd=tmp_path, timeout_s=1500)
    assert first.returncode == 0, first.stderr[-2000:]
    for name in ("class-name", "class-name+real", "clip-templates", "clip-templates+real", "real"):
        assert f"| {name} |" in first.stdout
    assert (tmp_path / "lab-demo" / "results" / "seed-0" / "report.html").exists()
    again = run_command(*command, cwd=tmp_path, timeout_s=300)
    assert again.returncode == 0 and again.stderr.count("nothing to do") == 7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_evaluate_alone_with_no_argument_makes_what_it_needs(tmp_path):
    done = run_command(sys.executable, str(ROOT / "evaluate" / "run.py"), cwd=tmp_path, timeout_s=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    for said in ("training runs/lab", "drawing data/lab", "writing data/lab-real-test"):
        assert said in done.stderr
    assert "| lab |" in done.stdout
    tree = re.search(r"\n(runs/lab/.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    for folder, part in (
        ("runs/lab", tree.partition("results/lab/")[0]),
        ("results/lab", tree.partition("results/lab/")[2]),
    ):
        named = re.findall(r"[\w.-]+\.(?:jsonl|json|yaml|md|csv|html)|checkpoints/|export/|logits/", part)
        assert len(named) > 4 and [name for name in named if not (tmp_path / folder / name).exists()] == []
    for stage in ("generate", "train"):
        again = run_command(sys.executable, str(ROOT / stage / "run.py"), cwd=tmp_path)
        assert again.returncode == 0 and "nothing to do" in again.stderr
    story = run_command(sys.executable, "-m", "synclones.cli", "trace", "results/lab", cwd=tmp_path).stdout
    assert [line.split()[0] for line in story.splitlines()][:5] == [
        "evaluate",
        "train",
        "generate",
        "prompts",
        "generator",
    ]


# ------------------------------------------------------------------ the experiment's own ends

EXPERIMENT = (sys.executable, str(ROOT / "lab" / "experiment.py"))


@pytest.mark.parametrize(
    "flags",
    [
        *(("--seeds", "0"), ("--seeds", "-3"), ("--images", "0"), ("--samples", "0"), ("--table", "nowhere/t.md")),
        *(("--seeds", "many"), ("--what", "1")),
    ],
)
def test_wrong_settings_end_with_one_line_before_anything_is_begun(tmp_path, flags):
    done = run_command(*EXPERIMENT, *flags, cwd=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir()), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f"synclones: error: {flags[0]}")


def test_a_command_that_fails_speaks_for_the_experiment(tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "class-name").touch()  # where a set should be drawn
    done = run_command(*EXPERIMENT, "--images", "4", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("synclones: error:") == 1, done.stderr


def test_the_first_of_several_commands_that_fails_ends_the_others_at_once(tmp_path, monkeypatch, capsys):
    """One that would go on for minutes is told to end, and says nothing of it; the failure has its command's name."""
    monkeypatch.setattr(commands, "cores", lambda: 2)
    long = ["prompts", "build", "--recipe", "class-name", "--classes", "imagenet1k", "--num-images", "400M"]
    jobs = {"long": [*long, "--out", tmp_path / "long.parquet"], "bad": ["shards", "verify", tmp_path / "nothing"]}
    started = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        commands.side_by_side("jobs", jobs)
    assert caught.value.code == 2 and time.monotonic() - started < 60 and not (tmp_path / "long.parquet").exists()
    said = capsys.readouterr().err
    assert f"synclones: error: bad: {tmp_path}/nothing: no such folder" in said
    assert said.count("synclones: error:") == 1


def test_lines_of_commands_side_by_side_begin_with_their_names(tmp_path, capsys):
    build = ["prompts", "build", "--recipe", "class-name", "--classes", "lab-digits", "--num-images", "20"]
    commands.side_by_side("jobs", {name: [*build, "--out", tmp_path / f"{name}.parquet"] for name in ("a", "b")})
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("a: ", "b: ")) for line in lines)
    assert all(f"{name}: {tmp_path}/{name}.parquet: 20 prompts" in "\n".join(lines) for name in "ab")


def test_a_heading_says_what_comes_and_the_time_to_the_end_at_this_machine_s_speed(capsys, monkeypatch):
    now = iter([0, 0, 20, 20, 20.1, 20.1])
    monkeypatch.setattr(commands.time, "monotonic", lambda: next(now))
    headings = commands.Headings([("drawing", 10.0), ("reading", 10.0), ("training", 60.0)])
    for _ in range(3):
        headings.next()
    assert capsys.readouterr().err.splitlines() == [
        "[1 of 3] drawing: about 10 s, 80 s to the end",
        "[2 of 3] reading: about 20 s, 2 min to the end",  # half as fast as was measured
        "[3 of 3] training: about 2 min",  # reading was done already, and says nothing
    ]


def drawing(folder) -> list[int]:
    """Processes that draw into a folder."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if "generate" in words and any(str(folder) in word for word in words):
                pids.append(int(path.parent.name))
    return pids


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGHUP, signal.SIGKILL))],
)
def test_nothing_goes_on_when_the_experiment_is_stopped(tmp_path, number):
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # whatever `nohup` the tests run under
    command = [*EXPERIMENT, "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        started = time.monotonic()
        while not drawing(tmp_path) and time.monotonic() - started < 60:
            time.sleep(0.05)
        assert drawing(tmp_path)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), stderr
        assert number == signal.SIGKILL or "stopped by signal" in stderr
        started = time.monotonic()
        while drawing(tmp_path) and time.monotonic() - started < 30:
            time.sleep(0.05)
        assert not drawing(tmp_path)
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_the_second_experiment_ends_with_its_part_of_the_table_and_is_not_repeated(tmp_path):
    """Real digits of another variation in the place of drawn ones: what is tested is that all trainings fit."""
    for recipe in RECIPES:
        write_real_digits(tmp_path / "lab" / "data" / recipe, "classifier-train", seed=1)
    (tmp_path / "lab" / "prompts").mkdir()
    what = ["--recipe", "clip-templates", "--classes", "lab-digits", "--num-images", "540"]
    build_prompts(["build", *what, "--out", str(tmp_path / "lab" / "prompts" / "clip-templates.parquet")])
    (tmp_path / "t.md").write_text("# Results\n")
    flags = ("--experiment", "lab", "--seeds", "2", "--samples", "1k", "--table", "t.md")
    command = (sys.executable, "-m", "synclones.lab.objectives", *flags)
    first = run_command(*command, cwd=tmp_path, timeout_s=1500)
    assert first.returncode == 0, first.stderr[-2000:]
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("# Results\n") and text.count(" ± ") >= 9 + 5 and "cannot fall below about" in text
    again = run_command(*command, cwd=tmp_path, timeout_s=900)
    assert again.returncode == 0 and again.stderr.count("nothing to do") == 2 * 10

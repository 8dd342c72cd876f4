"""The lab's experiment and the no-argument commands, from an empty folder to a report."""

import re
import sys

import pytest
from conftest import ROOT, run_command

from synclones.base.errors import InputError
from synclones.lab.experiment_table import write_table
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
    assert "| a − b | **+10.0 ± 1.6** | +0.0 ± 0.0, noise |" in text
    assert "| b − c | +0.3 ± 2.1, noise |" in text


def test_training_without_data_but_with_settings_uses_the_lab_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--samples, --steps, --epochs: none of them was given"):
        train(["--data", "x"])


@pytest.mark.slow
def test_the_experiment_ends_with_a_table_and_is_not_repeated(tmp_path):
    command = (sys.executable, str(ROOT / "lab" / "experiment.py"), "--images", "250", "--samples", "3k")
    first = run_command(*command, cwd=tmp_path, timeout_s=580)
    assert first.returncode == 0, first.stderr[-2000:]
    for name in ("class-name", "class-name+real", "clip-templates", "clip-templates+real", "real"):
        assert f"| {name} |" in first.stdout
    assert (tmp_path / "lab-demo" / "results" / "seed-0" / "report.html").exists()
    again = run_command(*command, cwd=tmp_path, timeout_s=300)
    assert again.returncode == 0 and again.stderr.count("nothing to do") == 7


@pytest.mark.slow
def test_evaluate_alone_with_no_argument_makes_what_it_needs(tmp_path):
    done = run_command(sys.executable, str(ROOT / "evaluate" / "run.py"), cwd=tmp_path, timeout_s=580)
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

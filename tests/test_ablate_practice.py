"""Practice: the commands of a loop, one record for each, and a loop that is killed in every phase of every round."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from synclones.ablate import practice, practice_table, recorded
from synclones.ablate.practice import PracticeConfig, _arms, _chain, _policies, run_practice
from synclones.ablate.recorded import Running, Step, is_done
from synclones.base.config import flags_of
from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import trace
from synclones.prompts.table import PromptTable

FAKE = Path(__file__).with_name("practice_fake.py")
SMALL = {"rounds": 2, "start": 20, "candidates": 40, "samples": 100}


def chain(**more):
    config = PracticeConfig(**SMALL | more)
    return _chain(config, _arms(config, _policies(config), config.seed), config.seed)


def flag(step, name):
    words = step.command
    at = words.index(name) + 1
    return list(words[at : next((k for k in range(at, len(words)) if words[k].startswith("--")), len(words))])


# ------------------------------------------------------------------ which commands


def test_a_round_draws_candidates_chooses_and_trains_the_learner_further_on_all_that_was_kept():
    steps = {step.name: step for step in chain(policy=("entropy",))}
    assert [name for name in steps if not name.startswith("seed-0/results")] == [
        *("seed-0/start/prompts", "seed-0/start/images", "seed-0/start/start"),
        *(f"seed-0/candidates/round-0{r}/{what}" for r in (1, 2) for what in ("prompts", "images")),
        *("seed-0/entropy/round-01/choice", "seed-0/entropy/round-01/entropy-01"),
        *("seed-0/entropy/round-02/choice", "seed-0/entropy/round-02/entropy-02"),
    ]
    first, second = (steps[f"seed-0/entropy/round-0{r}/entropy-0{r}"] for r in (1, 2))
    base = "{out}/seed-0"
    one, two = (
        f"{base}/candidates/round-0{r}/images,name=round-0{r},only={base}/entropy/round-0{r}/choice/images.txt"
        for r in (1, 2)
    )
    assert flag(first, "--data") == [f"{base}/start/images", one]
    assert flag(second, "--data") == [f"{base}/start/images", one, two]
    assert flag(first, "--weights") == [f"{base}/start/start"] and flag(first, "--head") == ["kept"]
    assert flag(second, "--weights") == [f"{base}/entropy/round-01/entropy-01"]
    choice = steps["seed-0/entropy/round-02/choice"]
    assert flag(choice, "--learner") == [f"{base}/entropy/round-01/entropy-01"] and flag(choice, "--take") == ["10"]


def test_chosen_prompts_let_the_set_grow_in_a_new_folder_each_round():
    steps = {step.name: step for step in chain(policy=("entropy-prompts",), candidate_steps=5)}
    base = "{out}/seed-0"
    cheap = steps["seed-0/cheap-candidates/round-01/images"]
    assert flag(cheap, "--num-inference-steps") == ["5"]
    grown = steps["seed-0/entropy-prompts/round-02/images"]
    assert flag(grown, "--parent") == [f"{base}/entropy-prompts/round-01/images"] and "--extend" in grown.command
    assert flag(grown, "--prompts") == [f"{base}/entropy-prompts/round-02/choice/prompts.parquet"]
    assert "--num-inference-steps" not in grown.command
    choice = steps["seed-0/entropy-prompts/round-02/choice"]
    assert flag(choice, "--table") == [f"{base}/entropy-prompts/round-01/choice/prompts.parquet"]


def test_two_learners_have_seeds_of_their_own_and_go_on_apart():
    steps = {step.name: step for step in chain(policy=("disagreement",))}
    runs = [f"seed-0/disagreement/round-01/disagreement-01{second}" for second in ("", "-second")]
    seeds = {flag(step, "--seed")[0] for step in steps.values() if step.command[0] == "train"}
    assert len(seeds) == 6, "three rounds, two learners"
    assert [flag(steps[run], "--weights") for run in runs] == [
        ["{out}/seed-0/start/start"],
        ["{out}/seed-0/start/start-second"],
    ]
    choice = steps["seed-0/disagreement/round-02/choice"]
    assert flag(choice, "--learner") == [f"{{out}}/{run}" for run in runs]


def test_arms_of_comparison_draw_and_train_as_much_as_the_loop():
    config = PracticeConfig(**SMALL | {"policy": ("entropy", "random", "at-once", "same-compute")})
    arms = {arm.policy: arm for arm in _arms(config, _policies(config), 0)}
    last = {name: arm.clones[-1] for name, arm in arms.items() if arm.clones}
    assert {last[name].images for name in ("entropy", "random", "at-once")} == {20 + 2 * 10}
    assert {last[name].samples for name in ("entropy", "random", "at-once")} == {300}
    assert last["same-compute"].images == last["same-compute"].drawn == last["entropy"].drawn == 20 + 2 * 40
    assert last["same-compute"].samples == 300 + 2 * 40 // 3
    # What loops share is drawn and trained once; candidates are the same for all of them.
    names = [step.name for arm in arms.values() for step in arm.steps]
    assert len(names) == len(set(names)) and sum("candidates" in name for name in names) == 4


def test_every_command_is_one_of_the_stages_with_flags_that_they_have():
    from synclones.ablate.choose import ChooseConfig
    from synclones.evaluate.settings import EvaluateConfig
    from synclones.generate.settings import GenerateConfig
    from synclones.prompts.settings import BuildConfig
    from synclones.train.settings import TrainConfig

    stages = {"prompts": BuildConfig, "generate": GenerateConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    known = {name: {*flags_of(cls), "--config"} for name, cls in {**stages, "ablate": ChooseConfig}.items()}
    names = ("entropy", "entropy-prompts", "disagreement", "difficulty", "random", "at-once", "same-compute")
    for step in chain(policy=names, teacher="t", candidate_steps=3):
        assert {word for word in step.command if word.startswith("--")} <= known[step.command[0]], step


def test_what_no_loop_can_follow_is_refused_before_a_command_runs(tmp_path):
    for more, expected in (
        ({"policy": ("entropi",)}, "did you mean 'entropy'"),
        ({"policy": ("entropy", "entropy")}, "'entropy' is given twice"),
        ({"policy": ("difficulty",)}, "difficulty asks one; name a model"),
        ({"teacher": "t"}, "no policy asks one"),
        ({"out": tmp_path / "a,b"}, "has a comma"),
        ({"rounds": 0}, "--rounds: 0 was given"),
    ):
        with pytest.raises(InputError, match=expected):
            run_practice(PracticeConfig(**{"out": tmp_path / "x"} | SMALL | more))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ records


def test_a_command_runs_once_and_another_of_its_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "PROGRAM", (sys.executable, "-c", "import sys; open(sys.argv[2], 'a').write('x')"))
    step = Step("made/x", ("write", "{out}/made/x"))
    for _ in range(2):
        Running().run_all(tmp_path, [[step]], 1)
    assert (tmp_path / "made" / "x").read_text() == "x" and is_done(tmp_path, step)
    with pytest.raises(InputError, match="made/x was made by another command: 0 'write' there, 'read' asked"):
        is_done(tmp_path, replace(step, command=("read", "{out}/made/x")))
    (tmp_path / "made" / "x.step.json").write_text("{")
    with pytest.raises(VerificationError, match="damaged"):
        is_done(tmp_path, step)


def test_a_command_that_fails_ends_all_with_its_code(tmp_path, monkeypatch):
    monkeypatch.setattr(
        recorded, "PROGRAM", (sys.executable, "-c", "import sys, time; time.sleep(float(sys.argv[1])); sys.exit(3)")
    )
    chains = [[Step("a", ("60",))], [Step("b", ("0",)), Step("c", ("0",))]]
    with pytest.raises(SystemExit) as ended:
        Running().run_all(tmp_path, chains, 2)
    assert ended.value.code == 3 and not list(tmp_path.glob("*.json"))


# ------------------------------------------------------------------ kills


def run_once(config, root, kill="", die_at_record=0):
    """One start of the loop in a process of its own, with commands that draw nothing; return its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)
        os.environ |= {"FAKE_LOG": str(root / "log"), "FAKE_ROOT": str(root), "FAKE_KILL": kill}
        recorded.PROGRAM = (sys.executable, "-S", str(FAKE))
        practice.write_table = lambda out, arms, weights: (
            practice_table.write_atomic(out / "practice.md", b"table") or "t"
        )
        write, count = recorded.write_atomic, [0]

        def dying(path, data):
            count[0] += 1
            if count[0] == die_at_record:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, data)

        recorded.write_atomic = dying
        run_practice(config)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must not go on as a second test
        os._exit(1)


def tree(root):
    """All that a finished loop holds, but for times."""
    files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file() and path.name != "log"}
    kept = {name: path.read_bytes() for name, path in files.items() if path.suffix not in (".json", ".lock")}
    records = {name: json.loads(path.read_text()) for name, path in files.items() if name.name.endswith(".step.json")}
    return kept | {name: record["command"] for name, record in records.items()}


def test_a_loop_killed_in_every_phase_of_every_round_ends_as_if_it_had_not_been(tmp_path):
    more = {"policy": ("entropy", "entropy-prompts"), **SMALL}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log").touch()
    whole = PracticeConfig(out=tmp_path / "whole", **more)
    assert run_once(whole, tmp_path / "whole") == 0
    expected, steps = tree(tmp_path / "whole"), (tmp_path / "whole" / "log").read_text().count("end ")

    # Each command is killed in its middle with its caller, then the caller between the command's end and its record.
    root = tmp_path / "killed"
    config, begun = replace(whole, out=root), lambda: (root / "log").read_text().count("begin ")
    assert os.WIFSIGNALED(run_once(config, root, kill="1"))
    for step in range(steps):
        assert os.WIFSIGNALED(run_once(config, root, die_at_record=1)), step
        ended = run_once(config, root, kill=str(begun() + 2))  # the command again, its record, the middle of the next
        assert os.WIFSIGNALED(ended) == (step + 1 < steps), step
    assert tree(root) == expected
    assert begun() == 3 * steps, "what has its record is never run again"
    assert not [*root.rglob(".half")]


def test_more_rounds_policies_and_seeds_add_to_what_is_there(tmp_path):
    (tmp_path / "log").touch()
    small = PracticeConfig(out=tmp_path, **SMALL | {"policy": ("random",), "rounds": 1})
    assert run_once(small, tmp_path) == 0
    before, begun = tree(tmp_path), (tmp_path / "log").read_text().count("begin ")
    larger = replace(small, rounds=2, policy=("random", "at-once"), seeds=2)
    assert run_once(larger, tmp_path) == 0
    after = tree(tmp_path)
    assert {name: after[name] for name in before if "results" not in str(name)} == {
        name: data for name, data in before.items() if "results" not in str(name)
    }
    # Of the first seed: candidates, choice and learner of the second round, three commands at once, an evaluation.
    log = (tmp_path / "log").read_text().splitlines()[2 * begun :]
    assert sum("begin" in line and "seed-0" in line for line in log) == 8
    # Other numbers under the same names are refused.
    assert run_once(replace(larger, samples=200), tmp_path) != 0
    assert tree(tmp_path) == after


# ------------------------------------------------------------------ the real commands, minutes

TINY = {
    "generate.yaml": "num_inference_steps: 2\nbatch_size: 10\nimages_per_shard: 20\n",
    "train.yaml": "batch_size: 20\nembed_dim: 24\ndepth: 1\nnum_heads: 2\ncheckpoint_every: 2\ndevice: cpu\n",
}
PHASES = ("prompts", "images", "start", "choice", "images", "entropy-prompts-01", "results")
"""How the last parts of the names of steps begin, in the order in which a kill meets them."""


def begin(folder, out):
    """Start a small loop of the lab's."""
    settings = ("--generate-config", folder / "generate.yaml", "--train-config", folder / "train.yaml")
    sizes = ("--rounds", 1, "--start", 20, "--candidates", 40, "--samples", 200)
    command = ("ablate", "practice", "--policy", "entropy-prompts", "entropy", *sizes, *settings, "--out", out)
    words = [sys.executable, "-m", "synclones.cli", *map(str, command)]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def children_of(pid):
    """The processes whose parent it is."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in listed.split()]


def identity_of(out):
    """What must not depend on kills: hashes of sets, choices, weights and numbers."""
    files = [*out.rglob("SHA256SUMS"), *out.rglob("images.txt"), *out.rglob("scores.csv"), out / "practice.csv"]
    kept = {str(path.relative_to(out)): path.read_bytes() for path in files if "checkpoints" not in path.parts}
    tables = {str(path.relative_to(out)): PromptTable(path).check() for path in out.rglob("prompts.parquet")}
    runs = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("export/model.safetensors")}
    return kept | tables | runs


@pytest.mark.slow
def test_a_loop_of_the_lab_killed_in_each_phase_has_the_rounds_bytes_and_weights_of_one_that_was_not(tmp_path):
    for name, text in TINY.items():
        (tmp_path / name).write_text(text)
    whole = begin(tmp_path, "whole")
    assert whole.communicate()[1] is not None and whole.returncode == 0
    for number, phase in enumerate(PHASES):
        process = begin(tmp_path, "killed")
        for line in process.stderr:  # until a command of this phase begins, and then a while into it
            if line.partition(": synclones ")[0].rpartition("/")[2].startswith(phase) and ": synclones " in line:
                time.sleep(random.Random(number).uniform(0.2, 2))  # the rest takes ten seconds on a fast machine
                break
        for pid in (process.pid, *children_of(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, phase
    last = begin(tmp_path, "killed")
    last.communicate()
    assert last.returncode == 0
    expected = identity_of(tmp_path / "whole")
    assert identity_of(tmp_path / "killed") == expected and len(expected) > 12
    # Any image of the last round can be drawn again, and the learner traced to the choice that it was trained on.
    base = tmp_path / "killed" / "seed-0"
    redraw = ("generate", "redraw", base / "entropy-prompts/round-01/images", "--index", "25")
    assert subprocess.run([sys.executable, "-m", "synclones.cli", *map(str, redraw)]).returncode == 0
    for run in ("entropy/round-01/entropy-01", "entropy-prompts/round-01/entropy-prompts-01"):
        shown = trace(base / run)
        assert "\n" in shown and "choose " in shown and "changed since" not in shown and "not found here" not in shown

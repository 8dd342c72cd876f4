"""Only what was asked for is written: what is refused leaves an empty folder as it was, and a rerun no file touched."""

import signal
import subprocess

import pytest
from conftest import ROOT

from synclones.base.process import run_main
from synclones.cli import dispatch

REFUSED = [
    "prompts build --classes nope",
    "prompts build --recipe nope",
    "prompts caption --images nope",
    "prompts write --classes nope --server http://localhost:1",
    "prompts balance --captions nope.csv --concepts cifar10",
    "generate --prompts nope.parquet --preset lab",
    "generate --preset nope",
    "generate --model nope",
    "generate --preset lab --num-images 5000",
    "generate --preset lab --size-px 33",
    "generate --preset lab --part 3/2",
    "generate --preset lab --device cuda",
    "generate --preset lab --near-duplicates-of nope",
    "train --recipe nope",
    "train --recipe lab --data nope",
    "train --recipe lab --weights nope",
    "train --recipe lab --validate nope",
    "train --recipe lab --batch-norm recomputed --batch-norm-data nope",
    "train --recipe lab --device cuda",
    "train --recipe lab --objective nope",
    "train --recipe lab-clip --zero-shot-classes nope.csv",
    "evaluate --model nope",
    "evaluate --model nope --suite lab",
    "evaluate --data nope",
    "evaluate --outliers nope",
    "evaluate --device cuda",
    "evaluate --suite lab --device cuda",
    "evaluate --suite nope",
    "evaluate --suite synthetic-clones --data-root nope",
    "evaluate corrupt --data nope --out x",
    "evaluate audit nope --out y",
    "shards subset nope --per-class 3 --out y",
    "shards merge nope nope2 --out y",
    "shards export nope --to imagefolder --out y",
    "shards annotate nope --from z.csv --columns a",
    "shards dedup nope",
    "shards index nope",
    "shards retrieve nope --model x --classes cifar10 --out y",
    "ablate plan nope",
    "ablate run nope --world lab",
    "trace nope",
    "demo --seeds 0",
    "demo --table nope/table.md",
]


@pytest.fixture
def handlers():
    """Leave pytest its own handlers: the end of a command gives signals back to the system."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_refused_writes_nothing(tmp_path, monkeypatch, capfd, handlers, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: dispatch(command.split()))
    said = capfd.readouterr().err
    assert ended.value.code == 2 and said.startswith("synclones: error: "), said
    assert list(tmp_path.iterdir()) == []


SHORT = "--num-inference-steps 1 --batch-size 10 --images-per-shard 20"
AGAIN = [
    "prompts build --recipe class-name --classes lab-digits --num-images 40 --out p.parquet",
    f"generate --preset lab --prompts p.parquet --out data/x {SHORT}",
    "shards verify data/x",
    "shards stats data/x --out stats.html",
    "shards subset data/x --per-class 2 --out data/small",
    "shards merge data/x data/small --renumber --out data/both",
    "shards export data/x --to imagefolder --out data/folders",
    "shards dedup data/x --against data/small",
    "shards repair data/x",
    "shards finish data/x",
    "shards index data/folders",
    "shards gc data/x",
    "train --recipe lab --data data/x --out runs/x --batch-size 20 --samples 40 --torch-threads 1",
    "evaluate --model runs/x --data data/small --out results/x --resamples 100 --torch-threads 1",
]


def stamps(folder):
    """Path -> when it was written last, and which file it is; locks say who looked last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def test_a_command_run_again_touches_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in AGAIN:
        dispatch(command.split())
        before = stamps(tmp_path)
        dispatch(command.split())
        after = stamps(tmp_path)
        assert {path for path in before | after if before.get(path) != after.get(path)} == set(), command
    # Other words for the same: nothing is drawn, so nothing is written.
    dispatch(AGAIN[1].replace("p.parquet", str(tmp_path / "p.parquet")).split())
    assert stamps(tmp_path) == before


def test_distclean_leaves_what_somebody_made(tmp_path):
    lab = ["data/lab/plan.json", "data/lab-robust/x", "data/.lab.lab.lock", "runs/lab/x", "runs/.lab.lab.lock"]
    lab += ["results/lab/table.md", "lab-demo/x", "data/prompts/lab-clip-templates.parquet", ".venv/x", "build/x"]
    own = [
        "data/animals/plan.json",
        "data/prompts/animals.parquet",
        "runs/animals/x",
        "ablations/x",
        "data/lab-given/x",
    ]
    for name in (*lab, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    make = ["make", "--silent", "-f", str(ROOT / "Makefile"), "distclean"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(own)

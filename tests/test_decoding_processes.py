"""Decoding in processes: the batches of threads, faults told where they are, and no process left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import TINY

from synclones.base.config import load
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.shards.loading.batch import Batch, tensors_of
from synclones.shards.loading.batches import MOST_THREADS
from synclones.train.job import Job, prepare
from synclones.train.run import STAGE
from synclones.train.settings import TrainConfig

MANY = MOST_THREADS + 1
CROPPED = ("--crop-scale-min", "0.3", "--rand-augment", "torchvision")
CAPTIONS = (
    "--objective",
    "clip",
    "--text-length",
    "8",
    "--text-width",
    "32",
    "--text-layers",
    "1",
    "--text-heads",
    "2",
)
SEVERAL = ("--objective", "multipositive", "--positives", "label", "--views", "2", "--local-views", "2")
LOCAL = ("--local-size-px", "16", "--projection-hidden", "16", "--projection-dim", "8")


def _job(dataset: Path, tmp_path: Path, threads: int, *flags: str) -> Job:
    arguments = ["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--decode-threads", str(threads)]
    return prepare(load(TrainConfig, [*arguments, *flags], "train", STAGE.presets), 0, 1)


def _batches(job: Job) -> list[Batch]:
    return list(job.loader().batches(0, 9))


def _is_equal(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(each, name) for each in (one, other)) for name in ("source", "index", "times_seen")]
    tensors, others = tensors_of(one), tensors_of(other)
    return (
        (one.step, one.first) == (other.step, other.first)
        and all(np.array_equal(a, b) for a, b in pairs)
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


HELD_OUT = ("--hold-out", "0.2")
KINDS = {"cropped": CROPPED, "captions": CAPTIONS, "local crops": (*SEVERAL, *LOCAL), "held out": HELD_OUT}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_processes_fill_the_batches_of_threads(dataset, tmp_path, flags):
    by_threads, by_processes = (_batches(_job(dataset, tmp_path, threads, *flags)) for threads in (1, MANY))
    assert len(by_threads) == len(by_processes) == 9
    assert all(_is_equal(a, b) for a, b in zip(by_threads, by_processes, strict=True))
    assert not all(_is_equal(by_threads[0], other) for other in by_processes)
    assert not active_children()


def _damaged(folder: Path) -> None:
    tar = sorted(folder.glob("train-*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[2500] ^= 255
    tar.write_bytes(data)


def test_a_damaged_image_is_left_out_or_named_as_by_threads(copy_of_dataset, tmp_path):
    _damaged(copy_of_dataset)
    seen = []
    for threads in (1, MANY):
        loader = _job(copy_of_dataset, tmp_path, threads, "--on-bad-sample", "skip").loader()
        seen.append((list(loader.batches(0, 9)), sorted(loader.skipped)))
    assert all(_is_equal(a, b) for a, b in zip(seen[0][0], seen[1][0], strict=True))
    assert seen[0][1] == seen[1][1] != []
    assert any((batch.weights == 0).any() for batch in seen[1][0])
    with pytest.raises(VerificationError, match="sample .* is damaged"):
        _batches(_job(copy_of_dataset, tmp_path, MANY))
    assert not active_children()


def test_a_set_that_is_gone_is_refused_by_its_own_line(copy_of_dataset, tmp_path):
    job = _job(copy_of_dataset, tmp_path, MANY)
    shutil.rmtree(copy_of_dataset)
    with pytest.raises(InputError, match="no such folder"):
        _batches(job)


def test_whoever_stops_early_leaves_no_process(dataset, tmp_path):
    batches = _job(dataset, tmp_path, MANY).loader().batches(0, 100)
    next(batches)
    assert len(active_children()) == MANY
    batches.close()
    assert not active_children()


def test_a_killed_decoding_process_ends_the_training_with_a_line(dataset, tmp_path):
    batches = _job(dataset, tmp_path, MANY).loader().batches(0, 100)
    next(batches)
    os.kill(active_children()[2].pid, signal.SIGKILL)
    with pytest.raises(MachineError, match="a decoding process ended .* lower --decode-threads"):
        list(batches)
    assert not active_children()


def test_decoding_processes_end_with_a_killed_training(dataset, tmp_path):
    command = [sys.executable, "-m", "synclones.train.run", "--data", str(dataset), "--out", str(tmp_path / "run")]
    flags = [*TINY, "--steps", "100000", "--decode-threads", str(MANY)]
    checkpoints = tmp_path / "run" / "checkpoints"
    with subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL) as training:
        try:
            _until(lambda: any(checkpoints.glob("step-*")))  # any: those before the last two are gone in a moment
            server, *decoding = _descendants(training.pid)
            assert len(decoding) == MANY
            for pid in (server, *decoding):
                os.kill(pid, signal.SIGTERM)  # as a scheduler sends it to all: the training decides
            newest = max(checkpoints.glob("step-*"))
            _until(lambda: max(checkpoints.glob("step-*"), default=newest) > newest)
            assert training.poll() is None
        finally:
            training.kill()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoding))


def _descendants(pid: int) -> list[int]:
    """Return the processes that start decoding processes, then these."""
    servers = [each for each in _children(pid) if b"forkserver" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return servers + [each for server in servers for each in _children(server)]


def _children(pid: int) -> list[int]:
    return [int(each) for at in Path(f"/proc/{pid}/task").glob("*/children") for each in at.read_text().split()]


def _until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about within a minute")

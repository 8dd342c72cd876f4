"""The two-node commands of docs/cluster.md, on two network namespaces joined by a cable, over one folder."""

# ruff: noqa: F811 - fixtures of another file
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, identity
from test_train_ranks import LINE, ended_as, flags, in_two, script  # noqa: F401 - fixtures

from synclones.generate.run import main

SETTINGS = ("--preset", "lab", "--num-inference-steps", "1", "--batch-size", "5", "--images-per-shard", "10")

pytestmark = [pytest.mark.slow, pytest.mark.root]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes():
    """(namespace, address) of two nodes that reach nothing but each other."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    names = [f"synclones-{os.getpid()}-{n}" for n in range(2)]
    links = [f"sc{os.getpid() % 10_000}-{n}" for n in range(2)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for number, (name, link) in enumerate(zip(names, links, strict=True)):
            _ip("link", "set", link, "netns", name)
            for words in (("addr", "add", f"10.77.0.{number + 1}/24", "dev", link), ("link", "set", link, "up")):
                _ip("netns", "exec", name, "ip", *words)
            _ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        yield [
            (name, f"10.77.0.{number + 1}", link) for number, (name, link) in enumerate(zip(names, links, strict=True))
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _start(nodes, launcher: list[str], *job: str) -> list[subprocess.Popen]:
    """Start a job on both nodes, a process on each, as docs/cluster.md says."""
    torchrun = Path(sys.executable).with_name("torchrun")
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "job"]
    meeting += ["--rdzv-endpoint", "10.77.0.1:29400", *launcher]
    running = []
    for number, (name, address, link) in enumerate(nodes):
        own = ["--local-addr", address, "--rdzv-conf", f"is_host={'false' if number else 'true'}"]
        command = ["ip", "netns", "exec", name, str(torchrun), *meeting, *own, *job]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": link}
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return running


def _end(running: list[subprocess.Popen]) -> tuple[list[int], str]:
    """Wait for both nodes; return their exit codes and all that they wrote to standard error."""
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], "".join(said)


def test_two_nodes_draw_one_set(nodes, prompts, tmp_path):
    job = [*SETTINGS, "--prompts", str(prompts), "--out", str(tmp_path / "two")]
    codes, said = _end(_start(nodes, [], str(ROOT / "generate" / "run.py"), *job))
    assert codes == [0, 0], said[-2000:]
    main([*SETTINGS, "--prompts", str(prompts), "--out", str(tmp_path / "one")])
    assert identity(tmp_path / "two") == identity(tmp_path / "one")


def test_two_nodes_train_the_clone_of_two_processes(nodes, dataset, in_two, tmp_path):
    codes, said = _end(_start(nodes, [], str(ROOT / "train" / "run.py"), *flags(dataset, tmp_path / "run")))
    assert codes == [0, 0], said[-2000:]
    ended_as(tmp_path / "run", in_two)


def test_a_process_killed_on_one_of_two_nodes_is_brought_back(nodes, dataset, in_two, script, tmp_path):
    job = [str(script), "SIGKILL", *flags(dataset, tmp_path / "run")]
    codes, said = _end(_start(nodes, ["--max-restarts", "3"], *job))
    assert codes == [0, 0], said[-3000:]
    assert "resuming after step " in said
    ended_as(tmp_path / "run", in_two)


def test_a_cable_that_is_cut_ends_both_nodes_in_time_and_another_start_goes_on(
    nodes,
    dataset,
    in_two,
    script,
    tmp_path,
):
    # Started as srun does, without torchrun, whose own agents wait for each other for five minutes more.
    job = flags(dataset, tmp_path / "run", "--timeout-s", "10", "--checkpoint-every", "2")
    running = []
    for number, (name, _, link) in enumerate(nodes):
        launch = {"RANK": str(number), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        launch |= {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29401", "GLOO_SOCKET_IFNAME": link}
        command = ["ip", "netns", "exec", name, sys.executable, str(script), "cut", *job]
        environment = {**os.environ, **launch, "ACCELERATE_USE_CPU": "true"}
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    started = time.monotonic()
    codes, said = _end(running)
    assert codes == [4, 4] and said.count(LINE) == 2 and time.monotonic() - started < 90, (codes, said[-3000:])
    for name, _, link in nodes:
        _ip("netns", "exec", name, "ip", "link", "set", link, "up")
    codes, said = _end(_start(nodes, [], str(ROOT / "train" / "run.py"), *job))
    assert codes == [0, 0] and "resuming after step " in said, said[-3000:]
    ended_as(tmp_path / "run", in_two)

"""The two-node command of docs/cluster.md, on two network namespaces joined by a cable, over one folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, identity

from synclones.generate.run import main

SETTINGS = ("--preset", "lab", "--num-inference-steps", "1", "--batch-size", "5", "--images-per-shard", "10")


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


@pytest.mark.slow
@pytest.mark.root
def test_two_nodes_draw_one_set(nodes, prompts, tmp_path):
    torchrun = Path(sys.executable).with_name("torchrun")
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "draw"]
    meeting += ["--rdzv-endpoint", "10.77.0.1:29400"]
    job = [str(ROOT / "generate" / "run.py"), *SETTINGS, "--prompts", str(prompts), "--out", str(tmp_path / "two")]
    running = []
    for number, (name, address, link) in enumerate(nodes):
        own = ["--local-addr", address, "--rdzv-conf", f"is_host={'false' if number else 'true'}"]
        command = ["ip", "netns", "exec", name, str(torchrun), *meeting, *own, *job]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": link}
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    main([*SETTINGS, "--prompts", str(prompts), "--out", str(tmp_path / "one")])
    assert identity(tmp_path / "two") == identity(tmp_path / "one")

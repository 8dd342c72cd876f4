"""Generations whose k-th write, sync, rename, cut or removal fails, or kills the process, for every k.

    python tests/fault_harness.py WORK_FOLDER PROMPTS STRIDE [naive]

Children are forked after the generator is loaded; strace attaches to one and lets the kernel refuse its k-th call. With
STRIDE 1 every k meets every fault; with STRIDE n only multiples of n are tried, each with the fault whose turn it is.
Prints JSON: runs by call, exit codes, names of final files that were ever wrong, and whether each rerun ended whole.
"""

import json
import os
import select
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path

from kill_harness import hashes, load_once, make_naive

import synclones.generate.run as run
from synclones.base.process import run_main

FAULTS = {
    "write": ("error=ENOSPC", "error=EIO", "error=EDQUOT", "signal=KILL"),
    "fsync": ("error=EIO", "error=ENOSPC", "signal=KILL"),
    "rename": ("error=EIO", "error=ENOSPC", "signal=KILL"),
    "ftruncate": ("error=EIO", "signal=KILL"),
    "unlink": ("error=EIO", "signal=KILL"),
}
SETTINGS = ["--model", "lab", "--num-images", "20", "--batch-size", "5", "--images-per-shard", "10"]


def start(argv: list[str]) -> tuple[int, int]:
    """Fork a child that waits for a byte before it generates; its pid and the pipe to wake it."""
    wake, waker = os.pipe()
    pid = os.fork()
    if pid:
        os.close(wake)
        return pid, waker
    os.close(waker)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.read(wake, 1)
    try:
        run_main(lambda: run.main([*argv, "--num-inference-steps", "1", "--workers", "1"]))
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        os._exit(1)
    os._exit(0)


def generate(argv: list[str], fault: str = "") -> tuple[int, bool]:
    """Exit code (negative for a signal) of one run, and whether its fault was met."""
    pid, waker = start(argv)
    tracer, met = None, False
    if fault:
        call = fault.partition(":")[0]
        command = ["strace", "-f", "-qq", "-e", f"trace={call}", "-e", f"inject={fault}", "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _wait_until_traced(pid)
    os.write(waker, b"x")
    os.close(waker)
    if tracer:
        met = "INJECTED" in tracer.communicate(timeout=120)[1]
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code, met or code < 0


def _wait_until_traced(pid: int) -> None:
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        select.select([], [], [], 0.005)


def main() -> None:
    folder, prompts, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    load_once()
    if "naive" in sys.argv:
        make_naive()
    command = ["--prompts", prompts, *SETTINGS, "--out"]
    generate([*command, str(folder / "reference")])
    reference = hashes(folder / "reference")
    runs, codes, wrong, broken, leftovers = Counter(), Counter(), set(), [], set()
    for call, faults in FAULTS.items():
        if "naive" in sys.argv and (wrong or broken):
            break
        for k in count(stride, stride):
            turn = faults if stride == 1 else (faults[(k // stride) % len(faults)],)
            clean = True
            for fault in turn:
                out = folder / f"{call}-{k}-{fault.partition('=')[2]}"
                code, met = generate([*command, str(out)], f"{call}:{fault}:when={k}")
                clean &= not met
                runs[call] += met
                codes[f"{call} {fault.partition('=')[2]}: {code}"] += met
                found = hashes(out)
                wrong |= {f"{name} after {call} {k} {fault}" for name in found if found[name] != reference[name]}
                if code:
                    code, _ = generate([*command, str(out)])
                if code or hashes(out) != reference:
                    broken.append(out.name)
                leftovers |= {path.name for path in out.glob(".*")} if code == 0 else set()
            if clean or "naive" in sys.argv and (wrong or broken):
                break  # the naive writer has shown all that it had to
    print(json.dumps({
        "runs": runs, "codes": codes, "wrong": sorted(wrong), "broken": broken, "leftovers": sorted(leftovers)
    }))  # fmt: skip


if __name__ == "__main__":
    main()

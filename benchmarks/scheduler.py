"""Two workers of Ray against one, and against two processes without Ray, on the lab; equality first, interleaved.

    python benchmarks/scheduler.py

Wall time says how much faster two workers are where nothing else runs (its load is printed); CPU seconds per image say
whether sharing costs work, on a busy machine too. Starts are measured apart, by the same command on a finished set.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from uuid import uuid4

from synclones.base import ray_workers
from synclones.base.process import childs_environment
from synclones.base.ray_workers import RayConfig, Size, run_on_ray, work
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes

IMAGES, ROUNDS, PORT = int(os.environ.get("IMAGES", "2000")), int(os.environ.get("ROUNDS", "3")), 6391
JOB = ["generate", "--preset", "lab", "--images-per-shard", "100", "--workers", "1"]


def _cpu_s() -> float:
    """Return the CPU seconds of this process' children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(command: list[str], folder: str, rank: int, size: Size) -> tuple[int, str]:
    """Do `work` and leave the CPU seconds of its command beside the set."""
    before = _cpu_s()
    outcome = work(command, folder, rank, size)
    Path(command[-1]).with_name(f"cpu-{rank}").write_text(str(_cpu_s() - before))
    return outcome


def on_ray(workers: int, out: Path, prompts: Path) -> tuple[float, float]:
    """Draw with Ray and return wall and CPU seconds."""
    started = time.monotonic()
    run_on_ray(RayConfig(workers=workers, cpus=1), [*JOB, "--prompts", str(prompts), "--out", str(out)])
    wall = time.monotonic() - started
    return wall, sum(float(out.with_name(f"cpu-{rank}").read_text()) for rank in range(workers))


def without_ray(processes: int, out: Path, prompts: Path) -> tuple[float, float]:
    """Draw with processes that a shell could have started."""
    command = [sys.executable, "-P", "-m", "synclones.cli", *JOB, "--prompts", str(prompts), "--out", str(out)]
    started, before = time.monotonic(), _cpu_s()
    environment = childs_environment() | {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(processes)
    ]
    assert [process.wait() for process in running] == [0] * processes
    return time.monotonic() - started, _cpu_s() - before


WAYS = {"Ray, 1 worker": (on_ray, 1), "Ray, 2 workers": (on_ray, 2), "2 processes, no Ray": (without_ray, 2)}


def main() -> None:
    """Print the table."""
    if find_spec("ray") is None:
        print(ray_workers.HOW_TO_INSTALL)
        return
    ray_workers.work = measured
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{PORT}"
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    head = [*ray, "start", "--head", "--block", "--num-cpus", "2", "--port", str(PORT)]
    head += ["--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        cluster = subprocess.Popen(head, stdout=nowhere, stderr=nowhere)
        try:
            asks = [*ray, "health-check", "--address", os.environ["RAY_ADDRESS"]]
            while subprocess.run(asks, stdout=nowhere, stderr=nowhere).returncode:
                assert cluster.poll() is None, "Ray does not start"
            _compare(Path(folder))
        finally:
            cluster.terminate()
            cluster.wait()


def _compare(folder: Path) -> None:
    prompts = folder / "p.parquet"
    build("clip-templates", load_classes("lab-digits"), IMAGES, 0, prompts)
    times: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in WAYS}
    sums = set()
    for number in range(ROUNDS):
        for name, (way, count) in WAYS.items():
            out = folder / f"{number}-{count}-{way.__name__}" / "set"
            out.parent.mkdir()
            drawn, again = way(count, out, prompts), way(count, out, prompts)
            sums.add((out / "SHA256SUMS").read_bytes())
            times[name].append((*drawn, *again))
            shutil.rmtree(out.parent)
    assert len(sums) == 1, "the sets differ"
    print(f"\n{IMAGES} images, {ROUNDS} rounds, medians; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| way | wall s | of it start s | CPU s | of it start s | CPU ms per image |\n|---|---|---|---|---|---|")
    rows = {name: [median(column) for column in zip(*rounds, strict=True)] for name, rounds in times.items()}
    for name, (wall, cpu, start, start_cpu) in rows.items():
        cells = (wall, start, cpu, start_cpu, 1000 * (cpu - start_cpu) / IMAGES)
        print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    one, two = rows["Ray, 1 worker"], rows["Ray, 2 workers"]
    per_image = (one[1] - one[3]) / (two[1] - two[3])
    print(f"two workers draw {(one[0] - one[2]) / (two[0] - two[2]):.2f} times as fast as one, starts apart; ")
    print(f"{one[0] / two[0]:.2f} times with them; by CPU seconds per image {2 * per_image:.2f} times on free cores")


if __name__ == "__main__":
    main()

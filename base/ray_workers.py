"""``synclones ray``: one command whose work any number of processes share, as tasks that Ray starts and starts again.

In: how many workers of what size, and the command. Out: what the command makes, with the bytes of a single process. Ray
only says where processes run and starts lost ones anew; what is done is known from the command's own files alone.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synclones.base.config import check_ranges
from synclones.base.errors import InputError, MachineError, SynclonesError, VerificationError, one_line
from synclones.base.machine import granted_cores
from synclones.base.process import (
    childs_environment,
    shell_code,
    stop_if_asked,
    stop_on_signals,
    stopping_between_steps,
)
from synclones.base.units import format_count

HOW_TO_INSTALL = "Ray is not installed; run: pip install 'synclones[ray]', here and on all nodes of the cluster"
_FINAL = {0: None, InputError.exit_code: InputError, VerificationError.exit_code: VerificationError}
_MARK = "synclones: error: "


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Run the command that follows, one whose work processes can share, as workers on a Ray cluster."""

    address: str = ""
    """Ray cluster, HOST:PORT or ray://HOST:PORT; by default this machine's, or a new one on it."""
    workers: int = 0
    """Processes that share the work; 0 for as many as the cluster has room for now. More wait until there is room."""
    cpus: int = 0
    """CPU cores of a worker; 0 for its GPUs' share of their node, or a whole node without GPUs."""
    gpus: int = -1
    """GPUs of a worker; -1 for one if the cluster has any."""
    retries: int = 20
    """How often a worker that dies, or that its machine fails, is started again."""

    def __post_init__(self) -> None:
        check_ranges(self, workers=(0, 100_000), cpus=(0, 4096), gpus=(-1, 64), retries=(0, 1_000_000))


@dataclass(frozen=True)
class Size:
    """How many workers there are, and what each of them has."""

    workers: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        gpus = f" and {format_count(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{format_count(self.workers, 'worker')} with {format_count(self.cpus, 'core')}{gpus} each"


class Lost(Exception):
    """A worker ended in a way that another start may not."""


def run_on_ray(config: RayConfig, command: Sequence[str]) -> None:
    """Run ``command`` (the words after ``synclones``) as workers on Ray, and wait for all of them.

    Raises:
        InputError: Ray is not installed, the cluster has no such nodes, or a worker refuses its input.
        VerificationError: a worker finds damage.
        MachineError: there is no cluster, or a worker was lost too often.
    """
    ray = _ray()
    try:
        _connect(ray, config.address)
        # Ray has its own handler of SIGTERM, which this one replaces.
        stop_on_signals()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        size = workers_that_fit(nodes, config)
        waits = "" if any(_room(node, size) for node in nodes) else ", once a node has room for them"
        _say(f"{size} of Ray{waits}")
        tasks = _start(ray, size, config.retries, list(command))
        with stopping_between_steps():
            _wait(ray, tasks)
    finally:
        ray.shutdown()  # ends the workers that still run


def _start(ray: Any, size: Size, retries: int, command: list[str]) -> dict[Any, int]:
    """Hand the workers to Ray and return which task is which worker."""
    # One that dies, with its node or alone, costs a retry, and so does one that says that its machine failed.
    again = {"max_retries": retries, "retry_exceptions": [Lost]}
    task, folder = ray.remote(work), os.getcwd()

    def started(rank: int) -> Any:
        worker = task.options(name=f"worker {rank}", num_cpus=size.cpus, num_gpus=size.gpus, **again)
        return worker.remote(command, folder, rank, size)

    return {started(rank): rank for rank in range(size.workers)}


def _ray() -> Any:
    # Ray reports its use to its makers unless it is told not to, and that is for the user to decide.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError(HOW_TO_INSTALL) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address or None, logging_level="WARNING")
    except Exception as error:  # Ray raises the plain class too, and any of them means that there is none
        reason = one_line((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
        given = f"--address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')}"
        raise MachineError(
            f"{given}: no Ray cluster answers or starts ({reason}); start one with `ray start --head`, and, "
            "if it asks for a token, set RAY_AUTH_MODE=token"
        ) from None


def _say(what: str) -> None:
    print(f"synclones: {what}", file=sys.stderr, flush=True)


def _room(node: dict[str, float], size: Size) -> int:
    """Return how many workers of this size the node has cores and GPUs for."""
    cores = int(node.get("CPU", 0)) // size.cpus
    return min(cores, int(node.get("GPU", 0)) // size.gpus) if size.gpus else cores


def workers_that_fit(nodes: Sequence[dict[str, float]], config: RayConfig) -> Size:
    """Return number and size of the workers: as asked, and else as many as fit on the nodes.

    Args:
        nodes: of each node what Ray says that it has: ``CPU`` cores, ``GPU`` devices, and more.

    Raises:
        InputError: no node has that many cores or GPUs, or it is not known how large workers of nodes yet to come are.
    """
    gpus = config.gpus if config.gpus >= 0 else int(any(node.get("GPU", 0) >= 1 for node in nodes))
    room = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    # A GPU's share of its node's cores, or all of them; of unlike nodes the smallest share, which fits everywhere.
    shares = [cpus // (devices // gpus if gpus else 1) for cpus, devices in room if cpus and devices >= gpus]
    cpus = config.cpus or max(1, min(shares, default=0))
    fitting = sum(_room(node, Size(0, cpus, gpus)) for node in nodes)
    # An elastic cluster may have no such node yet; then the user says what to ask it for.
    if not fitting and not (config.workers and config.cpus):
        raise InputError(
            f"--cpus, --gpus: no node of the Ray cluster has {cpus} cores and {gpus} GPUs; ask for less, or, if the "
            "cluster grows when it is asked to, give --workers and --cpus"
        )
    return Size(config.workers or fitting, cpus, gpus)


def _wait(ray: Any, tasks: dict[Any, int]) -> None:
    """Wait for all workers; refused input or damage ends all of them, a lost one leaves its work to the others."""
    pending, lost = list(tasks), ""
    while pending:
        stop_if_asked()
        finished, pending = ray.wait(pending, timeout=0.5)
        for task in finished:
            try:
                code, line = ray.get(task)
            except ray.exceptions.RayError as error:
                # Of Ray's page the end says what happened.
                last = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
                lost = lost or f"worker {tasks[task]}: {one_line(last)[:300]}"
                _say(f"lost for good: {lost}")
                continue
            kind: type[SynclonesError] | None = _FINAL[code]
            if kind is not None:
                raise kind(line)
    if lost:
        raise MachineError(f"{lost}; run the same command again to resume, with more --retries if nodes often die")


# ------------------------------------------------------------------ on a node


def work(command: list[str], folder: str, rank: int, size: Size) -> tuple[int, str]:
    """Run the command as one of several processes and return its exit code, 0, 2 or 3, and its last error line.

    Args:
        folder: working directory of who called, which relative paths of the command start from.

    Raises:
        Lost: it ended otherwise.
    """
    if not os.path.isdir(folder):
        where = os.uname().nodename
        return 2, f"{folder}: is no folder on {where}; start from one that all nodes of the Ray cluster share"
    fitting = max(1, granted_cores() // size.cpus)
    # The launcher's variables: who begins where, and how many of such processes share a node's cores. Ray hides GPUs.
    environment = childs_environment() | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size.workers),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(fitting),
    }
    called = [sys.executable, "-P", "-m", "synclones.cli", *command]
    line = ""
    with subprocess.Popen(
        called, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith(_MARK):
                line = text.removeprefix(_MARK).strip()
            else:
                print(text, end="", file=sys.stderr, flush=True)
    code = shell_code(process.returncode)
    if code not in _FINAL:
        raise Lost(f"ended with exit code {code} on {os.uname().nodename}" + (f": {line}" if line else ""))
    return code, line

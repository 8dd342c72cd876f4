"""Decodes batches in processes of their own, where many threads would wait for each other: Python runs one at a time.

In: what opens the loader once more in another process, and how many of them. Out: each batch as threads would have
filled it. Pixels are written into memory that all share, a ring of batches; it is no file in ``/dev/shm``, of which
containers have too little, and it goes with the last process that holds it.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np
import torch

from synclones.base.errors import MachineError
from synclones.shards.loading.batch import Batch, Filled, Slot, tensors_of
from synclones.shards.loading.extras import BatchExtras

_ALIGNED = 64
_SECONDS_TO_END = 5.0


class Loader(Protocol):
    """What fills places of a batch with images."""

    def fill(self, batch: Batch, slots: dict[int, Slot]) -> Filled:
        """Decode images of a batch into their places there."""


@dataclass(frozen=True)
class _Layout:
    """Where the tensors of each batch of the ring lie in the shared memory."""

    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]
    ring: int

    def starts(self) -> dict[str, int]:
        """Return where each tensor of the first batch begins, and under an empty name how long a batch is."""
        starts, end = {}, 0
        for name, (shape, dtype) in self.tensors.items():
            starts[name] = end
            end += -(-prod(shape) * dtype.itemsize // _ALIGNED) * _ALIGNED
        return starts | {"": end}

    def views(self, memory: mmap.mmap) -> list[dict[str, torch.Tensor]]:
        """Return the tensors of all batches of the ring."""
        starts = self.starts()
        return [
            {
                name: torch.frombuffer(
                    memory, dtype=dtype, count=prod(shape), offset=number * starts[""] + starts[name]
                ).view(shape)
                for name, (shape, dtype) in self.tensors.items()
            }
            for number in range(self.ring)
        ]


class DecodingProcesses:
    """Processes that fill the batches of one rank; batches are asked for and come back in the same order."""

    def __init__(self, reopen: Callable[[], Loader], count: int, pattern: Batch, ring: int):
        """Start ``count`` processes; ``pattern``: an empty batch, ``ring``: how many are asked for at once at most."""
        tensors = tensors_of(pattern)
        layout = _Layout({name: (tuple(each.shape), each.dtype) for name, each in tensors.items()}, ring)
        blank = {name: each[:1].clone() for name, each in tensors.items() if name not in ("pixels", "local")}
        descriptor, num_bytes = _memory_file(), ring * layout.starts()[""]
        os.ftruncate(descriptor, num_bytes)
        self._ring, self._asked, self._answered = layout.views(mmap.mmap(descriptor, num_bytes)), 0, 0
        context, self._pipes, self._processes = _context(reopen), [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            work = _Work(reopen, layout, blank, num_bytes)
            process = context.Process(target=_decode, args=(work, _Descriptor(descriptor), theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        os.close(descriptor)
        # Before multiprocessing ends what is left by a signal, which these processes leave to the training.
        self.close = Finalize(self, _close, (self._pipes, self._processes), exitpriority=100)

    def ask(self, slots: list[Slot]) -> None:
        """Ask for the next batch; every process gets as many of its images, of neighbouring shards."""
        order = sorted(range(len(slots)), key=lambda number: (slots[number].part, slots[number].position))
        at, count = self._asked % len(self._ring), len(self._pipes)
        for number, pipe in enumerate(self._pipes):
            mine = order[number * len(order) // count : (number + 1) * len(order) // count]
            with _processes_at_work():
                pipe.send((at, mine, [slots[each] for each in mine]))
        self._asked += 1

    def answer(self, batch: Batch) -> list[Filled]:
        """Wait for the oldest batch that was asked for, and copy it into ``batch``.

        Raises:
            MachineError: a decoding process ended.
            Exception: what stopped one.
        """
        answers: list[Any] = []
        for pipe in self._pipes:
            with _processes_at_work():
                answers.append(pipe.recv())
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        filled = self._ring[self._answered % len(self._ring)]
        for name, tensor in tensors_of(batch).items():
            tensor.copy_(filled[name])
        self._answered += 1
        return answers


def _context(reopen: Callable[[], Loader]) -> Any:
    """Return what starts processes: one that has imported what they need, and forks, so that they share its memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, getattr(reopen, "func", reopen).__module__])
    return context


@contextlib.contextmanager
def _processes_at_work() -> Any:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise MachineError("a decoding process ended (killed, or out of memory?); lower --decode-threads") from None


def _memory_file() -> int:
    """Return the descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


def _close(pipes: list[Connection], processes: list[Any]) -> None:
    for pipe in pipes:
        pipe.close()  # which is how they know
    for process in processes:
        process.join(_SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


# ------------------------------------------------------------------ in the other process


@dataclass(frozen=True)
class _Work:
    reopen: Callable[[], Loader]
    layout: _Layout
    blank: dict[str, torch.Tensor]
    num_bytes: int


class _Descriptor:
    """A file descriptor that a process which is being started receives."""

    def __init__(self, number: int):
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.number),)


def _received(duplicate: Any) -> _Descriptor:
    return _Descriptor(duplicate.detach())


def _decode(work: _Work, descriptor: _Descriptor, pipe: Connection) -> None:
    """Fill what is asked for until nobody asks any more."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the training ends after its step, and this process with it
    torch.set_num_threads(1)
    ring = work.layout.views(mmap.mmap(descriptor.number, work.num_bytes))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        try:
            loader = work.reopen()
        except Exception as error:  # noqa: BLE001 - it is raised where the batch was asked for
            pipe.recv()
            pipe.send(error)
            return
        while True:
            at, numbers, slots = pipe.recv()
            try:
                for name, start in work.blank.items():
                    ring[at][name][numbers] = start
                answer: Any = loader.fill(_batch(ring[at]), dict(zip(numbers, slots, strict=True)))
            except Exception as error:  # noqa: BLE001 - likewise
                answer = error
            pipe.send(answer)


def _batch(tensors: dict[str, torch.Tensor]) -> Batch:
    extras = BatchExtras(*(tensors.get(name) for name in ("tokens", "caption", "array")))
    return Batch(
        step=0,
        pixels=tensors["pixels"],
        labels=tensors["labels"],
        weights=tensors["weights"],
        source=np.zeros(0, np.int64),
        index=tensors["index"].numpy(),
        times_seen=np.zeros(0, np.int64),
        local=tensors.get("local"),
        extras=extras,
    )

"""What all processes of a training do at the same step though only one of them knows why: a stop, a checkpoint in time.

In: what this process asks for after each step. Out: the same answer on every process.
"""

import time
from collections import deque
from typing import Any

import torch
import torch.distributed
from accelerate.utils import broadcast_object_list

LAG_STEPS = 2


def agreed(value: Any) -> Any:
    """Return on every process what the first one gives."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


class Agreement:
    """Tells all processes of what any of them asks for; with several, two steps later, so that none has to wait."""

    def __init__(self, world_size: int, device: torch.device):
        self._alone, self._device = world_size == 1, device
        self._asked: deque[torch.Tensor] = deque()

    def exchange(self, *asked: int) -> list[int]:
        """Return the largest of what any process asked for, number by number; zeros for the first steps of several."""
        if self._alone:
            return list(asked)
        numbers = torch.zeros(len(asked), dtype=torch.int32, device=self._device)
        for at, number in enumerate(asked):
            if number:
                numbers[at].fill_(number)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX)
        self._asked.append(numbers)
        return self._asked.popleft().tolist() if len(self._asked) > LAG_STEPS else [0] * len(asked)


class Alarm:
    """Rings once per period of seconds; never without one."""

    def __init__(self, seconds: float | None):
        self._seconds, self._since = seconds, time.monotonic()

    def rings(self) -> bool:
        """Return whether the period is over; then the next one begins."""
        if self._seconds is None or time.monotonic() - self._since < self._seconds:
            return False
        self._since = time.monotonic()
        return True

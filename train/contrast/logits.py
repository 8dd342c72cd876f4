"""The logits of rows times columns, a block of rows at a time, and sums over those that are positives.

In: scaled rows, columns, the group of each and which are present. Out: blocks of logits, twice the same; running sums
of exponentials; sums of features by group. A block and its scratch are the largest tensors: up to ``KEPT_LOGITS``
logits stay for the backward pass, above it they are computed again. Positives need no matrix: the logits of a row and
its positives sum to the product of the row and the sum of their features, which is taken once per group, in a fixed
order of its members.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows whose logits are made together."""
KEPT_LOGITS = 4096 * 4096
"""Up to so many logits are kept from the forward for the backward pass: 64 MiB."""
ABSENT = -1e30
"""Added to the logits of what is left out: its exponential is 0, and a row of nothing else is finite."""


def without_autocast(features: Tensor) -> contextlib.AbstractContextManager[None]:
    """Keep arithmetic on ``features`` in the number format that they have; tensors without numbers have no other."""
    if features.device.type == "meta":
        return contextlib.nullcontext()
    without: contextlib.AbstractContextManager[None] = torch.autocast(features.device.type, enabled=False)
    return without


def _group_sums(values: Tensor, number: Tensor, size: int) -> Tensor:
    """Sum rows by number: [n, d], int64[n] below size -> [size, d], each sum in ascending order of rows."""
    ordered, order = number.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(size, device=number.device))
    return F.embedding_bag(order, values, starts, mode="sum")


@dataclass(frozen=True)
class Pairing:
    """Which columns count, and are positives, for which rows."""

    row_number: Tensor
    """int64[n]: rows and columns of one number are positives of each other; m for rows without any."""
    column_number: Tensor
    """int64[m], below m."""
    row_present: Tensor
    column_present: Tensor
    first_self: int | None
    count: Tensor
    """float64[n]: positives of each row."""
    sole: Tensor
    """int64[n]: the only positive of a row that has one, else any column."""

    @classmethod
    def of(
        cls,
        row_group: Tensor,
        column_group: Tensor,
        row_present: Tensor,
        column_present: Tensor,
        first: int | None = None,
    ) -> "Pairing":
        """Number the groups densely and count positives, without waiting for the device."""
        n, size = len(row_group), len(column_group)
        # Dense numbers in the order of the columns' groups: a group's number is looked up at its first appearance.
        ordered = column_group.sort().values
        dense = F.pad((ordered[1:] != ordered[:-1]).cumsum(0), (1, 0))
        places = [torch.searchsorted(ordered, group).clamp(max=size - 1) for group in (row_group, column_group)]
        row_number = torch.where(ordered[places[0]] == row_group, dense[places[0]], size)
        column_number = dense[places[1]]
        # How many columns a group has, and the sum of their indices, which is the index of one: exact in float64.
        index = torch.arange(size, device=column_group.device)
        facts = torch.stack([torch.ones_like(index), index], 1).double() * column_present[:, None]
        facts = _group_sums(facts, column_number, size + 1)[row_number]
        if first is not None:
            itself = slice(first, first + n)
            facts = facts - torch.stack([torch.ones_like(index), index], 1)[itself] * column_present[itself, None]
        count, total = facts.unbind(1)
        sole = total.long().clamp(0, size - 1)
        return cls(row_number, column_number, row_present, column_present, first, count, sole)

    @property
    def counts(self) -> Tensor:
        """bool[n]: rows with a weight and a positive."""
        return self.row_present & (self.count > 0)

    def to_rows(self, columns: Tensor) -> Tensor:
        """Return for each row the sum of its positives: [m, d] -> [n, d]."""
        sums = _group_sums(columns, self.column_number, len(columns) + 1)[self.row_number]
        if self.first_self is not None:
            sums -= columns[self.first_self : self.first_self + len(sums)]
        return sums

    def to_columns(self, rows: Tensor) -> Tensor:
        """Return for each column the sum of the rows that it is a positive of: [n, d] -> [m, d]."""
        sums = _group_sums(rows, self.row_number, len(self.column_number) + 1)[self.column_number]
        if self.first_self is not None:
            sums[self.first_self : self.first_self + len(rows)] -= rows
        return sums

    def mean(self, total: Tensor, sole: Tensor) -> Tensor:
        """Return the mean logit of positives, given their sum, and the one there is where there is one."""
        return torch.where(self.count == 1, sole, total / self.count.clamp(min=1).to(total.dtype))

    def shares(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of a row's mean for each of several positives, and for an only one: [n] -> two [n].

        The only one is taken off the softmax itself: near 1 they cancel, and a difference of sums would lose digits.
        """
        share = torch.where(self.counts, gradient / self.count.clamp(min=1).to(gradient.dtype), 0.0)
        alone = self.count == 1
        return torch.where(alone, 0.0, share), torch.where(alone, share, 0.0)


class Blocks:
    """The logits of rows times columns, a block of rows at a time: all columns, or those from the first row on."""

    def __init__(
        self, rows: Tensor, columns: Tensor, pairing: Pairing, upper: bool = False, bias: Tensor | None = None
    ):
        """Prepare blocks; rows are scaled already."""
        self.rows, self.columns, self.pairing, self.upper = rows, columns, pairing, upper
        self.row_absent = (~pairing.row_present).to(rows.dtype) * ABSENT
        self.column_absent = (~pairing.column_present).to(rows.dtype) * ABSENT + (0 if bias is None else bias)
        self.keep = len(rows) * len(columns) <= KEPT_LOGITS
        self.size = min(len(rows), ROWS_AT_ONCE) * len(columns)
        self.kept: list[Tensor] = []

    def forward(self) -> Iterator[tuple[int, int, Tensor]]:
        """Give begin, end and logits of each block, and keep them when they are few."""
        memory = None if self.keep else self.scratch()
        for begin, end in self.ranges():
            fresh = self.rows.new_empty(self.shape(begin, end)) if memory is None else self.part(memory, begin, end)
            block = self.computed(begin, end, fresh)
            if memory is None:
                self.kept.append(block)
            yield begin, end, block

    def backward(self, kept: tuple[Tensor, ...]) -> Iterator[tuple[int, int, Tensor]]:
        """Give the same again: kept ones, which stay as they are, or computed ones."""
        memory = None if kept else self.scratch()
        for at, (begin, end) in enumerate(self.ranges()):
            block = kept[at] if memory is None else self.computed(begin, end, self.part(memory, begin, end))
            yield begin, end, block

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Give begin and end of the rows of each block."""
        for begin in range(0, len(self.rows), ROWS_AT_ONCE):
            yield begin, min(begin + ROWS_AT_ONCE, len(self.rows))

    def scratch(self) -> Tensor:
        """Return memory for a block: fresh memory for each step would cost as much as the step."""
        return self.rows.new_empty(self.size)

    def shape(self, begin: int, end: int) -> tuple[int, int]:
        """Return the shape of a block."""
        return end - begin, len(self.columns) - (begin if self.upper else 0)

    def part(self, memory: Tensor, begin: int, end: int) -> Tensor:
        """Return as much of the memory as the block has, in its shape."""
        height, width = self.shape(begin, end)
        return memory[: height * width].view(height, width)

    def computed(self, begin: int, end: int, out: Tensor) -> Tensor:
        """Write the logits of a block."""
        start = begin if self.upper else 0
        torch.add(self.row_absent[begin:end, None], self.column_absent[None, start:], out=out)
        out.addmm_(self.rows[begin:end], self.columns[start:].T)
        if self.pairing.first_self is not None:
            out.diagonal(self.pairing.first_self + begin - start).fill_(ABSENT)
        return out


class ExponentialSums:
    """Running sums of exponentials, each relative to its largest logit."""

    def __init__(self, like: Tensor, size: int):
        """Begin with nothing."""
        self.peak, self.total = like.new_full((size,), -torch.inf), like.new_zeros(size)

    def add(self, where: slice, block: Tensor, dim: int, scratch: Tensor) -> None:
        """Take in a block, summed over the dimension."""
        peak, total = self.peak[where], self.total[where]
        top = torch.maximum(peak, block.amax(dim))
        part = torch.sub(block, top.unsqueeze(dim), out=scratch).exp_().sum(dim)
        total.mul_(peak.sub_(top).exp_()).add_(part)
        peak.copy_(top)

    def losses(self, mean: Tensor, counts: Tensor) -> Tensor:
        """Return logarithms of the sums less the mean logit of positives, 0 where a row does not count."""
        return torch.where(counts, (self.peak - mean) + self.total.log(), 0.0)

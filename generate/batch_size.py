"""Chooses the batch size by measuring, once: the first process freezes it into ``plan.json``, others read it.

In: a checked plan, its table, how to draw. Out: the plan with its batch size, written into the folder. Processes, parts
and nodes that start meanwhile wait for the one that measures; a run that resumes never measures again.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.generate.plan import PLAN_FILE, Plan, claim_folder, read_plan, refuse_strangers
from synclones.prompts.table import PromptTable
from synclones.shards.lock import claim

if TYPE_CHECKING:
    from synclones.generate.sampling.sampler import Sampler

LARGEST = 256  # larger batches were nowhere seen to be faster, and cost more when a process is killed
WORTH = 1.03  # a larger batch must be this much faster than the best before it
STEPS = 4  # of denoising in the measured batches: enough to rank sizes
GPU_MEMORY_SHARE = 0.8  # leaves room for what a long run fragments


def settle_batch_size(folder: Path, plan: Plan, measure: Callable[[Plan], int]) -> Plan:
    """Return ``plan`` with the batch size that ``folder`` has, or with one that is measured now and written into it.

    Raises:
        InputError: when the folder holds other files, or another plan.
    """
    refuse_strangers(folder)
    if (folder / PLAN_FILE).exists():
        return replace(plan, batch_size=read_plan(folder).batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    claimed = claim(folder, "probe", wait=True)
    assert claimed is not None, "a claim that waits is always granted"
    with claimed:
        if (folder / PLAN_FILE).exists():
            return replace(plan, batch_size=read_plan(folder).batch_size)
        settled = replace(plan, batch_size=measure(plan))
        claim_folder(folder, settled)
    return settled


def measured_batch_size(plan: Plan, table: PromptTable, make_sampler: Callable[[Plan], "Sampler"], device: str) -> int:
    """Return the smallest batch size that no larger one beats by more than 3 %, and print what was measured."""
    from synclones.generate.batch import draw_batch

    short = replace(plan, num_inference_steps=min(STEPS, plan.num_inference_steps))
    sampler = make_sampler(short)

    def rate(size: int) -> float:
        rows = table.rows(0, size)
        draw_batch(short, sampler, rows)  # kernels are chosen, caches filled
        started = time.monotonic()
        draw_batch(short, sampler, rows)
        return size / (time.monotonic() - started)

    size, rates = fastest(candidates(plan.images_per_shard, plan.num_samples), rate, _fits(device))
    measured = ", ".join(f"{n}: {r:.3g}" for n, r in rates.items())
    print(
        f"--batch-size auto: images/s by size ({short.num_inference_steps} steps): {measured}; {size} chosen",
        file=sys.stderr,
    )
    return size


def candidates(images_per_shard: int, num_samples: int) -> list[int]:
    """Return divisors of a shard, about doubling, up to `LARGEST` and to the number of images."""
    limit = min(LARGEST, num_samples, images_per_shard)
    divisors = [n for n in range(1, limit + 1) if images_per_shard % n == 0]
    chosen = [1]
    while nexts := [n for n in divisors if n >= 1.6 * chosen[-1]]:
        chosen.append(nexts[0])
    return chosen


def fastest(sizes: list[int], rate: Callable[[int], float], fits: Callable[[], bool]) -> tuple[int, dict[int, float]]:
    """Return the first size that the next one does not clearly beat, and images per second by size.

    Sizes that do not fit into memory end the search.
    """
    import torch

    rates: dict[int, float] = {}
    best = sizes[0]
    for size in sizes:
        try:
            rates[size] = rate(size)
        except torch.cuda.OutOfMemoryError:
            if size == sizes[0]:
                raise
            break
        if size == best:
            continue
        if rates[size] < rates[best] * WORTH or not fits():
            break
        best = size
    return best, rates


def _fits(device: str) -> Callable[[], bool]:
    import torch

    if device == "cpu":
        return lambda: True
    total = torch.cuda.get_device_properties(device).total_memory
    return lambda: torch.cuda.max_memory_reserved(device) <= GPU_MEMORY_SHARE * total

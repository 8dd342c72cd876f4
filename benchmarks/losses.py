"""Contrastive losses forward and backward: ours beside open_clip's and StableRep's, CPU time and memory.

Equal losses and gradients first (1e-5 of the largest), then interleaved rounds on one core. Peers are open_clip's
``ClipLoss`` and ``SigLipLoss`` and, for several positives, StableRep's loss written from its formula. Memory is what
the process' peak grows by, each loss in a process of its own.

python benchmarks/losses.py
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor

from synclones.train.contrast.contrastive import paired_losses, self_losses, sigmoid_losses

D, TIMED, LARGE, ROUNDS, PER_CAPTION = 512, (1024, 4096), 16384, 7, 4
KINDS = ("CLIP", "several positives", "SigLIP")
Loss = Callable[..., Tensor]


def stablerep(features: Tensor, scale: Tensor, caption: Tensor) -> Tensor:
    """Write the formula out: cross-entropy between the softmax over the others and a uniform target over positives."""
    n = len(features)
    others = 1 - torch.eye(n)
    positive = (caption[:, None] == caption).float() * others
    logits = scale * features @ features.T - (1 - others) * 1e9
    return -(positive / positive.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1).mean()


def problem(kind: str, n: int) -> tuple[Loss, Loss, list[Tensor]]:
    """Return ours, the peer's and what both take: pairs that are nearer than others."""
    generator = torch.Generator().manual_seed(0)
    x, noise = (F.normalize(torch.randn(n, D, generator=generator), dim=1) for _ in range(2))
    y, ones, group = F.normalize(x + noise, dim=1), torch.ones(n), torch.arange(n)
    scale, bias, caption = torch.tensor(14.29), torch.tensor(-10.0), group // PER_CAPTION
    if kind == "CLIP":
        return lambda x, y, t: torch.cat(paired_losses(x, y, group, ones, t)).mean(), ClipLoss(), [x, y, scale]
    if kind == "SigLIP":
        ours = lambda x, y, t, b: sigmoid_losses(x, y, group, group, ones, ones, t, b).mean()  # noqa: E731
        return ours, SigLipLoss(), [x, y, scale, bias]
    views = F.normalize(x[caption * PER_CAPTION] + noise, dim=1)
    several = lambda x, t: self_losses(x, caption, ones, t)[0].mean()  # noqa: E731
    return several, lambda x, t: stablerep(x, t, caption), [views, scale]


def step(loss: Loss, inputs: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Return CPU seconds of a forward and backward pass, and the loss with all gradients."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    started = time.process_time()
    value = loss(*leaves)
    value.backward()
    return time.process_time() - started, [value.detach(), *(leaf.grad for leaf in leaves)]


def compare(kind: str, n: int) -> None:
    """Print CPU milliseconds of both and their ratio."""
    ours, peer, inputs = problem(kind, n)
    results = [step(loss, inputs)[1] for loss in (ours, peer)]
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max(), f"{kind}: other losses or gradients"
    rounds = [(step(ours, inputs)[0], step(peer, inputs)[0]) for _ in range(ROUNDS)]
    best = [min(times) * 1e3 for times in zip(*rounds, strict=True)]
    ratio = median(theirs / own for own, theirs in rounds)
    print(
        f"{kind}, {n} rows: ours {best[0]:.0f} ms, peer {best[1]:.0f} ms, ratio of the best {best[1] / best[0]:.2f}",
        end="",
    )
    print(f", median of {ROUNDS} rounds {ratio:.2f}", flush=True)


def peak_mib() -> float:
    """Return the most memory that this process has had. Linux's ru_maxrss would begin with the parent's."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def grown(kind: str, who: str) -> None:
    """Print by how many MiB the peak memory of this process grows in one step, after a small one."""
    for n in (64, LARGE):
        ours, peer, inputs = problem(kind, n)
        before = peak_mib()
        step(ours if who == "ours" else peer, inputs)
    print(peak_mib() - before)


def compare_memory(kind: str) -> None:
    """Print the memory of both and their ratio."""
    command = [sys.executable, __file__, kind]
    mib = [float(subprocess.check_output([*command, who], text=True)) for who in ("ours", "peer")]
    print(
        f"{kind}, {LARGE} rows: ours {mib[0]:.0f} MiB, peer {mib[1]:.0f} MiB, ratio {mib[1] / mib[0]:.1f}", flush=True
    )


def main() -> None:
    """Compare times, then memory, and print the time of a matrix product, which limits all of them."""
    a = torch.randn(4096, D)
    started = time.process_time()
    for _ in range(3):
        a @ a.T
    print(f"one core, d = {D}: a product of 4,096 rows takes {(time.process_time() - started) / 3 * 1e3:.0f} ms")
    for kind in KINDS:
        for n in TIMED:
            compare(kind, n)
    for kind in KINDS:
        compare_memory(kind)


if __name__ == "__main__":
    torch.set_num_threads(1)
    grown(*sys.argv[1:]) if len(sys.argv) > 1 else main()

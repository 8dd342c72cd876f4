"""Gradients of one global batch, of losses of single images and of losses between images, in any number of parts.

In: a function that presents a part of a batch, the model, the objective. Out: gradients in the parameters, averaged by
the processes to those of the global batch, and the losses of this process' images. Images that are compared with all
others are embedded part by part without a graph, compared once, and embedded again with the gradient that the
comparison gave them (GradCache, Gao et al. 2021, arXiv 2101.06983): the gradient is that of one large batch.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from synclones.shards.loading.order import slice_of_rank
from synclones.train.job import Job
from synclones.train.objective import LOSS
from synclones.train.shares import Shares
from synclones.train.training_batch import Embedded, TrainingBatch

T = TypeVar("T")
Present = Callable[[slice], TrainingBatch]


def shares(job: Job, n: int) -> Shares:
    """Return how a global batch is divided, ``n`` of whose images are this process'."""
    config, group = job.config, job.mixed.images_per_group
    size = config.micro_batch_size or n
    parts = tuple(slice(start, min(start + size, n)) for start in range(0, n, size))
    groups = config.batch_size // group
    counts = tuple(len(slice_of_rank(groups, rank, job.world_size)) * group for rank in range(job.world_size))
    return Shares(parts, counts, job.rank)


def taught(job: Job, accelerator: Accelerator, teacher: nn.Module, present: Present, own: Shares, step: int) -> Present:
    """Let the teacher look at the whole batch; return what presents parts with its outputs."""
    if len(own.parts) == 1:  # one part is presented once for both
        whole = present(own.parts[0])
        present = lambda _: whole  # noqa: E731
    with torch.no_grad(), accelerator.autocast():
        lessons = job.objective.teach((present(part) for part in own.parts), teacher, job.config, step, own)
    of_part = {part.start: lesson for part, lesson in zip(own.parts, lessons, strict=True)}
    return lambda part: replace(present(part), lesson=of_part[part.start])


def of_single_images(
    job: Job, accelerator: Accelerator, model: nn.Module, present: Present, own: Shares
) -> dict[str, Tensor]:
    """Add up gradients part by part; return the losses of this process' images, 0 for those left out."""
    parts: list[dict[str, Tensor]] = []
    for part, last in _and_last(own.parts):
        batch = present(part)
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            losses = job.objective.losses(batch, model, job.config)
            weighted = {name: each * batch.weights for name, each in losses.items()}
            # Processes average their gradients: scaled like this the average is that of the global batch.
            accelerator.backward(weighted[LOSS].sum() * (job.world_size / job.config.batch_size))
        parts.append({name: each.detach() for name, each in weighted.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def between_images(
    job: Job, accelerator: Accelerator, model: nn.Module, present: Present, own: Shares, reseed: Callable[[int], None]
) -> tuple[dict[str, Tensor], Tensor]:
    """Compare this process' images with those of all; return their losses, and which of them count: float32[n].

    ``reseed``: sets torch's generator for a part, so that both passes over it draw alike.
    """
    # First pass: what is compared. With a single part its graph is kept, and there is no second one.
    single = len(own.parts) == 1
    batches, outputs = [], []
    for number, part in enumerate(own.parts):
        reseed(number)
        batches.append(present(part))
        with contextlib.nullcontext() if single else _without_graph(model):
            outputs.append(job.objective.embed(batches[-1], model, job.config))
    mine = _leaves(batches, outputs, own.first)
    everyone = _gathered(mine, own) if job.world_size > 1 else mine
    # The comparison, of rows of this process against all rows; its gradients reach the rows of all processes.
    with torch.enable_grad():
        losses, counts = job.objective.contrast(mine, everyone, job.config)
        total = accelerator.reduce(counts.sum(), "sum") if job.world_size > 1 else counts.sum()
        (losses[LOSS].sum() / total.clamp(min=1)).backward()
    gradients = {name: _own_gradient(name, mine, everyone, own) * job.world_size for name in mine.rows}
    shared = {name: _or_zero(value) * job.world_size for name, value in mine.shared.items()}
    # Second pass: the same rows again, with their gradient.
    for (number, part), last in _and_last(list(enumerate(own.parts))):
        output = outputs[number]
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            if not single:
                reseed(number)
                output = job.objective.embed(present(part), model, job.config)
            wanted = {name: gradients[name][part].to(output[name].dtype) for name in gradients}
            # Numbers of all rows have one gradient, which the last part brings.
            wanted |= {name: gradient if last else torch.zeros_like(gradient) for name, gradient in shared.items()}
            names = [name for name in wanted if output[name].requires_grad]
            torch.autograd.backward([output[name] for name in names], [wanted[name] for name in names])
    return {name: each.detach() for name, each in losses.items()}, counts.detach().float()


def _and_last(items: Sequence[T]) -> Iterator[tuple[T, bool]]:
    return ((item, number == len(items) - 1) for number, item in enumerate(items))


@contextlib.contextmanager
def _without_graph(model: nn.Module) -> Iterator[None]:
    """Embed without a graph, and without moving the running statistics twice in one step."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        with torch.no_grad():
            yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _leaves(batches: Sequence[TrainingBatch], outputs: Sequence[dict[str, Tensor]], first: int) -> Embedded:
    """Return the rows of all parts together, cut from their graph."""
    names = [name for name, value in outputs[0].items() if value.dim()]
    rows = {n: torch.cat([output[n].detach() for output in outputs]).float().requires_grad_() for n in names}
    shared = {n: v.detach().clone().requires_grad_() for n, v in outputs[0].items() if not v.dim()}
    labels, weights = (torch.cat([getattr(b, name) for b in batches]) for name in ("labels", "weights"))
    # Without captions or texts every image is of its own: numbers that no caption has.
    alone = -1 - first - torch.arange(len(labels), device=labels.device)
    caption = torch.cat([b.caption for b in batches if b.caption is not None] or [alone])
    text = torch.cat([b.text for b in batches if b.text is not None] or [alone])
    return Embedded(rows, shared, labels, weights, caption, text, first)


def _gathered(mine: Embedded, own: Shares) -> Embedded:
    """Return the rows of all processes, in the order of the global batch."""
    columns = {name: getattr(mine, name) for name in ("labels", "weights", "caption", "text")}
    rows = {name: own.gathered(value.detach()).requires_grad_() for name, value in mine.rows.items()}
    return replace(mine, rows=rows, first=0, **{name: own.gathered(value) for name, value in columns.items()})


def _own_gradient(name: str, mine: Embedded, everyone: Embedded, own: Shares) -> Tensor:
    """Return the gradient of this process' rows: what every process' comparison gives them."""
    gradient = _or_zero(mine.rows[name])
    if everyone is mine:
        return gradient
    of_all = _or_zero(everyone.rows[name])
    torch.distributed.all_reduce(of_all)
    return gradient + of_all[own.first : own.first + len(gradient)]


def _or_zero(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

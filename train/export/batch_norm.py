"""Recomputes the statistics of batch normalisation from a data set of one's choice, after the last step.

In: a trained network, images as evaluation sees them, every one once, in a fixed order. Out: running means, variances.
Each layer's are those of all images together: over batches of 256, which normalise by themselves, means and squares are
summed in float64 (Wu and Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN"), and processes sum what they have.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from synclones.models.network import Preprocessing
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.loading.parts import Images, MixedSources
from synclones.shards.sources.decode import decode_image
from synclones.train.job import Job
from synclones.train.network.freezing import batch_norms
from synclones.train.network.parts import inner

BATCH = 256


class Moments:
    """Sums over all that a layer has seen, per channel."""

    def __init__(self, channels: int, device: torch.device):
        self.sums = torch.zeros((3, channels), dtype=torch.float64, device=device)

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Count float[n, channels, ...]; a hook that a module calls before it computes."""
        values = inputs[0].detach().float()
        across = [d for d in range(values.dim()) if d != 1]
        n = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values, dim=across, correction=0)
        mean = mean.double()
        self.sums += torch.stack([torch.full_like(mean, n), n * mean, n * (variance.double() + mean**2)])

    def into(self, norm: nn.Module) -> None:
        """Make mean and variance (unbiased, as torch's running one is) those of the layer."""
        count, total, squares = self.sums
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0) * count / (count - 1).clamp(min=1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def recompute(module: nn.Module, norms: dict[str, nn.Module], batches: Iterator[Tensor], world_size: int) -> None:
    """Give ``norms`` the statistics of ``batches``, float[n, 3, s, s] as the network takes them, of all processes."""
    device = next(module.parameters()).device
    moments = {name: Moments(norm.running_mean.numel(), device) for name, norm in norms.items()}
    hooks = [norm.register_forward_pre_hook(moments[name].add) for name, norm in norms.items()]
    # Batches normalise by themselves, and nothing else is as in training: no dropout, and no statistics that move.
    was_training = {part: part.training for part in module.modules()}
    kept = {norm: (norm.momentum, norm.num_batches_tracked.clone()) for norm in norms.values()}
    module.eval()
    for norm in norms.values():
        norm.train()
        norm.momentum = 0.0
    try:
        with torch.no_grad():
            for images in batches:
                module(images.to(device))
            for name, norm in norms.items():
                if world_size > 1:
                    torch.distributed.all_reduce(moments[name].sums)
                moments[name].into(norm)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, (momentum, count) in kept.items():
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
        for part, training in was_training.items():
            part.training = training


def images_of(
    mixed: MixedSources, preprocessing: Preprocessing, seed: int, rank: int, world_size: int, threads: int
) -> Iterator[Tensor]:
    """Read this process' batches, float32[n, 3, s, s] in 0..1: an epoch of the sets, every image as evaluation sees it.

    Raises:
        VerificationError: a damaged image.
    """
    total = mixed.images_per_epoch
    group = mixed.images_per_group
    size = min(max(BATCH // group, 1) * group, total)
    loader = BatchLoader(mixed, batch_size=size, seed=seed, crops=Crops(size_px=preprocessing.input_px[0]))
    mine = slice_of_rank(max(1, total // size), rank, world_size)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for number in range(mine.start, mine.stop):
            slots = loader.slots(number)
            if number == total // size - 1 and total % size:  # what is left goes with the last: a batch of one is none
                slots += loader.slots(number + 1)[: total % size]
            places = [(mixed.parts[slot.part].source, slot.position) for slot in slots]
            pixels = list(pool.map(partial(_pixels, preprocessing), places))
            yield torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def _pixels(preprocessing: Preprocessing, of: tuple[Images, int]) -> np.ndarray:
    source, position = of
    return preprocessing.fit(decode_image(source.encoded(position), where=source.where(position)))


def recompute_for(job: Job, learner: nn.Module) -> None:
    """Give a learner's network the statistics of the job's ``--batch-norm-data``; every process takes part."""
    if job.statistics is None:
        return
    _, module = inner(learner.network)
    tower = getattr(module, "visual", module)  # of an image-text model
    config, device = job.config, next(tower.parameters()).device
    read = images_of(job.statistics, job.preprocessing, config.seed, job.rank, job.world_size, job.decode_threads)
    mean, std = (getattr(learner, name).to(device) for name in ("mean", "std"))
    batches = ((pixels.to(device) - mean) / std for pixels in read)
    recompute(tower, batch_norms(learner.network), batches, job.world_size)

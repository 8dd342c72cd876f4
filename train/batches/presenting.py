"""What an objective sees of a batch: its images augmented and mixed on the device, with labels, texts and captions.

In: a `Batch` of the loader. Out: a `TrainingBatch` of a part of it. All that is random in it, and in the network's
stochastic depth, is a function of seed, image, showing and the position in the global batch: any division of a batch
among processes and micro-batches sees the same.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from synclones.shards.loading.batch import Batch
from synclones.train.augmentation.augment import Augmentation
from synclones.train.augmentation.mixing import MixingPlan, mix_images, mix_targets, mixing_plan
from synclones.train.job import Job
from synclones.train.network.drop_path import ShownImages
from synclones.train.training_batch import TrainingBatch


class Presenter:
    """Makes training batches on one device."""

    def __init__(self, job: Job, device: torch.device, shown: ShownImages):
        """``shown``: what decides about stochastic depth; it is told of the images of every part."""
        self._job, self._device, self._shown = job, device, shown
        config, preprocessing = job.config, job.preprocessing
        own: dict[str, Any] = {"mean": preprocessing.mean, "std": preprocessing.std}
        settings: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(Augmentation) if f.name not in own}
        self.augmentation = Augmentation(**settings, **own)
        shown.crops = (1, config.views, config.local_views or 1)
        self.apply: Callable[[Tensor, Tensor], Tensor] = self.augmentation.apply

    def present(self, batch: Batch, part: slice) -> TrainingBatch:
        """Return images ``part`` of this process' batch as the network shall see them."""
        labels, weights = (self._moved(x[part]) for x in (batch.labels, batch.weights))
        views = [self._view(batch, part, batch.pixels[part, number], number) for number in range(batch.pixels.shape[1])]
        if batch.local is not None:
            first = len(views)
            for number in range(batch.local.shape[1]):
                views.append(self._view(batch, part, batch.local[part, number], first + number))
        # One decision for all views of an image: they are one sample.
        names = batch.source[part], batch.index[part], batch.times_seen[part]
        if self._shown.rates:
            self._shown.show(*names, device=self._device)
        targets = None
        if self._job.config.mixes:
            plan = self._plan(batch, part, weights)
            views = [mix_images(view, plan) for view in views]
            smoothing = self._job.config.label_smoothing
            targets = mix_targets(labels, plan, len(self._job.class_ids), smoothing)
        tokens, caption, array = (self._moved(x[part]) if x is not None else None for x in _extras(batch))
        text = None if tokens is None else text_numbers(tokens)
        return TrainingBatch(tuple(views), labels, weights, tokens, caption, text, array, targets, names)

    def images(self, batch: Batch) -> Tensor:
        """Return the first view of a whole batch, float32[n, 3, s, s] in 0..1."""
        return self.present(batch, slice(0, len(batch.labels))).images

    def _view(self, batch: Batch, part: slice, pixels: Tensor, view: int) -> Tensor:
        if pixels.dim() == 2:  # features of images, which nothing changes
            return self._moved(pixels)
        draws = self.augmentation.draws(batch.source[part], batch.index[part], batch.times_seen[part], view)
        return self.apply(self._moved(pixels), self._moved(draws))

    def _plan(self, batch: Batch, part: slice, weights: Tensor) -> MixingPlan:
        config = self._job.config
        whole = mixing_plan(config.seed, batch.step, config.batch_size, config.image_size_px, config)
        start = batch.first + (part.start or 0)
        return whole.part(slice(start, start + len(weights)), weights)

    def _moved(self, tensor: Tensor) -> Tensor:
        moved: Tensor = tensor.to(self._device, non_blocking=True)
        return moved


def _extras(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.extras.tokens, batch.extras.caption, batch.extras.array


def text_numbers(tokens: Tensor) -> Tensor:
    """Return a number for each text, int64[n] of int64[n, length]: equal texts have equal ones, others differ.

    A polynomial modulo 2^64: two of 32,768 texts meet by chance less than once in 10^10 batches.
    """
    powers = torch.full_like(tokens[0], -7046029254386353131).cumprod(0)  # 2^64 over the golden ratio, odd
    mixed = (tokens + 1) * powers
    return ((mixed ^ (mixed >> 29)) * -4658895280553007687).sum(1)

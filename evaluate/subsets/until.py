"""Looks at the images of a set block by block until the accuracy on all of them is known as well as was asked.

In: models, and the sets of a suite. Out: the same sets with the images that were needed, whose logits are kept under
their names. Blocks are fixed by the hashed names of the images and each is kept under its own key, so that any number
of processes, killed or not, ends at the same image.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from synclones.base.errors import one_line
from synclones.base.output import say
from synclones.evaluate.answers.predictions import EvaluatedModel, Predictions, SuiteSet
from synclones.evaluate.answers.reading import read_as
from synclones.evaluate.bounds.sequential import look_schedule
from synclones.evaluate.bounds.stopped import BLOCK, Stopped, enough, points
from synclones.evaluate.predict import from_rank_0, keep, predict_plain
from synclones.evaluate.subsets.choice import Order, Orders, reduced


def until_sure(
    models: list[EvaluatedModel],
    sets: list[SuiteSet],
    half_width: float,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
) -> list[SuiteSet]:
    """Return the sets with as many images as the accuracy needs; reference and shifted ones find out each for itself.

    Corrupted sets get the images that the reference ended with, so that ratios stay paired; all others stay whole.

    Args:
        sets: the reference is the first.
        half_width: of the accuracy on the whole set, a fraction.
    """
    orders, first, chosen = Orders(), sets[0], []
    for of in sets:
        order = orders.of(of.test_set)
        if of.role in ("reference", "shifted"):
            seen = _Seen(models, of, order, half_width)
            seen.look(batch_size, out, rank, world_size)
            chosen.append(seen.result())
            if rank == 0:
                seen.keep(chosen[-1], batch_size, out)
        elif of.role == "corrupted":
            chosen.append(_as_reference(of, order, orders.of(first.test_set), chosen[0]))
        else:
            chosen.append(of)
    return chosen


@dataclass
class _Seen:
    """What was seen of one set so far."""

    models: list[EvaluatedModel]
    of: SuiteSet
    order: Order
    half_width: float
    images: int = 0
    why: str = ""
    """No more images are needed."""
    blocks: list[list[Predictions]] = field(default_factory=list)
    """For each block the logits of every model, images by position; of rank 0 alone."""

    @property
    def all(self) -> int:
        """How many images the set has."""
        return len(self.order.positions)

    def look(self, batch_size: int, out: Path, rank: int, world_size: int) -> None:
        """Predict block after block until enough is known, or the set ends."""
        correct: list[list[np.ndarray]] = [[] for _ in self.models]
        for end in look_schedule(self.all, BLOCK):
            drawn = self.order.positions[self.images : end]
            self.images = int(end)
            test_set = self.of.test_set.choose(np.sort(drawn))
            block = SuiteSet(role=self.of.role, name=self.of.name, part=self.of.part, test_set=test_set)
            predicted = predict_plain(self.models, block, batch_size, out, rank, world_size)
            if rank == 0:
                # Within a block, too, the images come in as they were drawn: by position they come class by class.
                turn = np.searchsorted(np.sort(drawn), drawn)
                for model, own, rows in zip(self.models, predicted, correct, strict=True):
                    rows.append(read_as(own, test_set, model.classifier.class_ids).correct[turn])
                self.blocks.append(predicted)
                self.why = enough([np.concatenate(rows) for rows in correct], self.all, self.half_width)
                self._say()
            self.why = from_rank_0(self.why, world_size)
            if self.why:
                return

    def _say(self) -> None:
        line = f"{self.of.title}: looked at {self.images:,} of {self.all:,} images{': ' if self.why else ''}{self.why}"
        say(one_line(line))

    def result(self) -> SuiteSet:
        """Return the set with the images that were seen; the set itself where these are all."""
        if self.images == self.all:
            return self.of
        chosen = self.order.first(self.images)
        drawn = np.searchsorted(chosen, self.order.positions[: self.images])
        return reduced(
            self.of,
            chosen,
            f"{self.of.name} ({self.images:,} of {self.all:,}, until {points(self.half_width)})",
            stopped=Stopped(self.all, self.half_width, drawn),
            note=f"The number of images was chosen by looking at the accuracy on them: {self.why}.",
        )

    def keep(self, of: SuiteSet, batch_size: int, out: Path) -> None:
        """Keep the logits of the images that were seen as those of the set that they make."""
        drawn = [np.sort(self.order.positions[start : start + BLOCK]) for start in range(0, self.images, BLOCK)]
        rows = np.argsort(np.concatenate(drawn)[: self.images])
        for model, own in zip(self.models, zip(*self.blocks, strict=True), strict=True):
            arrays = (np.concatenate([getattr(block, name) for block in own])[rows] for name in _ARRAYS)
            keep(model, of.test_set, Predictions(*arrays), batch_size, out)


_ARRAYS = ("logits", "labels", "index")


def _as_reference(of: SuiteSet, order: Order, of_reference: Order, reference: SuiteSet) -> SuiteSet:
    """Return a corrupted set with the images that the reference was measured on."""
    seen = len(reference.test_set)
    images = order.up_to(of_reference.hashes[seen - 1])
    if seen == len(of_reference.positions) or images == len(order.positions):
        return of
    name = f"{of.name} ({images:,} of {len(order.positions):,})"
    return reduced(of, order.first(images), name, note=reference.note)

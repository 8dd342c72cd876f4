"""Reads a model's logits as answers among the classes of a set: all of them, some, or groups that have members.

In: logits of all classes of a model, and a `TestSet`. Out: `Predictions` or `Answers`, whose labels and answers are
numbers of the set's classes.
"""

from collections.abc import Sequence

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.answers.predictions import Answers, Predictions, probabilities
from synclones.evaluate.test_set import TestSet

_ROWS = 4096  # of a softmax in float64 at once


def read_as(kept: Predictions, test_set: TestSet, class_ids: Sequence[str]) -> Predictions | Answers:
    """Return what was answered among the set's classes.

    Of a set with some of the model's classes (ImageNet-R has 200 of 1,000) only their logits count, as its authors
    have it. Of a set whose classes have members, an answer is the class that the largest logit is a member of
    (decision ``top1``), or the class whose members have the largest mean probability among all classes of the model
    (``mean``; Geirhos et al. 2019, arXiv 1811.12231, whose code recommends the mean).

    Args:
        kept: logits float32[n, classes of the model].
        class_ids: of the model, in the order of its outputs.
    """
    if test_set.decision == "classes":
        columns = columns_of(test_set, class_ids)
        logits = kept.logits if columns is None else kept.logits[:, columns]
        return Predictions(logits, kept.labels, kept.index)
    groups = groups_of(test_set, class_ids)
    answer, confidence = np.empty(len(kept), np.int64), np.empty(len(kept))
    for start in range(0, len(kept), _ROWS):
        rows = slice(start, start + _ROWS)
        p = probabilities(kept.logits[rows])
        if test_set.decision == "mean":
            # Classes of the model that are members of none keep their share of the probability.
            means = np.stack([p[:, groups == number].mean(1) for number in range(len(test_set.class_ids))], 1)
            answer[rows], confidence[rows] = means.argmax(1), means.max(1)
        else:
            answer[rows], confidence[rows] = groups[kept.logits[rows].argmax(1)], p.max(1)
    return Answers(answer, confidence, kept.labels, kept.index)


def columns_of(test_set: TestSet, class_ids: Sequence[str]) -> np.ndarray | None:
    """Return which of the model's outputs the set's classes are, int64[classes]; None where they are all, in order."""
    if not test_set.class_ids or tuple(class_ids) == test_set.class_ids:
        return None
    number = {class_id: position for position, class_id in enumerate(class_ids)}
    return np.array([number[class_id] for class_id in test_set.class_ids])


def groups_of(test_set: TestSet, class_ids: Sequence[str]) -> np.ndarray:
    """Return which of the set's classes each output of the model is a member of, int64[classes]; -1: none."""
    groups = np.full(len(class_ids), -1)
    number = {class_id: position for position, class_id in enumerate(class_ids)}
    for group, name in enumerate(test_set.class_ids):
        for member in test_set.members[name]:
            groups[number[member]] = group
    return groups


def check_classes(model: str, class_ids: tuple[str, ...], test_set: TestSet, *, all_of_them: bool) -> None:
    """Refuse a model whose outputs do not stand for the classes of a set, or for their members.

    Args:
        model: its name.
        class_ids: of its outputs.
        all_of_them: whether its classes have to be those of the set in the same order, or may be more.

    Raises:
        InputError: naming the first class that it lacks.
    """
    if test_set.members:
        wanted = [member for name in test_set.class_ids for member in test_set.members[name]]
    elif all_of_them:
        return check_same(model, class_ids, test_set.class_ids, str(test_set.folder))
    else:
        wanted = list(test_set.class_ids)
    lacking = [class_id for class_id in wanted if class_id not in set(class_ids)]
    if lacking:
        raise InputError(
            f"{model}: has no class {lacking[0]!r}, which {test_set.folder} asks for (it lacks {len(lacking)} of "
            f"{len(wanted)}); evaluate a model of these classes"
        )


def check_same(model: str, ours: tuple[str, ...], theirs: tuple[str, ...], where: str) -> None:
    """Refuse a model whose classes are not these in this order.

    Raises:
        InputError: naming the first class in which they differ.
    """
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    a, b = (ids[at] if at < len(ids) else "no class" for ids in (ours, theirs))
    if sorted(ours) == sorted(theirs):
        raise InputError(
            f"{model}: has the classes of {where} in another order; number {at} is {a!r} and {b!r}; evaluate it "
            "by itself on a folder (--data), where classes are matched by id, or state the order in a suite"
        )
    raise InputError(
        f"{model}: has {len(ours)} classes, {where} has {len(theirs)}; number {at} is {a!r} and {b!r}; evaluate on a "
        "folder of the classes it was trained for"
    )

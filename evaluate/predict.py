"""Logits of a classifier on a dataset folder, computed once and kept: every metric is arithmetic on them.

In: a classifier, a labelled folder, a condition. Out: `Predictions`, kept as ``logits/KEY.safetensors``.
Batches are fixed by position and dealt to processes, so any number of processes computes the same bits.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object

from synclones.base.errors import VerificationError, one_line
from synclones.base.output import say
from synclones.base.progress import Progress
from synclones.base.units import format_count
from synclones.evaluate.answers.logits_key import logits_key
from synclones.evaluate.answers.predictions import (
    CLEAN,
    Answers,
    Condition,
    EvaluatedModel,
    ModelPredictions,
    Predictions,
    SetPredictions,
    SuiteSet,
)
from synclones.evaluate.answers.reading import read_as
from synclones.evaluate.layout import Role
from synclones.evaluate.protocols import seen
from synclones.evaluate.stored.logits_file import logits_path, most_bytes, read_logits, write_logits
from synclones.evaluate.stored.output import LOGITS
from synclones.evaluate.stored.pieces import Pieces
from synclones.evaluate.test_set import TestSet
from synclones.shards.schema import sample_key


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of a model about a set, as one protocol shows it."""

    model: EvaluatedModel
    of: SuiteSet
    asked: Condition
    shown: Condition
    deviations: tuple[str, ...]

    @property
    def answers_only(self) -> bool:
        """Whether answers alone are kept: of corrupted sets, which are a hundred times the others."""
        return self.of.role == "corrupted"

    @property
    def passes(self) -> int:
        """What it costs, in forward passes of one image."""
        return len(self.of.test_set) * self.shown.passes

    @property
    def key(self) -> str:
        return logits_key(self.model, self.of.test_set, self.shown, self.answers_only)


Conditions = Callable[[Role], list[Condition]]


def predict_all(
    models: list[EvaluatedModel],
    sets: list[SuiteSet],
    conditions: Conditions,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
    protocols: Mapping[str, frozenset[str]] = MappingProxyType({"corrected": frozenset()}),
    trained_on: Set[tuple[str, str]] = frozenset(),
) -> list[ModelPredictions]:
    """Return all predictions: those kept in ``out``, and fresh ones, which are kept there; none but on rank 0.

    Each set is shown to each model once under each condition, whatever is measured by it; a second protocol shows it
    again only where it prepares images in another way.

    Args:
        conditions: of sets of a role.
        protocols: name -> the deviations of the papers' code that it follows.
        trained_on: which models were trained on which sets, as names and hashes of whole folders.

    Returns:
        For each model one of each protocol.

    Raises:
        VerificationError: when a logit is not finite, naming the sample; when what is kept is damaged.
    """
    questions = {
        (name, model.name): [
            _Question(model, of, asked, *seen(asked, of.role, model.classifier, deviations))
            for of in sets
            for asked in conditions(of.role)
            if asked.only_if is None or (asked.only_if[0] in deviations) == asked.only_if[1]
        ]
        for model in models
        for name, deviations in protocols.items()
    }
    by_key = {question.key: question for asked in questions.values() for question in asked}
    kept = _answered(by_key, batch_size, out, rank, world_size)
    if rank:
        return []
    for asked in questions.values():
        _say_asked(asked)
    return [
        _of_model(model, questions[name, model.name], kept, deviations, trained_on)
        for model in models
        for name, deviations in protocols.items()
    ]


def predicted_earlier(
    models: list[EvaluatedModel], sets: list[SuiteSet], conditions: Conditions, out: Path
) -> list[ModelPredictions]:
    """Return the predictions of models whose logits on all sets under all conditions are kept in ``out``.

    Of what is damaged a line is said on stderr: the numbers that rest on it are there.
    """
    known = []
    for model in models:
        questions = [_Question(model, of, asked, asked, ()) for of in sets for asked in _corrected(conditions, of.role)]
        if not all(logits_path(out, question.key).exists() for question in questions):
            continue
        try:
            kept = {question.key: _read(out, question.key, question) for question in questions}
        except VerificationError as error:
            print(one_line(f"{model.name}: is not compared; {error}"), file=sys.stderr, flush=True)
            continue
        known.append(_of_model(model, questions, kept, frozenset(), frozenset()))
    return known


def _corrected(conditions: Conditions, role: Role) -> list[Condition]:
    return [asked for asked in conditions(role) if asked.only_if is None or not asked.only_if[1]]


def predict_plain(
    models: list[EvaluatedModel], of: SuiteSet, batch_size: int, out: Path, rank: int, world_size: int
) -> list[Predictions]:
    """Return the logits of each model on the images of one set as they are: kept in ``out``, or fresh; of rank 0 alone.

    Raises:
        VerificationError: as `predict_all`.
    """
    questions = [_Question(model, of, CLEAN, CLEAN, ()) for model in models]
    by_key = {question.key: question for question in questions}
    kept = _answered(by_key, batch_size, out, rank, world_size, quiet=True)
    return [] if rank else [kept[question.key] for question in questions]


def keep(model: EvaluatedModel, test_set: TestSet, predictions: Predictions, batch_size: int, out: Path) -> None:
    """Keep logits that were put together from those of parts of the set, unless it has some of its own."""
    key = logits_key(model, test_set, CLEAN)
    if not logits_path(out, key).exists():
        write_logits(out, key, predictions, _how(model, batch_size))


def _answered(
    by_key: dict[str, _Question], batch_size: int, out: Path, rank: int, world_size: int, quiet: bool = False
) -> dict[str, Predictions]:
    # Rank 0 alone decides what is missing: another evaluation may write a file while two ranks look for it, and on a
    # shared file system they may see different folders.
    kept = {
        key: _read(out, key, question)
        for key, question in by_key.items()
        if rank == 0 and logits_path(out, key).exists()
    }
    missing = from_rank_0([key for key in by_key if key not in kept], world_size)
    # Images differ in what they cost: under an attack one is shown to the model many times.
    passes = sum(by_key[key].passes for key in missing)
    with _progress(passes, out, shown=rank == 0 and not quiet and bool(missing)) as progress:
        for number, key in enumerate(missing, 1):
            if rank == 0 and not quiet:
                _say(by_key[key], number, len(missing))
            progress.note(one_line(f"{by_key[key].model.name} on {by_key[key].of.title}"))
            before = progress.done
            kept[key] = _fresh(by_key[key], batch_size, out, rank, world_size, progress.add)
            progress.also_done(before + by_key[key].passes - progress.done)  # by other processes, or kept pieces
    return kept


def _progress(passes: int, out: Path, shown: bool) -> Progress:
    """Return the progress of predictions, of which the first process speaks."""
    return Progress("passes", passes, folder=out if shown else None, shown=shown)


def _read(out: Path, key: str, question: _Question) -> Predictions:
    classes = len(question.model.classifier.class_ids)
    return read_logits(out, key, question.of.test_set.labels, 2 if question.answers_only else classes, classes)


def _say(question: _Question, number: int, of: int) -> None:
    shown = "" if question.asked == CLEAN else f", {question.asked}"
    line = f"{number} of {of}: {question.model.name} on {question.of.title}, {len(question.of.test_set)} images{shown}"
    say(one_line(line))


def _say_asked(questions: list[_Question]) -> None:
    reference = [question for question in questions if question.of.role == "reference"]
    further = len({question.of.title for question in questions}) - 1
    more = f", {format_count(further, 'more set')}" if further else ""
    line = f"{questions[0].model.name}: {len(reference[0].of.test_set)} images, {len(reference)} times{more}"
    say(one_line(line))


def _of_model(
    model: EvaluatedModel,
    questions: list[_Question],
    kept: dict[str, Predictions],
    deviations: frozenset[str],
    trained_on: Set[tuple[str, str]],
) -> ModelPredictions:
    """Gather the predictions of one model under one protocol, read among each set's own classes."""
    sets = []
    for of in dict.fromkeys(question.of for question in questions):
        own = [question for question in questions if question.of is of]
        read = {question.asked: _read_as(question, kept[question.key]) for question in own}
        changed = dict.fromkeys(name for question in own for name in question.deviations)
        keys = {question.asked: question.key for question in own}
        sets.append(
            SetPredictions(
                of=of,
                by_condition=read,
                logits_keys=keys,
                deviations=tuple(changed),
                trained_on=(model.name, of.test_set.source_hash) in trained_on,
            )
        )
    return ModelPredictions(model, tuple(sets), deviations)


def _read_as(question: _Question, kept: Predictions) -> Predictions | Answers:
    if question.answers_only:
        answers = kept.logits[:, 0].astype(np.int64)
        return Answers(answers, kept.logits[:, 1].astype(np.float64), kept.labels, kept.index)
    return read_as(kept, question.of.test_set, question.model.classifier.class_ids)


def from_rank_0(value: Any, world_size: int) -> Any:
    """Return rank 0's value on every rank."""
    return broadcast_object_list([value])[0] if world_size > 1 else value


def predict(
    model: EvaluatedModel,
    test_set: TestSet,
    condition: Condition,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
) -> Predictions:
    """Return fresh predictions under a condition, together with the other ranks; rank 0 keeps them in ``out``.

    Raises:
        VerificationError: when a logit is not finite, naming the sample; when the ranks are not at the same work.
    """
    of = SuiteSet(role="reference", name=test_set.name, test_set=test_set)
    return _fresh(_Question(model, of, condition, condition, ()), batch_size, out, rank, world_size)


def _fresh(
    question: _Question,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
    passed: Callable[[int], None] = lambda passes: None,
) -> Predictions:
    model, test_set, key = question.model, question.of.test_set, question.key
    # What an earlier start has kept is taken; rank 0 says what that is, as it decides what is missing.
    pieces = Pieces(out / LOGITS, key, batch_size)
    read = pieces.read(most_bytes(len(test_set), len(model.classifier.class_ids))) if rank == 0 else {}
    kept = from_rank_0(read, world_size)
    # Batches are fixed by position, whoever computes them: a logit's last bits may depend on its batch.
    wanted = [number for number in range(-(-len(test_set) // batch_size)) if number not in kept]
    mine: list[Any] = []
    for number in wanted[rank::world_size]:
        positions = range(number * batch_size, min((number + 1) * batch_size, len(test_set)))
        batch = _predict_batch(model, test_set, positions, question.shown)
        if question.answers_only:
            batch = _answers_of(question, batch)
        pieces.add(number, batch)
        mine.append((number, *batch, key))
        passed(len(positions) * question.shown.passes)
    pieces.flush()
    parts = [*(gather_object(mine) if world_size > 1 else mine), *((n, *batch, key) for n, batch in kept.items())]
    if {part[4] for part in parts} != {key}:
        raise VerificationError(f"{out}: the processes computed different logits at once; run the same command again")
    parts.sort(key=lambda part: part[0])
    logits, labels, index = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
    _refuse_not_finite(model, test_set, logits, index)
    # One process keeps them; the others have them in memory and need no file.
    predictions = Predictions(logits, labels, index)
    if rank == 0:
        write_logits(out, key, predictions, _how(model, batch_size))
        pieces.remove()
    return predictions


def _how(model: EvaluatedModel, batch_size: int) -> dict[str, Any]:
    return {"device": model.classifier.mean.device.type, "torch": torch.__version__, "batch_size": batch_size}


def _answers_of(
    question: _Question, batch: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return answer and confidence as two columns in place of the logits: float32[n, 2], whole numbers are exact."""
    logits, labels, index = batch
    read = read_as(Predictions(logits, labels, index), question.of.test_set, question.model.classifier.class_ids)
    columns = np.stack([read.answers, np.where(np.isfinite(logits).all(1), read.confidence, np.nan)], 1)
    return columns.astype(np.float32), labels, index


def _predict_batch(
    model: EvaluatedModel, test_set: TestSet, positions: range, condition: Condition
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classifier, prepared = model.classifier, condition.prepared
    assert not classifier.training, f"{model.name}: dropout and batch statistics would change its answers"
    stored = [test_set[position] for position in positions]
    device = classifier.mean.device
    fit = classifier.preprocessing.fit if prepared is None else prepared.fit
    images = np.stack([fit(image.pixels) for image in stored])
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    labels, index = (np.array([getattr(image, name) for image in stored]) for name in ("label", "index"))
    with contextlib.nullcontext() if prepared is None else prepared.applied(classifier):
        if condition.change is not None:
            pixels = condition.change(classifier, pixels, torch.from_numpy(labels).to(device), index)
        with torch.inference_mode():
            logits = classifier(pixels).float().cpu().numpy()
    return logits, labels, index


def _refuse_not_finite(model: EvaluatedModel, test_set: TestSet, logits: np.ndarray, index: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise VerificationError(
            f"{model.name}: logits of {len(bad)} of {len(index)} images are not finite, first at sample "
            f"{sample_key(int(index[bad[0]]))} of {test_set.folder}; train it again with a lower learning rate"
        )

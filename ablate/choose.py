"""Chooses among candidate images, or their prompts, what a learner trains on next: a file with a hash.

In: a finished set of candidates, learners and perhaps a teacher, a policy. Out: a folder with ``images.txt``, numbers
of the candidates that are taken, or ``prompts.parquet``, an earlier table and their prompts; beside it ``scores.csv``
of all candidates, the kept logits, and a manifest that names all of this by hash.

    synclones ablate choose --candidates data/c1 --learner runs/r0 --policy entropy --out choices/r1
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from synclones.ablate.answers import Answers
from synclones.ablate.appended import append_prompts, prompts_of
from synclones.ablate.choice import choose, mean_by_prompt, number_taken
from synclones.ablate.policy import Policy, Score, identity, load_policy, load_score
from synclones.base.config import Count, check_ranges, to_dict
from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, sha256_file, write_atomic
from synclones.base.json_file import canonical_json, parse_json, read_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.prompts.table import PromptTable
from synclones.shards.lock import claim

if TYPE_CHECKING:  # torch takes seconds, and a refusal should not wait for it
    from synclones.evaluate.answers.predictions import EvaluatedModel
    from synclones.evaluate.test_set import TestSet

PLAN, IMAGES, TABLE, SCORES = "plan.json", "images.txt", "prompts.parquet", "scores.csv"


@dataclass(frozen=True, kw_only=True)
class ChooseConfig:
    """Choose candidates by what a learner is unsure of; the same learner, candidates and seed give the same bytes."""

    candidates: Path = field(default=Path())
    """Finished set of candidate images, of which the learner was trained on none."""
    out: Path = field(default=Path())
    """Folder of the choice; the same command goes on after a kill."""
    policy: str = "entropy"
    """Which are taken: a file of ablate/policies by name, or one of your own that ends in .yaml."""
    learner: tuple[str, ...] = ()
    """Runs or exports whose answers are scored; a score of disagreement takes two."""
    teacher: str = ""
    """Model whose answers are scored, for a policy of its difficulty; whatever `synclones evaluate --model` takes."""
    take: Count = 0
    """Candidates to take; 0 for the policy's share."""
    table: Path | None = None
    """Prompt table to which a policy that keeps prompts appends those it takes."""
    seed: int = 0
    """Of ties, and of what the policy draws by chance."""
    batch_size: int = 64
    """Images of one forward pass, on which the last bits of logits depend."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when there is one."""
    torch_threads: int = 1
    """Torch's CPU threads: one, so that logits do not depend on the machine's cores."""

    def __post_init__(self) -> None:
        check_ranges(self, take=(0, 2**32), seed=(0, 2**63 - 1), batch_size=(1, 10**5), torch_threads=(1, 1024))
        for name in ("candidates", "out"):
            if getattr(self, name) == Path():
                raise InputError(f"--{name}: none was given; name a folder")


def run_choose(config: ChooseConfig) -> None:
    """Choose, and write the choice, unless it is there already.

    Raises:
        InputError: a policy, a learner, a teacher or a table that do not fit each other; the folder is another's.
        VerificationError: candidates, a model, or what the folder holds are damaged.
    """
    policy = load_policy(config.policy)
    score = load_score(policy.score)
    earlier = _check_given(config, policy, score)
    models, teacher, candidates = _open(config, score)
    plan = _plan(config, policy, models, teacher, candidates, earlier)
    _refuse_few(policy, candidates, plan["take"], config.seed)
    _refuse_other(config.out, plan)
    config.out.mkdir(parents=True, exist_ok=True)
    claimed = claim(config.out, "choose", wait=True)
    assert claimed is not None, "a claim that waits is always granted"
    with claimed:
        _refuse_other(config.out, plan)
        if _is_finished(config.out):
            print(f"{config.out}: complete; nothing to do", file=sys.stderr)
            return
        write_atomic(config.out / PLAN, canonical_json(plan))
        answers = _answers(config, models, teacher, candidates)
        _write(config, policy, score, answers, candidates, earlier, _parents(config, models, teacher, candidates))


def _check_given(config: ChooseConfig, policy: Policy, score: Score) -> PromptTable | None:
    """Refuse what does not fit before torch loads; return the table that grows."""
    if policy.draw != "rounds":
        raise InputError(f"--policy {config.policy}: draws all at once, and chooses nothing; name a loop's")
    if len(config.learner) != score.learners:
        raise InputError(f"--learner: {len(config.learner)} were given, the score {score.name} takes {score.learners}")
    if bool(config.teacher) != score.teacher:
        asked = "asks a teacher; name a model" if score.teacher else "asks none; leave it out"
        raise InputError(f"--teacher: the score {score.name} {asked}")
    if (config.table is not None) != (policy.keep == "prompts"):
        says = "appends prompts to a table; name it" if policy.keep == "prompts" else "keeps images; leave it out"
        raise InputError(f"--table: the policy {config.policy} {says}")
    return None if config.table is None else PromptTable(config.table)


def _open(config: ChooseConfig, score: Score) -> tuple[list["EvaluatedModel"], list["EvaluatedModel"], "TestSet"]:
    """Open learners, teacher and candidates, and compare their classes."""
    from synclones.evaluate.answers.predictions import EvaluatedModel
    from synclones.evaluate.answers.reading import check_classes
    from synclones.evaluate.test_set import TestSet
    from synclones.models.open_model import open_models

    candidates = TestSet(config.candidates)
    opened = []
    for given in (*config.learner, *([config.teacher] if score.teacher else [])):
        several = open_models(given)
        if len(several) != 1:
            raise InputError(f"{given}: holds {len(several)} models; name one of them")
        one = several[0]
        model = EvaluatedModel(one.name, one.classifier, one.sha256, source=one.source, folder=one.folder)
        check_classes(model.name, one.classifier.class_ids, candidates, all_of_them=False)
        opened.append(model)
    if score.learners == 2 and opened[0].weights_sha256 == opened[1].weights_sha256:
        raise InputError(f"--learner: {' and '.join(config.learner)} hold the same weights; train with two seeds")
    return opened[: score.learners], opened[score.learners :], candidates


def _plan(
    config: ChooseConfig,
    policy: Policy,
    learners: list["EvaluatedModel"],
    teacher: list["EvaluatedModel"],
    candidates: "TestSet",
    earlier: PromptTable | None,
) -> dict[str, Any]:
    """Return all that the choice depends on."""
    take = config.take or number_taken(policy, len(candidates))
    plan = {
        "policy": identity(policy),
        "candidates": candidates.content_hash,
        "learners": [model.weights_sha256 for model in learners],
        "teacher": [model.weights_sha256 for model in teacher],
        "table": "" if earlier is None else earlier.check(),
        "take": take,
        "seed": config.seed,
        "batch_size": config.batch_size,
    }
    known: dict[str, Any] = parse_json(canonical_json(plan))  # as it is read back
    return known


def _refuse_few(policy: Policy, candidates: "TestSet", take: int, seed: int) -> None:
    """Refuse to take more than there are, before anything is written: that does not depend on scores."""
    labels, index = candidates.source.all_labels_and_indices()
    choose(policy, np.zeros(len(labels)), index, labels, len(candidates.class_ids), take, seed)


def _refuse_other(out: Path, plan: dict[str, Any]) -> None:
    """Refuse the folder of another choice, or of anything else."""
    if not (out / PLAN).exists():
        strange = (
            next((path for path in out.glob("*") if not path.name.startswith(".")), None) if out.is_dir() else None
        )
        if strange is not None or (out.exists() and not out.is_dir()):
            raise InputError(f"--out: {out} holds {strange or 'a file'}, which no choice wrote; give a new folder")
        return
    try:
        earlier = read_json(out / PLAN)
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        raise VerificationError(f"{out / PLAN}: damaged; remove the folder, and choose again")
    if earlier != plan:
        raise InputError(f"--out: {out} is of another choice: {differences(earlier, plan)}; give a new folder")


def _is_finished(out: Path) -> bool:
    return (out / MANIFEST_FILE).exists() and read_manifest(out)["stage"] == "choose"


def _answers(
    config: ChooseConfig,
    learners: list["EvaluatedModel"],
    teacher: list["EvaluatedModel"],
    candidates: "TestSet",
) -> Answers:
    """Show the candidates to all models; what was kept of an earlier start is taken."""
    labels = candidates.labels.astype(np.int64)
    if not learners + teacher:
        return Answers((), labels)
    import torch

    from synclones.base.machine import choose_device
    from synclones.evaluate.answers.predictions import Predictions, SuiteSet, probabilities
    from synclones.evaluate.answers.reading import read_as
    from synclones.evaluate.predict import predict_plain

    torch.set_num_threads(config.torch_threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    of = SuiteSet(role="reference", name=candidates.name, test_set=candidates)
    for model in learners + teacher:
        model.classifier.to(choose_device(config.device)).requires_grad_(False)
    kept = predict_plain(learners + teacher, of, config.batch_size, config.out, 0, 1)
    answers = []
    for model, predictions in zip(learners + teacher, kept, strict=True):
        read = read_as(predictions, candidates, model.classifier.class_ids)
        assert isinstance(read, Predictions), "candidates are of a folder, whose classes have no members"
        answers.append(probabilities(read.logits))
    return Answers(tuple(answers[: len(learners)]), labels, answers[-1] if teacher else None)


def _write(
    config: ChooseConfig,
    policy: Policy,
    score: Score,
    answers: Answers,
    candidates: "TestSet",
    earlier: PromptTable | None,
    parents: list[Parent],
) -> None:
    """Score and choose; write the choice, then what explains it, the manifest last."""
    labels, (_, index) = answers.labels, candidates.source.all_labels_and_indices()
    prompts = prompts_of(config.candidates) if earlier is not None else None
    scores = score.score(answers)
    if prompts is not None:
        scores = mean_by_prompt(scores, [prompts.rows(i, i + 1)[0].prompt for i in index.tolist()], labels)
    take = config.take or number_taken(policy, len(candidates))
    taken = choose(policy, scores, index, labels, len(candidates.class_ids), take, config.seed)

    out, numbers = config.out, index[taken].tolist()
    if earlier is None or prompts is None:
        write_atomic(out / IMAGES, "".join(f"{number}\n" for number in numbers).encode())
        name, content = IMAGES, sha256_file(out / IMAGES)
    else:
        name, content = TABLE, append_prompts(out / TABLE, earlier, prompts, numbers)
    is_taken = np.isin(np.arange(len(index)), taken).astype(int).tolist()
    rows = zip(index.tolist(), labels.tolist(), scores.tolist(), is_taken, strict=True)
    lines = ["index,label,score,taken", *(f"{i},{label},{value!r},{yes}" for i, label, value, yes in rows)]
    write_atomic(out / SCORES, ("\n".join(lines) + "\n").encode())

    counts = {"candidates": len(index), "taken": len(taken)}
    facts = {"content_hash": content, "files": {name: content}, "mean_score": _means(scores, taken)}
    write_manifest(out, "choose", to_dict(config), parents, counts, {}, facts)
    print(f"{out / name}: {len(taken)} of {len(index)} candidates, {policy.score} {_means(scores, taken)}")


def _means(scores: np.ndarray, taken: np.ndarray) -> dict[str, float]:
    return {"all": round(float(scores.mean()), 6), "taken": round(float(scores[taken].mean()), 6)}


def _parents(
    config: ChooseConfig, learners: list["EvaluatedModel"], teacher: list["EvaluatedModel"], candidates: "TestSet"
) -> list[Parent]:
    parents = [Parent("candidates", str(config.candidates), candidates.content_hash)]
    parents += [_of_model("learner", given, model) for given, model in zip(config.learner, learners, strict=True)]
    parents += [_of_model("teacher", config.teacher, model) for model in teacher]
    if config.table is not None:
        parents.append(Parent("earlier prompts", str(config.table), PromptTable(config.table).check()))
    policy = canonical_json(identity(load_policy(config.policy)))
    return [*parents, Parent("policy", config.policy, sha256_bytes(policy))]


def _of_model(name: str, given: str, model: "EvaluatedModel") -> Parent:
    """Return a model as its run's manifest names it, else by its weights."""
    try:
        return Parent(name, given, str(read_manifest(Path(given))["content_hash"]))
    except (InputError, VerificationError, KeyError):
        return Parent(name, given, model.weights_sha256)

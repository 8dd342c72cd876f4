"""Measures trained classifiers on a labelled folder, with an interval on every number, and compares them.

In: model folders and a dataset folder. Out: one file per result, tables, and ``report.html``. Without arguments it
evaluates the lab's clone on the lab's real digits.

    synclones evaluate --model runs/a runs/b --data data/test --out results/x
"""

import sys
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synclones.base import machine
from synclones.base.errors import InputError, one_line
from synclones.base.process import run_main, stop_on_signals
from synclones.base.stage import Stage, Verb
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.corrupted_settings import CorruptConfig
from synclones.evaluate.settings import EvaluateConfig
from synclones.lab.world import CLONE, REAL_TEST, ensure_clone, ensure_real, lab_classes

if TYPE_CHECKING:  # importing them would load torch for --help
    from accelerate import PartialState

    from synclones.evaluate.predict import TestSet
    from synclones.evaluate.predictions import Condition, EvaluatedModel


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Explain a metric: unit, meaning, sources, and where the papers' code deviates."""

    metric: str = field(kw_only=False)
    """A heading or name of the tables, such as ECE; or a deviation of the papers' code, D1 to D12."""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Print the paper's Tables 1-7: published, corrected (or why not), and the difference. No model, data or GPU."""

    table: tuple[int, ...] = ()
    """Tables by number; all seven by default."""
    format: Literal["markdown", "csv", "latex", "json"] = "markdown"
    """What is printed; values are points of 100 in Markdown and LaTeX, fractions in CSV and JSON."""
    out: Path | None = None
    """Folder to write all four forms into, instead of printing one."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Find from log files alone what went wrong in an evaluation, the official scripts' or ours, and repair logs."""

    results: Path = field(kw_only=False)
    """A JSON file of results, or a folder of them."""
    out: Path | None = None
    """Where repaired logs are written: a file for a file, a folder for a folder; nothing is overwritten."""


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    STAGE.main(argv)


def run(config: EvaluateConfig) -> None:
    """Measure the models on the data, the lab's where none are named."""
    refuse_old_libraries()
    stop_on_signals()
    machine.check_launch()
    # What was given is checked before the lab's clone is trained or its digits are written.
    rank, world_size = machine.rank(), machine.world_size()
    models, test_set = _check_given(config)
    outliers = open_outliers(config, test_set)
    if config.dry_run and _explain_missing(config):
        return
    config = replace(config, model=config.model or (str(ensure_clone()),), data=config.data or ensure_real("test"))
    evaluate(config, models or load_models(config), test_set, outliers, rank, world_size)


def _explain_missing(config: EvaluateConfig) -> bool:
    """Print which inputs of the lab would be made first; whether there are any."""
    wanted = ([] if config.model else [CLONE]) + ([] if config.data else [REAL_TEST])
    missing = [path for path in wanted if not path.exists()]
    if missing:
        print(f"would first make {' and '.join(map(str, missing))}: no --model or --data was given")
    return bool(missing)


def _check_given(config: EvaluateConfig) -> tuple[list["EvaluatedModel"], "TestSet | None"]:
    """Return the models and the data that were named; refuse what is wrong with them or the folder of results."""
    from synclones.evaluate.output import refuse_output
    from synclones.evaluate.predict import TestSet, check_classes

    refuse_output(config)
    test_set = None if config.data is None else TestSet(config.data)
    class_ids, where = (lab_classes(), REAL_TEST) if test_set is None else (test_set.class_ids, test_set.folder)
    models = load_models(config)
    for model in models:
        check_classes(model, class_ids, where)
    return models, test_set


def _explain(config: ExplainConfig) -> None:
    from synclones.evaluate.explain import explain

    print(explain(config.metric))


def _reproduce(config: ReproduceConfig) -> None:
    from synclones.evaluate.published.reproduce import reproduce, write_tables

    if config.out is None:
        print(reproduce(config.table, config.format), end="")
    else:
        print(f"wrote {', '.join(map(str, write_tables(config.table, config.out)))}")


def _audit(config: AuditConfig) -> None:
    from synclones.evaluate.audit.audit import audit

    audit(config.results, config.out)


def open_outliers(config: EvaluateConfig, test_set: "TestSet | None") -> dict[str, "TestSet"]:
    """Open the sets of outliers, named by their folders.

    Raises:
        InputError: what is no set, is the test set itself, or has the name of another set here or in the results.
    """
    from synclones.evaluate.output import refuse_outliers
    from synclones.evaluate.predict import TestSet

    opened: dict[str, TestSet] = {}
    for path in config.outliers:
        name = one_line(path.resolve().name)
        if name in opened:
            raise InputError(f"--outliers: two sets are called {name!r}; results name them so, rename one folder")
        opened[name] = TestSet(path, labelled=False)
        if test_set is not None and opened[name].content_hash == test_set.content_hash:
            raise InputError(f"--outliers: {path} is the test set itself, whose images show the classes; give others")
    refuse_outliers(config, {name: others.content_hash for name, others in opened.items()})
    return opened


def _corrupt(config: CorruptConfig) -> None:
    from synclones.evaluate.corrupted_set import corrupt_set

    stop_on_signals()
    corrupt_set(config)


def evaluate(
    config: EvaluateConfig,
    models: list["EvaluatedModel"],
    test_set: "TestSet | None",
    outliers: dict[str, "TestSet"],
    rank: int,
    world_size: int,
) -> None:
    """Predict what is not cached, and write results."""
    from synclones.evaluate.axis import all_conditions
    from synclones.evaluate.finish import write_results
    from synclones.evaluate.predict import TestSet, predict_all
    from synclones.evaluate.training_data import marked

    assert config.data is not None
    test_set = test_set or TestSet(config.data)
    models = marked(models, test_set, say=rank == 0)
    conditions = all_conditions(config)
    if config.dry_run:
        _print_plan(config, models, conditions, test_set, outliers)
        return

    # All processes predict; from here on numbers are arithmetic on what they computed, which one process does alone.
    if rank == 0:
        _say_unverified(models)
    state = _prepare(config, models, world_size)
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    how = (config.batch_size, config.out, rank, world_size)
    predictions = predict_all(models, test_set, conditions, *how, outliers)
    state.wait_for_everyone()  # a process that leaves early can cut a connection that another still reads from
    state.destroy_process_group()
    if rank == 0:
        write_results(config, test_set, outliers, predictions, time.monotonic() - started)


def _say_unverified(models: list["EvaluatedModel"]) -> None:
    """Say which models' configuration is stated nowhere, so that a changed one would not be noticed."""
    from synclones.models.load import unstated_config

    for folder in (model.folder for model in models if model.folder is not None):
        if name := unstated_config(folder):
            print(
                one_line(f"{folder}: neither manifest nor card states the hash of {name}; it is taken as it is"),
                file=sys.stderr,
            )


def load_models(config: EvaluateConfig) -> list["EvaluatedModel"]:
    """Load the classifiers, named in short where that tells them apart: runs by their folders.

    Raises:
        InputError: when one is none, or one is given twice.
    """
    from synclones.evaluate.predictions import EvaluatedModel
    from synclones.models.open_model import open_models

    opened = [model for given in config.model for model in open_models(given)]
    if len({model.source for model in opened}) < len(opened):
        raise InputError("--model: one model appears twice; give each once")
    for line in [line for model in opened for line in model.notes] if machine.rank() == 0 else []:
        print(one_line(line), file=sys.stderr, flush=True)
    short = [one_line(model.name) for model in opened]
    names = [
        name if short.count(name) == 1 else one_line(model.source) for name, model in zip(short, opened, strict=True)
    ]
    models = [
        EvaluatedModel(
            name, model.classifier, model.sha256, source=model.source, format=model.format, folder=model.folder
        )
        for name, model in zip(names, opened, strict=True)
    ]
    # Results are filed by weights: two names of the same ones would be one row of a table.
    seen: dict[object, str] = {}
    for model in models:
        identity = (model.weights_sha256, model.classifier.preprocessing)
        if identity in seen:
            raise InputError(f"--model: {seen[identity]} and {model.name} hold the same weights; give one of them")
        seen[identity] = model.name
    return models


def _print_plan(
    config: EvaluateConfig,
    models: list["EvaluatedModel"],
    conditions: list["Condition"],
    test_set: "TestSet",
    outliers: dict[str, "TestSet"],
) -> None:
    from synclones.models.network import described

    for model in models:
        print(
            f"model      {model.name}, weights {model.weights_sha256[:16]}, {model.format}, "
            f"{described(model.classifier.preprocessing)}"
        )
    print(f"data       {config.data}: {len(test_set)} images")
    for name, others in outliers.items():
        print(f"outliers   {name}: {len(others)} images")
    passes = len(test_set) * sum(condition.passes for condition in conditions) + sum(map(len, outliers.values()))
    print(
        f"conditions {', '.join(map(str, conditions))}\n"
        f"work       {passes * len(models)} passes at most, forward and backward"
    )


def _prepare(config: EvaluateConfig, models: list["EvaluatedModel"], world_size: int) -> "PartialState":
    """Set threads and device, and join the other processes."""
    import torch
    from accelerate import PartialState

    torch.set_num_threads(config.torch_threads or machine.cores())
    device = machine.choose_device(config.device)
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits would move logits by more than some differences
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    state = PartialState(cpu=device == "cpu", timeout=timedelta(seconds=config.timeout_s))
    machine.check_world_size(world_size, state.num_processes)
    for model in models:
        model.classifier.to(state.device).requires_grad_(False)
    return state


STAGE = Stage(
    name="evaluate",
    phrase="Measure trained classifiers on a labelled folder, with an interval on every number, and compare them.",
    verbs={
        "run": Verb(EvaluateConfig, run),
        "explain": Verb(ExplainConfig, _explain),
        "reproduce-tables": Verb(ReproduceConfig, _reproduce, ("--table 3", "--format csv", "--out results/published")),
        "audit": Verb(AuditConfig, _audit, ("logs", "corruptions/results/2DCC/CLIP.json --out CLIP.json")),
        "corrupt": Verb(
            CorruptConfig,
            _corrupt,
            (
                "--data imagenet/val --out imagenet-c --crop-px 224",
                "--data data/lab-real-test --out lab-c --corruptions fog snow",
            ),
        ),
    },
    examples=(
        "synclones evaluate",
        "synclones evaluate --model runs/a runs/b --data data/test --out results/x",
        "synclones evaluate explain ECE",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

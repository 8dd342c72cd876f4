"""Measures trained classifiers on sets of images, with an interval on every number, and compares them.

In: model folders, and a labelled folder or a suite of image sets. Out: one file per result, tables, and
``report.html``. Without arguments it evaluates the lab's clone on the lab's real digits.

    synclones evaluate --model runs/a runs/b --data data/test --out results/x
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from synclones.base import machine
from synclones.base.config import save
from synclones.base.dry_run import DryRun
from synclones.base.process import run_main, stop_on_signals
from synclones.base.resume import CONFIG, resumed_by, typed
from synclones.base.stage import Stage, Verb
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.checks.doctor_settings import DoctorConfig
from synclones.evaluate.corruptions.corrupted_settings import CorruptConfig
from synclones.evaluate.settings import EvaluateConfig
from synclones.lab.world import CLONE, REAL_TEST, ROBUST, ensure_clone, ensure_real, ensure_robust, lab_classes
from synclones.shards.lock import claim


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
    """Measure the models on the data in a process of its own."""
    stop_on_signals()
    perform(config)


def perform(config: EvaluateConfig) -> None:
    """Measure the models on the data, the lab's where none are named."""
    from synclones.evaluate.evaluation import evaluate_models
    from synclones.evaluate.inputs import check_given, load_models, open_folders, open_named_suite

    refuse_old_libraries()
    machine.check_launch()
    # What was given is checked before the lab's clone is trained or its sets are made.
    rank, world_size = machine.rank(), machine.world_size()
    models, sets = check_given(config, lab_classes(), REAL_TEST)
    if config.dry_run and _explain_missing(config):
        return
    config = replace(config, model=config.model or (str(ensure_clone()),))
    if config.suite:
        config = replace(config, data_root=config.data_root or ensure_robust())
        sets = sets or open_named_suite(config)
    else:
        config = replace(config, data=config.data or ensure_real("test"))
        sets = sets or open_folders(config)
    models = models or load_models(config)
    if config.dry_run:
        evaluate_models(config, models, sets, rank, world_size)
        return
    settings = config.out / CONFIG
    config.out.mkdir(parents=True, exist_ok=True)
    # Those of one evaluation at a time: another one that runs beside it is gone on with as it was typed.
    held = claim(config.out, "evaluation") if rank == 0 else None
    if held is None:
        evaluate_models(config, models, sets, rank, world_size)
        return
    with held, resumed_by(typed(["evaluate", "--config", str(settings)])):
        save(config, settings)  # for as long as there is something to go on with; then the manifest has them
        evaluate_models(config, models, sets, rank, world_size)
        settings.unlink(missing_ok=True)
        held.path.unlink(missing_ok=True)


def _explain_missing(config: EvaluateConfig) -> bool:
    """Print which inputs of the lab would be made first; whether there are any."""
    wanted = [] if config.model else [CLONE]
    if config.suite:
        wanted += [] if config.data_root else [ROBUST]
    else:
        wanted += [] if config.data else [REAL_TEST]
    missing = [path for path in wanted if not path.exists()]
    if missing:
        what = "--model or --data-root" if config.suite else "--model or --data"
        dry = DryRun("evaluate")
        first = f"would first make {' and '.join(map(str, missing))}: no {what} was given"
        dry.line("", first, missing=list(map(str, missing)))
        dry.print()
    return bool(missing)


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


def _doctor(config: DoctorConfig) -> None:
    from synclones.evaluate.checks.doctor import run_doctor
    from synclones.evaluate.suite import read_suite

    suite = read_suite(config.suite)
    run_doctor(config, suite.members, suite.class_ids)


def _corrupt(config: CorruptConfig) -> None:
    from synclones.evaluate.corruptions.corrupted_set import corrupt_set

    stop_on_signals()
    corrupt_set(config)


STAGE = Stage(
    name="evaluate",
    phrase="Measure trained classifiers on sets of images, with an interval on every number, and compare them.",
    verbs={
        "run": Verb(EvaluateConfig, run, json=True),
        "doctor": Verb(DoctorConfig, _doctor, ("--suite synthetic-clones --data-root /data",)),
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
            divided=True,
        ),
    },
    examples=(
        "synclones evaluate",
        "synclones evaluate --model runs/a runs/b --data data/test --out results/x",
        "synclones evaluate --suite lab --out results/lab-suite",
        "synclones evaluate explain ECE",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

"""Plans, runs and reports grids: the papers' experiments, and others, each as one command.

In: a grid, a world, a scale. Out: steps and their outputs in a store, and a report. Without arguments it shows the plan
of Table 6 in the lab.

    synclones ablate plan table6 --world imagenet
    synclones ablate run table6 --world lab --scale 1/4000
    synclones ablate report table6 --world lab --scale 1/4000
"""

import csv
import io
import sys
from pathlib import Path

from synclones.ablate.choose import ChooseConfig, run_choose
from synclones.ablate.costs import missing_inputs
from synclones.ablate.plan import Plan
from synclones.ablate.plan_text import plan_lines
from synclones.ablate.planned import planned, remember, run_words
from synclones.ablate.practice import PracticeConfig, run_practice
from synclones.ablate.settings import LabConfig, NamesConfig, PlanConfig, ReportConfig, RunConfig
from synclones.ablate.store import Store
from synclones.ablate.what_if import WhatIfConfig, run_what_if
from synclones.base.errors import InputError, MachineError
from synclones.base.files import write_atomic
from synclones.base.machine import cores
from synclones.base.process import run_main, stop_on_signals
from synclones.base.stage import Stage, Verb


def main(argv: list[str]) -> None:
    """Run one verb; ``plan`` when none is given."""
    STAGE.main(argv)


def _plan(config: PlanConfig) -> None:
    plan, store = planned(config)
    from synclones.ablate.foretold import expected_rows
    from synclones.ablate.gather import gather

    print("\n".join(plan_lines(plan, store, config.price_per_hour, expected_rows(gather(plan, store)))))


def _run(config: RunConfig) -> None:
    plan, store = planned(config)
    if config.write:
        from synclones.ablate.cluster_commands import write_commands

        print(
            write_commands(plan, store, config.write, config.write_to, config.gpus, ["synclones", *run_words(config)])
        )
        return
    from synclones.ablate.execute import execute

    stop_on_signals()
    remember(config, plan, store)
    processes = config.processes or cores()
    outcome = execute(plan, store, processes, say=lambda line: print(line, flush=True))
    _write_report(plan, store, None)
    if outcome.failed:
        first = next(iter(outcome.failed.values()))
        cells = sum(any(step.key in outcome.failed for step in cell.steps) for cell in plan.cells)
        line = f"{cells} of {len(plan.cells)} cells are not computed; the first: {first}"
        raise MachineError(line) if outcome.exit_code == 4 else InputError(line)
    reasons = [cell.reason for cell in plan.cells if cell.reason]
    if reasons:
        raise InputError(f"{len(reasons)} of {len(plan.cells)} cells cannot be built; the first: {reasons[0]}")


def _report(config: ReportConfig) -> None:
    plan, store = planned(config)
    _write_report(plan, store, config.report)


def _write_report(plan: Plan, store: Store, folder: Path | None) -> None:
    from synclones.ablate.gather import gather, report_folder, write_cells
    from synclones.ablate.report import write_report

    results = gather(plan, store)
    folder = folder or report_folder(plan, store)
    write_cells(results, folder)
    write_report(results, folder)
    computed = sum(cell.results is not None for cell in results.cells)
    print(f"{folder}: {computed} of {len(results.cells)} cells are computed")
    for one in missing_inputs(plan, set()):
        print(f"missing: {one.where_it_lies}: {one.get}", file=sys.stderr)


def _lab(config: LabConfig) -> None:
    from synclones.lab.world import write_lab_set

    write_lab_set(config.set, config.out)
    print(f"{config.out}: written")


def _names(config: NamesConfig) -> None:
    from synclones.prompts.classes.lists import load_classes

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class_id", "name"])
    rows.writerows([one.class_id, one.name] for one in load_classes(config.classes).classes)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out, text.getvalue().encode())
    print(f"{config.out}: written")


STAGE = Stage(
    name="ablate",
    phrase="Plan, run and report grids: the papers' experiments, and others, each as one command.",
    verbs={
        "plan": Verb(PlanConfig, _plan, ("table6 --world imagenet", "table6 --only images=1M,4M")),
        "run": Verb(
            RunConfig,
            _run,
            ("table6 --world lab --scale 1/4000", "table6 --world imagenet --write slurm --write-to jobs"),
        ),
        "report": Verb(ReportConfig, _report, ("table6 --world lab --scale 1/4000",)),
        "practice": Verb(
            PracticeConfig,
            run_practice,
            ("--policy entropy random at-once same-compute --seeds 3 --out practice", "--policy entropy --dry-run"),
        ),
        "choose": Verb(
            ChooseConfig,
            run_choose,
            ("--candidates data/c1 --learner runs/r0 --policy entropy --out choices/r1",),
        ),
        "what-if": Verb(
            WhatIfConfig,
            run_what_if,
            (
                "runs/syn --without doubtful.txt --out without",
                "runs/syn --classes 7 --prompts captions.parquet --seeds 3",
            ),
        ),
        "lab": Verb(LabConfig, _lab, ("--set real --out data/lab-real",)),
        "names": Verb(NamesConfig, _names, ("--classes imagenet1k --out names.csv",)),
    },
    examples=(
        "synclones ablate plan table6 --world imagenet",
        "synclones ablate run table6 --world lab --scale 1/4000",
        "synclones ablate report table6 --world lab --scale 1/4000",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

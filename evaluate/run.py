"""Measures trained classifiers on a labelled folder, with an interval on every number, and compares them.

In: model folders and a dataset folder. Out: one file per result, tables, and ``report.html``. Without arguments it
evaluates the lab's clone on the lab's real digits.

    synclones evaluate --model runs/a runs/b --data data/test --out results/x
"""

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base import machine
from synclones.base.config import to_dict
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.process import run_main, stop_on_signals
from synclones.base.stage import Stage, Verb
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.settings import EvaluateConfig
from synclones.lab.world import ensure_clone, ensure_real

if TYPE_CHECKING:  # importing them would load torch for --help
    from accelerate import PartialState

    from synclones.evaluate.predict import TestSet
    from synclones.evaluate.predictions import Condition, EvaluatedModel, ModelPredictions

MAX_COMPARED = 6


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Explain a metric: unit, meaning, sources, and where the papers' code deviates."""

    metric: str = field(kw_only=False)
    """A heading or name of the tables, such as ECE."""


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    STAGE.main(argv)


def run(config: EvaluateConfig) -> None:
    """Measure the models on the data, the lab's where none are named."""
    refuse_old_libraries()
    stop_on_signals()
    machine.check_launch()
    config = replace(config, model=config.model or (ensure_clone(),), data=config.data or ensure_real("test"))
    evaluate(config, machine.rank(), machine.world_size())


def _explain(config: ExplainConfig) -> None:
    from synclones.evaluate.explain import explain

    print(explain(config.metric))


def evaluate(config: EvaluateConfig, rank: int, world_size: int) -> None:
    """Check all input, predict what is not cached, and write results."""
    from synclones.evaluate.axis import all_conditions
    from synclones.evaluate.predict import TestSet, check_classes, predict
    from synclones.evaluate.predictions import ModelPredictions

    # All that the user can get wrong comes first: nothing is written, and no time spent, for what will be refused.
    assert config.data is not None
    _refuse_out(config)
    test_set = TestSet(config.data)
    models = load_models(config)
    for model in models:
        check_classes(model, test_set)
    conditions = all_conditions(config)
    if config.dry_run:
        _print_plan(config, models, conditions, len(test_set))
        return

    # All processes predict; from here on numbers are arithmetic on what they computed.
    state = _prepare(config, models, world_size)
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    predictions = []
    for model in models:
        by_condition = {
            condition: predict(model, test_set, condition, config.batch_size, config.out, rank, world_size)
            for condition in conditions
        }
        predictions.append(ModelPredictions(model, by_condition))
        if rank == 0:
            print(f"{model.name}: {len(test_set)} images, {len(conditions)} times", file=sys.stderr, flush=True)
    if rank == 0:
        write_results(config, test_set, predictions, time.monotonic() - started)
    state.wait_for_everyone()  # a process that leaves early can cut a connection that another still reads from
    state.destroy_process_group()


def _refuse_out(config: EvaluateConfig) -> None:
    """Refuse a file where a folder should be, another stage's folder, and results of other settings."""
    from synclones.evaluate.results import refuse_mixture

    taken = next((path for path in (config.out, *config.out.parents) if path.is_file()), None)
    if taken is not None:
        raise InputError(f"--out {config.out}: {taken} is a file; give a folder, new or of an earlier evaluation")
    if (config.out / MANIFEST_FILE).is_file() and (stage := read_manifest(config.out)["stage"]) != "evaluate":
        raise InputError(f"--out {config.out}: belongs to `synclones {stage}`; give a new folder")
    wanted = {"seed": config.seed, "bins": config.ece_bins, "resamples": config.resamples}
    refuse_mixture(config.out, wanted)


def load_models(config: EvaluateConfig) -> list["EvaluatedModel"]:
    """Load the classifiers, named by their run folders where that tells them apart.

    Raises:
        InputError: when one is none, or one is given twice.
    """
    from synclones.evaluate.predictions import EvaluatedModel
    from synclones.models.folder import find_export, load_classifier

    folders = [find_export(path) for path in config.model]
    runs = [folder.parent if folder.name == "export" else folder for folder in folders]
    if len(set(folders)) < len(folders):
        raise InputError("--model: one model appears twice; give each once")
    names = [run.resolve().name for run in runs]
    names = [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]
    models = [EvaluatedModel(name, *load_classifier(folder)) for name, folder in zip(names, folders, strict=True)]
    # Results are filed by weights: two names of the same ones would be one row of a table.
    seen: dict[object, str] = {}
    for model in models:
        identity = (model.weights_sha256, model.classifier.preprocessing)
        if identity in seen:
            raise InputError(f"--model: {seen[identity]} and {model.name} hold the same weights; give one of them")
        seen[identity] = model.name
    return models


def _print_plan(config: EvaluateConfig, models: list["EvaluatedModel"], conditions: list["Condition"], n: int) -> None:
    for model in models:
        print(f"model      {model.name}, weights {model.weights_sha256[:16]}")
    passes = n * len(models) * sum(condition.passes for condition in conditions)
    print(
        f"data       {config.data}: {n} images\nconditions {', '.join(map(str, conditions))}\n"
        f"work       {passes} passes at most, forward and backward"
    )


def _prepare(config: EvaluateConfig, models: list["EvaluatedModel"], world_size: int) -> "PartialState":
    """Set threads and device, and join the other processes."""
    import torch
    from accelerate import PartialState

    torch.set_num_threads(config.torch_threads or machine.cores())
    device = machine.choose_device(config.device)
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits would move logits by more than some differences
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    state = PartialState(cpu=device == "cpu")
    machine.check_world_size(world_size, state.num_processes)
    for model in models:
        model.classifier.to(state.device).requires_grad_(False)
    return state


def write_results(
    config: EvaluateConfig, test_set: "TestSet", models: list["ModelPredictions"], seconds: float
) -> None:
    """Write cells, tables, report and manifest, and print the table."""
    from synclones.evaluate.compare import compare
    from synclones.evaluate.measure import cells_of, measure
    from synclones.evaluate.reports.html_report import write_report
    from synclones.evaluate.reports.tables import markdown, write_tables
    from synclones.evaluate.results import read_cells, write_cell

    by_model = measure(models, config)
    cells = []
    for predictions, numbers in zip(models, by_model, strict=True):
        cells += cells_of(predictions.model, test_set, numbers, config)
    for cell in cells:
        write_cell(config.out, cell)
    # Tables and manifest are of the whole folder, earlier results included; the report is of these models.
    write_tables(config.out, read_cells(config.out))
    names = [predictions.model.name for predictions in models]
    compared = compare(dict(list(zip(names, by_model, strict=True))[:MAX_COMPARED]))
    write_report(config.out / "report.html", test_set, models, cells, compared)
    _write_manifest(config, test_set, seconds)
    print(markdown(cells))
    print("percent, with 95 % intervals over the test images")
    for item in compared:
        if item.difference is not None and item.difference.inside_noise and item.metric == "accuracy":
            print(f"{item.first} and {item.second}: the difference in accuracy is inside the noise")
    print(f"look: {config.out / 'report.html'}")


def _write_manifest(config: EvaluateConfig, test_set: "TestSet", seconds: float) -> None:
    """Write the manifest; the parents are those of all results in the folder, earlier evaluations included."""
    results = (config.out / "results.jsonl").read_bytes()
    parents = [_parent(path) for path in config.model]
    parents.append(Parent("test data", str(test_set.folder), test_set.content_hash))
    if (config.out / MANIFEST_FILE).is_file():
        known = {parent.content_hash for parent in parents}
        earlier = [Parent(**parent) for parent in read_manifest(config.out)["parents"]]
        parents = [parent for parent in earlier if parent.content_hash not in known] + parents
    counts = {"results": results.count(b"\n"), "images": len(test_set)}
    times, content = {"seconds": round(seconds, 1)}, {"content_hash": sha256_bytes(results)}
    write_manifest(config.out, "evaluate", to_dict(config), parents, counts, times, content)


def _parent(path: Path) -> Parent:
    """Return a model as its run's manifest names it, else by its weights."""
    from synclones.base.files import sha256_file
    from synclones.models.folder import WEIGHTS, find_export

    folder = find_export(path)
    run = folder.parent if folder.name == "export" else folder
    try:
        return Parent("model", str(run), str(read_manifest(run)["content_hash"]))
    except (InputError, VerificationError, KeyError):
        return Parent("model", str(folder), sha256_file(folder / WEIGHTS))


STAGE = Stage(
    name="evaluate",
    phrase="Measure trained classifiers on a labelled folder, with an interval on every number, and compare them.",
    verbs={"run": Verb(EvaluateConfig, run), "explain": Verb(ExplainConfig, _explain)},
    examples=(
        "synclones evaluate",
        "synclones evaluate --model runs/a runs/b --data data/test --out results/x",
        "synclones evaluate explain ECE",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

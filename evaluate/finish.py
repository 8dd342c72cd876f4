"""What an evaluation leaves behind: a file per number, tables and report of all numbers in the folder, the manifest.

In: predictions of models on the sets of a suite. Out: the folder of results, and the table on the terminal.
"""

import sys
from dataclasses import replace

from synclones.base.config import to_dict
from synclones.base.errors import InputError, VerificationError, one_line
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.output import print_json, wants_json
from synclones.evaluate.answers.predictions import EvaluatedModel, ModelPredictions, SuiteSet
from synclones.evaluate.axis import metrics
from synclones.evaluate.checks.training_data import trained_on_generated
from synclones.evaluate.compare import Comparison, chance, compare
from synclones.evaluate.measure import cells_of, measure
from synclones.evaluate.published.tripwire import unexpected
from synclones.evaluate.reports.cell_text import beside, trained_note
from synclones.evaluate.reports.html_report import write_report
from synclones.evaluate.reports.names import Names, names_of
from synclones.evaluate.reports.tables import markdown, write_tables
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.output import LOGITS, REPORT, owned, refuse_other_settings, refuse_outliers
from synclones.evaluate.stored.pieces import remove_finished
from synclones.evaluate.stored.results import Cell, read_cells, write_cells
from synclones.models.load import files_of

MAX_COMPARED = 6


def write_results(
    config: EvaluateConfig, sets: list[SuiteSet], models: list[ModelPredictions], suite: str, seconds: float
) -> None:
    """Write cells, tables, report and manifest, and print the table.

    Args:
        sets: the reference is the first.
        models: each under one protocol or several.
        suite: what numbers are measured by.

    Raises:
        VerificationError: when the folder holds other numbers of the same models, or a damaged one.
    """
    by_model = measure(models, config)
    own = [cells_of(item, numbers, config, suite) for item, numbers in zip(models, by_model, strict=True)]
    # Two evaluations of one folder write one after the other, and each makes its tables of what both have written.
    with owned(config.out, config.timeout_s):
        refuse_other_settings(config)
        refuse_outliers(config, {of.title: of.test_set.content_hash for of in sets if of.role == "outliers"})
        for folder in (config.out, config.out / LOGITS):  # what killed evaluations left
            remove_dead_temporaries(folder)
        remove_finished(config.out / LOGITS)
        write_cells(config.out, [cell for cells in own for cell in cells])
        everything = read_cells(config.out)
        write_tables(config.out, everything)
        # From here on every model goes by the name that no other result of the folder has.
        names = names_of(everything)
        corrected = [k for k, item in enumerate(models) if not item.deviations] or list(range(len(models)))
        shown = [_renamed(models[k], own[k], names) for k in corrected]
        pairs = [(item.model.name, by_model[k]) for item, k in zip(shown, corrected, strict=True)][:MAX_COMPARED]
        compared = compare(dict(pairs))
        report = config.out / REPORT
        folders = {item.model.name: item.model.folder for item in shown if item.model.folder is not None}
        synthetic = {name: trained_on_generated(folder) for name, folder in folders.items()}
        write_report(report, sets[0].test_set, shown, everything, names, compared, config.ece_bins, synthetic)
        _write_manifest(config, sets, [item.model for item in models], seconds)
    _print(config, [cell for cells in own for cell in cells], names, compared)


def _renamed(item: ModelPredictions, cells: list[Cell], names: Names) -> ModelPredictions:
    return replace(item, model=replace(item.model, name=names.models[cells[0].model_identity]))


def _print(config: EvaluateConfig, cells: list[Cell], names: Names, compared: list[Comparison]) -> None:
    """Print what puts numbers in doubt, the table of this evaluation, and which of its differences may be chance."""
    if wants_json():
        results = [parse_json(canonical_json(cell.facts())) for cell in cells]
        print_json({"folder": str(config.out), "report": str(config.out / REPORT), "results": results})
    alarming = {name for name, metric in metrics().items() if metric.alarming}
    doubts = [f"{cell.model}: {note}" for cell in cells if cell.metric in alarming for note in cell.notes]
    for line in [*unexpected(cells), *doubts]:
        print(one_line(line), file=sys.stderr, flush=True)
    print(markdown(cells, names))
    print(f"percent, with 95 % intervals over the test images.{beside(cells)}{trained_note(cells)}")
    for item in compared:
        if item.difference is not None and item.difference.inside_noise and item.metric == "accuracy":
            print(f"{item.first} and {item.second}: the difference in accuracy is inside the noise")
    if compared:
        print(chance(compared))
    print(f"look: {config.out / REPORT}")


def _write_manifest(config: EvaluateConfig, sets: list[SuiteSet], models: list[EvaluatedModel], seconds: float) -> None:
    """Write the manifest; the parents are those of all results in the folder, earlier evaluations included."""
    results = (config.out / "results.jsonl").read_bytes()
    parents = list(dict.fromkeys(_parent(model) for model in models))
    kinds = {"reference": "test data", "outliers": "outliers"}
    parents += [Parent(kinds.get(of.role, of.title), str(of.test_set.folder), of.test_set.source_hash) for of in sets]
    if (config.out / MANIFEST_FILE).is_file():
        known = {parent.content_hash for parent in parents}
        earlier = [Parent(**parent) for parent in read_manifest(config.out).get("parents", [])]
        parents = [parent for parent in earlier if parent.content_hash not in known] + parents
    counts = {"results": results.count(b"\n"), "images": sum(len(of.test_set) for of in sets if of.role == "reference")}
    times, content = {"seconds": round(seconds, 1)}, {"content_hash": sha256_bytes(results)}
    write_manifest(config.out, "evaluate", to_dict(config), parents, counts, times, content)


def _parent(model: EvaluatedModel) -> Parent:
    """Return a model as its run's manifest names it, else by its weights."""
    folder = model.folder
    if folder is None:
        return Parent("model", model.source, model.weights_sha256)
    run = folder.parent if folder.name == "export" else folder
    try:
        return Parent("model", str(run), str(read_manifest(run)["content_hash"]))
    except (InputError, VerificationError, KeyError):
        return Parent("model", str(folder), sha256_file(folder / files_of(folder)[1]))

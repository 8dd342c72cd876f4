"""What an evaluation leaves behind: a file per number, tables and report of all numbers in the folder, the manifest.

In: predictions of models on the sets of a suite. Out: the folder of results, and the table on the terminal.
"""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from synclones.base.config import to_dict
from synclones.base.errors import InputError, VerificationError, one_line
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.output import print_json, wants_json
from synclones.evaluate.answers.predictions import EvaluatedModel, ModelPredictions, SuiteSet
from synclones.evaluate.axis import all_conditions, metrics
from synclones.evaluate.compare import compare, family_note
from synclones.evaluate.measure import cells_of, measure
from synclones.evaluate.predict import predicted_earlier
from synclones.evaluate.published.tripwire import unexpected
from synclones.evaluate.reports.cell_text import beside, trained_note
from synclones.evaluate.reports.chance import at_chance
from synclones.evaluate.reports.html_report import Evaluation, write_report
from synclones.evaluate.reports.names import Names, names_of
from synclones.evaluate.reports.tables import markdown, write_tables
from synclones.evaluate.reports.verdict import verdict
from synclones.evaluate.settings import EvaluateConfig, command_of
from synclones.evaluate.stored.origins import KEPT, Origin, origins_in, to_json, with_models
from synclones.evaluate.stored.output import LOGITS, REPORT, owned, refuse_other_settings, refuse_outliers
from synclones.evaluate.stored.pieces import remove_finished
from synclones.evaluate.stored.results import Cell, read_cells, write_cells
from synclones.models.load import files_of
from synclones.models.network import Classifier, Preprocessing

MAX_COMPARED = 40
"""Models; each pair of them is compared in each number."""


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
        numbers = {item.model.name: by_model[k] for item, k in zip(shown, corrected, strict=True)}
        # The report is about all models of the folder, whichever command added them, in the order of its tables.
        if not any(item.deviations for item in shown):
            earlier = _earlier(config, sets, everything, names, {item.model.name for item in shown})
            shown += earlier
            compared_in = measure(earlier, config, compared_only=True)
            numbers |= {item.model.name: own for item, own in zip(earlier, compared_in, strict=True)}
        order = {name: number for number, name in enumerate(names.models.values())}
        shown.sort(key=lambda item: order[item.model.name])
        compared = compare({item.model.name: numbers[item.model.name] for item in shown[:MAX_COMPARED]})
        evaluated = {cells[0].model_identity: item.model for item, cells in zip(models, own, strict=True) if cells}
        origins = with_models(origins_in(config.out), evaluated)
        made = Evaluation(sets[0].test_set, shown, everything, names, compared, origins, command_of(config))
        write_report(config.out / REPORT, made, config.ece_bins)
        _write_manifest(config, sets, [item.model for item in models], origins, seconds)
    _print(config, [cell for cells in own for cell in cells], made)


def _earlier(
    config: EvaluateConfig, sets: list[SuiteSet], cells: list[Cell], names: Names, asked: set[str]
) -> list[ModelPredictions]:
    """Return the predictions of the models of the folder that are not ``asked`` now, where all are kept."""
    test_set = sets[0].test_set
    if test_set.members:  # the models' own classes are more than the set's, and no file says which
        return []
    first = {cell.model_identity: cell for cell in reversed(cells)}
    models = [
        EvaluatedModel(
            name,
            Classifier(nn.Identity(), _preprocessing(first[identity]), test_set.class_ids),
            first[identity].weights_sha256,
        )
        for identity, name in names.models.items()
        if name not in asked
    ]
    return predicted_earlier(models, sets, partial(all_conditions, config), config.out)


def _preprocessing(cell: Cell) -> Preprocessing:
    stated = parse_json(cell.preprocessing.encode())
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stated.items()}
    return Preprocessing(**known)


def _renamed(item: ModelPredictions, cells: list[Cell], names: Names) -> ModelPredictions:
    return replace(item, model=replace(item.model, name=names.models[cells[0].model_identity]))


def _print(config: EvaluateConfig, cells: list[Cell], made: Evaluation) -> None:
    """Print what puts numbers in doubt, the table of this evaluation, and what it has come to."""
    if wants_json():
        results = [parse_json(canonical_json(cell.facts())) for cell in cells]
        print_json({"folder": str(config.out), "report": str(config.out / REPORT), "results": results})
    alarming = {name for name, metric in metrics().items() if metric.alarming}
    doubts = [f"{cell.model}: {note}" for cell in cells if cell.metric in alarming for note in cell.notes]
    for line in [*unexpected(cells), *doubts]:
        print(one_line(line), file=sys.stderr, flush=True)
    print(markdown(cells, made.names))
    print(f"percent, with 95 % intervals over the test images.{beside(cells)}{trained_note(cells)}")
    if made.compared:
        guessing = at_chance(made.cells, made.names, made.test_set)
        for line in (*verdict(made.compared, at_chance=guessing), family_note(made.compared)):
            print(one_line(line))
        for name, how in guessing.items():
            print(one_line(f"{name}: at chance ({how})"))
    print(f"look: {config.out / REPORT}")


def _write_manifest(
    config: EvaluateConfig,
    sets: list[SuiteSet],
    models: list[EvaluatedModel],
    origins: dict[str, Origin],
    seconds: float,
) -> None:
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
    times = {"seconds": round(seconds, 1)}
    more = {"content_hash": sha256_bytes(results), KEPT: to_json(origins)}
    write_manifest(config.out, "evaluate", to_dict(config), parents, counts, times, more)


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

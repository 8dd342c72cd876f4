"""What an evaluation is given: models and sets of images, opened and compared before anything is computed.

In: `EvaluateConfig`. Out: `EvaluatedModel`s and `SuiteSet`s, and the plan that ``--dry-run`` prints.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from synclones.base import machine
from synclones.base.dry_run import DryRun
from synclones.base.errors import InputError, one_line
from synclones.base.units import format_count
from synclones.evaluate.answers.predictions import Condition, EvaluatedModel, SuiteSet
from synclones.evaluate.answers.reading import check_classes, check_same
from synclones.evaluate.bounds.stopped import BLOCK
from synclones.evaluate.layout import Role
from synclones.evaluate.measure import SUITE
from synclones.evaluate.methods.auto_attack import library, refuse_few_classes
from synclones.evaluate.opening.relabel import relabelled
from synclones.evaluate.protocols import followed
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.output import refuse_outliers, refuse_output
from synclones.evaluate.suite import only, open_suite, read_suite, suite_of_folders
from synclones.evaluate.test_set import TestSet
from synclones.models.load import unstated_config
from synclones.models.network import described
from synclones.models.open_model import open_models

LAB = "lab"
"""The suite whose sets are made where no folder of data is given."""


def check_given(
    config: EvaluateConfig, lab_classes: tuple[str, ...], lab_data: Path
) -> tuple[list[EvaluatedModel], list[SuiteSet]]:
    """Return the models and sets that were named; refuse what is wrong with them or the folder of results.

    Args:
        lab_classes: what models are compared with where no set is named.
        lab_data: what stands for them in messages.

    Raises:
        InputError: naming it.
    """
    refuse_output(config)
    machine.choose_device(config.device)
    if "autoattack" in config.attacks:
        library()
    for name in config.protocol:
        followed(name, config.deviations)
    sets: list[SuiteSet] = []
    if config.suite:
        suite = only(read_suite(config.suite), config.sets)
        if config.data_root is not None:
            sets = open_suite(suite, config.data_root)
        elif suite.name != LAB:
            raise InputError(f"--suite {config.suite}: its sets lie below a folder; give it by --data-root")
    elif config.data is not None:
        sets = open_folders(config)
    for path in config.outliers if not sets else ():
        TestSet(path, labelled=False)
    models = load_models(config)
    sets = in_models_order(config, sets, models)
    for model in models if not sets else []:
        check_same(model.name, model.classifier.class_ids, lab_classes, str(lab_data))
    refuse_other_classes(models, sets)
    if "autoattack" in config.attacks:
        refuse_few_classes(models)
    return models, sets


def in_models_order(config: EvaluateConfig, sets: list[SuiteSet], models: list[EvaluatedModel]) -> list[SuiteSet]:
    """Return a folder's classes, which are sorted by name, in the first model's order where they are the same ones.

    A class is known by its id, so that nothing is lost; sets of a suite have the order that the suite states.
    """
    if config.data is None or not sets or not models:
        return sets
    (reference, *others), ids = sets, models[0].classifier.class_ids
    stored = reference.test_set.class_ids
    if stored == ids or sorted(stored) != sorted(ids):
        return sets
    test_set = relabelled(reference.test_set.source, {class_id: class_id for class_id in ids}, ids)
    return [replace(reference, test_set=test_set), *others]


def refuse_other_classes(models: list[EvaluatedModel], sets: list[SuiteSet]) -> None:
    """Refuse models whose outputs do not stand for the classes of every set that shows some.

    Raises:
        InputError: naming model, set and class.
    """
    for model in models:
        for of in sets:
            if of.role != "outliers":
                ids = model.classifier.class_ids
                check_classes(model.name, ids, of.test_set, all_of_them=of.role == "reference")


def open_named_suite(config: EvaluateConfig) -> list[SuiteSet]:
    """Open the sets of the suite that are asked for, the reference first.

    Raises:
        InputError: some are missing.
    """
    assert config.data_root is not None
    return open_suite(only(read_suite(config.suite), config.sets), config.data_root)


def suite_title(config: EvaluateConfig) -> str:
    """Return what numbers are measured by."""
    return read_suite(config.suite).title if config.suite else SUITE


def open_folders(config: EvaluateConfig) -> list[SuiteSet]:
    """Open the labelled folder, and the sets of outliers, named by their folders.

    Raises:
        InputError: what is no set, is the test set itself, or has the name of another set here or in the results.
    """
    assert config.data is not None
    test_set, opened = TestSet(config.data), {}
    for path in config.outliers:
        name = one_line(path.resolve().name)
        if name in opened:
            raise InputError(f"--outliers: two sets are called {name!r}; results name them so, rename one folder")
        opened[name] = TestSet(path, labelled=False)
        if opened[name].content_hash == test_set.content_hash:
            raise InputError(f"--outliers: {path} is the test set itself, whose images show the classes; give others")
    refuse_outliers(config, {name: others.content_hash for name, others in opened.items()})
    return suite_of_folders(test_set, opened)


def say_unverified(models: list[EvaluatedModel]) -> None:
    """Say which models' configuration is stated nowhere, so that a changed one would not be noticed."""
    for folder in (model.folder for model in models if model.folder is not None):
        if name := unstated_config(folder):
            print(
                one_line(f"{folder}: neither manifest nor card states the hash of {name}; it is taken as it is"),
                file=sys.stderr,
            )


def load_models(config: EvaluateConfig) -> list[EvaluatedModel]:
    """Load the classifiers, named in short where that tells them apart: runs by their folders.

    Raises:
        InputError: when one is none, or one is given twice.
    """
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


def print_plan(
    config: EvaluateConfig,
    models: list[EvaluatedModel],
    conditions: Callable[[Role], list[Condition]],
    sets: list[SuiteSet],
) -> None:
    """Print what would be computed."""
    dry = DryRun("evaluate")
    dry.values |= {"models": [], "sets": []}
    for model in models:
        how = f"{model.format}, {described(model.classifier.preprocessing)}"
        dry.line("model", f"{model.name}, weights {model.weights_sha256[:16]}, {how}")
        dry.values["models"].append({"name": model.name, "weights_sha256": model.weights_sha256})
    for of in sets:
        dry.values["sets"].append({"name": one_line(of.title), "role": of.role, "images": len(of.test_set)})
        if config.suite:
            dry.line(of.role, f"{one_line(of.title)}: {format_count(len(of.test_set), 'image')}")
        elif of.role == "outliers":
            dry.line("outliers", f"{of.title}: {format_count(len(of.test_set), 'image')}")
        else:
            of_all = f" of {len(of.test_set.source)}" if config.subset else ""
            dry.line("data", f"{config.data}: {len(of.test_set)}{of_all} images")
    if config.until:
        few = (
            f"of reference and shifted sets no more images than {config.until:g} pp need, looked at after every {BLOCK}"
        )
        dry.line("until", f"{few}; of corrupted sets those of the reference", until=config.until)
    passes = sum(len(of.test_set) * condition.passes for of in sets for condition in conditions(of.role))
    passes *= len(models) * len(config.protocol)
    asked = list(map(str, conditions("reference")))
    dry.line("conditions", ", ".join(asked), conditions=asked)
    dry.line("work", f"{passes} passes at most, forward and backward", passes=passes)
    dry.print()

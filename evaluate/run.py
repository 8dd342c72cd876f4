"""Measures trained classifiers on a labelled folder, with an interval on every number, and compares them.

In: model folders and a dataset folder. Out: one file per result, tables, and ``report.html``. Without arguments it
evaluates the lab's clone on the lab's real digits.

    synclones evaluate --model runs/a runs/b --data data/test --out results/x
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base.config import load, to_dict
from synclones.base.errors import InputError, VerificationError, run_main, stop_on_signals
from synclones.base.files import sha256_bytes
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.settings import EvaluateConfig
from synclones.lab.world import ensure_clone, ensure_real

if TYPE_CHECKING:  # importing them would load torch for --help
    from accelerate import PartialState

    from synclones.evaluate.measure import Judged
    from synclones.evaluate.predict import Subject, TestSet

VERBS = ("run",)
MAX_COMPARED = 6


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise InputError(f"synclones evaluate {argv[0]}: no such verb; expected {', '.join(VERBS)}")
    config = load(EvaluateConfig, argv[1:] if argv and argv[0] in VERBS else argv, "synclones evaluate")
    refuse_old_libraries()
    stop_on_signals()
    config = replace(config, model=config.model or (ensure_clone(),), data=config.data or ensure_real("test"))
    evaluate(config, *(int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))))


def evaluate(config: EvaluateConfig, rank: int, world_size: int) -> None:
    """Check all input, predict what is not cached, and write results."""
    from synclones.evaluate.measure import Judged
    from synclones.evaluate.predict import TestSet, check_classes, predict

    assert config.data is not None
    _refuse_out(config)
    test_set = TestSet(config.data)
    subjects = load_subjects(config)
    for subject in subjects:
        check_classes(subject, test_set)
    if config.dry_run:
        _say_plan(config, subjects, len(test_set))
        return
    state = _prepare(config, subjects, world_size)
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    models = []
    for subject in subjects:
        found = [
            predict(subject, test_set, strength, config.batch_size, config.out, rank, world_size)
            for strength in (0.0, *config.epsilons_255)
        ]
        models.append(Judged(subject, found[0], dict(zip(config.epsilons_255, found[1:], strict=True))))
        if rank == 0:
            print(f"{subject.name}: {len(test_set)} images, {len(found)} times", file=sys.stderr, flush=True)
    if rank == 0:
        write_results(config, test_set, models, time.monotonic() - started)
    state.wait_for_everyone()  # a process that leaves early can cut a connection that another still reads from
    state.destroy_process_group()


def _refuse_out(config: EvaluateConfig) -> None:
    """InputError for a file in the place of a folder, another stage's folder, or results of other settings."""
    from synclones.evaluate.results import refuse_mixture

    taken = next((place for place in (config.out, *config.out.parents) if place.is_file()), None)
    if taken is not None:
        raise InputError(f"--out {config.out}: {taken} is a file; give a folder, new or of an earlier evaluation")
    if (config.out / MANIFEST_FILE).is_file() and (stage := read_manifest(config.out)["stage"]) != "evaluate":
        raise InputError(f"--out {config.out}: belongs to `synclones {stage}`; give a new folder")
    wanted = {"seed": config.seed, "bins": config.ece_bins, "resamples": config.resamples}
    refuse_mixture(config.out, wanted)


def load_subjects(config: EvaluateConfig) -> list["Subject"]:
    """The classifiers, named by their run folders where that tells them apart. InputError for what is none."""
    from synclones.evaluate.predict import Subject
    from synclones.models.folder import find_export, load_classifier

    folders = [find_export(path) for path in config.model]
    runs = [folder.parent if folder.name == "export" else folder for folder in folders]
    if len(set(folders)) < len(folders):
        raise InputError("--model: one model stands there twice; give each once")
    names = [run.resolve().name for run in runs]
    names = [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]
    subjects = [Subject(name, *load_classifier(folder)) for name, folder in zip(names, folders, strict=True)]
    seen: dict[object, str] = {}
    for subject in subjects:
        what = (subject.weights_sha256, subject.classifier.preprocessing)
        if what in seen:
            raise InputError(f"--model: {seen[what]} and {subject.name} hold the same weights; give one of them")
        seen[what] = subject.name
    return subjects


def _say_plan(config: EvaluateConfig, subjects: list["Subject"], n: int) -> None:
    passes = n * len(subjects) * (1 + 3 * len(config.epsilons_255))
    for subject in subjects:
        print(f"model      {subject.name}, weights {subject.weights_sha256[:16]}")
    attacks = ", ".join(f"{epsilon:g}/255" for epsilon in config.epsilons_255)
    print(
        f"data       {config.data}: {n} images\nattacks    FGSM {attacks}\n"
        f"work       {passes} passes at most, forward and backward"
    )


def _prepare(config: EvaluateConfig, subjects: list["Subject"], world_size: int) -> "PartialState":
    """Threads, device, and the other processes."""
    import torch
    from accelerate import PartialState

    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.torch_threads or max(1, cores))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU; use --device cpu, or check the driver")
    forced = config.device == "cpu" or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits would move logits by more than some differences
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    state = PartialState(cpu=forced or not torch.cuda.is_available())
    if state.num_processes != world_size:
        raise InputError(
            f"WORLD_SIZE is {world_size}, Accelerate sees {state.num_processes}; on a CPU launch with "
            "`ACCELERATE_USE_CPU=true torchrun --nproc-per-node N`"
        )
    for subject in subjects:
        subject.classifier.to(state.device).requires_grad_(False)
    return state


def write_results(config: EvaluateConfig, test_set: "TestSet", models: list["Judged"], seconds: float) -> None:
    """Cells, tables, report and manifest; prints the table."""
    from synclones.evaluate.measure import cells_of, compare
    from synclones.evaluate.reports.html_report import write_report
    from synclones.evaluate.results import markdown, read_cells, write_cell, write_tables

    cells = [cell for judged in models for cell in cells_of(judged, test_set, config)]
    for cell in cells:
        write_cell(config.out, cell)
    write_tables(config.out, read_cells(config.out))
    compared = compare(models[:MAX_COMPARED], config)
    write_report(config.out / "report.html", test_set, models, cells, compared)
    _write_manifest(config, test_set, seconds)
    print(markdown(cells))
    print("percent, with 95 % intervals over the test images")
    for item in compared:
        if item.difference is not None and item.difference.inside_noise and item.metric == "accuracy":
            print(f"{item.first} and {item.second}: the difference in accuracy is inside the noise")
    print(f"look: {config.out / 'report.html'}")


def _write_manifest(config: EvaluateConfig, test_set: "TestSet", seconds: float) -> None:
    """The parents are those of all results in the folder, earlier evaluations included."""
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
    """A model as its run's manifest names it, else by its weights."""
    from synclones.base.files import sha256_file
    from synclones.models.folder import WEIGHTS, find_export

    folder = find_export(path)
    run = folder.parent if folder.name == "export" else folder
    try:
        return Parent("model", str(run), str(read_manifest(run)["content_hash"]))
    except (InputError, VerificationError, KeyError):
        return Parent("model", str(folder), sha256_file(folder / WEIGHTS))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

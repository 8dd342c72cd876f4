"""Draws the images of a prompt table into shards that survive being killed.

In: a prompt table and a Stable Diffusion. Out: a dataset folder. Run the same command again to resume, with any number
of processes; without arguments it draws the lab's digits.

    synclones generate --prompts p.parquet --preset fast --out data/x
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from synclones.base.config import load
from synclones.base.dry_run import DryRun
from synclones.base.errors import InputError
from synclones.base.manifest import find_parent
from synclones.base.output import print_json, wants_json
from synclones.base.process import run_main, stop_on_signals
from synclones.base.resume import CONFIG, resumed_by
from synclones.base.stage import Stage, Verb
from synclones.base.units import format_bytes, format_count, format_duration, format_set
from synclones.generate.generators.classes import refuse_other_classes
from synclones.generate.generators.families import licence_note
from synclones.generate.job import Job, check_job
from synclones.generate.open import OpenGenerator, opened
from synclones.generate.plan import differences, read_plan
from synclones.generate.remote import StoreTarget
from synclones.generate.retry import retry_command, with_parents_config
from synclones.generate.settings import PRESETS, GenerateConfig, RedrawConfig, num_workers
from synclones.generate.target import FolderTarget, Target, announce
from synclones.generate.workers import draw, one_sampler, with_measured_batch_size
from synclones.lab.world import GENERATOR, default_prompts, ensure_prompts
from synclones.shards.mirror import LocalSet, open_set
from synclones.shards.stores.store import store_url
from synclones.shards.unfinished import resume_command
from synclones.shards.write import stored_rows


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    STAGE.main(argv)


def run(config: GenerateConfig) -> None:
    """Draw a dataset, or say what that would take, in a process of its own."""
    stop_on_signals()
    perform(config)


def perform(config: GenerateConfig) -> None:
    """Draw a dataset, or say what that would take."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # cores belong to whole batches
    job = prepare(config)
    if config.dry_run:
        dry_run(job)
    else:
        generate(job)


def open_generator(config: GenerateConfig) -> OpenGenerator:
    """Load the generator that the settings name, to draw a few images."""
    return opened(config, GENERATOR)


def _implied(flags: list[str]) -> list[str]:
    """Add the parent's settings to those of a retry; the lab's when nothing says which generator to use."""
    return _with_lab_preset(with_parents_config(flags))


def _with_lab_preset(flags: list[str]) -> list[str]:
    """Add the lab's settings when nothing says which generator to use."""
    chosen = any(flag.split("=")[0] in ("--model", "--preset", "--config", "--help", "-h") for flag in flags)
    return flags if chosen else ["--preset", "lab", *flags]


def prepare(config: GenerateConfig) -> Job:
    """Check all input and make the plan; writes nothing but what ``--batch-size auto`` measured."""
    job = check_job(config, GENERATOR, default_prompts)
    refuse_other_classes(job.model.name, job.model.classes, job.table, job.plan.num_samples)
    return with_measured_batch_size(job) if config.batch_size == "auto" else job


def generate(job: Job) -> None:
    """Draw what is missing of the dataset and, when nothing is, finish it."""
    plan, target = job.plan, open_target(job)
    resumed = target.begin()
    if job.sources and (bad := job.sources.bad()):
        announce(job, f"{target.name}: rows of these images are dropped: {bad}")
    if job.config.prompts is None:
        ensure_prompts()  # not before everything was found right: what ends with exit code 2 has written nothing
    if job.config.plan_only:
        shards = format_set(plan.num_samples, plan.num_shards)
        print(f"{target.name}: plan {plan.plan_id} of {shards}; nothing drawn")
        left = len(target.missing())
        _print_json(job, target, {"shards_left": left} if left else {}, 0, 0.0)
        return

    with resumed_by(resume_command(target.folder)):
        _draw_and_finish(job, target, resumed)


def _draw_and_finish(job: Job, target: Target, resumed: bool) -> None:
    plan = job.plan
    missing = target.missing()
    if not missing and target.is_finished():
        announce(job, f"{target.name}: complete, {format_count(plan.num_samples, 'image')}; nothing to do")
        if job.rank == 0:
            target.push()
            _print_json(job, target, {}, 0, 0.0)
        return
    if resumed:
        _say_what_is_there(job, target, missing)

    started, drawn = time.monotonic(), 0
    if missing:
        with target.drawing() as refresh_preview:
            drawn = draw(job, target, missing, refresh_preview)

    # Only the process that sees all shards complete finishes the set; of several, each writes the same files.
    missing = target.missing()
    if missing:
        holder = target.lease_holder(missing)
        print(f"{target.name}: this process is done; {format_count(len(missing), 'shard')} left: {holder}")
        _print_json(job, target, {"shards_left": len(missing)}, drawn, time.monotonic() - started)
        return
    counts = target.finish()
    _report(job, target, counts, drawn, time.monotonic() - started)
    target.push()


def _say_what_is_there(job: Job, target: Target, missing: list[int]) -> None:
    plan = job.plan
    whole = plan.num_samples - sum(len(batch) for shard in missing for batch in plan.batches(shard))
    begun = sum(stored_rows(target.folder, plan.shard_name(shard)) for shard in missing)
    shards = f"{plan.num_shards - len(missing)} of {plan.num_shards} shards are complete"
    announce(job, f"{target.name}: resuming, {whole + begun} of {plan.num_samples} images are there, {shards}")


def open_target(job: Job) -> Target:
    """Return where the job's shards go: a folder or, for a URL as ``--out``, an object store."""
    url = store_url(job.config.out)
    return FolderTarget(job) if url is None else StoreTarget(url, job)


def _report(job: Job, target: Target, counts: dict[str, int], drawn: int, seconds: float) -> None:
    without = {status: counts[status] for status in ("failed", "dropped") if counts.get(status)}
    named = ", ".join(f"{count} {status}" for status, count in without.items())
    lost = f" of {job.plan.num_samples} planned ({named}, see `synclones shards show`)" if without else ""
    print(
        f"{target.name}: {format_count(counts['ok'], 'image')}{lost} in {format_count(job.plan.num_shards, 'shard')}; "
        f"this process drew {drawn} in {format_duration(seconds)}, "
        f"{drawn / max(seconds, 1e-9):.1f} images/s end to end\n{target.next_steps()}"
    )
    if store_url(job.config.out) is None:
        for status in without:
            print(f"again: {retry_command(target.folder, status)}")
    _print_json(job, target, dict(counts), drawn, seconds)


def _print_json(job: Job, target: Target, counts: dict[str, int], drawn: int, seconds: float) -> None:
    if wants_json():
        result = {"folder": target.name, "complete": "shards_left" not in counts, "planned": job.plan.num_samples}
        print_json(result | counts | {"shards": job.plan.num_shards, "drawn": drawn, "seconds": round(seconds, 3)})


def dry_run(job: Job) -> None:
    """Print what a run would make and cost, measured on one batch after one to warm up."""
    from synclones.generate.batch import draw_batch

    plan, config = job.plan, job.config
    # The first batch warms up: it chooses kernels and fills caches; the second is measured.
    workers = num_workers(config, job.device) if job.device == "cpu" else 1  # those of a GPU take turns
    sampler = one_sampler(job)
    rows = job.table.rows(0, min(plan.batch_size, plan.num_samples))
    for _ in range(2):
        started = time.monotonic()
        samples = draw_batch(plan, sampler, rows)
        seconds = time.monotonic() - started

    # An image's share of the tar's headers, its json and its row in the sidecar is about 3 KB.
    rate = len(rows) / seconds * workers
    size = sum(len(getattr(sample, "jpg", b"")) + 3072 for sample in samples) / len(rows) * plan.num_samples
    dry = DryRun("generate")
    counted = f"{format_set(plan.num_samples, plan.num_shards)}, about {format_bytes(size)}"
    facts = {"images": plan.num_samples, "shards": plan.num_shards, "bytes": round(size)}
    dry.line("plan", f"{plan.plan_id}: {counted}", plan_id=plan.plan_id, **facts)
    dry.line("generator", plan.model_name, generator=plan.model_name)
    for heading, text in plan.described().items():
        dry.line(heading, text, **{heading: text})
    licence = licence_note(plan.model_name)
    dry.line("licence", licence, licence=licence)
    if plan.gates:
        dry.line("gates", ", ".join(f"{name} {value}" for name, value in plan.gates.items()), gates=plan.gates)
    images = plan.num_samples
    if job.retry is not None:
        which = f"{job.retry.status} samples of {job.retry.parent.folder}"
        dry.line("retry", f"{which}; the time is for one more attempt", retry=which)
        images = job.retry.most_images()
    dry.rate(rate, "images", f"per process: {workers} x one batch of {len(rows)} in {seconds:.2f} s on {plan.device}")
    dry.time(images / rate, config.price_per_hour, shared=True)
    dry.print()


def redraw(config: RedrawConfig) -> None:
    """Redraw images in their planned batches and compare their bytes with the stored ones.

    Raises:
        InputError: when there is no such image, or model, prompts, settings or machine are no longer those of the plan.
        VerificationError: when bytes differ.
    """
    if (config.index is None) == (config.random == 0):
        raise InputError("--index, --random: give one of them: an image, or how many to try")
    if config.out is not None and config.index is None:
        raise InputError("--out: is for the one image of --index; leave it out")
    with open_set(config.folder) as dataset:
        print(dataset.named(_redraw(config, dataset)))


def _redraw(config: RedrawConfig, dataset: LocalSet) -> str:
    from synclones.generate.redraw import redraw_one, redraw_some

    folder = dataset.folder
    plan = read_plan(folder)
    stored = dataset.shards()
    if config.index is not None:
        stored.get(config.index)
    config_file = ["--config", str(folder / CONFIG)]
    saved = _brought_here(load(GenerateConfig, config_file, "synclones generate redraw"), folder)
    # All attempts are in the plan: no earlier version is needed.
    # Not by its classes: earlier releases drew any table with the lab's generator, and such sets can still be compared.
    job = check_job(replace(saved, out=folder, retry="", parent=None, work=None), GENERATOR, default_prompts)
    job = replace(job, plan=replace(job.plan, max_attempts=plan.max_attempts, retries=plan.retries))
    if job.plan != plan:
        raise InputError(f"{folder}: cannot be redrawn here: {differences(plan, job.plan)}")
    sampler = one_sampler(job)
    if config.index is not None:
        return redraw_one(plan, stored, job.table, sampler, config.index, config.out)
    return redraw_some(plan, stored, job.table, sampler, config.random, config.seed)


def _brought_here(saved: GenerateConfig, folder: Path) -> GenerateConfig:
    """Return the settings of a set with paths as they are from here: its tree may have moved, as `trace` knows.

    The plan knows tables and images by their content: others of that name are refused.
    """
    prompts, images = (
        path if path is None else find_parent(folder, str(path)) or path for path in (saved.prompts, saved.images)
    )
    return replace(saved, prompts=prompts, images=images)


STAGE = Stage(
    name="generate",
    phrase="Draw the images of a prompt table into shards that survive being killed.",
    verbs={"run": Verb(GenerateConfig, run, divided=True, json=True), "redraw": Verb(RedrawConfig, redraw)},
    examples=(
        "synclones generate",
        "synclones generate --preset fast --prompts p.parquet --out data/x --dry-run",
        "synclones generate redraw data/x --index 7 --out seven.jpg",
    ),
    presets=PRESETS,
    implied=_implied,
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

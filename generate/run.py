"""Draws the images of a prompt table into shards that survive being killed.

In: a prompt table and a Stable Diffusion. Out: a dataset folder. Run the same command again to resume, with any number
of processes; without arguments it draws the lab's digits.

    accelerate launch generate/run.py --prompts p.parquet --preset fast --out data/x
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.config import format_duration, load, save, to_dict
from synclones.errors import InputError, run_main, stop_on_signals
from synclones.generate.extend import extend_folder
from synclones.generate.finish import finish_dataset, licence_note, write_dataset_card
from synclones.generate.gate_settings import GateInputs, check_gates, keep_inputs
from synclones.generate.model import ModelFolder, find_model, load_pipeline
from synclones.generate.plan import Plan, claim_folder, differences, read_plan
from synclones.generate.preview import GrowingPreview
from synclones.generate.progress import Progress
from synclones.generate.retry import Retry, find_retry, take_over, with_parents_config
from synclones.generate.settings import (
    GenerateConfig,
    RedrawConfig,
    make_plan,
    num_workers,
    parse_part,
    resolve_device,
)
from synclones.lab.world import GENERATOR, ensure_prompts
from synclones.prompts.table import PromptTable, class_names
from synclones.shards.read import ShardFolder
from synclones.shards.write import is_complete

if TYPE_CHECKING:
    from synclones.generate.sample import Sampler

VERBS = ("run", "redraw")


@dataclass(frozen=True)
class Job:
    """Everything a generation needs, checked."""

    config: GenerateConfig
    plan: Plan
    table: PromptTable
    model: ModelFolder
    gates: GateInputs
    retry: Retry | None
    device: str
    rank: int
    world_size: int
    part: tuple[int, int]
    """(k, n): this job draws the shards whose number is k modulo n."""


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise InputError(f"synclones generate {argv[0]}: no such verb; expected {', '.join(VERBS)}")
    verb, flags = (argv[0], argv[1:]) if argv and argv[0] in VERBS else ("run", argv)
    if verb == "redraw":
        redraw(load(RedrawConfig, flags, "synclones generate redraw"))
        return
    config = load(
        GenerateConfig,
        _with_lab_preset(with_parents_config(flags)),
        "synclones generate",
        presets=Path(__file__).resolve().parent,
    )
    stop_on_signals()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # cores belong to whole batches
    job = prepare(config)
    if config.dry_run:
        dry_run(job)
    else:
        generate(job)


def _with_lab_preset(flags: list[str]) -> list[str]:
    """The lab's settings when nothing says which generator to use."""
    chosen = any(flag.split("=")[0] in ("--model", "--preset", "--config", "--help", "-h") for flag in flags)
    return flags if chosen else ["--preset", "lab", *flags]


def prepare(config: GenerateConfig) -> Job:
    """Check all input and make the plan; writes nothing (but the lab's prompt table, when no table was given)."""
    part = parse_part(config.part) if config.part else (0, 1)
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    table = PromptTable(config.prompts or ensure_prompts())
    if not config.model:
        raise InputError("--model: no generator was given; name a diffusers folder, a hub id, or --preset lab")
    model = find_model(str(GENERATOR) if config.model == "lab" else config.model, config.revision)
    device = resolve_device(config.device)
    gates = check_gates(config, model)
    plan = make_plan(config, table, model, device, gates.facts, gates.libraries)
    plan, retry = find_retry(config, plan)
    return Job(config, plan, table, model, gates, retry, device, rank, world_size, part)


def generate(job: Job) -> None:
    """Draw what is missing of the dataset and, when nothing is, finish it."""
    plan, folder = job.plan, job.config.out
    if job.config.extend and extend_folder(folder, plan, job.table):
        _say(job, f"{folder}: grows to {plan.num_samples} images")
    resumed = claim_folder(folder, plan)
    write_dataset_card(folder, plan, job.table)
    keep_inputs(job.config, job.gates)
    save(replace(job.config, prompts=job.table.path, extend=False, part=""), folder / "config.yaml")
    if job.config.plan_only:
        print(f"{folder}: plan {plan.plan_id} of {plan.num_samples} images in {plan.num_shards} shards; nothing drawn")
        return
    if job.retry is not None:
        take_over(job.retry, folder, plan)
    missing = [shard for shard in range(plan.num_shards) if not is_complete(folder, plan.shard_name(shard))]
    if not missing and (folder / "manifest.json").exists():
        _say(job, f"{folder}: complete, {plan.num_samples} images; nothing to do")
        return
    if resumed:
        _say(job, f"{folder}: resuming, {plan.num_shards - len(missing)} of {plan.num_shards} shards are complete")
    started = time.monotonic()
    drawn = _draw(job, missing) if missing else 0
    unfinished = [shard for shard in missing if not is_complete(folder, plan.shard_name(shard))]
    if unfinished:
        print(f"{folder}: this process is done; {len(unfinished)} shards are in other hands or other --part shares")
        return
    versions = [job.retry.named()] if job.retry is not None else []
    counts = finish_dataset(folder, plan, job.table, to_dict(job.config), job.model.path, versions)
    _report(job, counts, drawn, time.monotonic() - started)


def _say(job: Job, text: str) -> None:
    if job.rank == 0:
        print(text, file=sys.stderr, flush=True)


def _draw(job: Job, missing: list[int]) -> int:
    """Draw ``missing`` shards with this process' workers; return the number of images it drew."""
    from synclones.generate.sample import Sampler
    from synclones.generate.work import redraws_alike, shard_order, work

    plan, workers = job.plan, num_workers(job.config, job.device)
    _set_torch_up(plan.threads_per_worker)
    pipeline = load_pipeline(job.model, plan.scheduler, plan.dtype, job.device)
    gates = job.gates.open(plan, job.device)
    done = plan.num_samples - sum(len(batch) for shard in missing for batch in plan.batches(shard))
    progress = Progress(job.config.out, plan.num_samples, done, job.rank, job.world_size)
    if job.device != "cpu":
        alike = redraws_alike(plan, job.config.out, job.table, Sampler(pipeline, plan, gates))
        if alike is not None:
            progress.redrawn(alike)
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="draw")
    share, shares = job.part
    mine = [shard for shard in missing if shard % shares == share]
    reports, jobs = (progress.batch_done, progress.shard_done), []
    for worker in range(workers):
        order = shard_order(mine, job.rank * workers + worker, job.world_size * workers)
        table, sampler = PromptTable(job.table.path), Sampler(pipeline, plan, gates)
        jobs.append(pool.submit(work, plan, job.config.out, table, sampler, order, stop, *reports, job.retry))
    preview = GrowingPreview(job.config.out, plan, class_names(job.table.metadata))
    _wait(jobs, stop, preview.look if job.rank == 0 else lambda: None)
    pool.shutdown()
    progress.close()
    return progress.drawn


def _one_sampler(job: Job) -> "Sampler":
    from synclones.generate.sample import Sampler

    plan = job.plan
    _set_torch_up(plan.threads_per_worker)
    return Sampler(
        load_pipeline(job.model, plan.scheduler, plan.dtype, job.device), plan, job.gates.open(plan, job.device)
    )


def _set_torch_up(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False  # a choice of kernels by timing would change bytes between runs
    torch.backends.cudnn.deterministic = True


def _wait(jobs: list, stop: threading.Event, meanwhile: Callable[[], None]) -> None:
    """Wait for all workers; the first failure stops the others after their batch and is raised."""
    pending = set(jobs)
    while pending:  # short waits, so that signals reach the main thread
        try:
            meanwhile()
        except BaseException:
            stop.set()
            wait(pending)
            raise
        finished, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        failed = [job for job in finished if job.exception() is not None]
        if failed:
            stop.set()
            wait(pending)
            failed[0].result()  # raises the worker's own exception


def _report(job: Job, counts: dict[str, int], drawn: int, seconds: float) -> None:
    folder = job.config.out
    without = [f"{counts[status]} {status}" for status in ("failed", "dropped") if counts.get(status)]
    lost = f" of {job.plan.num_samples} planned ({', '.join(without)}, see `synclones shards show`)" if without else ""
    print(
        f"{folder}: {counts['ok']} images{lost} in {job.plan.num_shards} shards; "
        f"this process drew {drawn} in {format_duration(seconds)}, "
        f"{drawn / max(seconds, 1e-9):.1f} images/s end to end\n"
        f"look: {folder / 'preview.html'}\ncheck: synclones shards verify {folder}"
    )


def dry_run(job: Job) -> None:
    """Print what a run would make and cost, measured on one batch after one to warm up."""
    from synclones.generate.work import draw_batch

    plan, config = job.plan, job.config
    workers = num_workers(config, job.device)
    sampler = _one_sampler(job)
    rows = job.table.rows(0, min(plan.batch_size, plan.num_samples))
    for _ in range(2):
        started = time.monotonic()
        samples = draw_batch(plan, sampler, rows)
        seconds = time.monotonic() - started
    rate = len(rows) / seconds * workers
    size = sum(len(getattr(sample, "jpg", b"")) + 3072 for sample in samples) / len(rows) * plan.num_samples
    hours = (job.retry.most_images() if job.retry is not None else plan.num_samples) / rate / 3600
    print(
        f"plan       {plan.plan_id}: {plan.num_samples} images in {plan.num_shards} shards, about {size / 1e9:.3g} GB"
    )
    sampler_text = f"{plan.scheduler}, {plan.num_inference_steps} steps, guidance {plan.guidance_scale}"
    print(f"generator  {plan.model_name}, {sampler_text}")
    print(f"licence    {licence_note(plan.model_name)}")
    if plan.gates:
        print(f"gates      {', '.join(f'{name} {value}' for name, value in plan.gates.items())}")
    if job.retry is not None:
        print(f"retry      {job.retry.status} samples of {job.retry.parent.folder}; the time is for one more attempt")
    measured = f"{workers} x one batch of {len(rows)} in {seconds:.2f} s on {plan.device}"
    print(f"rate       {rate:.1f} images/s per process: {measured}")
    print(f"time       {format_duration(hours * 3600)} with one process, {format_duration(hours * 450)} with eight")
    if config.price_per_hour:
        print(f"cost       {hours * config.price_per_hour:.2f} dollars at {config.price_per_hour} per hour")


def redraw(config: RedrawConfig) -> None:
    """Redraw images in their planned batches; VerificationError when bytes differ from the stored ones.

    Raises:
        InputError: no such image; or model, prompts, settings or machine are no longer those of the plan.
    """
    from synclones.generate.redraw import redraw_one, redraw_some

    if (config.index is None) == (config.random == 0):
        raise InputError("--index, --random: give one of them: an image, or how many to try")
    if config.out is not None and config.index is None:
        raise InputError("--out: is for the one image of --index; leave it out")
    folder = config.folder
    plan = read_plan(folder)
    stored = ShardFolder(folder, plan.split)
    if config.index is not None:
        stored.get(config.index)
    config_file = ["--config", str(folder / "config.yaml")]
    saved = load(GenerateConfig, config_file, "synclones generate redraw")
    # All attempts are in the plan: no earlier version is needed.
    job = prepare(replace(saved, out=folder, retry="", parent=None))
    job = replace(job, plan=replace(job.plan, max_attempts=plan.max_attempts, retries=plan.retries))
    if job.plan != plan:
        raise InputError(f"{folder}: cannot be redrawn here: {differences(plan, job.plan)}")
    sampler = _one_sampler(job)
    if config.index is not None:
        print(redraw_one(plan, stored, job.table, sampler, config.index, config.out))
    else:
        print(redraw_some(plan, stored, job.table, sampler, config.random, config.seed))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

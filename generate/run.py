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
from synclones.errors import InputError, Stopped, run_main, stop_on_signals
from synclones.generate.conditioning import open_sources
from synclones.generate.equip import equipped
from synclones.generate.extend import extend_folder
from synclones.generate.finish import finish_dataset, licence_note, write_dataset_card
from synclones.generate.model import ModelFolder, find_model, load_pipeline
from synclones.generate.plan import PLAN_FILE, Plan, claim_folder, differences, read_plan
from synclones.generate.preview import GrowingPreview
from synclones.generate.progress import Progress
from synclones.generate.settings import (
    GenerateConfig,
    RedrawConfig,
    make_plan,
    num_workers,
    parse_part,
    resolve_device,
)
from synclones.generate.source_images import SourceImages
from synclones.generate.speed import speed_up
from synclones.lab.world import GENERATOR, ensure_prompts
from synclones.prompts.table import PromptTable, class_names
from synclones.shards.read import ShardFolder
from synclones.shards.remote import copy_command, store_url
from synclones.shards.write import is_complete

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

VERBS = ("run", "redraw")


@dataclass(frozen=True)
class Job:
    """Everything a generation needs, checked."""

    config: GenerateConfig
    plan: Plan
    table: PromptTable
    model: ModelFolder
    device: str
    rank: int
    world_size: int
    part: tuple[int, int]
    """(k, n): this job draws the shards whose number is k modulo n."""
    sources: SourceImages | None = None
    """The real images that drawing starts from."""


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise InputError(f"synclones generate {argv[0]}: no such verb; expected {', '.join(VERBS)}")
    verb, flags = (argv[0], argv[1:]) if argv and argv[0] in VERBS else ("run", argv)
    if verb == "redraw":
        redraw(load(RedrawConfig, flags, "synclones generate redraw"))
        return
    config = load(
        GenerateConfig, _with_lab_preset(flags), "synclones generate", presets=Path(__file__).resolve().parent
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
    model = equipped(find_model(str(GENERATOR) if config.model == "lab" else config.model, config.revision), config)
    device = resolve_device(config.device)
    sources = open_sources(config)
    plan = make_plan(config, table, model, device, sources.sha256 if sources else "")
    if sources:
        sources.check(table, plan.num_samples)
    job = Job(config, plan, table, model, device, rank, world_size, part, sources)
    return _settle(job) if config.batch_size == "auto" else job


def _settle(job: Job) -> Job:
    """The job with the batch size that was measured: now, or by whoever began before."""
    from synclones.generate.probe import measured_batch_size, settle_batch_size
    from synclones.generate.sample import Sampler

    def sampler(plan: Plan) -> Sampler:
        # Not compiled: every size would be, for minutes, and the sizes' order would be the same.
        return Sampler(load_pipeline(job.model, plan.scheduler, plan.dtype, job.device), plan, job.sources)

    def measure(plan: Plan) -> int:
        _set_torch_up(plan.threads_per_worker)
        return measured_batch_size(plan, job.table, sampler, job.device)

    plan, out = job.plan, job.config.out
    if store_url(out) is not None:
        raise InputError(
            "--batch-size auto: is settled in a folder; measure with --dry-run and --out FOLDER, give the number"
        )
    if job.config.dry_run and not (out / PLAN_FILE).exists():
        plan = replace(plan, batch_size=measure(plan))
    else:
        plan = settle_batch_size(out, plan, measure)
    return replace(job, plan=plan, config=replace(job.config, batch_size=plan.batch_size))


def generate(job: Job) -> None:
    """Draw what is missing of the dataset and, when nothing is, finish it."""
    plan, folder = job.plan, job.config.out
    url = store_url(folder)
    if url is not None:
        _generate_in_store(job, url)
        return
    if job.config.work is not None or job.config.steal_lease:
        raise InputError("--work, --steal-lease: are for a URL as --out, such as s3://bucket/prefix; leave them out")
    if job.config.extend and extend_folder(folder, plan, job.table):
        _say(job, f"{folder}: grows to {plan.num_samples} images")
    resumed = claim_folder(folder, plan)
    write_dataset_card(folder, plan, job.table)
    save(replace(job.config, prompts=job.table.path, extend=False), folder / "config.yaml")
    if job.config.plan_only:
        print(f"{folder}: plan {plan.plan_id} of {plan.num_samples} images in {plan.num_shards} shards; nothing drawn")
        return
    missing = [shard for shard in range(plan.num_shards) if not is_complete(folder, plan.shard_name(shard))]
    if not missing and (folder / "manifest.json").exists():
        _say(job, f"{folder}: complete, {plan.num_samples} images; nothing to do")
        return
    if resumed and (len(missing) < plan.num_shards or any(folder.glob(".*.part"))):
        _say(job, f"{folder}: resuming, {plan.num_shards - len(missing)} of {plan.num_shards} shards are complete")
    started = time.monotonic()
    drawn = _draw(job, missing) if missing else 0
    unfinished = [shard for shard in missing if not is_complete(folder, plan.shard_name(shard))]
    if unfinished:
        print(f"{folder}: this process is done; {len(unfinished)} shards are in other hands or other --part shares")
        return
    counts = finish_dataset(folder, plan, job.table, to_dict(job.config), job.model.path)
    look = f"look: {folder / 'preview.html'}\ncheck: synclones shards verify {folder}"
    _report(job, counts, drawn, time.monotonic() - started, folder, look)


def _generate_in_store(job: Job, url: str) -> None:
    """As `generate`, for a set whose place is an object store."""
    from synclones.generate.remote import RemoteSet

    remote = RemoteSet(url, job.config, job.plan, job.table)
    resumed = remote.begin()
    if job.config.plan_only:
        print(f"{url}: plan {job.plan.plan_id} of {job.plan.num_samples} images; nothing drawn")
        return
    missing = remote.missing()
    if not missing and remote.is_finished():
        _say(job, f"{url}: complete, {job.plan.num_samples} images; nothing to do")
        return
    if resumed:
        _say(job, f"{url}: resuming, {job.plan.num_shards - len(missing)} of {job.plan.num_shards} shards are complete")
    started = time.monotonic()
    here = replace(job, config=replace(job.config, out=remote.folder))
    try:
        drawn = _draw(here, missing, remote.work) if missing else 0
    finally:
        remote.let_go()
    remote.put_logs()
    unfinished = remote.missing()
    if unfinished:
        holder = remote.who_holds(unfinished) or "no process holds them"
        print(f"{url}: this process is done; {len(unfinished)} shards are left: {holder}")
        return
    counts = remote.finish(job.model.path)
    then = f"copy: {copy_command(url, f'data/{remote.name}')}"
    _report(job, counts, drawn, time.monotonic() - started, url, then)


def _say(job: Job, text: str) -> None:
    if job.rank == 0:
        print(text, file=sys.stderr, flush=True)


def _draw(job: Job, missing: list[int], in_store: Callable[..., None] | None = None) -> int:
    """Draw ``missing`` shards with this process' workers; return the number of images it drew.

    ``in_store`` takes the place of `work` for shards that leave the folder as soon as they are finished.
    """
    from synclones.generate.sample import Sampler
    from synclones.generate.work import redraws_alike, shard_order, work

    plan, workers = job.plan, num_workers(job.config, job.device)
    _set_torch_up(plan.threads_per_worker)
    pipeline = _load(job)
    done = plan.num_samples - sum(len(batch) for shard in missing for batch in plan.batches(shard))
    progress = Progress(job.config.out, plan.num_samples, done, job.rank, job.world_size)
    if job.device != "cpu" and in_store is None:
        alike = redraws_alike(plan, job.config.out, job.table, Sampler(pipeline, plan, job.sources))
        if alike is not None:
            progress.redrawn(alike)
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="draw")
    share, shares = job.part
    mine = [shard for shard in missing if shard % shares == share]
    jobs, draw_shards = [], in_store or work
    for worker in range(workers):
        order = shard_order(mine, job.rank * workers + worker, job.world_size * workers)
        table, sampler = PromptTable(job.table.path), Sampler(pipeline, plan, job.sources)
        jobs.append(
            pool.submit(
                draw_shards, plan, job.config.out, table, sampler, order, stop, progress.batch_done, progress.shard_done
            )
        )
    preview = GrowingPreview(job.config.out, plan, class_names(job.table.metadata))
    _wait(pool, jobs, stop, preview.look if job.rank == 0 and in_store is None else lambda: None)
    progress.close()
    return progress.drawn


def _load(job: Job) -> "DiffusionPipeline":
    plan = job.plan
    pipeline = load_pipeline(job.model, plan.scheduler, plan.dtype, job.device)
    speed_up(pipeline, plan.compiled, plan.attention)
    return pipeline


def _set_torch_up(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False  # a choice of kernels by timing would change bytes between runs
    torch.backends.cudnn.deterministic = True


def _wait(pool: ThreadPoolExecutor, jobs: list, stop: threading.Event, meanwhile: Callable[[], None]) -> None:
    """Wait for all workers; the first failure stops the others after their batch and is raised."""
    pending = set(jobs)
    try:
        while pending:  # short waits, so that signals reach the main thread
            meanwhile()
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for job in finished:
                job.result()  # raises the worker's own exception
    except Stopped:
        raise  # the process leaves without its workers: a batch may take minutes
    except BaseException:
        stop.set()
        pool.shutdown()
        raise
    pool.shutdown()


def _report(job: Job, counts: dict[str, int], drawn: int, seconds: float, place: Path | str, then: str) -> None:
    lost = f" ({counts['failed']} failed, see `synclones shards show`)" if counts["failed"] else ""
    print(
        f"{place}: {counts['ok']} images{lost} in {job.plan.num_shards} shards; "
        f"this process drew {drawn} in {format_duration(seconds)}, "
        f"{drawn / max(seconds, 1e-9):.1f} images/s end to end\n{then}"
    )


def dry_run(job: Job) -> None:
    """Print what a run would make and cost, measured on one batch after one to warm up."""
    from synclones.generate.sample import Sampler
    from synclones.generate.work import draw_batch

    plan, config = job.plan, job.config
    workers = num_workers(config, job.device)
    _set_torch_up(plan.threads_per_worker)
    sampler = Sampler(_load(job), plan, job.sources)
    rows = job.table.rows(0, min(plan.batch_size, plan.num_samples))
    for _ in range(2):
        started = time.monotonic()
        samples = draw_batch(plan, sampler, rows)
        seconds = time.monotonic() - started
    rate = len(rows) / seconds * workers
    size = sum(len(getattr(sample, "jpg", b"")) + 3072 for sample in samples) / len(rows) * plan.num_samples
    hours = plan.num_samples / rate / 3600
    print(
        f"plan       {plan.plan_id}: {plan.num_samples} images in {plan.num_shards} shards, about {size / 1e9:.3g} GB"
    )
    sampler_text = f"{plan.scheduler}, {plan.num_inference_steps} steps, guidance {plan.guidance_scale}"
    print(f"generator  {plan.model_name}, {sampler_text}")
    print(f"licence    {licence_note(plan.model_name)}")
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
    from synclones.generate.sample import Sampler

    if (config.index is None) == (config.random == 0):
        raise InputError("--index, --random: give one of them: an image, or how many to try")
    if config.out is not None and config.index is None:
        raise InputError("--out: is for the one image of --index; leave it out")
    folder = config.folder
    plan = read_plan(folder)
    stored = ShardFolder(folder, plan.split)
    if config.index is not None:
        stored.get(config.index)
    job = prepare(load(GenerateConfig, ["--config", str(folder / "config.yaml")], "synclones generate redraw"))
    if job.plan != plan:
        raise InputError(f"{folder}: cannot be redrawn here: {differences(plan, job.plan)}")
    _set_torch_up(plan.threads_per_worker)
    sampler = Sampler(_load(job), plan, job.sources)
    if config.index is not None:
        print(redraw_one(plan, stored, job.table, sampler, config.index, config.out))
    else:
        print(redraw_some(plan, stored, job.table, sampler, config.random, config.seed))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

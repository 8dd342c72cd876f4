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

from synclones.base.config import format_duration, load, save, to_dict
from synclones.base.errors import InputError, run_main, stop_on_signals
from synclones.generate.extend import extend_folder
from synclones.generate.finish import finish_dataset, write_dataset_card
from synclones.generate.generators.families import licence_note
from synclones.generate.job import Job, check_job
from synclones.generate.plan import claim_folder, differences, read_plan
from synclones.generate.retry import take_over, with_parents_config
from synclones.generate.settings import PRESETS, GenerateConfig, RedrawConfig, num_workers
from synclones.generate.workers import draw, one_sampler, with_measured_batch_size
from synclones.lab.world import GENERATOR, ensure_prompts
from synclones.shards.mirror import LocalSet, open_set
from synclones.shards.stores.store import copy_command, store_url
from synclones.shards.tools.hub import push_once
from synclones.shards.write import is_complete

VERBS = ("run", "redraw")


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
        presets=PRESETS,
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
    """Check all input and make the plan; writes nothing but what ``--batch-size auto`` measured."""
    job = check_job(config, GENERATOR, ensure_prompts)
    return with_measured_batch_size(job) if config.batch_size == "auto" else job


def generate(job: Job) -> None:
    """Draw what is missing of the dataset and, when nothing is, finish it."""
    plan, folder = job.plan, job.config.out
    url = store_url(folder)
    if url is not None:
        _generate_in_store(job, url)
        return
    if job.config.extend and extend_folder(folder, plan, job.table):
        _say(job, f"{folder}: grows to {plan.num_samples} images")
    resumed = claim_folder(folder, plan)
    write_dataset_card(folder, plan, job.table)
    job.gates.keep()
    save(replace(job.config, prompts=job.table.path, extend=False, part="", push_to_hub=""), folder / "config.yaml")
    if job.config.plan_only:
        print(f"{folder}: plan {plan.plan_id} of {plan.num_samples} images in {plan.num_shards} shards; nothing drawn")
        return
    if job.retry is not None:
        take_over(job.retry, folder, plan)
    missing = [shard for shard in range(plan.num_shards) if not is_complete(folder, plan.shard_name(shard))]
    if not missing and (folder / "manifest.json").exists():
        _say(job, f"{folder}: complete, {plan.num_samples} images; nothing to do")
        if job.rank == 0:
            _push(job)
        return
    if resumed and (len(missing) < plan.num_shards or any(folder.glob(".*.part"))):
        _say(job, f"{folder}: resuming, {plan.num_shards - len(missing)} of {plan.num_shards} shards are complete")
    started = time.monotonic()
    drawn = draw(job, missing) if missing else 0
    unfinished = [shard for shard in missing if not is_complete(folder, plan.shard_name(shard))]
    if unfinished:
        print(f"{folder}: this process is done; {len(unfinished)} shards are in other hands or other --part shares")
        return
    versions = [job.retry.named()] if job.retry is not None else []
    counts = finish_dataset(folder, plan, job.table, to_dict(job.config), job.model.path, versions)
    look = f"look: {folder / 'preview.html'}\ncheck: synclones shards verify {folder}"
    _report(job, counts, drawn, time.monotonic() - started, folder, look)
    _push(job)


def _push(job: Job) -> None:
    """Upload the finished set, if that was asked."""
    folder, name = job.config.out, job.config.push_to_hub
    if name:
        url = push_once(folder, name)
        print(f"{folder}: {f'is at {url}' if url else f'another process uploads it to {name}'}")


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
    preview = remote.preview()
    try:
        drawn = draw(here, missing, remote.work, preview.look) if missing else 0
    finally:
        remote.let_go()
        preview.close()
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


def _report(job: Job, counts: dict[str, int], drawn: int, seconds: float, place: Path | str, then: str) -> None:
    without = [f"{counts[status]} {status}" for status in ("failed", "dropped") if counts.get(status)]
    lost = f" of {job.plan.num_samples} planned ({', '.join(without)}, see `synclones shards show`)" if without else ""
    print(
        f"{place}: {counts['ok']} images{lost} in {job.plan.num_shards} shards; "
        f"this process drew {drawn} in {format_duration(seconds)}, "
        f"{drawn / max(seconds, 1e-9):.1f} images/s end to end\n{then}"
    )


def dry_run(job: Job) -> None:
    """Print what a run would make and cost, measured on one batch after one to warm up."""
    from synclones.generate.worker import draw_batch

    plan, config = job.plan, job.config
    workers = num_workers(config, job.device) if job.device == "cpu" else 1  # those of a GPU take turns
    sampler = one_sampler(job)
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
    print(f"generator  {plan.model_name}")
    for heading, text in plan.described().items():
        print(f"{heading:<10} {text}")
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
    if (config.index is None) == (config.random == 0):
        raise InputError("--index, --random: give one of them: an image, or how many to try")
    if config.out is not None and config.index is None:
        raise InputError("--out: is for the one image of --index; leave it out")
    with open_set(config.folder) as place:
        print(place.named(_redraw(config, place)))


def _redraw(config: RedrawConfig, place: LocalSet) -> str:
    from synclones.generate.redraw import redraw_one, redraw_some

    folder = place.folder
    plan = read_plan(folder)
    stored = place.shards(plan.split)
    if config.index is not None:
        stored.get(config.index)
    config_file = ["--config", str(folder / "config.yaml")]
    saved = load(GenerateConfig, config_file, "synclones generate redraw")
    # All attempts are in the plan: no earlier version is needed.
    job = prepare(replace(saved, out=folder, retry="", parent=None, work=None))
    job = replace(job, plan=replace(job.plan, max_attempts=plan.max_attempts, retries=plan.retries))
    if job.plan != plan:
        raise InputError(f"{folder}: cannot be redrawn here: {differences(plan, job.plan)}")
    sampler = one_sampler(job)
    if config.index is not None:
        return redraw_one(plan, stored, job.table, sampler, config.index, config.out)
    return redraw_some(plan, stored, job.table, sampler, config.random, config.seed)


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

"""A generation, checked: settings, plan, what it draws with and from, its rank among other processes.

In: `GenerateConfig`. Out: `Job`. Nothing is written and no model is loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.manifest import Parent
from synclones.base.weights import refuse_old_libraries
from synclones.generate.extend import smaller_version
from synclones.generate.gates.check import GateInputs, check_gates
from synclones.generate.generators.generator import Generator, make_generator
from synclones.generate.generators.kernels import check_speed
from synclones.generate.generators.model import ModelFolder, find_model, scheduler_class
from synclones.generate.generators.source_images import SourceImages
from synclones.generate.options import Sampling
from synclones.generate.plan import IMAGE_LIBRARIES, Plan, check_settings, choose_dtype, describe_device, plan_versions
from synclones.generate.retry import Retry, find_retry
from synclones.generate.settings import GenerateConfig, parse_part, resolve_device
from synclones.prompts.table import PromptTable
from synclones.shards.stores.store import store_url
from synclones.shards.tools.hub import check_repository, refuse_other_shards

THREADS_PER_WORKER = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a generation needs, checked."""

    config: GenerateConfig
    plan: Plan
    table: PromptTable
    generator: Generator
    device: str
    rank: int
    world_size: int
    part: tuple[int, int]
    """(k, n): this job draws the shards whose number is k modulo n."""
    gates: GateInputs
    """What looks at the images."""
    sources: SourceImages | None
    """The real images that drawing starts from."""
    retry: Retry | None
    """The earlier version whose failed or dropped samples are drawn again."""
    smaller: Parent | None = None
    """The finished set that grows in this folder."""

    @property
    def model(self) -> ModelFolder:
        return self.generator.model


def check_job(config: GenerateConfig, embedded_model: Path, default_prompts: Callable[[], PromptTable]) -> Job:
    """Check all input and make the plan.

    Args:
        embedded_model: what ``--model lab`` means.
        default_prompts: gives the table that is drawn when none was given.

    Raises:
        InputError: what the user can mend, before a model loads.
    """
    # What costs nothing to look at comes first.
    refuse_old_libraries()
    _refuse_in_store(config)
    pushed = check_repository(config.push_to_hub) if config.push_to_hub else frozenset[str]()
    part = parse_part(config.part) if config.part else (0, 1)
    if config.part and config.shards:
        raise InputError("--shards, --part: both say which shards to draw; leave one of them out")
    table = PromptTable(config.prompts) if config.prompts else default_prompts()
    if not config.model:
        raise InputError("--model: no generator was given; name a diffusers folder, a hub id, or --preset lab")
    # Then the files: everything whose content the plan holds is hashed, and no model is loaded for it.
    model = find_model(str(embedded_model) if config.model == "lab" else config.model, config.revision)
    generator, device = make_generator(model, config), resolve_device(config.device)
    sources = _open_sources(config)
    gates = check_gates(config, model)
    plan = make_plan(config, table, generator, device, sources.sha256 if sources else "", gates.facts, gates.libraries)
    # Last what needs the plan: the rows that will be drawn, an earlier version of the set, a repository's shards.
    if sources:
        sources.check(table, plan.num_samples)
    plan, retry = find_retry(config, plan)
    grows = config.extend and config.parent is not None
    smaller = smaller_version(config.out, config.parent) if grows and config.parent else None
    if config.shards and not 0 <= min(config.shards) <= max(config.shards) < plan.num_shards:
        given = " ".join(map(str, config.shards[:5]))
        raise InputError(f"--shards: {given} was given, expected numbers from 0 to {plan.num_shards - 1}")
    refuse_other_shards(config.push_to_hub, pushed, (plan.shard_name(shard) for shard in range(plan.num_shards)))
    return Job(
        config=config,
        plan=plan,
        table=table,
        generator=generator,
        device=device,
        rank=machine.rank(),
        world_size=machine.world_size(),
        part=part,
        gates=gates,
        sources=sources,
        retry=retry,
        smaller=smaller,
    )


def _open_sources(config: GenerateConfig) -> SourceImages | None:
    if config.images is None:
        if config.on_bad_source != "fail":
            raise InputError("--on-bad-source: is for --images, which was not given; leave it out")
        return None
    folder = None if store_url(config.out) is not None else config.out
    return SourceImages(config.images, config.on_bad_source, folder, config.parent)


def make_plan(
    config: GenerateConfig,
    table: PromptTable,
    generator: Generator,
    device: str,
    images_sha256: str = "",
    gates: dict[str, str | int | float] | None = None,
    libraries: Sequence[str] = (),
) -> Plan:
    """Return the plan of a checked table, generator, real images and gates.

    Args:
        libraries: whose releases decide rows, beside those that decide images.

    Raises:
        InputError: for settings that do not fit together.
    """
    num_samples = config.num_images or table.num_rows
    if num_samples > table.num_rows:
        raise InputError(
            f"--num-images: {num_samples} asked, {table.path} has {table.num_rows} rows; build a longer table"
        )
    prompts: dict[str, Any] = {"prompts_sha256": table.check(), "num_samples": num_samples}
    prompts |= {"has_labels": table.has_labels(num_samples), "images_sha256": images_sha256}
    return plan_of(config, generator, device, prompts, gates, libraries)


def plan_of(
    config: GenerateConfig,
    generator: Generator,
    device: str,
    prompts: dict[str, Any],
    gates: dict[str, str | int | float] | None = None,
    libraries: Sequence[str] = (),
) -> Plan:
    """Return the plan of a checked generator; ``prompts``: the plan's fields about what it is asked for.

    Raises:
        InputError: for settings that do not fit together.
    """
    drawn_px = _drawn_px(config, generator.model)
    check_speed(config.attention, device)
    # The options of sampling go into the plan as they are, but that the scheduler's name is settled.
    sampling = {option.name: getattr(config, option.name) for option in fields(Sampling)}
    sampling["scheduler"] = scheduler_class(generator.model, config.scheduler)
    more_libraries = (
        *(IMAGE_LIBRARIES if prompts.get("images_sha256") else ()),
        *(("peft",) if generator.lora else ()),
        *libraries,
    )
    plan = Plan(
        **sampling,
        **generator.plan_facts(),
        **prompts,
        drawn_px=drawn_px,
        stored_px=config.stored_px or min(drawn_px, 256),
        jpeg_quality=config.jpeg_quality,
        seed=config.seed,
        batch_size=1 if config.batch_size == "auto" else config.batch_size,  # settled when all else is checked
        images_per_shard=config.images_per_shard,
        max_attempts=config.max_attempts,
        dtype=choose_dtype(config.dtype, device),
        device=describe_device(device),
        threads_per_worker=THREADS_PER_WORKER,
        split=config.split,
        compiled=config.compile,
        attention=config.attention,
        versions=plan_versions(more_libraries),
        gates=gates or {},
    )
    check_settings(plan)
    return plan


def _drawn_px(config: GenerateConfig, model: ModelFolder) -> int:
    drawn_px, step = config.size_px or model.native_size_px, model.size_step_px
    if drawn_px % step:
        raise InputError(f"--size-px: {drawn_px} is not a multiple of {step}; choose {drawn_px // step * step + step}")
    return drawn_px


def _refuse_in_store(config: GenerateConfig) -> None:
    """Refuse what only folders, or only stores, can do."""
    in_store = store_url(config.out) is not None
    if not in_store and (config.work is not None or config.steal_lease):
        raise InputError("--work, --steal-lease: are for a URL as --out, such as s3://bucket/prefix; leave them out")
    if in_store and config.retry:
        raise InputError("--retry: is for folders; give a folder as --out, and copy it to the store")
    if in_store and config.push_to_hub:
        raise InputError("--push-to-hub: is for folders; copy the finished set, and run `synclones shards push`")
    if in_store and config.batch_size == "auto":
        raise InputError("--batch-size auto: is settled in a folder; measure with --dry-run, and give the number")

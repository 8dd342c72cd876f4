"""A generation, checked: its settings, its plan, what it draws with and from, and its place among other processes.

In: `GenerateConfig`. Out: `Job`. Nothing is written and no model is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.weights import refuse_old_libraries
from synclones.generate.gates.check import GateInputs, check_gates
from synclones.generate.generators.conditioning import open_sources
from synclones.generate.generators.generator import equipped
from synclones.generate.generators.model import ModelFolder, find_model
from synclones.generate.generators.source_images import SourceImages
from synclones.generate.plan import Plan
from synclones.generate.retry import Retry, find_retry
from synclones.generate.settings import GenerateConfig, make_plan, parse_part, resolve_device
from synclones.prompts.table import PromptTable
from synclones.shards.stores.store import store_url
from synclones.shards.tools.hub import check_repository, refuse_other_shards


@dataclass(frozen=True, kw_only=True)
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
    gates: GateInputs
    """What looks at the pictures."""
    sources: SourceImages | None
    """The real images that drawing starts from."""
    retry: Retry | None
    """The earlier version whose failed or dropped samples are drawn again."""


def check_job(config: GenerateConfig, embedded_model: Path, default_prompts: Callable[[], Path]) -> Job:
    """Check all input and make the plan.

    Args:
        embedded_model: what ``--model lab`` means.
        default_prompts: makes and names the table that is drawn when none was given.

    Raises:
        InputError: what the user can mend, before a model loads.
    """
    refuse_old_libraries()
    _refuse_in_store(config)
    pushed = check_repository(config.push_to_hub) if config.push_to_hub else frozenset[str]()
    part = parse_part(config.part) if config.part else (0, 1)
    table = PromptTable(config.prompts or default_prompts())
    if not config.model:
        raise InputError("--model: no generator was given; name a diffusers folder, a hub id, or --preset lab")
    found = find_model(str(embedded_model) if config.model == "lab" else config.model, config.revision)
    model, device, sources = equipped(found, config), resolve_device(config.device), open_sources(config)
    gates = check_gates(config, model)
    plan = make_plan(config, table, model, device, sources.sha256 if sources else "", gates.facts, gates.libraries)
    if sources:
        sources.check(table, plan.num_samples)
    plan, retry = find_retry(config, plan)
    refuse_other_shards(config.push_to_hub, pushed, (plan.shard_name(shard) for shard in range(plan.num_shards)))
    return Job(
        config=config,
        plan=plan,
        table=table,
        model=model,
        device=device,
        rank=machine.rank(),
        world_size=machine.world_size(),
        part=part,
        gates=gates,
        sources=sources,
        retry=retry,
    )


def _refuse_in_store(config: GenerateConfig) -> None:
    """What only folders, or only stores, can do."""
    in_store = store_url(config.out) is not None
    if not in_store and (config.work is not None or config.steal_lease):
        raise InputError("--work, --steal-lease: are for a URL as --out, such as s3://bucket/prefix; leave them out")
    if in_store and config.retry:
        raise InputError("--retry: is for folders; give a folder as --out, and copy it to the store")
    if in_store and config.push_to_hub:
        raise InputError("--push-to-hub: is for folders; copy the finished set, and run `synclones shards push`")
    if in_store and config.batch_size == "auto":
        raise InputError("--batch-size auto: is settled in a folder; measure with --dry-run, and give the number")

"""From the settings of a command to its plan and store; and which plans were run into a store, for who asks later.

In: `PlanConfig`. Out: a `Plan` and its `Store`; ``runs/GRID-WORLD-SCALE.yaml`` in the store.
"""

from pathlib import Path

from synclones.ablate.gather import report_folder
from synclones.ablate.grid import read_grid
from synclones.ablate.plan import Plan, make_plan
from synclones.ablate.settings import PlanConfig, RunConfig
from synclones.ablate.store import Store
from synclones.ablate.world import parse_scale, read_world
from synclones.base.config import load, save

RUNS = "runs"


def planned(config: PlanConfig) -> tuple[Plan, Store]:
    """Return the plan that settings say, and its store.

    Raises:
        InputError: an unknown grid, world, axis, value or input, or a scale that leaves nothing.
    """
    world = read_world(config.world).with_inputs(config.input)
    scale = parse_scale(config.scale) if config.scale else None
    return make_plan(read_grid(config.grid), world, scale, config.only, config.seeds), Store(config.out)


def remember(config: RunConfig, plan: Plan, store: Store) -> None:
    """Keep the settings of a run in its store."""
    folder = store.out / RUNS
    folder.mkdir(parents=True, exist_ok=True)
    save(config, folder / f"{report_folder(plan, store).name}.yaml")


def remembered(store: Path) -> list[RunConfig]:
    """Return the settings of the runs into a store.

    Raises:
        InputError: a file of them is damaged, or of a newer version.
    """
    return [remembered_in(file, store) for file in remembered_files(store)]


def remembered_files(store: Path) -> list[Path]:
    """Return the files of the runs into a store."""
    return sorted((store / RUNS).glob("*.yaml"))


def remembered_in(file: Path, store: Path) -> RunConfig:
    """Return the settings of one run into a store.

    Raises:
        InputError: the file is damaged, or of a newer version.
    """
    return load(RunConfig, ["--config", str(file), "--out", str(store)], "synclones ablate run")


def run_words(config: RunConfig) -> list[str]:
    """Return the words of the command that goes on with a run, whose steps others may have made, and reports it."""
    words = ["ablate", "run", config.grid, "--world", config.world, "--out", str(config.out)]
    for flag, values in (("--scale", (config.scale,)), ("--only", config.only), ("--input", config.input)):
        words += [flag, *values] if any(values) else []
    return [*words, *(["--seeds", str(config.seeds)] if config.seeds else [])]

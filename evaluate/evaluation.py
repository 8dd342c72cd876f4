"""One evaluation from beginning to end: whatever names models and sets, the command or Python, does the same work.

In: models and sets of images, opened and checked. Out: the folder of results.
"""

import time
from datetime import timedelta
from functools import partial

import torch
from accelerate import PartialState

from synclones.base import machine
from synclones.base.joining import join_started_again
from synclones.evaluate.answers.predictions import EvaluatedModel, SuiteSet
from synclones.evaluate.axis import all_conditions
from synclones.evaluate.checks.training_data import seen_in_training
from synclones.evaluate.finish import write_results
from synclones.evaluate.inputs import print_plan, say_unverified, suite_title
from synclones.evaluate.predict import predict_all
from synclones.evaluate.protocols import followed
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.subsets.choice import subsets
from synclones.evaluate.subsets.until import until_sure


def evaluate_models(
    config: EvaluateConfig, models: list[EvaluatedModel], sets: list[SuiteSet], rank: int, world_size: int
) -> None:
    """Predict what is not cached, and write results.

    Args:
        config: what is measured, and where results go.
        models: moved to the device, their parameters frozen.
        sets: the reference is the first.
        rank: of this process.
        world_size: how many processes do this together.

    Raises:
        InputError: the folder of results holds something else.
        VerificationError: a logit is not finite, or what is kept is damaged.
    """
    protocols: dict[str, frozenset[str]] = {name: followed(name, config.deviations) for name in config.protocol}
    conditions = partial(all_conditions, config)
    sets = subsets(sets, config.subset)
    trained_on = seen_in_training(models, sets, say=rank == 0)
    if config.dry_run:
        print_plan(config, models, conditions, sets)
        return

    # All processes predict; from here on numbers are arithmetic on what they computed, which one process does alone.
    if rank == 0:
        say_unverified(models)
    state = _prepare(config, models, world_size)
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    how = (config.batch_size, config.out, rank, world_size)
    if config.until:
        sets = until_sure(models, sets, config.until / 100, *how)
    predictions = predict_all(models, sets, conditions, *how, protocols, trained_on)
    state.wait_for_everyone()  # a process that leaves early can cut a connection that another still reads from
    state.destroy_process_group()
    if rank == 0:
        write_results(config, sets, predictions, suite_title(config), time.monotonic() - started)


def _prepare(config: EvaluateConfig, models: list[EvaluatedModel], world_size: int) -> PartialState:
    """Set the device, join the other processes, and set threads."""
    device = machine.choose_device(config.device)
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits would move logits by more than some differences
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    join_started_again(device, config.timeout_s)
    state = PartialState(cpu=device == "cpu", timeout=timedelta(seconds=config.timeout_s))
    torch.set_num_threads(config.torch_threads or machine.cores())  # Accelerate has just set another number
    machine.check_world_size(world_size, state.num_processes)
    for model in models:
        model.classifier.to(state.device).requires_grad_(False)
    return state

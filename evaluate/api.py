"""An evaluation from Python: any module or function of torch from pixels in 0..1 to logits, on a suite or a folder.

In: the model, how images become its input, the sets. Out: the folder of results that ``synclones evaluate`` writes, and
its numbers.

    from synclones.evaluate.api import evaluate
    from synclones.evaluate.foreign import normalised, pixels

    network = normalised(my_network.eval(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    numbers = evaluate(network, pixels(224, crop_fraction=0.875), "synthetic-clones", "benchmarks", "results/mine")
    for cell in numbers:
        print(cell.dataset, cell.metric, cell.settings, cell.value, cell.ci_low, cell.ci_high)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.answers.predictions import EvaluatedModel, SuiteSet
from synclones.evaluate.evaluation import evaluate_models
from synclones.evaluate.foreign import Model, from_callable, gives_gradient
from synclones.evaluate.inputs import check_given, refuse_other_classes
from synclones.evaluate.methods.auto_attack import refuse_few_classes
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.results import Cell, read_cells
from synclones.models.network import Preprocessing


def evaluate(
    model: "Model | EvaluatedModel",
    preprocessing: Preprocessing | None,
    suite: str | Path | None,
    data_root: str | Path,
    out: str | Path,
    *,
    name: str = "",
    class_ids: Sequence[str] = (),
    identity: str | None = None,
    function_device: str = "cpu",
    **settings: Any,
) -> list[Cell]:
    """Evaluate a model of one's own as ``synclones evaluate`` evaluates others, and return its numbers.

    Logits are kept in ``out``, where further models may be added: tables and report show all of them. Prints the table;
    sets torch's threads and switches off what makes its convolutions inexact.

    Args:
        model: pixels float32[n, 3, h, w] in 0..1 -> logits float[n, classes], as `from_callable` takes it, or what that
            returned. A module is moved to where the evaluation computes, and stays there.
        preprocessing: of images to pixels, see `pixels`; None with what `from_callable` returned.
        suite: name of a suite, or a YAML file of one; None: ``data_root`` is one labelled folder.
        data_root: folder below which the suite's sets lie.
        out: folder of results.
        name: what tables call the model; by default its type or its own name.
        class_ids: class of each output, in order; by default those of the reference set.
        identity: see `from_callable`; needed for a function.
        function_device: where a function wants its pixels.
        settings: the flags of the command as `EvaluateConfig` names them, such as ``attacks=()``, ``sets=("shifted",)``
            or ``device="cuda"``.

    Returns:
        All numbers of the model that ``out`` holds, those of earlier evaluations too; on other ranks than 0 none.

    Raises:
        InputError: what is wrong with the model, the sets or the settings; nothing was written.
        VerificationError: a logit is not finite, naming the sample; what is kept is damaged.
    """
    refuse_old_libraries()
    machine.check_launch()
    config = _config(suite, data_root, out, settings)
    _, sets = check_given(config, (), Path())
    opened = _opened(model, preprocessing, sets, name, class_ids, identity, function_device)
    _refuse_impossible(opened, config, sets)
    rank, parameters = machine.rank(), dict(opened.classifier.named_parameters())
    # An evaluation freezes what it evaluates; somebody's own network goes on as it was.
    trainable = [parameter for parameter in parameters.values() if parameter.requires_grad]
    try:
        evaluate_models(config, [opened], sets, rank, machine.world_size())
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    if rank or config.dry_run:
        return []
    return [cell for cell in read_cells(config.out) if cell.weights_sha256 == opened.weights_sha256]


def _config(
    suite: str | Path | None, data_root: str | Path, out: str | Path, settings: dict[str, Any]
) -> EvaluateConfig:
    where: dict[str, Any] = (
        {"data": Path(data_root)} if suite is None else {"suite": str(suite), "data_root": Path(data_root)}
    )
    try:
        return EvaluateConfig(out=Path(out), **where, **settings)
    except TypeError as error:
        raise InputError(f"evaluate: {error}; settings are those of EvaluateConfig") from None


def _opened(
    model: "Model | EvaluatedModel",
    preprocessing: Preprocessing | None,
    sets: list[SuiteSet],
    name: str,
    class_ids: Sequence[str],
    identity: str | None,
    device: str,
) -> EvaluatedModel:
    if isinstance(model, EvaluatedModel):
        return model
    if preprocessing is None:
        raise InputError("evaluate: preprocessing is missing, which says how images become the model's pixels")
    name = name or (type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "function"))
    return from_callable(model, preprocessing, class_ids or sets[0].test_set.class_ids, name, identity, device)


def _refuse_impossible(model: EvaluatedModel, config: EvaluateConfig, sets: list[SuiteSet]) -> None:
    refuse_other_classes([model], sets)
    if "autoattack" in config.attacks:
        refuse_few_classes([model])
    if config.attacks and not gives_gradient(model):
        raise InputError(
            f"{model.name}: gives no gradient at its pixels, which attacks follow; compute with autograd, or give "
            "attacks=()"
        )
    if "paper" in config.protocol:
        raise InputError(
            f"{model.name}: --protocol paper changes the normalisation, which is inside this model; export it "
            "(docs/models.md), or evaluate it under the corrected protocol alone"
        )

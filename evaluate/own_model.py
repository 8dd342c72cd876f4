"""Evaluates a model of one's own: any module or function of torch from pixels in 0..1 to logits.

In: the model, how images become its input, the settings. Out: the folder of results that ``synclones evaluate`` writes;
`synclones.api.evaluate` is how it is called.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.weights import refuse_old_libraries
from synclones.evaluate.answers.predictions import EvaluatedModel, SuiteSet
from synclones.evaluate.evaluation import evaluate_models
from synclones.evaluate.foreign import Model, from_callable, gives_gradient
from synclones.evaluate.inputs import check_given, in_models_order, refuse_other_classes
from synclones.evaluate.methods.auto_attack import refuse_few_classes
from synclones.evaluate.settings import EvaluateConfig
from synclones.models.network import Preprocessing


def evaluate_own(
    model: "Model | EvaluatedModel",
    preprocessing: Preprocessing | None,
    config: EvaluateConfig,
    *,
    name: str = "",
    class_ids: Sequence[str] = (),
    identity: str | None = None,
    function_device: str = "cpu",
) -> str:
    """Evaluate a model of one's own as ``synclones evaluate`` evaluates others.

    Logits are kept in the folder of results, where further models may be added: tables and report show all of them.
    Prints the table; sets torch's threads and switches off what makes its convolutions inexact.

    Args:
        model: pixels float32[n, 3, h, w] in 0..1 -> logits float[n, classes], as `from_callable` takes it, or what that
            makes of it.
        preprocessing: how images become these pixels, as `pixels` makes it; None where the model is opened already.
        config: where the sets lie (``data``, or ``suite`` and ``data_root``), and what is measured.
        name: what tables call the model; the class' or the function's name by default.
        class_ids: class of each output, in order; by default those of the reference set.
        identity: see `from_callable`; needed for a function.
        function_device: where a function wants its pixels.

    Returns:
        The hash by which its numbers are filed.

    Raises:
        InputError: what is wrong with the model, the sets or the settings; nothing was written.
        VerificationError: a logit is not finite, naming the sample; what is kept is damaged.
    """
    refuse_old_libraries()
    machine.check_launch()
    if config.data is None and config.data_root is None:
        raise InputError("evaluate(): where do images lie? give data, or suite and data_root")
    _, sets = check_given(config, (), Path())
    opened = _opened(model, preprocessing, sets, name, class_ids, identity, function_device)
    sets = in_models_order(config, sets, [opened])
    _refuse_impossible(opened, config, sets)
    rank, parameters = machine.rank(), dict(opened.classifier.named_parameters())
    # An evaluation freezes what it evaluates; somebody's own network goes on as it was.
    trainable = [parameter for parameter in parameters.values() if parameter.requires_grad]
    try:
        evaluate_models(config, [opened], sets, rank, machine.world_size())
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return opened.weights_sha256


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

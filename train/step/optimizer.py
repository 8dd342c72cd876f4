"""Optimizers, the learning rate and weight decay of each step, and an optimizer's state as named tensors.

In: named parameters, `TrainConfig` and `OptimizerSettings`. Out: the optimizer, what each step sets in it, and what a
checkpoint keeps. Without settings: AdamW with a warm-up and a cosine to 0.
"""

import math
from typing import Any

import torch
from timm.optim import Lars, Muon, param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from synclones.train.options.optimizer import OptimizerSettings
from synclones.train.settings import TrainConfig

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


DEFAULTS = OptimizerSettings()


def new_optimizer(
    network: nn.Module,
    config: TrainConfig,
    device: torch.device,
    settings: OptimizerSettings = DEFAULTS,
    factor: float = 1.0,
) -> torch.optim.Optimizer:
    """Return the optimizer that decays what timm decays; every step sets its learning rate, times ``factor``.

    timm's rule: no biases, no vectors and scalars, and nothing that the network lists in its own ``no_weight_decay``
    (class tokens and position embeddings of vision transformers). AdamW: Loshchilov and Hutter 2019.
    """
    groups = _groups(network, config, settings)
    for group in groups if factor != 1 else ():
        group["lr_scale"] = factor * group.get("lr_scale", 1.0)
    betas, momentum = (settings.beta1, settings.beta2), settings.momentum
    fused = device.type == "cuda" or None
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.epsilon, weight_decay=0.0, fused=fused)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=0.0, betas=betas, eps=settings.epsilon, fused=fused)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=settings.nesterov, fused=fused)
    if settings.optimizer == "lars":
        # Its authors' rule: every matrix adapts, with or without decay; timm's default is those that decay.
        for group in groups:
            group["always_adapt"] = group["is_of_matrices"]
        return Lars(groups, lr=0.0, momentum=momentum, nesterov=settings.nesterov)
    for group in groups:
        group["use_muon"] = not group.get("use_fallback", False)
    # Its own epsilon guards a norm; timm has one for both, and the norm's is the one that matters less.
    return Muon(groups, lr=0.0, betas=betas, momentum=momentum, nesterov=settings.nesterov, eps=settings.epsilon)


def _groups(network: nn.Module, config: TrainConfig, settings: OptimizerSettings) -> list[dict[str, Any]]:
    spared = _spared(network)
    # Of a decay that begins at 0, which parameters it is for is known all the same.
    decay = config.weight_decay or max(0.0, settings.weight_decay_end)
    others = _not_for_muon(network, spared) if settings.optimizer == "muon" else ()
    kind: dict[str, Any] = {"no_weight_decay_list": spared, "fallback_list": others}
    groups: list[dict[str, Any]]
    # A decay that is not 0 tells what would decay from what never does.
    if settings.layer_decay == 1:
        groups = param_groups_weight_decay(network, decay or 1.0, **kind)
    else:
        groups = param_groups_layer_decay(network, decay or 1.0, layer_decay=settings.layer_decay, **kind)
    for group in groups:
        group["is_of_matrices"] = group["weight_decay"] > 0
        group["weight_decay"] = group["weight_decay"] if decay else 0.0
        group["decays"] = group["weight_decay"] > 0
    return groups


def _spared(network: nn.Module, prefix: str = "") -> tuple[str, ...]:
    """Return the names that the network lists as such that do not decay, or else those that networks within it list."""
    if hasattr(network, "no_weight_decay"):
        return tuple(prefix + name for name in network.no_weight_decay())
    return tuple(name for within, child in network.named_children() for name in _spared(child, f"{prefix}{within}."))


def _not_for_muon(network: nn.Module, spared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of what is no hidden matrix: the classifier, vectors, embeddings, and what is thinner than 4."""
    head = getattr(network, "pretrained_cfg", {}).get("classifier") or "head"
    heads = (head,) if isinstance(head, str) else tuple(head)
    return tuple(
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim < 2
        or min(len(parameter), parameter[0].numel()) < 4
        or name in spared
        or name.startswith(tuple(f"{h}." for h in heads))
    )


# ------------------------------------------------------------------ schedules


def set_step(
    optimizer: torch.optim.Optimizer,
    step: int,
    num_steps: int,
    config: TrainConfig,
    settings: OptimizerSettings = DEFAULTS,
) -> None:
    """Give every group its learning rate, and its weight decay where that changes, of step 0..num_steps-1."""
    rate = learning_rate(step, num_steps, config, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if group["decays"] and settings.weight_decay_end >= 0:
            group["weight_decay"] = weight_decay(step, num_steps, config, settings)


def learning_rate(step: int, num_steps: int, config: TrainConfig, settings: OptimizerSettings = DEFAULTS) -> float:
    """Return the rate of step 0..num_steps-1: linear warm-up to the peak, then the schedule.

    Source of the cosine: Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    warm, peak = warmup_length(num_steps, config, settings), config.learning_rate
    if step < warm:
        if settings.warmup_from < 0:
            return peak * (step + 1) / (warm + 1)
        return settings.warmup_from + (peak - settings.warmup_from) * step / warm
    progress = (step - warm) / max(1.0, num_steps - warm)
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "step":
        return peak * settings.step_factor ** sum(step >= share * num_steps for share in settings.step_at)
    if settings.schedule == "linear":
        return settings.min_rate + (peak - settings.min_rate) * (1 - progress)
    angle = math.pi * (step - warm) / max(1.0, num_steps - warm)
    return settings.min_rate + (peak - settings.min_rate) * 0.5 * (1 + math.cos(angle))


def warmup_length(num_steps: int, config: TrainConfig, settings: OptimizerSettings) -> float:
    """Return the steps of the warm-up, a fraction among them, from whichever length was given."""
    if settings.warmup_steps:
        return settings.warmup_steps
    if settings.warmup_samples:
        return settings.warmup_samples / config.batch_size
    return config.warmup * num_steps


def weight_decay(step: int, num_steps: int, config: TrainConfig, settings: OptimizerSettings) -> float:
    """Return the decay of step 0..num_steps-1: half a cosine from the first to the last (DINO, SynCLR: .04 to .2)."""
    if settings.weight_decay_end < 0:
        return config.weight_decay
    first, last = config.weight_decay, settings.weight_decay_end
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


# ------------------------------------------------------------------ state


def moments(optimizer: torch.optim.Optimizer) -> dict[Tensor, tuple[str, ...]]:
    """Return which tensors ``optimizer`` keeps of every parameter, once it has made a step."""
    names: dict[Tensor, tuple[str, ...]] = {}
    for group in optimizer.param_groups:
        kept: tuple[str, ...] = MOMENTS
        if isinstance(optimizer, torch.optim.SGD | Lars):
            kept = ("momentum_buffer",) if group["momentum"] else ()
        elif isinstance(optimizer, Muon) and group["use_muon"]:
            kept = ("momentum_buffer",)
        names.update(dict.fromkeys(group["params"], kept))
    return names


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the moments of every parameter as ``moment/parameter``."""
    kept = moments(optimizer)
    return {f"{m}/{name}": optimizer.state[p][m] for name, p in parameters.items() for m in kept[p]}


def expected_state(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Tensor]:
    """Return tensors of the names, shapes and types that `optimizer_state` returns; without ``optimizer`` AdamW's."""
    count, kept = torch.zeros(()), moments(optimizer) if optimizer else dict.fromkeys(parameters.values(), MOMENTS)
    return {f"{m}/{name}": count if m == "step" else p for name, p in parameters.items() for m in kept[p]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]
) -> None:
    """Take over what `optimizer_state` returned; names, shapes and types are those of `expected_state`."""
    kept = moments(optimizer)
    muon = {p: group["use_muon"] for group in optimizer.param_groups if "use_muon" in group for p in group["params"]}
    for name, parameter in parameters.items():
        # Without a fused kernel the count of steps stays on the CPU, where AdamW reads it without waiting for the GPU.
        counts_on_gpu = parameter.device.type == "cuda" and bool(optimizer.defaults.get("fused"))
        optimizer.state[parameter] = {
            moment: tensor.to(parameter.device) if moment != "step" or counts_on_gpu else tensor
            for moment, tensor in ((moment, state[f"{moment}/{name}"].clone()) for moment in kept[parameter])
        }
        if parameter in muon:  # what timm notes at the first step
            optimizer.state[parameter]["use_muon"] = muon[parameter]

"""Steps of samplers as sums, with the coefficients of all steps computed once in float64: DDIM and DPM-Solver++.

In: a scheduler of diffusers whose timesteps are set. Out: what begins a batch and gives its steps, or None for samplers
that keep their own. `tests/test_denoise.py` compares with diffusers, `benchmarks/loop.py` says what it is worth.
"""

from collections.abc import Callable
from typing import Any

import torch

Advance = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(number of the step, what the network predicted, latents) -> the next latents; all float[n, c, h, w]."""


def step_as_sum(scheduler: Any) -> Callable[[], Advance] | None:
    """Called once per batch, the result gives that batch's steps; None for other samplers and settings."""
    if getattr(scheduler.config, "thresholding", False):
        return None
    if scheduler.config.get("prediction_type") not in ("epsilon", "v_prediction"):
        return None
    make = {"DDIMScheduler": _ddim, "DPMSolverMultistepScheduler": _dpm_solver}.get(type(scheduler).__name__)
    return make(scheduler) if make else None


def _ddim(scheduler: Any) -> Callable[[], Advance] | None:
    """DDIM (Song et al. 2021, eq. 12, eta 0): ``a * latents + b * predicted``."""
    config = scheduler.config
    if config.clip_sample:
        return None
    stride = config.num_train_timesteps // scheduler.num_inference_steps
    now = scheduler.timesteps
    before = (now - stride).clamp(min=0)
    alphas = scheduler.alphas_cumprod.double().cpu()
    final = scheduler.final_alpha_cumprod.double().cpu()
    signal, noise = alphas[now].sqrt(), (1 - alphas[now]).sqrt()
    kept = torch.where(now >= stride, alphas[before], final)
    to_signal, to_noise = kept.sqrt(), (1 - kept).sqrt()
    clean = _clean(config.prediction_type, signal, noise)
    if config.prediction_type == "epsilon":
        a, b = to_signal * clean[0], to_noise + to_signal * clean[1]
    else:  # the noise is ``noise * latents + signal * predicted``
        a, b = to_signal * clean[0] + to_noise * noise, to_signal * clean[1] + to_noise * signal
    of_latents, of_predicted = a.tolist(), b.tolist()

    def advance(number: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return (latents * of_latents[number]).add_(predicted, alpha=of_predicted[number])

    return lambda: advance


def _clean(prediction: str, signal: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean image that a prediction stands for is ``first * latents + second * predicted``."""
    return (1 / signal, -noise / signal) if prediction == "epsilon" else (signal, -noise)


def _dpm_solver(scheduler: Any) -> Callable[[], Advance] | None:
    """DPM-Solver++ (2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2), midpoint: latents, two clean images."""
    config = scheduler.config
    kind = (config.algorithm_type, config.solver_order, config.solver_type, config.use_flow_sigmas)
    if kind != ("dpmsolver++", 2, "midpoint", False) or config.variance_type not in (None, "fixed_small"):
        return None
    sigmas = scheduler.sigmas.double().cpu()
    signal = (1 + sigmas**2).rsqrt()
    noise, depth = sigmas * signal, -sigmas.log()  # log(signal / noise)
    gap = depth.diff()
    of_clean = -signal[1:] * torch.expm1(-gap)
    slope = torch.cat([gap.new_zeros(1), of_clean[1:] * gap[1:] / gap[:-1] / 2])  # the first step is of first order
    if config.euler_at_final or config.final_sigmas_type == "zero" or (config.lower_order_final and len(gap) < 15):
        slope[-1] = 0  # and so is the last, as diffusers does it
    first, second = (part.tolist() for part in _clean(config.prediction_type, signal[:-1], noise[:-1]))
    of_latents, now, earlier = ((noise[1:] / noise[:-1]).tolist(), (of_clean + slope).tolist(), (-slope).tolist())

    def begin() -> Advance:
        kept: list[torch.Tensor] = []

        def advance(number: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            clean = (latents.float() * first[number]).add_(predicted, alpha=second[number])
            moved = (latents.float() * of_latents[number]).add_(clean, alpha=now[number])
            if earlier[number]:
                moved.add_(kept[0], alpha=earlier[number])
            kept[:] = [clean]
            return moved.to(latents.dtype)

        return advance

    return begin

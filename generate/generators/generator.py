"""What a model is drawn with beside its own parts: the pipeline that starts from images, a LoRA, a tiny VAE, shortcuts.

In: a checked model and the settings. Out: the same model with these, each checked before the model loads.
"""

from dataclasses import replace

from synclones.base.errors import InputError
from synclones.generate.generators.conditioning import conditioned
from synclones.generate.generators.lora import find_lora
from synclones.generate.generators.model import OWN_LOOP, PIPELINES, ModelFolder, pipeline_class
from synclones.generate.generators.tiny_vae import find_tiny_vae
from synclones.generate.settings import GenerateConfig


def equipped(model: ModelFolder, config: GenerateConfig) -> ModelFolder:
    """The model as it draws. Raises InputError for flags that do not fit it, MachineError when the hub is away."""
    model = conditioned(model, config)
    if config.lora:
        model = replace(model, lora=find_lora(config.lora, config.lora_scale, model))
    elif config.lora_scale != 1:
        raise InputError(f"--lora-scale: {config.lora_scale} was given without --lora; name a LoRA, or leave it out")
    if config.tiny_vae:
        model = replace(model, tiny_vae=find_tiny_vae(config.tiny_vae, model))
    _check_shortcuts(model, config)
    return replace(model, token_merging=config.token_merging)


def _check_shortcuts(model: ModelFolder, config: GenerateConfig) -> None:
    kind = pipeline_class(model)
    if config.token_merging and "unet" not in PIPELINES[kind]:
        raise InputError(f"--token-merging: only for models with a UNet, this is a {kind}; leave it out")
    if config.step_cache > 1 and kind not in OWN_LOOP:
        raise InputError(f"--step-cache: only for {' and '.join(OWN_LOOP)}, this is a {kind}; leave it out")
    if config.step_cache > config.num_inference_steps:
        raise InputError(
            f"--step-cache: {config.step_cache} is above the {config.num_inference_steps} steps: only the first "
            "would be computed whole; choose fewer, or leave it out"
        )

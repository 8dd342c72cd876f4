"""What draws: a checked model, the pipeline that draws with it, and what is put into it; and how that is loaded.

In: a checked model and the options. Out: `Generator`, each part of it checked before the model loads; then a pipeline.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.generate.generators.conditioning import drawing_pipeline
from synclones.generate.generators.families import FAMILIES, Family, families_with
from synclones.generate.generators.lora import Lora, find_lora, fuse
from synclones.generate.generators.model import ModelFolder, unused_parts
from synclones.generate.generators.tiny_vae import TinyVae, find_tiny_vae, replace_vae
from synclones.generate.options import GeneratorOptions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


AS_IT_IS = GeneratorOptions()


@dataclass(frozen=True)
class Generator:
    """A model, the pipeline class that draws with it, and what does not come with it."""

    model: ModelFolder
    kind: str
    """The pipeline that draws, one of `FAMILIES`; it may be another than the model's own."""
    lora: Lora | None = None
    """What is fused into its weights."""
    tiny_vae: TinyVae | None = None
    """What decodes in place of its own autoencoder."""
    token_merging: float = 0.0
    """Share of the tokens that its largest self-attentions do not see."""

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind]

    def plan_facts(self) -> dict[str, Any]:
        """Return the plan's fields about the model and what is put into it."""
        model = self.model
        facts: dict[str, Any] = {
            "model_name": model.name,
            "model_revision": model.revision,
            "model_sha256": model.sha256,
        }
        if self.lora:
            facts |= {"lora": self.lora.name, "lora_sha256": self.lora.sha256, "lora_scale": self.lora.scale}
        if self.tiny_vae:
            facts |= {"tiny_vae": self.tiny_vae.name, "tiny_vae_sha256": self.tiny_vae.sha256}
        return facts


def make_generator(model: ModelFolder, options: GeneratorOptions = AS_IT_IS) -> Generator:
    """Return what draws with ``model`` under these options.

    Raises:
        InputError: when an option does not fit the model.
        MachineError: when the hub does not answer and something is not in its cache.
    """
    generator = Generator(model, drawing_pipeline(model.kind, options), token_merging=options.token_merging)
    if options.lora:
        generator = replace(generator, lora=find_lora(options.lora, options.lora_scale, model, generator.kind))
    elif options.lora_scale != 1:
        raise InputError(f"--lora-scale: {options.lora_scale} was given without --lora; name a LoRA, or leave it out")
    if options.tiny_vae:
        generator = replace(generator, tiny_vae=find_tiny_vae(options.tiny_vae, model))
    _refuse_unused_guidance(generator, options)
    _check_shortcuts(generator, options)
    return generator


def _check_shortcuts(generator: Generator, options: GeneratorOptions) -> None:
    kind, family = generator.kind, generator.family
    if options.token_merging and "unet" not in family.parts:
        raise InputError(f"--token-merging: only for models with a UNet, this is a {kind}; leave it out")
    if options.step_cache > 1 and not family.own_loop:
        raise InputError(f"--step-cache: only for {families_with('own_loop')}, this is a {kind}; leave it out")
    if options.step_cache > options.num_inference_steps:
        raise InputError(
            f"--step-cache: {options.step_cache} is above the {options.num_inference_steps} steps: only the first "
            "would be computed whole; choose fewer, or leave it out"
        )


def _refuse_unused_guidance(generator: Generator, options: GeneratorOptions) -> None:
    """Refuse what would be accepted and do nothing."""
    kind, interval = generator.kind, (options.guidance_start, options.guidance_stop)
    flags = "--negative-prompt" if options.negative_prompt else "--guidance-start, --guidance-stop"
    if (options.negative_prompt or interval != (0, 1)) and options.guidance_scale <= 1:
        raise InputError(f"{flags}: no effect without guidance; give --guidance-scale above 1, or leave it out")
    if options.negative_prompt and not generator.family.negative_prompt:
        raise InputError(f"--negative-prompt: a {kind} takes none; leave it out")
    if interval != (0, 1) and not generator.family.own_loop:
        only = families_with("own_loop")
        raise InputError(f"--guidance-start, --guidance-stop: only for {only}, this is a {kind}; leave them out")
    if interval[0] >= interval[1]:
        raise InputError(
            f"--guidance-start: {interval[0]} is not below --guidance-stop {interval[1]}; no step is guided; "
            "choose a smaller start"
        )


def load_pipeline(generator: Generator, scheduler: str, dtype: str, device: str) -> "DiffusionPipeline":
    """Load the generator in ``dtype`` (a torch name) on ``device``, convolutions in channels_last."""
    import diffusers
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # Progress bars and warnings of the libraries would hide our own lines.
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    # A LoRA is fused before anything else is changed: diffusers expects the pipeline as it was saved.
    kind, path = generator.kind, generator.model.path
    loading = {_dtype_argument(): getattr(torch, dtype), "use_safetensors": True, "local_files_only": True}
    pipeline = getattr(diffusers, kind).from_pretrained(path, **loading, **_parts_left_out(kind))
    _equip(pipeline, generator, loading)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    if dtype != "float16" and pipeline.vae.config.get("force_upcast"):
        # Upcasting is for float16, which overflows; it would change weights that other threads draw with.
        pipeline.vae.register_to_config(force_upcast=False)
    for module in (getattr(pipeline, "unet", None), pipeline.vae):
        if module is not None:
            module.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def _equip(pipeline: "DiffusionPipeline", generator: Generator, loading: dict[str, Any]) -> None:
    """Put in what does not come with the model."""
    if generator.lora is not None:
        fuse(pipeline, generator.lora)
    if generator.tiny_vae is not None:
        replace_vae(pipeline, generator.tiny_vae, **loading)
    if generator.token_merging:
        from synclones.generate.generators.token_merging import merge_tokens  # it imports torch

        merge_tokens(pipeline.unet, generator.token_merging)


def _parts_left_out(kind: str) -> dict[str, Any]:
    """Return the arguments that leave out parts that never draw, where the pipeline has them."""
    import inspect

    import diffusers

    known = inspect.signature(getattr(diffusers, kind).__init__).parameters
    flags = {"requires_safety_checker": False, "add_watermarker": False}
    return {name: value for name, value in (dict.fromkeys(unused_parts(kind)) | flags).items() if name in known}


def _dtype_argument() -> str:
    """Return the name of the argument: diffusers 0.40 renamed ``torch_dtype`` to ``dtype``."""
    from diffusers import __version__
    from packaging.version import Version

    return "dtype" if Version(__version__) >= Version("0.40") else "torch_dtype"

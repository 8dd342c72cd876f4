"""Whether a generation starts from real images, by which pipeline and how far: checked before anything is read.

In: a checked model and the settings. Out: the model with the pipeline that draws, and the images it starts from.
"""

from dataclasses import replace

from synclones.base.errors import InputError
from synclones.generate.generators.model import IMG2IMG, SEES_IMAGES, ModelFolder, pipeline_class
from synclones.generate.generators.source_images import SourceImages
from synclones.generate.settings import GenerateConfig


def conditioned(model: ModelFolder, config: GenerateConfig) -> ModelFolder:
    """The model with the pipeline that draws: a text-to-image one draws on from images when a strength is given.

    Raises:
        InputError: flags that this pipeline has no use for, or lacks.
    """
    kind = pipeline_class(model)
    if config.strength and kind in IMG2IMG:
        model, kind = replace(model, kind=IMG2IMG[kind]), IMG2IMG[kind]
    _check_strength(config, kind)
    _check_noise_level(config, kind)
    takes_images = kind in SEES_IMAGES or kind in IMG2IMG.values()
    if takes_images and config.images is None:
        raise InputError(f"--images: a {kind} starts from real images; name the folder that the source_keys are of")
    if config.images is not None and not takes_images:
        hint = "give --strength (such as 0.6), or leave it out" if kind in IMG2IMG else "leave it out"
        raise InputError(f"--images: a {kind} draws from prompts alone; {hint}")
    return model


def _check_strength(config: GenerateConfig, kind: str) -> None:
    if kind not in IMG2IMG.values():
        if config.strength:
            raise InputError(
                f"--strength: a {kind} has none; leave it out, or choose a model of {' or '.join(IMG2IMG)}"
            )
        return
    if not config.strength:
        raise InputError(f"--strength: a {kind} needs one above 0, such as 0.6; 1 leaves nothing of the image")
    if int(config.num_inference_steps * config.strength) < 1:
        raise InputError(
            f"--strength: {config.strength} of {config.num_inference_steps} steps leaves none to draw; "
            "raise it, or --num-inference-steps"
        )


def _check_noise_level(config: GenerateConfig, kind: str) -> None:
    if config.noise_level and kind != "StableUnCLIPImg2ImgPipeline":
        raise InputError(f"--noise-level: a {kind} has none, only a StableUnCLIPImg2ImgPipeline; leave it out")


def open_sources(config: GenerateConfig) -> SourceImages | None:
    """The images of ``--images``, or None without it. Errors as `SourceImages`."""
    return None if config.images is None else SourceImages(config.images)

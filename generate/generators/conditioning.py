"""Whether a generation starts from real images, by which pipeline and how far: checked before anything is read.

In: the pipeline class of a model, and the options. Out: the pipeline class that draws.
"""

from synclones.base.errors import InputError
from synclones.generate.generators.families import FAMILIES, families_with
from synclones.generate.options import GeneratorOptions


def drawing_pipeline(kind: str, options: GeneratorOptions) -> str:
    """Return the pipeline that draws: a text-to-image one gives way to its counterpart when a strength is given.

    Raises:
        InputError: when the pipeline has no use for an option, or lacks one.
    """
    text_to_image = FAMILIES[kind]
    if options.strength and text_to_image.img2img:
        kind = text_to_image.img2img
    family = FAMILIES[kind]
    _check_strength(options, kind)
    if options.noise_level and not family.noise_level:
        raise InputError(f"--noise-level: a {kind} has none, only a {families_with('noise_level')}; leave it out")
    if family.takes_images and options.images is None:
        raise InputError(f"--images: a {kind} starts from real images; name the folder that the source_keys are of")
    if options.images is not None and not family.takes_images:
        hint = "give --strength (such as 0.6), or leave it out" if family.img2img else "leave it out"
        raise InputError(f"--images: a {kind} draws from prompts alone; {hint}")
    return kind


def _check_strength(options: GeneratorOptions, kind: str) -> None:
    if FAMILIES[kind].starts_from != "image":
        if options.strength:
            choice = families_with("img2img").replace(" and ", " or ")
            raise InputError(f"--strength: a {kind} has none; leave it out, or choose a model of {choice}")
        return
    if not options.strength:
        raise InputError(f"--strength: a {kind} needs one above 0, such as 0.6; 1 leaves nothing of the image")
    if int(options.num_inference_steps * options.strength) < 1:
        raise InputError(
            f"--strength: {options.strength} of {options.num_inference_steps} steps leaves none to draw; "
            "raise it, or --num-inference-steps"
        )

"""The options that decide how an image is drawn: settings, plan, data card and dry run share them.

In: flags and YAML, as `GenerateConfig` inherits them. Out: `Sampling`, which `Plan` inherits too. A new option is a
field here, with its range, and one file that applies it; by `later` its default leaves plans, ids and bytes unchanged.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from synclones.base.config import check_ranges

Value = TypeVar("Value")


def later(default: Value) -> Value:
    """Declare a field that ``plan.json`` leaves out at its default: older sets keep their plan, id and bytes."""
    return field(default_factory=lambda: default)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How noise becomes an image: the same fields are flags, YAML keys and keys of ``plan.json``."""

    num_inference_steps: int = 20
    """Denoising steps."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; 1 turns it off. Clones learn best from low guidance (1.5 to 2.5)."""
    guidance_start: float = 0.0
    """First guided step, as a fraction of all steps (SD, SDXL); unguided steps cost half."""
    guidance_stop: float = 1.0
    """First step that is no longer guided, as a fraction of all steps (SD, SDXL)."""
    negative_prompt: str = ""
    """What guidance steers away from."""
    step_cache: int = later(1)
    """Compute the whole UNet in every Nth step only, its last layer in the others (SD, SDXL); 1 for every step."""
    token_merging: float = later(0.0)
    """Merge this share of the tokens before the largest self-attentions (models with a UNet), 0 to 0.75; 0 for none."""
    strength: float = 0.0
    """How far an SD or SDXL model departs from the image of --images, 0 to 1; 0 draws from prompts alone."""
    noise_level: int = 0
    """Noise on the image's embedding in an unCLIP model, 0 to 999."""
    scheduler: str = ""
    """Diffusers scheduler class such as DPMSolverMultistepScheduler; the model's own when empty."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            num_inference_steps=(1, 1000),
            guidance_scale=(0, 100),
            guidance_start=(0, 1),
            guidance_stop=(0, 1),
            step_cache=(1, 100),
            token_merging=(0, 0.75),
            strength=(0, 1),
            noise_level=(0, 999),
        )

    def described(self) -> dict[str, str]:
        """Return what the data card and the dry run say of these options: heading -> text, defaults left out."""
        rows = {"sampling": f"{self.scheduler}, {self.num_inference_steps} steps, guidance {self.guidance_scale}"}
        if (self.guidance_start, self.guidance_stop) != (0, 1):
            rows["guided steps"] = f"from {self.guidance_start} to before {self.guidance_stop} of all steps"
        if self.negative_prompt:
            rows["negative prompt"] = self.negative_prompt
        if self.step_cache > 1:
            rows["step caching"] = f"the whole UNet every {self.step_cache} steps, its last layer in every step"
        if self.token_merging:
            rows["token merging"] = f"{self.token_merging:.0%} of the tokens of the largest self-attentions"
        return rows


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(Sampling):
    """What draws, beside how: the model, what is put into it, and the images that it starts from."""

    model: str = ""
    """Diffusers folder or hub id of a text-to-image model; `lab` is the embedded one."""
    revision: str = ""
    """Commit of the hub id; the one in the cache or the newest when empty."""
    lora: str = ""
    """LoRA for an SD or SDXL model: folder or hub id, with :FILE.safetensors when it holds several; needs peft."""
    lora_scale: float = 1.0
    """How much of the LoRA is added to the weights."""
    tiny_vae: str = ""
    """AutoencoderTiny to decode with: folder or hub id, madebyollin/taesd for SD, taesdxl for SDXL; less detail."""
    images: Path | None = None
    """Real images to draw from, found by the table's source_key: the folder of shards or images that keys are of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, lora_scale=(-10, 10))

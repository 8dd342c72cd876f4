"""A tiny autoencoder (TAESD) in place of the model's own: 18 times fewer operations to decode, less fine detail.

In: a folder or hub id of an AutoencoderTiny. Out: `TinyVae`, checked against the model that it decodes for; a loaded
pipeline that encodes and decodes with it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.base.files import files_sha256
from synclones.base.weights import check_safetensors, find_folder, read_model_json
from synclones.generate.generators.model import WEIGHT_FILE, ModelFolder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONFIG, WEIGHTS = "config.json", WEIGHT_FILE["diffusers"]


@dataclass(frozen=True)
class TinyVae:
    """A checked AutoencoderTiny: its name for people, where it lies, and the hash of its configuration and weights."""

    name: str
    path: Path
    sha256: str


def find_tiny_vae(given: str, model: ModelFolder) -> TinyVae:
    """Check the folder or hub id ``given``, and that its latents have the model's form.

    Raises:
        InputError: no such folder, another class, pickled or cut weights, latents of another form.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    folder, commit = find_folder(given, "", [CONFIG, WEIGHTS], "--tiny-vae")
    config = read_model_json(folder / CONFIG)
    if config.get("_class_name") != "AutoencoderTiny":
        raise InputError(
            f"--tiny-vae: {given} is of class {config.get('_class_name')}, expected an AutoencoderTiny such as TAESD"
        )
    check_safetensors(folder / WEIGHTS)
    _check_form(given, config, model)
    name = given if commit else folder.resolve().name
    return TinyVae(name, folder, files_sha256(folder, (folder / CONFIG, folder / WEIGHTS)))


def _check_form(given: str, config: dict[str, Any], model: ModelFolder) -> None:
    """Refuse latents of another number of channels or another stride than the model's."""
    if model.parts["vae"][1] != "AutoencoderKL":
        raise InputError(f"--tiny-vae: a {model.kind} has no tiny autoencoder; leave it out")
    own = model.configs["vae"]
    try:
        wanted = int(own.get("latent_channels", 4)), len(own["block_out_channels"])
        given_form = int(config.get("latent_channels", 4)), len(config.get("decoder_block_out_channels", (64,) * 4))
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(f"--tiny-vae: {given}: does not tell the form of its latents; copy the whole model") from None
    if given_form != wanted:
        form = "{} channels at a stride of {} px".format
        raise InputError(
            f"--tiny-vae: the latents of {given} have {form(given_form[0], 2 ** (given_form[1] - 1))}, "
            f"those of {model.name} "
            f"{form(wanted[0], 2 ** (wanted[1] - 1))}; choose the one made for this model"
        )


def replace_vae(pipeline: "DiffusionPipeline", tiny: TinyVae, **loading: Any) -> None:
    """Replace the autoencoder of a loaded pipeline; ``loading`` is what the pipeline was loaded with."""
    import diffusers

    pipeline.vae = diffusers.AutoencoderTiny.from_pretrained(tiny.path, **loading)

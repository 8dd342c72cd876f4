"""Models by the names that libraries know them by: fetched from the hub or its cache, as safetensors alone.

In: the name of timm's or open_clip's weights. Out: the file or folder, and what the library says of them.
``HF_HUB_OFFLINE`` holds as for the library.
"""

import math
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from torch import nn

from synclones.base.errors import InputError
from synclones.base.weights import check_safetensors, find_folder
from synclones.models.folder import CLIP_CONFIG, CLIP_WEIGHTS, CONFIG, WEIGHTS
from synclones.models.network import FILTERS, Preprocessing

REFUSALS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)
"""What timm raises about a file that does not hold a model's weights."""


def timm_file(model: str, flag: str) -> tuple[Path, Any]:
    """Return the file of the weights that timm calls ``model``, and timm's configuration of them.

    Raises:
        InputError: timm has no such weights, or not as safetensors on the hub.
        MachineError: it has to be fetched, and cannot be.
    """
    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see `timm.list_pretrained()`"
        raise InputError(f"{flag}: timm has no {architecture!r}{hint}")
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError:
        config = None
    if config is None or not config.hf_hub_id:
        tags = [known for known in timm.list_pretrained(f"{architecture}.*")][:5]
        raise InputError(f"{flag}: timm has no weights {model!r}; it has {', '.join(tags) or 'none of it'}")
    folder, _ = find_folder(str(config.hf_hub_id), "", [CONFIG, "*.safetensors"], flag)
    path = folder / (config.hf_hub_filename or WEIGHTS)
    try:
        check_safetensors(path)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None
    return path, config


def timm_network(model: str, path: Path) -> nn.Module:
    """Return timm's network with the weights of a file that `timm_file` returned.

    Raises:
        Exception: one of `REFUSALS`, when they are not its own.
    """
    # The file on the hub has torch's form, whatever the original's was that timm would read by a function of its own.
    overlay = {"file": str(path), "custom_load": False}
    network: nn.Module = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
    return network


def open_clip_folder(model: str, flag: str) -> tuple[Path, bool]:
    """Return the folder of the weights that open_clip calls ``MODEL/TAG``, and whether they are for QuickGELU.

    Raises:
        InputError: open_clip has no such weights, or has them as a pickle alone.
        MachineError: it has to be fetched, and cannot be.
    """
    import open_clip  # takes seconds

    architecture, _, tag = model.partition("/")
    known = open_clip.list_pretrained_tags_by_model(architecture)
    if architecture not in open_clip.list_models() or tag not in known:
        near = get_close_matches(tag, known, n=5, cutoff=0) if known else open_clip.list_models()
        expected = ", ".join((near if known else get_close_matches(architecture, near, n=3, cutoff=0))[:5])
        raise InputError(f"{flag}: open_clip has no weights {model!r} (MODEL/TAG); near are {expected}")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    hub_id = str(config.get("hf_hub") or "").strip("/")
    if not hub_id:
        raise InputError(
            f"{flag}: {model}: open_clip has it as a pickle alone, which is never loaded; take another tag"
        )
    folder, _ = find_folder(hub_id, "", [CLIP_CONFIG, CLIP_WEIGHTS], flag)
    return folder, bool(config.get("quick_gelu"))


def timm_preprocessing(config: dict[str, Any], where: str) -> Preprocessing:
    """Return how timm prepares images for a network that it configures so.

    Raises:
        InputError: ours cannot do the same.
    """
    _, height, width = config["input_size"]
    mode, interpolation = config.get("crop_mode") or "center", config["interpolation"]
    if mode != "center" or interpolation not in FILTERS:
        raise InputError(
            f"{where}: timm prepares its images by crop mode {mode!r} and interpolation {interpolation!r}, expected "
            f"'center' and one of {', '.join(FILTERS)}; take other weights"
        )
    return Preprocessing(
        size_px=height if height == width else (height, width),
        crop_fraction=exact_fraction(height, config["crop_pct"]) if height == width else config["crop_pct"],
        interpolation=interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def exact_fraction(size_px: int, crop_fraction: float) -> float:
    """Return the fraction of a square crop that resizes to timm's whole number of pixels, which it rounds down."""
    return size_px / math.floor(size_px / crop_fraction)

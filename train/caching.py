"""Whether features are computed once for each image: where a frozen network sees every image the same at each showing.

In: the settings, the mixture. Out: the reason why not, for the terminal, or nothing.
"""

from synclones.shards.loading.parts import MixedSources
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.objective import Objective
from synclones.train.settings import TrainConfig


def why_not_cached(config: TrainConfig, objective: Objective, mixed: MixedSources) -> str:
    """Return why features are computed at every showing; nothing where each image's are computed once."""
    changing = _changing(config)
    unique, shown = sum(part.unique for part in mixed.parts), config.num_steps(mixed.images_per_epoch)
    if not objective.has_features:
        return f"{objective.name} trains the whole network"
    if config.probe_cache == "off":
        return "--probe-cache off"
    if changing:
        return f"{changing} shows images differently each time"
    if not all(isinstance(part.source, LabelledSource) for part in mixed.parts):
        return "pairs show one of two images"
    if shown * config.batch_size <= unique:
        return "no image is shown twice"
    return ""


def _changing(config: TrainConfig) -> str:
    """Return the first flag by which an image looks different from showing to showing."""
    changes = {
        "--crop-scale-min": config.crop_scale_min < 1,
        "--flip": config.flip,
        "--rand-augment": config.rand_augment != "none",
    }
    shares = (
        *("rotation_degrees", "colour_jitter", "saturation_jitter", "hue_jitter", "grey_probability"),
        *("blur_probability", "solarise_probability", "erase_probability"),
    )
    changes |= {"--" + name.replace("_", "-"): getattr(config, name) > 0 for name in shares}
    return next((flag for flag, does in changes.items() if does), "")

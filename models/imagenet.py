"""The classes that published models of ImageNet tell apart: ids in the order of the outputs, and CLIP's texts of them.

In: a number of outputs. Out: ids, `ZeroShotTexts`. The lists are those of the libraries: synsets of timm, names and
templates of open_clip.
"""

from typing import TYPE_CHECKING

from timm.data import ImageNetInfo, infer_imagenet_subset

if TYPE_CHECKING:  # importing it would load open_clip
    from synclones.models.zero_shot import ZeroShotTexts

NUM_CLASSES = 1000


def imagenet_ids(num_classes: int = NUM_CLASSES) -> tuple[str, ...] | None:
    """Return the ids of the outputs of a model of ImageNet: 1,000 in sorted order, or a larger set's that timm knows.

    None where no set of ImageNet has so many classes.
    """
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else tuple(ImageNetInfo(subset).label_names())


def imagenet_texts() -> "ZeroShotTexts":
    """Return the names of ImageNet's 1,000 classes in the 80 templates, as Radford et al. 2021 classify."""
    import open_clip

    from synclones.models.zero_shot import ZeroShotTexts, imagenet_templates

    ids = imagenet_ids()
    assert ids is not None
    return ZeroShotTexts(ids, tuple(open_clip.IMAGENET_CLASSNAMES), imagenet_templates())

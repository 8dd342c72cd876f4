"""What a training calls images of a class that have no caption.

In: `TrainConfig`. Out: `LabelCaptions`, or None where ``--label-captions`` is not given.
"""

from synclones.base.errors import InputError
from synclones.shards.sources.label_captions import LabelCaptions
from synclones.train.settings import TrainConfig


def label_captions(config: TrainConfig) -> LabelCaptions | None:
    """Return the sentences of ``--label-captions``.

    Raises:
        InputError: names of classes that are not given, or are no list.
    """
    if not config.label_captions:
        return None
    if not config.zero_shot_classes:
        raise InputError("--label-captions: needs the names of the classes; give them with --zero-shot-classes")
    from synclones.models.zero_shot import texts_in  # loads open_clip

    texts = texts_in(config.zero_shot_classes, config.zero_shot_templates)
    names = dict(zip(texts.class_ids, texts.class_names, strict=True))
    return LabelCaptions(names, texts.templates, config.zero_shot_classes)

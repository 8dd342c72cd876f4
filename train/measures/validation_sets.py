"""Which images a training is measured on, opened and compared with its classes before its first step.

In: the settings, the mixture, the classes that what is trained chooses among. Out: `ValidationSets`.
"""

from dataclasses import dataclass, fields

import numpy as np

from synclones.base.errors import InputError
from synclones.shards.loading.parts import MixedSources
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.measures.named_sets import ImageSet, check_names, image_set, open_named
from synclones.train.options.validation import HELD_OUT, ValidationSettings
from synclones.train.settings import TrainConfig


@dataclass(frozen=True)
class ValidationSets:
    """What is measured on."""

    class_ids: tuple[str, ...] = ()
    """The classes that are measured."""
    images: tuple[ImageSet, ...] = ()
    """The sets, in the order in which they are told of."""
    bank: ImageSet | None = None
    """Where neighbours are looked for; None for what classifies by itself."""

    def lines(self) -> list[str]:
        """Return what is measured on, with how much: few images say little, and classes without any nothing."""
        lines = [f"measured on {images.name}: {len(images):,} images" for images in self.images]
        held_out = next((images for images in self.images if images.name == HELD_OUT), None)
        if held_out is not None:
            number = len(held_out.classes())
            lines[self.images.index(held_out)] += f" of {number} of {len(self.class_ids)} classes"
        return lines + ([f"neighbours are looked for among {len(self.bank):,} images"] if self.bank else [])

    def content(self, name: str) -> list[str]:
        """Return by content what the set of that name is made of, and how many images it has."""
        images = next(images for images in self.images if images.name == name)
        return [*(source.content_hash() for source in images.sources), str(len(images))]


_NOTHING: np.ndarray = np.zeros(0, dtype=np.int64)
OF_FEATURES = ("validate_features", "validate_probe", "knn_bank", "knn_neighbours", "knn_temperature")


def check_validation(config: TrainConfig, classifies: bool) -> None:
    """Refuse settings of measurements that nothing would be measured by, before any data are opened.

    ``classifies``: whether what is trained has classes of its own.

    Raises:
        InputError: by the flag.
    """
    measured = bool(config.validate or config.hold_out)
    for field in fields(ValidationSettings):
        if not measured and getattr(config, field.name) != field.default:
            flag = "--" + field.name.replace("_", "-")
            raise InputError(f"{flag}: nothing is measured; name sets with --validate, or give a share with --hold-out")
        if classifies and field.name in OF_FEATURES and getattr(config, field.name) != field.default:
            flag = "--" + field.name.replace("_", "-")
            raise InputError(f"{flag}: is of features; {config.objective} is measured as it classifies, leave it out")
    if config.select == "best" and not config.hold_out:
        raise InputError("--select best: is decided on held-out images of the training; give --hold-out, as in 0.01")
    if config.hold_out and config.mixture().pair:
        raise InputError(
            "--hold-out: pairs are shown as they are joined; leave pair out, or name a set with --validate"
        )
    check_names(config.validate, "--validate")


def open_validation(config: TrainConfig, mixed: MixedSources, class_ids: tuple[str, ...]) -> ValidationSets:
    """Open all that is measured on; ``class_ids``: of what classifies by itself, none for features.

    Raises:
        InputError: no set, no labels, or classes of a set that are not measured.
        VerificationError: a set is damaged.
    """
    if not config.validate and not config.hold_out:
        return ValidationSets()
    bank = None
    if not class_ids:
        bank, class_ids = _bank(config, mixed)
        if len(bank) < config.knn_neighbours:
            raise InputError(f"--knn-neighbours: {config.knn_neighbours}, the bank has {len(bank)} images; lower it")
    quick = config.verify == "quick"
    images = [
        open_named(text, class_ids, "--validate", quick=quick, cache_gb=config.cache_gb) for text in config.validate
    ]
    if config.hold_out:
        sources = _trained_on(mixed)
        images.insert(0, image_set(HELD_OUT, sources, [_without(one) for one in sources], class_ids, "--hold-out"))
    return ValidationSets(class_ids, tuple(images), bank)


def _bank(config: TrainConfig, mixed: MixedSources) -> tuple[ImageSet, tuple[str, ...]]:
    """Return where neighbours are looked for, at most so many images, and the classes there."""
    if config.knn_bank:
        quick = config.verify == "quick"
        bank = open_named(config.knn_bank, None, "--knn-bank", quick=quick, cache_gb=config.cache_gb)
        class_ids = bank.sources[0].class_ids
    else:
        sources = _trained_on(mixed)
        class_ids = sources[0].class_ids
        shown = [np.setdiff1d(_images_of(one), _without(one)) for one in sources]
        bank = image_set("training images", sources, shown, class_ids, "--data")
    return bank.at_most(config.validate_features, config.seed), class_ids


def _trained_on(mixed: MixedSources) -> list[LabelledSource]:
    """Return the different sets of the training with their labels.

    Raises:
        InputError: one has none.
    """
    sources: dict[str, LabelledSource] = {}
    for one in (source for part in mixed.parts for source in part.sets):
        try:
            labelled = one if one.labelled else LabelledSource(one.source, without=one.without, excluded=one.excluded)
        except InputError as error:
            raise InputError(
                f"{error}; what is measured needs labels: name labelled sets with --validate and --knn-bank"
            ) from None
        sources.setdefault(one.content_hash(), labelled)
    return list(sources.values())


def _images_of(source: LabelledSource) -> np.ndarray:
    """Return the positions of the images that the training has of a set, shown or held out."""
    return np.setdiff1d(np.arange(len(source)), _NOTHING if source.excluded is None else source.excluded)


def _without(source: LabelledSource) -> np.ndarray:
    return _NOTHING if source.without is None else np.intersect1d(source.without, _images_of(source))

"""Captions of images that have a class and no text: the name of their class in a sentence.

In: names by class id, and sentences with a slot for a name. Out: a sentence for each image and showing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from synclones.base.class_texts import SLOT
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.columns import chosen_text


@dataclass(frozen=True)
class LabelCaptions:
    """What images without a text are called: Goyal et al. 2023 (arXiv 2212.00638) tune CLIP by such sentences."""

    names: dict[str, str]
    """Name of each class id."""
    templates: tuple[str, ...]
    """Each with one ``{}`` for the name."""
    where: str
    """File of the names, for messages."""

    @property
    def sha256(self) -> str:
        """The hash of all names and sentences."""
        return sha256_bytes(canonical_json([self.names, list(self.templates)]))

    def named(self, class_ids: Sequence[str]) -> tuple[str, ...]:
        """Return the name of each class.

        Raises:
            InputError: one that the list does not have.
        """
        for class_id in class_ids:
            if class_id not in self.names:
                raise InputError(
                    f"--label-captions: {self.where} has no class {class_id!r}, which images without a caption are of"
                )
        return tuple(self.names[class_id] for class_id in class_ids)

    def text(self, name: str, index: int, showing: int, seed: int) -> str:
        """Return the caption of image ``index`` of its set at a showing; another sentence at another showing."""
        return self.templates[chosen_text(index, showing, seed, len(self.templates))].replace(SLOT, name)

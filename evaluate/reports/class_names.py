"""What classes are called: as in the prompts behind a model's images, ImageNet's by its own names, else by id.

In: class ids, folders of models. Out: `ClassNames`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from synclones.base.manifest import names_of_classes

_WNID = re.compile(r"n[0-9]{8}")


class ClassNames:
    """The names of the classes of a set."""

    def __init__(self, class_ids: Sequence[str], known: Mapping[str, str] = MappingProxyType({})):
        """``known`` maps ids to names; two classes of one name keep their ids."""
        wordnet = _wordnet() if any(map(_WNID.fullmatch, class_ids)) else {}
        names = [known.get(name) or wordnet.get(name, name) for name in class_ids]
        times = Counter(names)
        self._names = [n if times[n] == 1 else f"{n} ({i})" for n, i in zip(names, class_ids, strict=True)]
        self._known = known

    def of(self, number: int) -> str:
        """Return the name of a label, or of an answer: -1 is none of the classes."""
        return self._names[number] if number >= 0 else "none of the classes"

    def among(self, class_ids: Sequence[str]) -> "ClassNames":
        """Return the names of another set's classes, by the same knowledge."""
        return ClassNames(class_ids, self._known)


def class_names(class_ids: Sequence[str], folders: Sequence[Path]) -> ClassNames:
    """Return the names by what lies behind some folders: runs, exports, sets of images."""
    known: dict[str, str] = {}
    for folder in folders:
        for class_id, name in names_of_classes(folder).items():
            known.setdefault(class_id, name)
    return ClassNames(class_ids, known)


def _wordnet() -> dict[str, str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    # The first of several words for one thing: a caption has little room.
    names = {name: info.label_name_to_description(name) for name in info.label_names()}
    return {name: words.split(",")[0] for name, words in names.items()}

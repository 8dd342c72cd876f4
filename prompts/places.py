"""Read scene names, and compose ``c, h_c inside b`` for the recipes that put a class into a scene.

In: the 365 scenes of Places365 or a user's list; classes with hypernyms. Out: columns for pairs of a class and a place.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from synclones.base.files import sha256_bytes
from synclones.prompts.classes.files import read_lines
from synclones.prompts.facts import Facts
from synclones.prompts.recipe import Columns, Inputs, joined, json_text, json_texts, pick, texts

PLACES365 = Path(__file__).resolve().parent / "places365.txt"


@lru_cache(maxsize=4)
def places(path: Path | None) -> tuple[str, ...]:
    """Return the scene names of Places365 (Zhou et al. 2018) with their sub-types, or a user's own list."""
    return tuple(read_lines(path or PLACES365, "--places").values())


class InPlaces:
    """All classes and all places, ready to be joined.

    Attributes:
        num_classes, num_places: how many of each.
        sources: the user's own list of places, if any.
    """

    def __init__(self, inputs: Inputs, hypernyms: Facts):
        """Read the places.

        Raises:
            InputError: when the list of places cannot be read.
        """
        scenes = places(inputs.places)
        names = [info.name for info in inputs.classes.classes]
        self.num_classes, self.num_places = len(names), len(scenes)
        own = f"{inputs.places} {sha256_bytes(repr(scenes).encode())}"
        self.sources = {} if inputs.places is None else {"places": own}
        self._subjects = texts([f"{name}, {hypernym}" for name, hypernym in zip(names, hypernyms.texts, strict=True)])
        self._places, self._place_texts = texts(scenes), json_texts(scenes)
        kinds = zip(hypernyms.texts, hypernyms.origins, strict=True)
        self._kinds = texts(
            [json_text({"hypernym": hypernym} | origin).removesuffix("}") for hypernym, origin in kinds]
        )

    def columns(self, label: np.ndarray, scene: np.ndarray) -> Columns:
        """Return the columns for classes and scenes, both int64[n]."""
        detail = joined(pick(self._kinds, label), ', "place": ', pick(self._place_texts, scene), "}")
        prompt = joined(pick(self._subjects, label), " inside ", pick(self._places, scene))
        return Columns(prompt, label.astype(np.int32), label * self.num_places + scene, detail)

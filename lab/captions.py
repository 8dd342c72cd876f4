"""What the lab's generator learns to read: captions with the look that each of them asks for.

A caption is a class name alone, one of the 80 CLIP templates, or a name joined by a colour, a place, a hypernym or
another caption in the forms that the papers' recipes use. ``look_of`` is the one table from words to looks.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from synclones.lab.digits import DIGIT_NAMES, PLACES
from synclones.lab.render import COLOURS, EFFECTS, MATERIALS, SIZES, Look
from synclones.prompts.recipes.clip_templates import templates

# Words of the CLIP templates that ask for a look under another name than the look's own.
_SYNONYMS: dict[str, Look] = {
    "drawing": Look(material="sketch"),
    "doodle": Look(material="sketch"),
    "art": Look(material="painting"),
    "rendition": Look(material="painting"),
}

_KNOWN: tuple[tuple[str, Collection[str]], ...] = (
    ("colour", COLOURS),
    ("material", MATERIALS),
    ("place", PLACES),
    ("size", SIZES),
    ("effect", EFFECTS),
)

# The share of each kind of caption in training, and how many of every hundred are dropped for guidance.
CAPTION_KINDS = {"name": 0.16, "template": 0.46, "colour": 0.08, "place": 0.12, "mixed": 0.18}
DROPPED_CAPTIONS = 0.1


def look_of(text: str) -> Look:
    """Return the look that a caption asks for; the plain one when no word of it can be seen (good, my, itap)."""
    words = f" {text.lower().replace(',', ' ').replace('.', ' ')} "
    look = Look()
    for word, asked in _SYNONYMS.items():
        look = replace(look, material=asked.material) if f" {word} " in words else look
    for field, names in _KNOWN:
        named = [name for name in names if f" {name} " in words]
        look = replace(look, **{field: named[0]}) if named else look
    return look


def draw_caption(digit: int, rng: np.random.Generator) -> tuple[str, Look]:
    """Draw one training caption for a digit 0..9 and the look it asks for."""
    name = DIGIT_NAMES[digit]
    kind = rng.choice(list(CAPTION_KINDS), p=list(CAPTION_KINDS.values()))
    caption = {
        "name": lambda: _bare_name(name, rng),
        "template": lambda: _one_of(templates(), rng).replace("{}", name),
        "colour": lambda: f"a photo of {_article(rng)} {_one_of(tuple(COLOURS), rng)} {name}.",
        "place": lambda: _in_place(name, rng),
        "mixed": lambda: _mixed(name, rng),
    }[str(kind)]()
    return caption, look_of(caption)


def draw_look(rng: np.random.Generator) -> Look:
    """Draw a look for the autoencoder, which reads no captions: colours are more frequent than in those, because a rare
    ink is the first thing that small latents give up."""
    chance = {"colour": 0.4, "material": 0.25, "place": 0.2, "size": 0.2, "effect": 0.3}
    names = {field: tuple(known) for field, known in _KNOWN}
    drawn = {field: _one_of(names[field], rng) if rng.random() < chance[field] else None for field in names}
    return Look(**drawn)


def _one_of(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def _article(rng: np.random.Generator) -> str:
    return _one_of(("a", "the"), rng)


def _bare_name(name: str, rng: np.random.Generator) -> str:
    return name if rng.random() < 0.75 else f"{name}, digit"


def _in_place(name: str, rng: np.random.Generator) -> str:
    place = _one_of(PLACES, rng)
    return _one_of(
        (
            f"a photo of a {name} in front of a {place}.",
            f"{name}, digit inside {place}",
            f"{name} inside {place}",
            f"{name}, a {name} in front of a {place}",
        ),
        rng,
    )


def _mixed(name: str, rng: np.random.Generator) -> str:
    """Two wishes in one caption, or a name joined to the caption of an image."""
    coloured = f"{_one_of(tuple(COLOURS), rng)} {name}"
    place = _one_of(PLACES, rng)
    template = _one_of(templates(), rng)
    return _one_of(
        (
            template.replace("{}", coloured),
            template.replace("{}", coloured),
            f"{name}, {template.replace('{}', name)}",
            f"a {coloured} in front of a {place}.",
            template.removesuffix(".").replace("{}", name) + f" in front of a {place}.",
        ),
        rng,
    )

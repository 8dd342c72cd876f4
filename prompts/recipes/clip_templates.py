"""One of the 80 CLIP templates around the class name.

Text: a template with c in its slot
Example: a blurry photo of the tench.
Paper: Fan et al. 2023, arXiv 2312.04567; Singh et al. 2024, arXiv 2405.20469; templates of Radford et al. 2021

Whether the original drew templates evenly or at random is not published; here every class goes evenly through all of
them in any prefix of the table. `--templates FILE` takes others, one a line with `{}` for the name.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.prompts.classes.files import read_lines
from synclones.prompts.recipe import Bound, Columns, EvenChoice, Inputs, joined, json_texts, pick, texts

SLOT = "{}"
TAKES = ("templates",)
HERE = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def templates() -> tuple[str, ...]:
    """Return the 80 templates in upstream order, ``{}`` in place of the class name."""
    return tuple((HERE / "clip_templates.txt").read_text(encoding="utf-8").splitlines())


def bind(inputs: Inputs) -> Bound:
    """Bind every class with every template.

    Raises:
        InputError: for a template that does not have exactly one slot.
    """
    chosen = templates() if inputs.templates is None else _own(inputs.templates)
    names = texts([info.name for info in inputs.classes.classes])
    before, after = (texts(part) for part in zip(*(text.split(SLOT) for text in chosen), strict=True))
    details = joined('{"template": ', json_texts(chosen), "}")
    choice = EvenChoice(inputs.seed, len(names), len(chosen))

    def columns(captions: np.ndarray) -> Columns:
        label = captions % len(names)
        template = choice(label, captions // len(names))
        prompt = joined(pick(before, template), pick(names, label), pick(after, template))
        return Columns(prompt, label.astype(np.int32), label * len(chosen) + template, pick(details, template))

    own = {} if inputs.templates is None else {"templates": f"{inputs.templates} {sha256_bytes(repr(chosen).encode())}"}
    return Bound(columns, sources=own)


def _own(path: Path) -> tuple[str, ...]:
    lines = read_lines(path, "--templates")
    for line, text in lines.items():
        if text.count(SLOT) != 1:
            raise InputError(
                f"{path}:{line}: the template {text!r} has {text.count(SLOT)} slots; write {SLOT} once, for the "
                "class name"
            )
    return tuple(lines.values())

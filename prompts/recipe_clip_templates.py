"""The 80 CLIP templates around the class name: ``a blurry photo of the tench.``

Follows the CLIP-template clones of Fan et al. 2023 (arXiv 2312.04567) as evaluated by Singh et al. 2024 (arXiv
2405.20469); the templates are OpenAI's (Radford et al. 2021, prompts for ImageNet). Whether the original drew templates
evenly or at random is not published; here every class goes evenly through all 80 in any prefix of the table.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from synclones.prompts.classes import ClassList
from synclones.prompts.recipes import Columns, keyed_hash

HERE = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def templates() -> tuple[str, ...]:
    """The 80 templates in upstream order, ``{}`` standing for the class name."""
    return tuple((HERE / "clip_templates.txt").read_text(encoding="utf-8").splitlines())


def columns(classes: ClassList, seed: int, indices: np.ndarray) -> Columns:
    """Rows ``indices`` int64[n]: class i mod C; its k-th image, k = i div C, has the (k + offset)-th shuffled template.

    The seed decides the shuffled order and each class's offset.
    """
    num_classes, num_templates = len(classes.classes), len(templates())
    label = indices % num_classes
    order = np.argsort(keyed_hash(seed, 0, np.arange(num_templates)), kind="stable")
    offset = (keyed_hash(seed, 1, np.arange(num_classes)) % np.uint64(num_templates)).astype(np.int64)
    template = order[(indices // num_classes + offset[label]) % num_templates]
    names = [info.name for info in classes.classes]
    details = [json.dumps({"template": text}) for text in templates()]
    prompt = [templates()[t].replace("{}", names[k]) for k, t in zip(label.tolist(), template.tolist(), strict=True)]
    return Columns(
        prompt, label.astype(np.int32), label * num_templates + template, [details[t] for t in template.tolist()]
    )

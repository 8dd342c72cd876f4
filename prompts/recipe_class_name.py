"""The class name alone: ``tench``.

Follows the class-name clones of Fan et al. 2023 ("Scaling Laws of Synthetic Images for Model Training ... for Now",
arXiv 2312.04567) as evaluated by Singh et al. 2024 (arXiv 2405.20469). Row i has class i mod C, so the classes of any
prefix differ by at most one image; all images of a class share one caption.
"""

import numpy as np

from synclones.prompts.classes import ClassList
from synclones.prompts.recipes import Columns


def columns(classes: ClassList, seed: int, indices: np.ndarray) -> Columns:
    """Rows ``indices`` int64[n]; the seed does not matter."""
    label = indices % len(classes.classes)
    names = [info.name for info in classes.classes]
    return Columns([names[k] for k in label.tolist()], label.astype(np.int32), label, [""] * len(indices))

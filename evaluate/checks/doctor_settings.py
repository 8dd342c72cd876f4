"""The settings of a look at image sets before anything is evaluated.

In: flags and YAML. Out: `DoctorConfig`.
"""

from dataclasses import dataclass
from pathlib import Path

from synclones.base.config import grouped


@grouped(What="suite data_root decode")
@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look at the image sets of a suite, before any model: missing, half unpacked, damaged, of another release?"""

    data_root: Path
    """Folder below which the sets lie."""
    suite: str = "synthetic-clones"
    """Name of a suite, or its YAML file (docs/image_sets.md)."""
    decode: bool = False
    """Decode every image, not the headers of a few: it reads all files, and tells how many cannot be evaluated."""

"""The settings of a corrupted set.

In: flags and YAML. Out: `CorruptConfig`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from synclones.base.config import check_ranges, grouped
from synclones.base.errors import InputError
from synclones.evaluate.corruptions.constants import TEST
from synclones.evaluate.corruptions.depth import Kind


@grouped(
    What="data out dry_run",
    Corruptions="corruptions severities table seed frost_dir depth_dir depth_kind",
    Images="crop_px image_format",
)
@dataclass(frozen=True, kw_only=True)
class CorruptConfig:
    """Write a set under every corruption and severity, in ImageNet-C's layout; it is generated, no released set."""

    data: Path
    """Labelled set, a dataset folder or what others made (docs/others_sets.md), such as ImageNet's val folder."""
    out: Path
    """Folder for `CORRUPTION/SEVERITY/CLASS/NAME`; more corruptions and severities may be added to it later."""
    corruptions: tuple[str, ...] = TEST
    """Names; by default the 15 of ImageNet-C's mean (docs/corruptions.md lists all)."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Which of 1 to 5."""
    table: Literal[32, 64, 224] | None = None
    """Image size whose constants are used; by default the images' own, and another size is refused."""
    seed: int = 0
    """Seed of all random numbers; each image has its own, by its name."""
    frost_dir: Path | None = None
    """Folder of frost textures of yours (PNG, JPEG or WebP); without it frost is procedural, and is called so."""
    depth_dir: Path | None = None
    """Folder of depth maps of yours, `CLASS/NAME.npy` (float) or 16-bit `.png`, for `fog_3d near_focus far_focus`."""
    depth_kind: Kind = "distance"
    """What the maps hold: distances above 0 in any unit, or 16-bit inverse depth as MiDaS and DPT write it."""
    crop_px: int = 0
    """Resize to 256/224 of this side and crop the middle first, as ImageNet-C did with 224; 0: images as they are."""
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    """How images are stored: auto is JPEG of quality 85 for tables of 64 and 224 px, PNG for 32 px, as released."""
    dry_run: bool = False
    """Print what would be written, and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, seed=(0, 2**63 - 1), crop_px=(0, 4096))
        for flag, values in (("--corruptions", self.corruptions), ("--severities", self.severities)):
            if not values or len(set(values)) < len(values):
                raise InputError(f"{flag}: {' '.join(map(str, values)) or 'nothing'} was given, expected each one once")
        for severity in self.severities:
            check_severity(severity)


def check_severity(severity: int) -> None:
    """Refuse what is no severity.

    Raises:
        InputError: when it is none.
    """
    if not 1 <= severity <= 5:
        raise InputError(f"--severities: {severity} was given, expected 1 to 5")

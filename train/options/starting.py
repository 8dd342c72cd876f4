"""The settings of what a training begins from, which parts of it are trained, and whose statistics it ends with.

In and out: nothing; `TrainConfig` inherits them, so that every one is a flag and a key of recipes.
"""

from dataclasses import dataclass
from typing import Final, Literal

from synclones.base.errors import InputError

FRESH: Final = "fresh"
KEPT, ZERO_SHOT_HEAD = "kept", "zero-shot"
OF_WEIGHTS = "weights"  # in place of an architecture
FROZEN, RECOMPUTED = "frozen", "recomputed"


@dataclass(frozen=True, kw_only=True)
class StartingSettings:
    """What a training begins from. A part is a prefix of names, as in blocks.3 or layer4.1.conv2, or last:K."""

    weights: str = ""
    """Run, model folder or .safetensors file to begin from, or timm:NAME, open_clip:MODEL/TAG; empty: fresh weights."""
    head: Literal["fresh", "kept", "zero-shot"] = FRESH
    """The classifier begins fresh, as that of the weights (whose classes must be the data's), or as a CLIP's texts."""
    reinitialise: tuple[str, ...] = ()
    """Parts that begin fresh although the weights have them."""
    freeze: tuple[str, ...] = ()
    """Parts that stay as they are: prefixes of names, or last:K for the last K blocks and all after them."""
    train_only: tuple[str, ...] = ()
    """Parts that are trained, all others being frozen; last:0 is the head alone."""
    batch_norm: Literal["trained", "frozen", "recomputed"] = "trained"
    """Statistics of batch normalisation: of the training, of the weights, or at the end those of --batch-norm-data."""
    batch_norm_data: tuple[str, ...] = ()
    """Sets as in --data, whose images' exact statistics the export has."""

    def check_starting(self, architecture: str, head_bias: float) -> None:
        """Refuse settings that say nothing without others.

        Raises:
            InputError: by its flag.
        """
        needing = {
            "--head": self.head if self.head != FRESH else "",
            "--reinitialise": self.reinitialise,
            "--batch-norm": FROZEN if self.batch_norm == FROZEN else "",
            "--architecture": OF_WEIGHTS if architecture == OF_WEIGHTS else "",
        }
        for flag, value in needing.items():
            if value and not self.weights:
                words = value if isinstance(value, str) else " ".join(value)
                raise InputError(f"{flag} {words}: without --weights all begins fresh; name them, or leave it out")
        if bool(self.batch_norm_data) != (self.batch_norm == RECOMPUTED):
            raise InputError("--batch-norm recomputed, --batch-norm-data: one was given without the other; give both")
        if self.head != FRESH and head_bias:
            raise InputError(f"--head-bias: the head is that of --head {self.head}; leave it out")
        if self.head == ZERO_SHOT_HEAD and architecture != OF_WEIGHTS:
            raise InputError(
                f"--head zero-shot: the network is the image tower of the weights, not {architecture}; give "
                "--architecture weights"
            )

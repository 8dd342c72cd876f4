"""Shows what a mixture is made of, before anything trains on it.

In: the values of ``--data``. Out: a table: images, how many are used, shown per epoch, repeated, their share, classes.

    synclones shards mix --data data/synthetic imagenet/train,fraction=1/8,repeat=8
"""

import sys
from dataclasses import dataclass

from synclones.base.errors import InputError
from synclones.shards.loading.mixture import parse_mixture
from synclones.shards.loading.parts import open_mixture


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Show the table of a mixture, what a training on it would read in each epoch."""

    data: tuple[str, ...] = ()
    """Sets and how much of each, or a YAML file; see docs/mixtures.md."""

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("--data: nothing was given; name sets, as in --data data/synthetic data/real:8")
        parse_mixture(self.data)


def mix(config: MixConfig) -> None:
    """Print the table."""
    mixture = parse_mixture(config.data)
    for note in mixture.notes:
        print(note, file=sys.stderr)
    print(open_mixture(mixture).table())

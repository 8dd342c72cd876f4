"""What models and data sets are called among all results of a folder: no two of them the same.

In: `Cell`s. Out: `Names`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from synclones.evaluate.stored.results import Cell


@dataclass(frozen=True)
class Names:
    """What models and data sets are called among all results of a folder: no two of them the same."""

    models: dict[str, str]
    """By `Cell.model_identity`."""
    datasets: dict[str, str]
    """By content hash."""


def names_of(cells: list[Cell]) -> Names:
    """Return names that tell models and data sets apart: their folders', with the start of a hash where that fails."""
    return Names(
        models=_unlike((c.model, c.model_identity, c.weights_sha256) for c in cells),
        datasets=_unlike((c.dataset, c.dataset_sha256, c.dataset_sha256) for c in cells),
    )


def _unlike(named: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return identity -> name, of (name, identity, hash); one of several names of an identity is the first."""
    first: dict[str, tuple[str, str]] = {}
    for name, identity, digest in named:
        first.setdefault(identity, (name, digest))
    forms = {i: (n, f"{n} ({d[:8]})", f"{n} ({d[:8]}, {i[:8]})") for i, (n, d) in first.items()}
    counts = [Counter(level) for level in zip(*forms.values(), strict=True)]
    return {
        identity: next((form for form, count in zip(own, counts, strict=True) if count[form] == 1), own[-1])
        for identity, own in forms.items()
    }

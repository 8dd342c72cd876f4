"""Which candidates a policy takes: a pure function of scores, classes, prompts, policy and seed.

In: arrays. Out: positions of the taken candidates.
"""

from collections.abc import Sequence

import numpy as np

from synclones.ablate.policy import Policy
from synclones.base.draws import hash64, uniform
from synclones.base.errors import InputError

_TIES, _CHANCE = 0x54494553, 0x4348414E  # tell these draws from others of the same seed


def number_taken(policy: Policy, candidates: int) -> int:
    """Return how many of so many candidates are taken: the share, rounded down, at least one."""
    return max(1, int(policy.share * candidates + 1e-9))


def mean_by_prompt(scores: np.ndarray, prompts: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return for each candidate the mean score of those of its class that share its prompt, float64[n]."""
    names = np.array([f"{label} {prompt}" for label, prompt in zip(labels.tolist(), prompts, strict=True)])
    _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    means = np.bincount(which, weights=scores) / counts
    return np.asarray(means[which])


def choose(
    policy: Policy, scores: np.ndarray, index: np.ndarray, labels: np.ndarray, classes: int, take: int, seed: int
) -> np.ndarray:
    """Return the positions of the candidates that are taken, ascending int64[take].

    Args:
        scores: float64[n], high for what is to be taken.
        index: int64[n], the numbers of the candidates, which ties and chance depend on.
        labels: int64[n], their classes, 0 and more.
        classes: how many there are.
        take: how many candidates to take, as evenly from the classes as it divides where the policy has a quota.
        seed: of the round.

    Raises:
        InputError: a class has too few candidates.
    """
    ties = hash64(seed, _TIES, index)
    order = np.lexsort((ties, -scores))  # the highest first
    drawn = _drawn(policy, scores, index, seed)
    if policy.quota == "none":
        groups = [("there are", order, take)]
    else:
        quotas = take // classes + (np.arange(classes) < take % classes)
        by_class = order[np.argsort(labels[order], kind="stable")]
        members = np.split(by_class, np.searchsorted(labels[by_class], np.arange(1, classes)))
        groups = [(f"class {k} has", members[k], int(quota)) for k, quota in enumerate(quotas) if quota]
    taken = []
    for who, ranked, quota in groups:
        left = ranked[int(policy.skip * len(ranked)) :]
        _refuse_few(who, len(ranked), len(left), quota)
        taken.append(left[np.lexsort((ties[left], -drawn[left]))][:quota])
    return np.sort(np.concatenate(taken))


def _drawn(policy: Policy, scores: np.ndarray, index: np.ndarray, seed: int) -> np.ndarray:
    """Return by what candidates are taken: the scores or, with a temperature t, s / t plus Gumbel's noise.

    The first k by the latter are k draws without replacement with weights exp(s / t) (Efraimidis and Spirakis 2006;
    Kool et al. 2019).
    """
    if not policy.temperature:
        return scores
    chance = np.clip(uniform(seed, _CHANCE, index), 2.0**-60, 1 - 2.0**-53)
    noisy: np.ndarray = scores / policy.temperature - np.log(-np.log(chance))
    return noisy


def _refuse_few(who: str, candidates: int, left: int, quota: int) -> None:
    if quota > left:
        skipped = f", of which {candidates - left} are skipped" if left < candidates else ""
        raise InputError(
            f"--take: {who} {candidates} candidates{skipped}, {quota} are to be taken; draw more, or lower the share"
        )

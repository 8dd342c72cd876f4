"""How well laws foretell the largest published accuracies from the smaller ones, and how often intervals hold.

Prints the back-test on the 24 published cells of Tables 6 and 7 as Markdown: the law with a floor beside straight lines
in log-log. Then, with --simulations, how often the interval of a difference over seeds and images holds the true one.

    python benchmarks/scaling.py [--simulations 600]
"""

import argparse

import numpy as np

from synclones.ablate.comparisons import Measured, difference
from synclones.ablate.paper import back_test
from synclones.ablate.scaling import Expected

IMAGES, RESAMPLES = 300, 60
OFFSETS = np.array([0.6, 0.4])
OF_IMAGES = 0.7
"""Standard deviation of what image, training and arm decide together; that of the images alone is 1."""


def back_test_table() -> str:
    """Return the back-test as Markdown, in percent and points."""
    lines = [
        "| curve | measured | floor law (95 %) | off by | line through 3 | line through 2 |",
        "|---|---|---|---|---|---|",
    ]
    for test in back_test():
        assert isinstance(test.expected, Expected)
        off = [100 * (value - test.measured) for value in (test.expected.value, test.line_of_three, test.line_of_two)]
        lines.append(
            f"| {test.kind}, {test.size / 1e6:.0f}M | {100 * test.measured:.2f} | {test.expected} | {off[0]:+.2f} | "
            f"{off[1]:+.2f} | {off[2]:+.2f} |"
        )
    return "\n".join(lines)


def coverage(simulations: int, seeds: int, spread: float) -> tuple[float, float]:
    """Return how often the true difference of two arms is held: by ours, and by percentiles of resampled seeds."""
    from scipy.stats import norm

    rng, total = np.random.default_rng(1), np.sqrt(1 + spread**2 + OF_IMAGES**2)
    true = float(np.diff(norm.cdf(OFFSETS[::-1] / total))[0])
    held = np.zeros((simulations, 2))
    for number in range(simulations):
        hard, own = rng.normal(0, 1, IMAGES), rng.normal(0, OF_IMAGES, (2, seeds, IMAGES))
        right = (hard + OFFSETS[:, None, None] + rng.normal(0, spread, (2, seeds, 1)) + own > 0).astype(np.float64)
        drawn = right @ rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), RESAMPLES).T / IMAGES
        arms = [
            Measured(dict(enumerate(r.mean(1))), dict(enumerate(d)), {}, "same")
            for r, d in zip(right, drawn, strict=True)
        ]
        item = difference(*arms)
        assert not isinstance(item, str)
        chosen = rng.integers(0, seeds, (RESAMPLES, seeds))
        low, high = np.quantile(np.take_along_axis((drawn[0] - drawn[1]).T, chosen, 1).mean(1), (0.025, 0.975))
        held[number] = item.low <= true <= item.high, low <= true <= high
    return float(held[:, 0].mean()), float(held[:, 1].mean())


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=0)
    simulations = parser.parse_args().simulations
    print(back_test_table())
    for seeds, spread in ((2, 0.25), (3, 0.25), (3, 0.1), (5, 0.25)) if simulations else ():
        ours, resampled = coverage(simulations, seeds, spread)
        print(
            f"{seeds} seeds, spread {spread}: held in {100 * ours:.1f} %, by resampled seeds in {100 * resampled:.1f} %"
        )


if __name__ == "__main__":
    main()

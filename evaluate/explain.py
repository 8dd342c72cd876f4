"""Explains a metric to somebody who has not read the papers.

In: the name of a metric. Out: the words of its axis file.
"""

from synclones.base.errors import InputError
from synclones.evaluate.axis import Metric, metrics


def explain(name: str) -> str:
    """Return heading, unit, explanation, sources and deviations of a metric, by its name or its title.

    Raises:
        InputError: when no axis has such a metric; names those there are.
    """
    by_word = {word.lower(): metric for metric in metrics().values() for word in (metric.name, metric.title)}
    metric = by_word.get(name.lower())
    if metric is None:
        raise InputError(f"synclones evaluate explain: {name!r} is no metric; expected one of {', '.join(metrics())}")
    return "\n".join(_lines(metric))


def _lines(metric: Metric) -> list[str]:
    return [
        f"{metric.title} ({metric.name} in files of results)",
        f"unit        {metric.unit}",
        metric.explanation,
        *(f"source      {source}" for source in metric.sources),
        *(f"deviation   {deviation}" for deviation in metric.deviations),
    ]

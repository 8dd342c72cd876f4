"""Explains a metric to somebody who has not read the papers, or one of the deviations of the papers' code.

In: the name of a metric, or D1 to D12. Out: the words of its axis file, and of the deviations that concern it.
"""

from synclones.base.errors import InputError
from synclones.evaluate.axis import Metric, metrics
from synclones.evaluate.published.deviations import described, deviations, of_metric


def explain(name: str) -> str:
    """Return heading, unit, explanation, sources and deviations of a metric, by its name or its title.

    Of D1 to D12, return what the paper says, what its code does, and what that does to published numbers.

    Raises:
        InputError: when no axis has such a metric; names those there are.
    """
    if name.upper() in deviations():
        return described(deviations()[name.upper()])
    by_word = {word.lower(): metric for metric in metrics().values() for word in (metric.name, metric.title)}
    metric = by_word.get(name.lower())
    if metric is None:
        raise InputError(
            f"synclones evaluate explain: {name!r} is no metric; expected one of {', '.join(metrics())}, or D1 to D12"
        )
    return "\n".join(_lines(metric))


def _lines(metric: Metric) -> list[str]:
    return [
        f"{metric.title} ({metric.name} in files of results)",
        f"unit        {metric.unit}",
        metric.explanation,
        *(f"source      {source}" for source in metric.sources),
        *(f"deviation   {deviation}" for deviation in metric.deviations),
        *(f"published   {item.id}: {item.title}" for item in of_metric(metric.name)),
    ]

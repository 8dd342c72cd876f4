"""What an evaluation has come to, in two sentences: which differences are clear, then what cannot be told apart.

In: `Comparison`s. Out: text without markup, for terminal and page, and the table of who is ahead in which number.
"""

from collections.abc import Collection
from html import escape

from synclones.base.page import table
from synclones.evaluate.axis import metrics
from synclones.evaluate.compare import Comparison
from synclones.evaluate.reports.cell_text import arrow

NAMED = 6
"""Numbers or models that a sentence names; of more it says how many."""
MINUS = "\N{MINUS SIGN}"


def verdict(compared: list[Comparison], alone: str = "", at_chance: Collection[str] = ()) -> tuple[str, str]:
    """Return the two sentences.

    Args:
        compared: all comparisons, each pair once.
        alone: what is said first where no two models are compared.
        at_chance: models that are nowhere called the best of many.
    """
    able = _able(compared, at_chance)
    models = _models(able)
    if not models:
        return alone, "With one model there is nothing to compare; evaluate another into the same folder to add it."
    return _of_two(able) if len(models) == 2 else _of_many(able, compared)


def _able(compared: list[Comparison], at_chance: Collection[str]) -> list[Comparison]:
    """Return the comparisons without those models, where two others are left; ratios to next to nothing say little."""
    left = [item for item in compared if item.first not in at_chance and item.second not in at_chance]
    return left or compared


def _models(compared: list[Comparison]) -> list[str]:
    return list(dict.fromkeys(name for item in compared for name in (item.first, item.second)))


# ------------------------------------------------------------------ two models: number by number


def _of_two(compared: list[Comparison]) -> tuple[str, str]:
    clear = [item for item in compared if item.verdict == "differs"]
    first, second = compared[0].first, compared[0].second
    parts = []
    for subject, other, way in ((first, second, True), (second, first, False)):
        own = [item if way else item.reversed() for item in clear if item.first_is_better is way]
        if own:
            parts.append(f"{subject} is clearly better than {other} in {_listed([sized(item) for item in own])}")
    neutral = [item for item in clear if item.first_is_better is None]
    if neutral:
        numbers = _listed([sized(item) for item in neutral])
        parts.append(f"they clearly differ in {numbers}, {first} less {second}, where neither way is better")
    opening = "; ".join(parts) or f"No difference between {first} and {second} is clear"
    rest = [item for item in compared if item.verdict != "differs"]
    if not rest:
        return f"{opening}.", "There is no number in which they cannot be told apart."
    closing = f"These images cannot tell them apart in {_listed([item.metric for item in rest])}."
    widest = rest[0].difference
    if not parts and widest is not None:
        closing = f"{closing[:-1]}; the difference in {sized(rest[0])} may be chance."
    return f"{opening}.", closing


def sized(item: Comparison) -> str:
    """Return the number of a comparison with its difference and interval: ``accuracy (+3.1 points, 1.2 to 5.0)``."""
    assert item.difference is not None
    d = item.difference
    return f"{item.metric} ({signed(item, d.value)}{unit(item)}, {signed(item, d.low)} to {signed(item, d.high)})"


def signed(item: Comparison, value: float) -> str:
    """Return a difference as it is printed, with its sign and without its unit."""
    metric = metrics().get(item.name)
    scale, decimals = (metric.scale, metric.decimals) if metric else (100.0, 1)
    text = f"{scale * value:+.{decimals}f}".replace("-", MINUS)
    return text[1:] if not text.strip("+0." + MINUS) else text  # of what rounds to 0 no sign is left to tell


def unit(item: Comparison) -> str:
    """Return the unit of a difference: percents differ by points."""
    metric = metrics().get(item.name)
    short = metric.unit_short if metric else "%"
    return " points" if short == "%" else f" {short}".rstrip()


def _listed(texts: list[str]) -> str:
    if len(texts) > NAMED:
        return f"{', '.join(texts[:NAMED])} and {len(texts) - NAMED} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


# ------------------------------------------------------------------ many models: who is ahead


def _of_many(able: list[Comparison], compared: list[Comparison]) -> tuple[str, str]:
    number = able[0].metric
    best, own = leader([item for item in able if item.metric == number])
    clear = sorted((item for item in own if item.verdict == "differs"), key=_size)
    if not clear:
        opening = f"In {number} no model is clearly ahead of all others: {best} is highest of {len(own) + 1}"
    else:
        near, far = clear[0], clear[-1]
        among = f"{len(clear)} of {len(own)}" if len(clear) < len(own) else f"all {len(own)}"
        sizes = [f"{signed(item, _size(item))}{unit(item)} ({item.second})" for item in dict.fromkeys((near, far))]
        opening = f"In {number} {best} is clearly ahead of {among} other models, by {' to '.join(sizes)}"
    rest = [item.second for item in own if item.verdict != "differs"]
    closing = f"cannot tell {best} apart from {_listed(rest)} there" if rest else f"tell {best} apart from all there"
    counted = sum(item.verdict == "differs" for item in compared)
    return (
        f"{opening}.",
        f"These images {closing}; of all {len(compared)} comparisons in all numbers {counted} are clear, and the other "
        "differences may be chance.",
    )


def _size(item: Comparison) -> float:
    return abs(item.difference.value) if item.difference else 0.0


def leader(own: list[Comparison]) -> tuple[str, list[Comparison]]:
    """Return the model with the best value of one number, and its comparisons as the first; the highest if none is."""
    totals: dict[str, float] = {}
    for item in own:
        sign = -1.0 if item.name in metrics() and metrics()[item.name].better == "less" else 1.0
        value = sign * item.difference.value if item.difference else 0.0
        # Differences to all others add up in the order of the values.
        totals[item.first] = totals.get(item.first, 0.0) + value
        totals[item.second] = totals.get(item.second, 0.0) - value
    best = max(totals, key=totals.__getitem__)
    return best, [item if item.first == best else item.reversed() for item in own if best in (item.first, item.second)]


def leaders_table(compared: list[Comparison]) -> str:
    """Return who is ahead in each number, of whom, and of whom not; nothing of fewer than three models."""
    if len(_models(compared)) < 3:
        return ""
    rows = []
    for number in dict.fromkeys(item.metric for item in compared):
        best, own = leader([item for item in compared if item.metric == number])
        clear = [item.second for item in own if item.verdict == "differs"]
        rest = [item.second for item in own if item.verdict != "differs"]
        ahead = f"all {len(own)}" if not rest else f"{len(clear)} of {len(own)}" if clear else "none"
        rows.append([escape(number) + arrow(own[0].name), escape(best), ahead, escape(_listed(rest)) if rest else "–"])
    drawn = table(rows, ("number", "best", "clearly ahead of", "not told apart from"))
    return f"<details><summary>Who is ahead in each of {len(rows)} numbers</summary>{drawn}</details>"


def section(compared: list[Comparison], alone: str, at_chance: dict[str, str]) -> str:
    """Return the sentences, who is ahead, and which models answer no better than by chance.

    Args:
        at_chance: name of a model -> its accuracy and that of chance, in words.
    """
    words = "; ".join(f"{name} ({text})" for name, text in at_chance.items())
    warning = (
        f'<p class="warning">At chance: {escape(words)}. What such a model keeps under attack or corruption says '
        "nothing about its robustness.</p>"
        if at_chance
        else ""
    )
    sentences = "".join(f'<p class="verdict">{escape(text)}</p>' for text in verdict(compared, alone, at_chance))
    return f"{sentences}{warning}{leaders_table(_able(compared, at_chance))}"

"""One HTML file per grid for somebody who knows the paper: verdict, sentences, table, curves, images, cost, commands.

In: a `Study`. Out: the bytes of a page that needs no other file.
"""

from html import escape

from synclones.ablate.arms import Arm
from synclones.ablate.classes import KINDS
from synclones.ablate.columns import Column
from synclones.ablate.comparisons import MOST_SEEDS, seeds_needed
from synclones.ablate.reports import figures, sheets, words
from synclones.ablate.reports.tables import MOST_PAIRS, family_note, law_words
from synclones.ablate.scaling import Law, Refusal
from synclones.ablate.study import Curve, Study
from synclones.base.page import page, table
from synclones.base.page_style import of_page
from synclones.evaluate.reports.chance import AT_CHANCE
from synclones.evaluate.reports.figures import figure_row

_STYLE = """
td.group{font-weight:600;padding-top:.9rem}
td{white-space:nowrap}td.text,td.text small{white-space:normal;min-width:9rem}td.real small{font-weight:400}
.grid th:first-child,.grid td:first-child{position:sticky;left:0;background:var(--paper);padding-right:.8rem}
.answer{font-weight:600}.holds{color:var(--link)}.not{color:var(--warn)}.open{color:var(--soft)}
"""
_COLOURS = {"holds": "holds", "does not hold": "not", "cannot be told": "open"}


def report(study: Study) -> bytes:
    """Return the page."""
    results = study.results
    kinds = figures.kinds_along(study, figures.number_axis(study))
    body = [
        f'<p class="verdict">{escape(words.verdict_of(study))}</p>',
        f'<p class="facts">{"<br>".join(escape(fact) for fact in words.facts(study))}</p>',
        _sentences(study),
        _table(study),
        _curves(study, list(kinds)),
        _laws(study),
        _radars(study),
        _comparisons(study),
        _seeds(study),
        _classes(study),
        _image_sets(study),
        sheets.section(kinds),
        _cost(study),
        _commands(study),
        _missing(study),
    ]
    return page(results.title, body, small_images=True, style=_STYLE)


def _sentences(study: Study) -> str:
    if not study.sentences:
        return ""
    rows = []
    for item in study.sentences:
        says = f'<td class="text">{escape(item.observation.says)}<small>{escape(item.observation.source)}</small>'
        mark = f'<span class="answer {_COLOURS[item.answer]}">{item.answer}</span>'
        rows.append([says, f'<td class="text">{mark}<small>{escape(item.why)}</small>'])
    return (
        "<h2>What papers say, and what is so here</h2><p>A sentence holds where every comparison that it is about goes "
        "its way beyond the noise; it does not hold where one goes the other way beyond the noise.</p>"
        f"{table(rows, ('observation', 'here'))}"
    )


# ------------------------------------------------------------------ the table


def _table(study: Study) -> str:
    axes = list(study.results.axes)
    grouped = len(axes) > 1
    head = [", ".join(axes[1:] if grouped else axes), *(words.heading(column) for column in study.columns)]
    rows, groups = [], _groups(study) if grouped else {"": study.arms}
    for name, arms in groups.items():
        if grouped:
            rows.append([f'<td class="group" colspan="{len(head)}">{escape(name)}'])
        best = {column.name: study.best_of(arms, column) for column in study.columns}
        for arm in arms:
            label = ", ".join(list(arm.values.values())[1 if grouped else 0 :])
            mark = f'<small class="warning">{AT_CHANCE}</small>' if arm.name in study.at_chance else ""
            rows.append([escape(label) + mark, *(_cell(arm, c, arm.name in best[c.name]) for c in study.columns)])
    paper = (
        " Small and grey: the paper's number, corrected where its authors' logs allow it, and ours less it."
        if any(arm.paper for arm in study.arms)
        else ""
    )
    chosen = "; ".join(f"{column.heading}: {column.chosen}" for column in study.columns)
    return (
        f"<h2>The table</h2><p>{escape(words.noise_note(study))} Bold: the best of its group and all that are not told "
        f'apart from it, where any is.{paper}</p><div class="grid">{table(rows, head, numbers=True)}</div>'
        f'<p class="note">{escape(chosen)}.</p>'
    )


def _groups(study: Study) -> dict[str, list[Arm]]:
    groups: dict[str, list[Arm]] = {}
    for arm in study.arms:
        groups.setdefault(next(iter(arm.values.values())), []).append(arm)
    return groups


def _cell(arm: Arm, column: Column, best: bool) -> str:
    own, beside = arm.spread(column.name), words.beside(arm, column)
    seeds, total = len(arm.numbers[column.name]), len(arm.cells)
    if own is None:
        reason = escape(arm.missing.get(column.name, ""), quote=True)
        return f'<td class="noise" title="{reason}">missing<small>{escape(beside)}</small>'
    fewer = f'<small class="warning">{seeds} of {total} trainings</small>' if seeds < total else ""
    kind = ' class="real"' if best else ""
    return f"<td{kind}>{words.spread(own)}<small>{escape(beside)}</small>{fewer}"


# ------------------------------------------------------------------ curves, laws, radars


def _curves(study: Study, kinds: list[str]) -> str:
    drawings = figures.curves(study)
    if not drawings:
        return ""
    axis = figures.number_axis(study)
    names = (
        f'<span><b style="color:{of_page(figures.colour(number))}">{figures.glyph(number)}</b> {escape(kind)}</span>'
        for number, kind in enumerate(kinds[: figures.MOST_LINES])
    )
    more = f" The first {figures.MOST_LINES} of {len(kinds)} are drawn." if len(kinds) > figures.MOST_LINES else ""
    log = " on a logarithmic axis" if axis == study.size_axis else ""
    is_scaled = study.results.scale != 1 and axis in study.results.scaled
    scaled = f" The numbers are the paper's: here each is {study.results.scale} of it." if is_scaled else ""
    paper = " Dashed and hollow: the paper's." if any(arm.paper for arm in study.arms) else ""
    return (
        f"<h2>Over {escape(str(axis))}</h2><p>Every column over {escape(str(axis))}{log}; bands are 95 % "
        f"intervals.{paper}{scaled if log else ''}{more}</p>"
        f'<p class="legend">{" ".join(names)}</p>{figure_row(drawings)}'
    )


def _laws(study: Study) -> str:
    if not study.curves:
        return ""
    rows = []
    for curve in study.curves:
        law = escape(law_words(curve.law) if isinstance(curve.law, Law) else str(curve.law))
        if isinstance(curve.law, Law):
            floor, power = curve.law.floors(), curve.law.exponents()
            law += (
                f"<small>floor {words.value(floor[0])} to {words.value(floor[1])} %, exponent {power[0]:.2f} to "
                f"{power[1]:.2f}</small>"
            )
        rows.append([escape(curve.kind), f'<td class="text">{law}', f'<td class="text">{_next(curve)}'])
    return (
        "<h2>What more images would bring</h2><p>The error as a + b n<sup>-c</sup> of the number of images n, with a "
        "floor a ≥ 0, and the accuracy that it expects of four times the largest number, with a 95 % interval for one "
        "more training. Nothing is expected where the interval would say nothing.</p>"
        + table(rows, ("", "law", "at four times the images"))
    )


def _next(curve: Curve) -> str:
    """Return what a law expects; the reason why there is no law stands beside it already."""
    return words.NONE if isinstance(curve.law, Refusal) else escape(str(curve.next))


def _radars(study: Study) -> str:
    drawings = figures.radars(study)
    if not drawings:
        return ""
    ranges = "; ".join(
        f"{column.heading} from {100 * column.ends[0]:g} to {100 * column.ends[1]:g}" for column in study.columns
    )
    return (
        "<h2>All columns at a glance</h2><p>The last measured row of each kind; further out is better, grey are the "
        "others, dashed is the paper's. An area depends on the order of the spokes and says nothing by itself.</p>"
        f'{figure_row(drawings)}<p class="note">From centre to rim, in percent: {escape(ranges)}; cut off at both.</p>'
    )


# ------------------------------------------------------------------ comparisons, seeds, classes, sets of images


def _comparisons(study: Study) -> str:
    column = study.columns[0]
    own = [pair for pair in study.pairs if pair.column is column]
    if not own:
        return ""
    kinds = {"differs": "real", "may be chance": "noise", "inside the noise": "noise", "cannot be told": "noise"}
    rows = []
    for pair in own[:MOST_PAIRS]:
        sentence = words.said(pair)
        mark = kinds[sentence.removesuffix(" (these trainings)")]
        rows.append(
            [
                escape(pair.first.name),
                escape(pair.second.name),
                words.difference(pair),
                f'<td class="{mark}">{sentence}',
            ]
        )
    more = f" The first {MOST_PAIRS} of {len(own)} are shown." if len(own) > MOST_PAIRS else ""
    return (
        f"<h2>Comparisons</h2><p>{escape(family_note(study))}{more} comparisons.csv has those of all columns.</p>"
        f"<details><summary>{len(own)} comparisons in {escape(column.heading)}</summary>"
        f"{table(rows, ('first', 'second', 'difference, points', ''))}</details>"
    )


def _seeds(study: Study) -> str:
    rows = []
    for column in study.columns:
        known = study.seeds_for_a_point(column)
        if known is not None:
            spread, images, seeds = known
            few = seeds_needed(0.0, images) is None
            needed = f"{seeds}" if seeds else "none: too few test images" if few else f"more than {MOST_SEEDS:,}"
            rows.append([escape(column.heading), words.value(spread), words.value(images), needed])
    if not rows:
        return ""
    return (
        "<h2>How many trainings a difference of one point takes</h2><p>So many trainings of each arm show a difference "
        "of one point in 80 % of experiments (5 % level, one comparison), at the spread that was measured.</p>"
        + table(rows, ("", "sd over seeds, points", "se over images, points", "trainings"), numbers=True)
    )


def _classes(study: Study) -> str:
    if not study.classes:
        return ""
    rows = []
    for kind, curves in study.classes.items():
        counts = words.counted(curve.kind for curve in curves)
        rows.append([escape(kind), *(str(counts.get(name, 0)) for name in KINDS)])
    most = max(study.classes, key=lambda kind: len(study.classes[kind]))
    details = []
    for curve in sorted(study.classes[most], key=lambda curve: -curve.gain.value):
        shares = (f"{words.value(share.value)}" for share in curve.shares)
        details.append([f"class {curve.label}", *shares, words.signed(curve.gain.value), curve.kind])
    sizes = study.results.axes[study.size_axis or ""]
    head = ("", *sizes, "gain", "") if len(sizes) == len(study.classes[most][0].shares) else ()
    return (
        "<h2>Classes: easy, scaling, poor</h2><p>Scaling: more images raise its accuracy beyond the noise of its test "
        "images (falling: lower it). Of the others, easy: above the mean of all classes from the start; poor: below it "
        f"to the end.</p>{table(rows, ('classes', *KINDS), numbers=True)}"
        f"<details><summary>every class, {escape(most)}</summary>{table(details, head, numbers=True)}</details>"
    )


def _image_sets(study: Study) -> str:
    if not study.image_sets:
        return ""
    rows = []
    for item in study.image_sets:
        d, share = item.diversity, item.recognised
        numbers = (
            (words.NONE, words.NONE) if d is None else (f"{d.distance:.3f}", f"{d.effective:.1f} of {d.images:.0f}")
        )
        own = f"{words.value(share.value)}<small>{words.value(share.low)} to {words.value(share.high)}</small>"
        rows.append([escape(item.name), own, *numbers])
    return (
        "<h2>Recognisable and various?</h2><p>Recognised: the share of images that a network trained on real images "
        f"({escape(study.image_sets[0].judge)}) takes for what was asked for. Distance: mean cosine distance of its "
        "logits between two images of a class. Effective: as how many altogether different images those of a class "
        "count (Vendi score).</p>" + table(rows, ("images", "recognised, %", "distance", "effective"), numbers=True)
    )


# ------------------------------------------------------------------ cost, commands, what is missing


def _cost(study: Study) -> str:
    steps = list(dict.fromkeys(step for cell in study.results.cells for step in cell.cost))
    if not steps:
        return ""
    rows = []
    for arm in study.arms:
        costs = [cell.cost for cell in arm.cells if cell.cost]
        if costs:
            means = [sum(cost.get(step, 0.0) for cost in costs) / len(costs) for step in steps]
            rows.append([escape(arm.name), *map(seconds, means), seconds(sum(means))])
    return (
        "<h2>What it cost</h2><p>Time of processes per training; steps that cells share are counted whole in each.</p>"
        + table(rows, ("", *steps, "together"), numbers=True)
    )


def seconds(value: float) -> str:
    """Return a duration as people say it."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def _commands(study: Study) -> str:
    parts = []
    for cell in study.results.cells:
        if cell.commands:
            name = escape(f"{', '.join(cell.values.values())}, seed {cell.seed}")
            lines = escape("\n".join(cell.commands))
            parts.append(f"<details><summary>{name}</summary><pre>{lines}</pre></details>")
    return f"<h2>The commands</h2>{''.join(parts)}" if parts else ""


def _missing(study: Study) -> str:
    reasons = words.missing(study)
    if not reasons:
        return ""
    rows = [
        [f'<td class="text">{escape(why)}', f'<td class="text">{escape("; ".join(of))}'] for why, of in reasons.items()
    ]
    return f"<h2>What is missing</h2>{table(rows, ('why', 'where'))}"

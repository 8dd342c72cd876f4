"""The images of a set: a page of those that are sought, and the list of its classes.

In: a `Dataset` and the parameters of an address. Out: HTML; images are addresses that the browser asks for one by one.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.page import SMALL_PX, image_figure
from synclones.base.units import format_count
from synclones.serve.dataset import Dataset, scores_of
from synclones.serve.folders import Folder, Folders
from synclones.serve.pages.frame import (
    HOME,
    STILL,
    Parameters,
    Shown,
    address,
    command,
    framed,
    link,
    made_from,
    renewing,
)
from synclones.serve.search import Hits, Wanted, search
from synclones.shards.schema import MAX_INDEX, STATUSES
from synclones.shards.unfinished import how_far, resume_arguments

PAGE_IMAGES, PAGE_CLASSES = 60, 1000
MOST_TEXT = 200  # characters of a text that is sought
MOST_GROWING = 12  # shards that are drawn now and have a link
ASKED = ("class", "text", "status", "score", "min", "max")
DRAWN_WITH = ("model_name", "scheduler", "num_inference_steps", "guidance_scale", "drawn_px", "stored_px", "seed")


def images_page(folder: Folder, dataset: Dataset, parameters: Parameters, folders: Folders) -> Shown:
    """Return a page of images.

    Args:
        parameters: of the address: class, text, status, score with min and max, and ``from``, the first number.

    Raises:
        VerificationError: the set is damaged.
    """
    asked = dict(parameters)
    links = [HOME, *([link("classes", "/classes", folder=folder.name)] if dataset.class_ids else [])]
    above = [_facts(dataset), _form(folder, dataset, asked)]
    try:
        start, wanted = whole_number(asked, "from", 0, MAX_INDEX), wanted_of(dataset, asked)
    except InputError as error:  # the fields stay as they were filled in
        body = [*above, f'<p class="warning">{escape(str(error))}</p>']
        return Shown(framed(folder.name, body, links), status=400)
    try:
        hits = search(dataset, wanted, start, PAGE_IMAGES)
    except VerificationError as error:  # of a shard: from the fields another part of the set is reached
        body = [*above, f'<p class="warning">{escape(str(error))}</p>']
        return Shown(framed(folder.name, body, links), status=500)
    unfinished, refresh = ("", "") if dataset.is_finished else _unfinished(folder, dataset, parameters)
    if hits.next_index is not None and not hits.rows:  # nothing so far: the search goes on by itself
        refresh = "" if STILL in asked else f"0; url={_further(folder, asked, hits.next_index)}"
    wall = f'<div class="wall">{"".join(card(folder, dataset, row) for row in hits.rows)}</div>'
    pager = _pager(folder, dataset, asked, start, hits)
    body = [*above, unfinished, wall, pager, made_from(folder, folders)]
    return Shown(framed(folder.name, body, links, is_small(dataset)), refresh)


def is_small(dataset: Dataset) -> bool:
    """Return whether the images are so small that they are shown pixel by pixel."""
    side = dataset.plan.get("stored_px")
    return type(side) is int and side < SMALL_PX


def whole_number(asked: Mapping[str, str], name: str, default: int | None, most: int) -> int:
    """Return a parameter that is a whole number of at least 0.

    Raises:
        InputError: it is something else, or missing without a default.
    """
    text = asked.get(name, "").strip()
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise InputError(f"{name}: {text[:40]!r} was given, expected a number of 0 to {most}")
    return int(text)


def wanted_of(dataset: Dataset, asked: Mapping[str, str]) -> Wanted:
    """Return what is sought.

    Raises:
        InputError: a parameter is wrong.
    """
    status, text, score = asked.get("status", ""), asked.get("text", "").strip(), asked.get("score", "")
    if status and status not in STATUSES:
        raise InputError(f"status: {status[:40]!r} was given, expected {', '.join(STATUSES)}")
    if len(text) > MOST_TEXT:
        raise InputError(f"text: {len(text)} characters were given, at most {MOST_TEXT} are sought")
    low, high = _limit(asked, "min", -math.inf), _limit(asked, "max", math.inf)
    if not score and (math.isfinite(low) or math.isfinite(high)):
        raise InputError("min, max: of which score? choose one")
    if score and not (math.isfinite(low) or math.isfinite(high)):
        raise InputError(f"score {score[:60]!r}: from where to where? give min, max or both")
    label = dataset.label_of(asked["class"].strip()) if asked.get("class", "").strip() else None
    return Wanted(label=label, status=status, text=text, score=score, low=low, high=high)


def _limit(asked: Mapping[str, str], name: str, default: float) -> float:
    text = asked.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{name}: {text[:40]!r} was given, expected a number")
    return value


def _facts(dataset: Dataset) -> str:
    counts = {status: dataset.count(status) for status in STATUSES}
    lost = "".join(f", {counts[status]:,} {status}" for status in ("failed", "dropped") if counts[status])
    finished = len(dataset.pieces) - len(dataset.growing)
    shards = format_count(finished, "finished shard")
    classes = f" of {len(dataset.class_ids):,} classes" if dataset.class_ids else ""
    plan = dataset.plan
    drawn = ", ".join(
        f"{name.replace('_', ' ')} {plan[name]}" for name in DRAWN_WITH if plan.get(name) not in ("", None)
    )
    words = f"{format_count(counts['ok'], 'image')}{classes} in {shards}{lost}. {drawn[:1].upper()}{drawn[1:]}".rstrip()
    return f'<p class="facts">{escape(words)}</p>'


def _unfinished(folder: Folder, dataset: Dataset, parameters: Parameters) -> tuple[str, str]:
    """Return how far a set is and how it goes on, and when its page is asked for again."""
    now = [
        link(f"{piece.files.name} from {piece.span.start:,}", "/images", folder=folder.name, from_=piece.span.start)
        for piece in dataset.growing[:MOST_GROWING]
        if len(piece.span)
    ]
    drawn = f"<p>Drawn now, or stopped: {', '.join(now)}</p>" if now else ""
    arguments = resume_arguments(folder.path)
    go_on = f"<p>If nothing draws it any more, this goes on with it:</p>{command(*arguments)}" if arguments else ""
    note, refresh = renewing(f"Unfinished: {how_far(folder.path)}.", parameters)
    return note + drawn + go_on, refresh


def _form(folder: Folder, dataset: Dataset, asked: Mapping[str, str]) -> str:
    def value(name: str) -> str:
        return f'name="{name}" value="{escape(asked.get(name, ""))}"'

    fields = [
        f'<label>class<input {value("class")} placeholder="number, id or name" class="wide"></label>',
        f'<label>prompt holds<input {value("text")} class="wide"></label>',
        f"<label>status{_choice('status', STATUSES, asked)}</label>",
        f'<label>from number<input {value("from")} inputmode="numeric" class="number"></label>',
    ]
    if dataset.score_names:
        limits = (
            f'<label>{words}<input {value(name)} class="number"></label>'
            for name, words in (("min", "at least"), ("max", "at most"))
        )
        fields += [f"<label>score{_choice('score', dataset.score_names, asked)}</label>", *limits]
    hidden = f'<input type="hidden" name="folder" value="{escape(folder.name)}">'
    return (
        f'<form class="search" action="/images" role="search">{hidden}{"".join(fields)}<button>Search</button></form>'
    )


def _choice(name: str, values: Sequence[str], asked: Mapping[str, str]) -> str:
    chosen = asked.get(name, "")
    options = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(value) or "any"}</option>'
        for value in ("", *values)
    )
    return f'<select name="{name}">{options}</select>'


def card(folder: Folder, dataset: Dataset, row: dict[str, Any], this: bool = False) -> str:
    """Return a small image with its prompt, or why there is none, as a link to its page; ``this`` one is marked."""
    index, name = row["index"], dataset.class_of(row["label"])
    called = name or (f"label {row['label']}" if row["label"] >= 0 else "no label")
    tip = f"{called}, seed {row['seed']}, attempt {row['attempt']}"
    notes = [f"{score} {value:.4g}" for score, value in scores_of(row["scores"]).items()]
    if row["status"] == "ok":
        source = escape(address("/image.jpg", folder=folder.name, index=index))
        note = ", ".join(filter(None, [*notes, row["reason"]]))
        figure = image_figure(source, row["prompt"], tip, note, f"#{index}").replace("<img ", '<img loading="lazy" ', 1)
    else:
        words = escape(f"{row['status']}: {row['reason']}")
        caption = f"{escape(row['prompt'])} <b>#{index}</b>"
        figure = (
            f'<figure title="{escape(tip)}"><div class="lost">{words}</div><figcaption>{caption}</figcaption></figure>'
        )
    target = escape(address("/image", folder=folder.name, index=index))
    return f'<a href="{target}"{" class=this" if this else ""}>{figure}</a>'


def _further(folder: Folder, asked: Mapping[str, str], start: int, **more: str) -> str:
    """Return the address of the same search from another number on."""
    same = {f"{name}_": asked.get(name, "") for name in ASKED}
    return address("/images", folder=folder.name, **same, from_=start or None, **more)


def _pager(folder: Folder, dataset: Dataset, asked: Mapping[str, str], start: int, hits: Hits) -> str:
    def to(text: str, number: int, **more: str) -> str:
        return f'<a href="{escape(_further(folder, asked, number, **more))}">{text}</a>'

    begin = to("from the beginning", 0) if start else ""
    following = hits.next_index
    if following is None:
        some = "That is all." if dataset.is_finished else "That is all so far."
        none = "Nothing like that." if any(asked.get(name) for name in ASKED) else "No image so far."
        return f'<p class="pager">{begin}{some if hits.rows or start else none}</p>'
    if hits.is_full:
        return f'<p class="pager">{begin}{to("next page", following)}</p>'
    last = max(piece.span.stop for piece in dataset.pieces)
    far = f"Searched up to image {following:,} of {last:,}. "
    stop = "" if hits.rows or STILL in asked else to("stop here", start, **{STILL: "1"})
    return f'<p class="pager">{far}{begin}{to("search on", following)}{stop}</p>'


def classes_page(folder: Folder, dataset: Dataset, asked: Mapping[str, str]) -> bytes:
    """Return the list of the classes of a set, each a link to its images.

    Raises:
        InputError: ``from`` is no number.
    """
    start, ids = whole_number(asked, "from", 0, MAX_INDEX), dataset.class_ids
    items = (
        f"<li>{link(dataset.class_of(label) or class_id, '/images', folder=folder.name, class_=label)} "
        f"<small>{label}{'' if class_id == dataset.class_of(label) else ' ' + escape(class_id)}</small></li>"
        for label, class_id in enumerate(ids[start : start + PAGE_CLASSES], start)
    )
    more = len(ids) > start + PAGE_CLASSES
    on = link("next page", "/classes", folder=folder.name, from_=start + PAGE_CLASSES) if more else ""
    body = [
        f'<p class="facts">{len(ids):,} classes</p><ul class="classes">{"".join(items)}</ul><p class="pager">{on}</p>'
    ]
    return framed(f"{folder.name}: classes", body, [HOME, link("images", "/images", folder=folder.name)])

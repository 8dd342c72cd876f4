"""Summarise a table of prompts before any image is generated: balance, repetition, length, examples, cost.

In: blocks of a table, as they are built or read. Out: the lines that the terminal shows, Markdown, or one HTML page.
"""

import html
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.escape import markdown_text
from synclones.base.page import page as page_of
from synclones.base.page import table
from synclones.prompts.characters import printable
from synclones.prompts.clip_tokens import MAX_TOKENS, as_read, count_tokens

EXAMPLES, LONGEST, SHARED = 10, 3, 5
MAX_TOKENISED = 500_000
MERGE_AT = 4_000_000
KEPT_SHORT = 200
# Stable Diffusion 1.5, 50 steps, 512 px, as reported for 30 M images on 48 A100 in 6.3 days (SynthCLIP).
A100_SECONDS_PER_IMAGE = 0.87
BYTES_PER_IMAGE = 21_500  # a photograph of 256 px as JPEG of quality 90


@dataclass(frozen=True)
class Summary:
    """The finished overview."""

    facts: dict[str, str]
    longest: list[tuple[int, str]]
    """(CLIP tokens, prompt) of the longest three."""
    examples: list[tuple[int, str, str]]
    """(index, class_id, prompt) of ten rows, evenly spread."""
    share_cut: float
    """Share of the distinct prompts that CLIP's text encoder would cut off."""


class Overview:
    """Running statistics; memory is 16 bytes per distinct prompt."""

    def __init__(self, num_rows: int, num_classes: int):
        self._counts = np.zeros(max(1, num_classes), dtype=np.int64)
        self._rows = self._unlabelled = self._captioned = 0
        self._hashes, self._pairs = _Distinct(), _Distinct()
        self._long, self._short = _Long(), dict[str, int]()
        self._shared: dict[str, None] = {}
        wanted = np.linspace(0, num_rows - 1, min(EXAMPLES, num_rows)).astype(np.int64)
        self._wanted, self._examples = wanted, list[tuple[int, str, str]]()

    def update(self, block: pa.Table) -> None:
        """Add rows with the columns of `table.SCHEMA`."""
        label = block["label"].to_numpy()
        named = label[label >= 0]
        if len(named) and named.max() >= len(self._counts):
            self._counts = np.pad(self._counts, (0, int(named.max()) + 1 - len(self._counts)))
        self._counts += np.bincount(named, minlength=len(self._counts))
        self._unlabelled += len(label) - len(named)
        self._captioned += int(pc.sum(pc.not_equal(block["source_key"], "")).as_py())
        self._add_prompts(block["prompt"].combine_chunks(), label)
        for index in self._wanted[(self._wanted >= self._rows) & (self._wanted < self._rows + len(block))]:
            row = block.slice(int(index) - self._rows, 1).to_pylist()[0]
            self._examples.append((row["index"], row["class_id"], row["prompt"]))
        self._rows += len(block)

    def _add_prompts(self, prompts: pa.Array, label: np.ndarray) -> None:
        # Each distinct text of the block is hashed once, however many rows repeat it.
        coded = prompts.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        # Texts that the encoder cannot tell apart are one prompt. Python's hash of a text: 64 bits, fast, and only ever
        # compared within this process.
        hashes = np.fromiter(map(hash, as_read(coded.dictionary).to_pylist()), dtype=np.int64, count=len(texts))
        read, first, number_of = np.unique(hashes, return_index=True, return_inverse=True)
        codes = number_of[coded.indices.to_numpy()].astype(np.int64)
        # A prompt that occurs with more labels than one teaches contradictions: pairs are counted beside texts.
        pairs = np.unique(codes * (len(self._counts) + 1) + label + 1)
        of_pair, with_label = np.divmod(pairs, len(self._counts) + 1)
        with np.errstate(over="ignore"):
            self._pairs.add(read[of_pair] * np.int64(6364136223846793005) + with_label)
        self._hashes.add(read)
        for code in islice(np.flatnonzero(np.bincount(of_pair) > 1), SHARED - len(self._shared)):
            self._shared[texts[first[code]]] = None
        sizes = pc.binary_length(coded.dictionary).to_numpy()
        # A token has at least one byte, so that a prompt of at most 75 bytes is never cut.
        self._long.add({int(hashes[k]): texts[k] for k in np.flatnonzero(sizes > MAX_TOKENS - 2)})
        short = np.flatnonzero(sizes <= MAX_TOKENS - 2)
        longest = short[np.argsort(-sizes[short], kind="stable")[:KEPT_SHORT]]
        known = self._short | {texts[k]: int(sizes[k]) for k in longest}
        self._short = dict(sorted(known.items(), key=lambda item: -item[1])[:KEPT_SHORT])

    def finish(self) -> Summary:
        """Count what is left to count."""
        distinct = self._hashes.count()
        short = list(zip(count_tokens(list(self._short)), self._short, strict=True))
        longest = sorted({*self._long.longest, *short}, key=lambda item: (-item[0], item[1]))[:LONGEST]
        long, share = self._long.finish()
        share_cut = share * long / max(1, distinct)
        facts = {
            "rows": f"{self._rows:,}",
            "distinct prompts": f"{distinct:,}, each drawn {self._rows / max(1, distinct):.4g} times on average",
            "class balance": self._balance(),
            "shared prompts": self._shared_words(self._pairs.count() - distinct),
            "CLIP tokens": self._cut_words(share_cut, longest, long),
            "cost": cost(self._rows),
        }
        if self._captioned:
            facts["real sources"] = f"{self._captioned:,} rows come from a real sample"
        return Summary(facts, longest, self._examples, share_cut)

    def _balance(self) -> str:
        labelled, present = self._rows - self._unlabelled, self._counts[self._counts > 0]
        if not labelled:
            return "no labels"
        low, high = int(present.min()), int(present.max())
        missing = len(self._counts) - len(present)
        text = f"{len(present):,} classes, {f'{low:,}' if low == high else f'{low:,} to {high:,}'} rows each"
        text += f", {missing:,} classes without a row" if missing else ""
        return text + (f", {self._unlabelled:,} rows without a label" if self._unlabelled else "")

    def _shared_words(self, count: int) -> str:
        if count <= 0:
            return "none stands for two classes"
        such = f", such as {', '.join(map(repr, self._shared))}" if self._shared else ""
        return f"{count:,} stand for more than one class{such}"

    def _cut_words(self, share_cut: float, longest: list[tuple[int, str]], long: int) -> str:
        most = longest[0][0] if longest else 0
        about = f" (counted on {MAX_TOKENISED:,} of the long ones)" if long > MAX_TOKENISED else ""
        if not share_cut:
            return f"none above {MAX_TOKENS}{about}; the longest has {most}"
        return (
            f"{100 * share_cut:.2g} % of distinct prompts are above {MAX_TOKENS} and will be cut{about}, up to {most}"
        )


class _Distinct:
    """A count of the different 64-bit hashes."""

    def __init__(self) -> None:
        self._parts, self._size = list[np.ndarray](), 0

    def add(self, hashes: np.ndarray) -> None:
        self._parts.append(hashes)
        self._size += len(hashes)
        if self._size > MERGE_AT and len(self._parts) > 1:
            self._merge()

    def _merge(self) -> None:
        # Sorting everything seldom is far cheaper than looking every block up.
        merged = np.concatenate(self._parts)
        merged.sort()
        keep = np.ones(len(merged), dtype=bool)
        np.not_equal(merged[1:], merged[:-1], out=keep[1:])
        self._parts, self._size = [merged[keep]], 0

    def count(self) -> int:
        self._merge()
        return len(self._parts[0])


class _Long:
    """Token counts of the distinct prompts that may be too long: of all, or of the first half million."""

    def __init__(self) -> None:
        self._hashes, self._tokenised = _Distinct(), dict[int, bool]()
        self.longest: list[tuple[int, str]] = []

    def add(self, texts: dict[int, str]) -> None:
        """Add texts, given by their hashes."""
        if not texts:
            return
        self._hashes.add(np.fromiter(texts, dtype=np.int64, count=len(texts)))
        room = max(0, MAX_TOKENISED - len(self._tokenised))
        new = dict(islice(((key, text) for key, text in texts.items() if key not in self._tokenised), room))
        counts = count_tokens(list(new.values())) if new else []
        self._tokenised |= {key: count > MAX_TOKENS for key, count in zip(new, counts, strict=True)}
        self.longest = sorted({*self.longest, *zip(counts, new.values(), strict=True)}, reverse=True)[:LONGEST]

    def finish(self) -> tuple[int, float]:
        """Return (distinct long prompts, share of them that is cut)."""
        seen = self._hashes.count() if self._tokenised else 0
        return seen, sum(self._tokenised.values()) / max(1, len(self._tokenised))


def cost(num_images: int) -> str:
    """Return what generating the table would take, by a published rate; `generate --dry-run` measures your own."""
    hours, gigabytes = num_images * A100_SECONDS_PER_IMAGE / 3600, num_images * BYTES_PER_IMAGE / 1e9
    return (
        f"about {_round(hours)} A100 hours with Stable Diffusion 1.5 at 50 steps (0.87 s an image, as reported for "
        f"SynthCLIP), {_round(gigabytes)} GB of shards at 256 px"
    )


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def lines(summary: Summary) -> list[str]:
    """Return the lines for the terminal."""
    shown = [f"{name:<16} {printable(text)}" for name, text in summary.facts.items()]
    shown += [f"{'longest' if not n else '':<17}{c:>3}  {printable(t)}" for n, (c, t) in enumerate(summary.longest)]
    shown += [f"{'examples' if not n else '':<17}{e[0]:>9}  {printable(e[2])}" for n, e in enumerate(summary.examples)]
    return shown


def markdown(title: str, summary: Summary) -> str:
    """Return the same as Markdown."""
    facts = "\n".join(f"| {name} | {_cell(text)} |" for name, text in summary.facts.items())
    longest = "\n".join(f"| {count} | {_cell(text)} |" for count, text in summary.longest)
    rows = "\n".join(f"| {index} | {_cell(class_id)} | {_cell(text)} |" for index, class_id, text in summary.examples)
    return (
        f"# {title}\n\n| | |\n|---|---|\n{facts}\n\n| CLIP tokens | longest prompts |\n|---|---|\n{longest}\n\n"
        f"| row | class | prompt |\n|---|---|---|\n{rows}\n"
    )


def _cell(text: str) -> str:
    return markdown_text(printable(text))


def page(title: str, summary: Summary) -> bytes:
    """Return the same as one HTML page."""
    facts = [(_text(name), _text(text)) for name, text in summary.facts.items()]
    longest = [(str(count), _text(text)) for count, text in summary.longest]
    examples = [(str(index), _text(class_id), _text(text)) for index, class_id, text in summary.examples]
    body = (
        table(facts, first="th"),
        f"<h2>{len(examples)} rows, evenly spread</h2>",
        table(examples, ("row", "class", "prompt")),
        "<h2>The longest prompts</h2>",
        table(longest, ("CLIP tokens", "prompt")),
    )
    return page_of(title, body)


def _text(text: str) -> str:
    return html.escape(printable(text))

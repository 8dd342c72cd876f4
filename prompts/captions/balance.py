"""``synclones prompts balance``: keep few captions of frequent concepts and all of rare ones.

In: a file of captions, a concept bank. Out: the kept captions as Parquet, and counts. The way of MetaCLIP (Xu et al.
2023, arXiv 2309.16671, algorithm 1), as SynthCLIP uses it: a caption belongs to each concept whose name occurs in it as
words; a concept that ``count`` captions name keeps each of them with probability min(1, t / count), and a caption stays
when one of its concepts keeps it. Captions without a concept are dropped.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from synclones.base.config import check_ranges
from synclones.base.draws import uniform
from synclones.base.errors import InputError
from synclones.base.resume import typed
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.captions.journal import write_captions
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import check_out

HEAD = 5
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Keep all captions of rare concepts and about t of each frequent one, as MetaCLIP does."""

    captions: Path | None = None
    """File or folder of captions."""
    concepts: str = "wordnet-nouns"
    """Concept bank: class lists by name or file, joined by commas."""
    threshold: int = 20
    """t: captions of a concept up to which all are kept; 10 in SynthCLIP's code, 20,000 in MetaCLIP's 400 M."""
    seed: int = 0
    """Decides which captions stay."""
    bad_captions: Literal["stop", "skip"] = "stop"
    """What an empty or too long caption does: stop, or be left out and counted."""
    wordnet_dir: Path | None = None
    """Folder of a WordNet 3.0 database, for --concepts wordnet-nouns."""
    out: Path = Path("balanced.parquet")
    """File of the kept captions, `*.parquet`."""
    dry_run: bool = False
    """Print the counts and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, threshold=(1, 2**62), seed=(0, 2**63 - 1))
        check_out(self.out)


class ConceptMatcher:
    """A finder of the concepts that occur in a caption as whole words, whatever their case."""

    def __init__(self, names: list[str]):
        self._numbers: dict[tuple[str, ...], int] = {}
        for number, name in enumerate(names):
            if words := tuple(_WORDS.findall(name.lower())):
                self._numbers.setdefault(words, number)  # homonyms share one count
        self._lengths: dict[str, set[int]] = {}
        for words in self._numbers:
            self._lengths.setdefault(words[0], set()).add(len(words))

    def find(self, caption: str) -> list[int]:
        """Return the numbers of the concepts, each once, ascending."""
        words = _WORDS.findall(caption.lower())
        concepts = set()
        for at, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                number = self._numbers.get(tuple(words[at : at + length]))
                if number is not None:
                    concepts.add(number)
        return sorted(concepts)


def balance(config: BalanceConfig) -> None:
    """Count the captions of each concept, choose which to keep, and write them."""
    if config.captions is None:
        raise InputError("--captions: none were given; give a file or folder of captions")
    if config.out.exists() and not config.dry_run:
        raise InputError(f"--out: {config.out} exists; choose another file, or delete it")
    # Counts come before the choice: a concept's probability depends on how many captions name it.
    bank = load_classes(config.concepts, config.wordnet_dir).classes
    file = CaptionFile(config.captions, config.bad_captions)
    matches = _matches(file, ConceptMatcher([info.name for info in bank]))
    keep = kept(matches, len(bank), config.threshold, config.seed)
    before, after = matches.counts(len(bank)), matches.counts(len(bank), keep)
    # The same figures with and without --dry-run, so that a threshold can be chosen before anything is written.
    print(f"{file.num_rows:,} captions, {int(matches.any().sum()):,} name a concept, {int(keep.sum()):,} kept")
    print(f"{int((before > 0).sum()):,} of {len(bank):,} concepts are named, {int((after > 0).sum()):,} afterwards")
    for number in np.argsort(-before, kind="stable")[:HEAD]:
        print(f"  {bank[number].name}: {before[number]:,} captions, {after[number]:,} kept")
    if config.dry_run:
        return
    if not keep.any():
        raise InputError(f"{config.captions}: no caption names a concept of {config.concepts}; give another bank")
    facts = {"captions": file.content_sha256, "seed": config.seed}
    facts |= {"concepts": config.concepts, "threshold": config.threshold, "kept": int(keep.sum())}
    write_captions(config.out, pa.concat_tables(_kept_rows(file, keep)), facts)
    command = ["prompts", "build", "--recipe", "text-file", "--captions", str(config.out), "--out", "p.parquet"]
    print(f"next: {typed(command)}")


@dataclass(frozen=True)
class Matches:
    """Which caption names which concept, as a list of pairs ordered by caption."""

    num_captions: int
    caption: np.ndarray
    """int64[pairs]."""
    concept: np.ndarray
    """int64[pairs]."""

    def any(self) -> np.ndarray:
        """Return whether a caption names any: bool[num_captions]."""
        named = np.zeros(self.num_captions, dtype=bool)
        named[self.caption] = True
        return named

    def counts(self, num_concepts: int, keep: np.ndarray | None = None) -> np.ndarray:
        """Return the captions of each concept, of all or of the kept: int64[num_concepts]."""
        used = self.concept if keep is None else self.concept[keep[self.caption]]
        return np.bincount(used, minlength=num_concepts)


def _matches(file: CaptionFile, matcher: ConceptMatcher) -> Matches:
    captions, concepts = list[np.ndarray](), list[np.ndarray]()
    for first, table in file.blocks():
        matches = [matcher.find(text) for text in table["caption"].to_pylist()]
        sizes = [len(numbers) for numbers in matches]
        captions.append(np.repeat(np.arange(first, first + len(matches)), sizes))
        concepts.append(np.array([number for numbers in matches for number in numbers], dtype=np.int64))
    return Matches(file.num_rows, np.concatenate(captions), np.concatenate(concepts))


def kept(matches: Matches, num_concepts: int, threshold: int, seed: int) -> np.ndarray:
    """Return which captions stay, bool[num_captions]; each pair draws by a hash of seed, caption and concept."""
    probability = np.minimum(1.0, threshold / np.maximum(1, matches.counts(num_concepts)))
    drawn = uniform(seed, matches.caption, matches.concept)
    stays = np.zeros(matches.num_captions, dtype=bool)
    stays[matches.caption[drawn < probability[matches.concept]]] = True
    return stays


def _kept_rows(file: CaptionFile, keep: np.ndarray) -> Iterator[pa.Table]:
    for first, table in file.blocks():
        yield table.filter(pa.array(keep[first : first + len(table)]))

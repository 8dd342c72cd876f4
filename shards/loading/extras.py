"""What a training batch has of its images beside pixels and labels: texts as token ids, captions' numbers, vectors.

In: which of them an objective asks for. Out: arrays that the batch loader fills image by image, in its threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from synclones.base.draws import hash_int
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.loading.parts import Images, MixedSources
from synclones.shards.sources.labelled import LabelledSource

_HAS_CAPTION, _HAS_NONE = 0, 1
_NO_IDS = np.zeros(1, np.int64)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is asked for; nothing by default."""

    tokenize: Callable[[str], tuple[np.ndarray, bool]] | None = None
    """Text -> token ids int64[text_length], and whether its end was cut off; called from several threads."""
    text_length: int = 0
    """Token ids of one text."""
    caption_column: str = ""
    """Side column of the texts; empty for the captions that images were drawn from."""
    token_column: str = ""
    """Side column of the token ids of these texts, taken where a set has it; its ids are those of ``tokenize``."""
    captions: bool = False
    """Whether images are told apart by their caption."""
    array_column: str = ""
    """Side column of vectors, such as a teacher's outputs; empty for none."""
    seed: int = 0
    """Of the choice among several captions of an image."""

    def identity(self, mixed: MixedSources) -> dict[str, list[str]]:
        """Return what the weights depend on besides the sets: the side columns that are read, by content."""
        columns = [name for name in (self.caption_column if self.tokenize else "", self.array_column) if name]
        hashes = {name: [_content(source, name) for part in mixed.parts for source in part.sets] for name in columns}
        return {f"column {name}": of_sets for name, of_sets in hashes.items()}

    def check(self, mixed: MixedSources) -> None:
        """Look at the first image of every set, before a training begins.

        Raises:
            InputError: it has no text where texts are asked for.
            VerificationError: it is damaged.
        """
        for source in (source for part in mixed.parts for source in part.sets):
            if self.tokenize is not None and not source.caption(0, 0, self.seed, self.caption_column):
                of_column = f" in column {self.caption_column}" if self.caption_column else ""
                raise InputError(
                    source.why_no_caption()
                    or f"{source.folder}: its first image has no caption{of_column}; captions come from prompts, .txt "
                    "members of tars, a column caption of a table, a side column named by --caption-column, or, with "
                    "--label-captions, the names of classes"
                )

    def empty(self, mixed: MixedSources, n: int, pin: bool) -> "BatchExtras":
        """Return room for what ``n`` images have."""
        width = array_width(mixed, self.array_column) if self.array_column else 0
        return BatchExtras(
            tokens=torch.zeros((n, self.text_length), dtype=torch.int64, pin_memory=pin) if self.tokenize else None,
            caption=torch.full((n,), -1, dtype=torch.int64) if self.captions else None,
            array=torch.zeros((n, width), pin_memory=pin) if width else None,
        )

    def fill(
        self, batch: "BatchExtras", number: int, source: Images, part: int, position: int, showing: int, where: str
    ) -> bool:
        """Read what image ``number`` of a batch has; return whether its text was cut.

        Raises:
            VerificationError: it is damaged, or the image has no text where texts are asked for.
        """
        cut = False
        if batch.tokens is not None and self.tokenize is not None:
            ids = source.tokens(position, showing, self.seed, self.token_column) if self.token_column else None
            if ids is None or not ids[0]:
                text = source.caption(position, showing, self.seed, self.caption_column)
                ids, cut = self.tokenize(text) if text else (_NO_IDS, False)
            if not ids[0]:  # a text begins with an id of its own
                raise VerificationError(f"{where} has no caption; add captions with a side column, or leave it out")
            batch.tokens[number] = torch.from_numpy(ids.astype(np.int64))
        if batch.caption is not None:
            batch.caption[number] = _caption_number(part, source.caption_id(position), position)
        if batch.array is not None:
            vector = np.asarray(source.array(position, showing, self.array_column), dtype=np.float32)
            if not np.isfinite(vector).all():
                raise VerificationError(f"{where} has no value in column {self.array_column}; annotate the set again")
            batch.array[number] = torch.from_numpy(vector)
        return cut


@dataclass(frozen=True)
class BatchExtras:
    """What the images of a batch have; None for what was not asked for."""

    tokens: torch.Tensor | None = None
    """int64[n, text_length]."""
    caption: torch.Tensor | None = None
    """int64[n]: equal numbers share a caption."""
    array: torch.Tensor | None = None
    """float32[n, k]."""


def _caption_number(part: int, caption_id: int, position: int) -> int:
    """Return a number that only images of the same caption of the same set share."""
    words = (part, _HAS_CAPTION, caption_id) if caption_id >= 0 else (part, _HAS_NONE, position)
    return hash_int(*words) >> 1


def array_width(mixed: MixedSources, column: str) -> int:
    """Return how many numbers the vectors of a side column have in all sets.

    Raises:
        InputError: no such column, no vectors, or of other lengths in another set.
    """
    widths: dict[str, int] = {}
    for source in (source for part in mixed.parts for source in part.sets):
        type = source.columns.column(column).type
        if type.kind != "array":
            raise InputError(f"{source.folder}: column {column} holds {type}, expected vectors; name another column")
        widths[str(source.folder)] = type.shape[-1]
    if len(set(widths.values())) > 1:
        sizes = ", ".join(f"{width} in {folder}" for folder, width in widths.items())
        raise InputError(f"--data: vectors of column {column} differ in length: {sizes}; make them by one model")
    return next(iter(widths.values()))


def _content(source: LabelledSource, column: str) -> str:
    return sha256_bytes(canonical_json(source.columns.column(column).hashes()))

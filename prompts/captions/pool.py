"""Join captions with classes: the label of each caption, and the captions of each class in a shuffled order.

In: a `CaptionFile`, a `ClassList`. Out: labels of rows, and a `CaptionPool` that recipes draw from.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.classes.labels import ClassNumbers, ClassTexts
from synclones.prompts.classes.lists import ClassList
from synclones.prompts.recipe import CAPTION_ORDER, Bound, Columns, Inputs, constant, joined, pick, texts
from synclones.shards.sources.files import plain_text


class Labels:
    """Class texts of a caption file -> labels: an id, a number, or a name that only one class has."""

    def __init__(self, classes: ClassList, numbers: ClassNumbers = "ask"):
        self._texts = ClassTexts(classes, numbers)
        known = self._texts.labels
        self._keys, self._labels = texts(list(known)), np.array(list(known.values()), dtype=np.int32)

    def of(self, where: object, first: int, column: pa.Array) -> np.ndarray:
        """Return int32[n] for the texts of rows ``first`` onwards of ``where``.

        Raises:
            InputError: for the first that is no class, or may be two.
        """
        at = pc.fill_null(pc.index_in(column, self._keys), -1).to_numpy()
        if (at < 0).any():
            row = int(np.argmax(at < 0))
            self._texts.label(f"{where}: row {first + row} (from 0)", column[row].as_py() or "")
        return self._labels[at]


def open_captions(inputs: Inputs) -> CaptionFile:
    """Open the file of ``--captions``.

    Raises:
        InputError: when none was given, or it has no usable caption.
    """
    if inputs.captions is None:
        raise InputError("--captions: this recipe needs a file or folder of captions; see `synclones prompts list`")
    return CaptionFile(inputs.captions, inputs.bad_captions)


def source_of(file: CaptionFile) -> dict[str, str]:
    """Return the file's path and hash, for the table's metadata."""
    return {"captions": f"{plain_text(str(file.path))} {file.content_sha256}"}


class CaptionPool:
    """All captions in memory, grouped by class."""

    def __init__(self, inputs: Inputs):
        """Read all captions and sort them by class.

        Raises:
            InputError: for an unknown class, with its row, or for classes without a caption, by name.
        """
        self.file = open_captions(inputs)
        classes, labels = inputs.classes, Labels(inputs.classes, inputs.class_numbers)
        blocks = [(labels.of(self.file.path, first, table["class"]), table) for first, table in self.file.blocks()]
        label = np.concatenate([block for block, _ in blocks])
        self._counts = np.bincount(label, minlength=len(classes.classes))
        self._refuse_missing(classes)
        self._starts = np.cumsum(self._counts) - self._counts
        self._order = np.lexsort((hash64(inputs.seed, CAPTION_ORDER, np.arange(len(label))), label))
        self._captions, self._keys = (
            pa.chunked_array(
                [table[name].combine_chunks().cast(pa.large_string()) for _, table in blocks]
            ).combine_chunks()
            for name in ("caption", "source_key")
        )

    def _refuse_missing(self, classes: ClassList) -> None:
        missing = [info for info, count in zip(classes.classes, self._counts, strict=True) if not count]
        if missing:
            names = ", ".join(f"{info.name!r} ({info.class_id})" for info in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise InputError(
                f"{self.file.path}: no captions for {len(missing)} of {len(classes.classes)} classes: {names}{more}; "
                "add some, or give --classes without them"
            )

    def bind(self, inputs: Inputs, with_name: bool) -> Bound:
        """Bind caption g to class g mod C: every class goes through its captions in a shuffled order, and again."""
        names = texts([f"{info.name}, " for info in inputs.classes.classes])

        def columns(captions: np.ndarray) -> Columns:
            label, turn = captions % len(names), captions // len(names)
            row = self._order[self._starts[label] + turn % self._counts[label]]
            caption, key = (pick(pool, row).cast(pa.string()) for pool in (self._captions, self._keys))
            prompt = joined(pick(names, label), caption) if with_name else caption
            return Columns(prompt, label.astype(np.int32), row, constant("", len(row)), key)

        return Bound(columns, sources=source_of(self.file), notes=self.file.notes())

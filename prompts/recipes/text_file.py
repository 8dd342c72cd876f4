"""The captions of a file or of foreign shards, one after the other.

Text: caption
Example: two dogs running along a beach at low tide
Paper: SynCLIP of Singh et al. 2024, arXiv 2405.20469 (captions of LAION); Fan et al. 2023, arXiv 2312.04567

`--captions PATH` is txt (a caption a line), CSV, TSV, JSONL or Parquet with a column `caption` or `text`, or a folder
of tars. `source_key` tells which real sample a caption belongs to: it is read from the file, or made of shard and key.
With `--classes` the file's classes become labels; without it rows have none.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError
from synclones.prompts.captions.files import CaptionFile
from synclones.prompts.captions.pool import Labels, open_captions, source_of
from synclones.prompts.recipe import Bound, Columns, Inputs, constant
from synclones.prompts.table import MAX_CHARS

TAKES = ("captions",)
NEEDS_CLASSES = False


def bind(inputs: Inputs) -> Bound:
    """Bind the captions in their order.

    Raises:
        InputError: without captions, for a bad row, or for a class that ``--classes`` lacks.
    """
    file = open_captions(inputs)
    labels = Labels(inputs.classes, inputs.class_numbers) if inputs.classes.classes else None
    if labels is not None:
        for first, table in file.blocks():
            labels.of(file.path, first, table["class"])  # before anything is written

    def columns(captions: np.ndarray) -> Columns:
        table = _rows(file, captions)
        classes = table["class"].combine_chunks()
        numbers = None if labels is None else labels.of(file.path, int(captions[0]), classes)
        return Columns(
            prompt=table["caption"].combine_chunks(),
            label=np.full(len(captions), -1, np.int32) if numbers is None else numbers,
            caption_id=captions,
            detail=constant("", len(captions)),
            source_key=table["source_key"].combine_chunks(),
            class_id=_class_ids(file, captions, classes) if numbers is None else None,
        )

    return Bound(columns, file.num_rows, source_of(file), file.notes())


def _rows(file: CaptionFile, captions: np.ndarray) -> pa.Table:
    first, last = int(captions[0]), int(captions[-1])
    if last - first + 1 == len(captions):
        return file.rows(first, last + 1)
    return pa.concat_tables([file.rows(int(row), int(row) + 1) for row in captions])


def _class_ids(file: CaptionFile, captions: np.ndarray, classes: pa.Array) -> pa.Array:
    long = pc.greater(pc.utf8_length(classes), MAX_CHARS["class_id"])
    if pc.any(long).as_py():
        row = int(captions[pc.index(long, True).as_py()])
        raise InputError(f"{file.path}: row {row} (from 0): its class has over {MAX_CHARS['class_id']} characters")
    return classes

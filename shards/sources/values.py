"""The kinds of values that side columns have, out of whatever a user's file holds: texts, numbers, arrays of one shape.

In: Arrow columns. Out: their kind, and the same values in its Arrow type; nothing is rounded unasked.
"""

from collections.abc import Iterable
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.shards.column_files import ColumnType


def type_of(column: pa.Array) -> ColumnType:
    """Return what the values of a column are; texts that are all numbers, as in CSV, are numbers.

    Raises:
        ValueError: they are nothing that a side column holds.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return type_of(column.dictionary_decode())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return ColumnType("number", "int64")
    if pa.types.is_floating(kind):
        return ColumnType("number", "float64")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ColumnType("text")
    if _is_list(kind):
        inner = kind.value_type
        if pa.types.is_string(inner) or pa.types.is_large_string(inner):
            return ColumnType("texts")
        shape, numbers = _unnested(column.drop_null())
        if not (pa.types.is_floating(numbers.type) or pa.types.is_integer(numbers.type)):
            raise ValueError(f"holds {kind}, expected texts, numbers, or lists of one of them")
        if not all(shape) or not 1 <= len(shape) <= 2:
            raise ValueError(f"holds lists of the shape {list(shape)}, expected [k] or [showings, k]")
        return ColumnType("array", "float16" if pa.types.is_float16(numbers.type) else "float32", shape)
    raise ValueError(f"holds {kind}, expected texts, numbers, or lists of one of them")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _unnested(column: pa.Array) -> tuple[tuple[int, ...], pa.Array]:
    """Return the shape that all lists of a column without nulls have, and their values joined.

    Raises:
        ValueError: they differ in length, or an inner list is null.
    """
    shape: list[int] = []
    while _is_list(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ValueError(f"its lists have {len(lengths)} lengths, expected one; write arrays of one shape")
        shape.append(int(lengths[0]))
        column = column.flatten()
    return tuple(shape), column


def as_values(column: pa.Array, kind: ColumnType) -> pa.Array:
    """Return a column in the Arrow type of a kind, null where it is null.

    Raises:
        ValueError, pa.ArrowException: a value is not of this kind, or not finite.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind.kind != "array":
        values = column.cast(kind.arrow)
        if kind.dtype == "float64" and not pc.all(pc.is_finite(values.drop_null())).as_py():
            raise ValueError("a value is not finite")
        if kind.kind == "texts" and values.drop_null().flatten().null_count:
            raise ValueError("a list holds a null; leave it out")
        return values
    has_value = ~np.asarray(column.is_null())
    shape, numbers = _unnested(column.drop_null()) if has_value.any() else (kind.shape, pa.array([], pa.float32()))
    if shape != kind.shape:
        raise ValueError(f"holds lists of the shapes {list(kind.shape)} and {list(shape)}, expected one")
    return fixed_arrays(numbers.to_numpy(zero_copy_only=False).reshape(-1, *shape), has_value, kind)


def fixed_arrays(values: np.ndarray, has_value: np.ndarray, kind: ColumnType) -> pa.Array:
    """Return arrays [m, ...] as the Arrow array of those n rows that have one, null elsewhere; bool[n] has m true.

    Raises:
        ValueError: a number is not finite, or not in the type's range.
    """
    with np.errstate(over="ignore"):
        numbers = values.reshape(len(values), prod(kind.shape)).astype(kind.dtype)
    if not np.isfinite(numbers).all():
        raise ValueError(f"a number is not finite as {kind.dtype}; choose --dtype float32, or mend the file")
    filled = np.zeros((len(has_value), prod(kind.shape)), kind.dtype)
    filled[has_value] = numbers
    mask = None if has_value.all() else pa.array(~has_value)
    return pa.FixedSizeListArray.from_arrays(pa.array(filled.reshape(-1)), filled.shape[1], mask=mask)


def grouped(positions: np.ndarray, values: pa.Array, rows: int, kind: ColumnType) -> pa.Array:
    """Return one value per image of ``rows``, null for one without: several texts become a list, several arrays rows.

    Args:
        positions: of each value's image, int[m], ascending.
        kind: of the result.

    Raises:
        ValueError: as `fixed_arrays`.
    """
    counts = np.bincount(positions, minlength=rows)
    if kind.kind == "array":
        numbers = values.values.to_numpy(zero_copy_only=False) if len(values) else np.zeros(0, kind.dtype)
        return fixed_arrays(numbers.reshape(-1, *kind.shape), counts > 0, kind)
    if kind.kind == "texts" and pa.types.is_string(values.type):
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(counts == 0))
    at = np.where(counts > 0, np.cumsum(counts) - 1, -1)
    return values.take(pa.array(at, mask=at < 0))


def numbers_in_texts(names: Iterable[str], table: pa.Table) -> pa.Table:
    """Return a table in which columns of ``names`` with nothing but numbers and empty texts are numbers, or null."""
    for name in names:
        texts = pc.if_else(pc.equal(table[name], ""), None, table[name])
        for kind in (pa.int64(), pa.float64()):
            try:
                if texts.null_count < len(texts):
                    table = table.set_column(table.column_names.index(name), name, texts.cast(kind))
                break
            except pa.ArrowInvalid:
                continue
    return table

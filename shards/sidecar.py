"""Reads the Parquet file of a shard, whoever wrote it: columns of the schema whose values are in bounds, or an error.

In: ``train-00000.parquet`` or its bytes, or a file of another schema with such columns. Out: a table. Memory is bounded
before texts are expanded.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclones.shards.schema import MAX_INDEX, MAX_SHARD_ROWS, PARQUET_SCHEMA, STATUSES

_MAX_TEXT_BYTES = 2**28  # of one column
# Lowest and highest value of a number; 2^62 leaves room to add two of them.
_LIMITS = {
    **{"index": (0, MAX_INDEX - 1), "seed": (0, 2**32 - 1), "crc32": (0, 2**32 - 1)},
    **{"label": (-1, 2**31), "nbytes": (0, 2**29), "size": (0, 2**29)},
}


def read_sidecar(
    source: Path | pa.Buffer,
    columns: Sequence[str] | None = None,
    schema: pa.Schema = PARQUET_SCHEMA,
    max_rows: int = MAX_SHARD_ROWS,
) -> pa.Table:
    """Read the Parquet file of a shard, or some of its columns: of the schema, in bounds, safe to read a tar by.

    Checksums of pages are compared where the file has them.

    Raises:
        ValueError: what is wrong with it.
        OSError: it cannot be read.
    """
    try:
        file = pq.ParquetFile(source)
        if not file.schema_arrow.equals(schema):
            raise ValueError("other columns than a sample's")
        if file.metadata.num_rows > max_rows:
            raise ValueError(f"{file.metadata.num_rows} rows, at most {max_rows} are read")
        # A few bytes may stand for the same long text in every row: lengths are known before the texts are.
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
        coded = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=texts, page_checksum_verification=True)
        table = _decoded(coded.read(columns))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, or no such file
        raise ValueError(f"not a parquet file ({' '.join(str(error).split())[:80]})") from None
    check_values(table)
    return table


def number_range(data: pa.Buffer, column: str, schema: pa.Schema = PARQUET_SCHEMA) -> tuple[int, int] | None:
    """Return the lowest and the highest number of a column as the Parquet file notes them, None where it does not.

    Nothing is decoded: this takes a quarter of the time of reading the column.

    Raises:
        ValueError: no Parquet file, or of other columns.
    """
    try:
        file = pq.ParquetFile(data)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a parquet file ({' '.join(str(error).split())[:80]})") from None
    if not file.schema_arrow.equals(schema):
        raise ValueError("other columns than a sample's")
    at, groups = schema.get_field_index(column), range(file.metadata.num_row_groups)
    noted = [file.metadata.row_group(group).column(at).statistics for group in groups]
    if not noted or not all(each is not None and each.has_min_max for each in noted):
        return None
    return min(each.min for each in noted), max(each.max for each in noted)


def _decoded(table: pa.Table) -> pa.Table:
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(number).combine_chunks()
            column.validate(full=True)
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            if (pc.sum(lengths).as_py() or 0) > _MAX_TEXT_BYTES:
                raise ValueError(f"{field.name} holds over {_MAX_TEXT_BYTES} bytes")
            plain = column.dictionary.take(column.indices)
            table = table.set_column(number, pa.field(field.name, plain.type, nullable=False), plain)
    table.validate(full=True)
    return table


def check_values(table: pa.Table) -> None:
    """Refuse rows of samples by whose numbers a tar could not be read, or of an unknown status.

    Raises:
        ValueError: names the column.
    """
    for name in table.column_names:
        if pa.types.is_integer(table.schema.field(name).type) and len(table):
            range_, (low, high) = pc.min_max(table[name]).as_py(), _LIMITS.get(name, (0, 2**62))
            if not low <= range_["min"] <= range_["max"] <= high:
                raise ValueError(f"{name} is not in {low}..{high}")
    if "status" in table.column_names and not pc.all(pc.is_in(table["status"], pa.array(STATUSES))).as_py():
        raise ValueError(f"a status is none of {', '.join(STATUSES)}")

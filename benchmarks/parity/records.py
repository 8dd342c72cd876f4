"""What every training of the parity table reached, in one CSV file: a table may be gathered over nights and machines.

In: the file, results of finished trainings. Out: `Record` rows, sorted; the file is whole at every moment.
"""

import csv
import io
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from synclones.base.files import write_atomic

_WRITING = threading.Lock()


@dataclass(frozen=True, order=True)
class Record:
    """One finished training."""

    data: str
    row: str
    side: str
    """``ours`` or ``peer``."""
    seed: int
    settings: str
    """Hash of what decides the training."""
    start: str
    """Hash of the weights that it begins with, if another row's."""
    accuracy: float
    """Percent of the test images."""
    seconds: int
    date: str
    cpu: str


def read_records(file: Path | None) -> list[Record]:
    """Return all, in the order of the file; none when there is no file yet."""
    if file is None or not file.exists():
        return []
    with file.open(newline="") as lines:
        kinds = {field.name: field.type for field in fields(Record)}
        return [Record(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(lines)]


def add_record(file: Path | None, record: Record) -> None:
    """Put one in its place; threads may do so at once."""
    if file is None:
        return
    with _WRITING:
        records = sorted({*read_records(file), record})
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Record)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in records)
        write_atomic(file, text.getvalue().encode())

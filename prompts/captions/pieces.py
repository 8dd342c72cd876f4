"""Divide the writing of captions among any number of processes: pieces of whole batches, each claimed by a lock.

In: settings, the number of rows, and a function that answers one batch. Out: ``OUT.parts`` beside the file with a
journal per piece, and in the end, from the process that finds all pieces finished, the file itself in one step.
Batches and pieces follow from the inputs alone, so that the file does not depend on who wrote what, nor on kills.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synclones.base import machine
from synclones.base.config import save
from synclones.base.differences import differences
from synclones.base.dry_run import DryRun
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_folder, rename, sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.output import say
from synclones.base.progress import Progress
from synclones.base.resume import CONFIG
from synclones.prompts.captions.journal import (
    EarlierJournal,
    PieceJournal,
    Record,
    caption_facts,
    encode_captions,
    read_piece,
)
from synclones.shards.lock import Claim, claim

FORMAT = 1
SETTINGS, JOINED, PARTS = "settings.json", "joined.parquet", ".parts"
# Pieces small enough to divide a short job, and few enough for a folder.
WISHED_PIECES, MIN_BATCHES, MAX_BATCHES = 256, 4, 64
Answer = Callable[[int, int, list[Record]], tuple[list[Record], int]]
"""(first row, row after the last, records of the piece so far) -> (a record per row, how many a model wrote)."""

Make = Callable[[list[Record]], tuple[pa.Table, Counter[str]]]


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` up to ``stop``, whole batches of them."""

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"piece-{self.number:05d}"


def cut(num_rows: int, batch_size: int) -> list[Piece]:
    """Return the pieces of the work, by its size alone."""
    batches = -(-num_rows // batch_size)
    rows = batch_size * min(max(batches // WISHED_PIECES, MIN_BATCHES), MAX_BATCHES)
    starts = range(0, num_rows, rows)
    return [Piece(number, start, min(start + rows, num_rows)) for number, start in enumerate(starts)]


def refuse_other_file(out: Path) -> None:
    """Refuse, before anything is loaded, an existing file that is none of captions.

    Raises:
        InputError: when ``out`` is such a file.
    """
    if out.exists() and caption_facts(out) is None:
        raise InputError(f"--out: {out} exists; choose another file, or delete it")


class Work:
    """The captions of one file: what is finished of them, what this process does of the rest, and the end."""

    def __init__(self, out: Path, settings: Record, num_rows: int, batch_size: int):
        """Cut the work into pieces; nothing is written.

        Args:
            settings: all that decides the captions, as JSON values.
        """
        self.out, self.folder = out, out.with_name(out.name + PARTS)
        self.settings: Record = {**settings, "batch_size": batch_size, "rows": num_rows}
        self.num_rows, self.batch_size, self.pieces = num_rows, batch_size, cut(num_rows, batch_size)
        self.earlier: dict[str, Record] = {}
        """Captions by key that an earlier version wrote."""
        self._earlier_path = out.with_name(out.name + ".journal")
        self._earlier: EarlierJournal | None = None
        self._id = sha256_bytes(canonical_json(self.settings))

    # ------------------------------------------------------------------ the beginning

    def is_written(self) -> bool:
        """Return whether the file is there already.

        Raises:
            InputError: when it is another file, or was made with other settings.
        """
        if not self.out.exists():
            return False
        facts = caption_facts(self.out) or {}
        facts.pop("counts", None)
        if facts != self.settings:
            changes = differences(facts, self.settings)
            raise InputError(f"--out: {self.out} exists ({changes}); choose another file, or delete it")
        return True

    def check(self) -> int:
        """Compare with what earlier processes left, and return how many rows their finished pieces have.

        Raises:
            InputError: when they had other settings, or are of an earlier version and still run.
        """
        path = self.folder / SETTINGS
        if path.exists():
            self._compare(path)
        self._earlier = EarlierJournal(self._earlier_path, self.settings)
        self.earlier = self._earlier.records
        return self.finished_rows()

    def begin(self, config: Any = None) -> bool:
        """Enter the work folder; return False when the file is complete and nothing is to do.

        ``config``: settings of the command, kept there for `synclones status` until the file is written.

        Raises:
            InputError: as `is_written` and `check`, or when the folder is somebody else's.
        """
        if self.is_written():
            return self._say_complete()
        self.check()
        while not self._enter():  # whoever finished the file took the folder away
            if self.is_written():
                return self._say_complete()
        if self.is_written():
            return self._say_complete()
        if config is not None:
            with contextlib.suppress(FileNotFoundError):  # another process has just finished the file
                save(config, self.folder / CONFIG)
        if self.earlier and machine.rank() == 0:
            count = f"{len(self.earlier)} captions"
            say(f"{self._earlier_path}: {count} of an earlier version are taken over")
        return True

    def _say_complete(self) -> bool:
        self._sweep()  # what a process left that was killed after it had written the file
        if machine.rank() == 0:
            print(f"{self.out}: complete; nothing to do")
        return False

    def _enter(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        try:
            with claim(self.folder, "settings", wait=True) or contextlib.nullcontext():
                # The first process writes them, all others compare.
                if not path.exists():
                    if any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
                        raise InputError(f"{self.folder}: has no {SETTINGS}; choose another --out, or delete it")
                    write_atomic(path, pretty_json({"format": FORMAT, "settings": self.settings}))
        except FileNotFoundError:
            if self.folder.exists() and not self.out.exists():
                raise
            return False
        self._compare(path)
        return True

    def _compare(self, path: Path) -> None:
        try:
            stored = read_json(path)
        except FileNotFoundError:
            return  # the file has just been finished, which comes to light next
        except ValueError as error:
            raise InputError(f"{path}: {error}; choose another --out, or delete {self.folder}") from None
        settings = stored.get("settings") if isinstance(stored, dict) else None
        if not isinstance(settings, dict) or stored.get("format") != FORMAT:
            raise InputError(f"{path}: of another version; finish it with that one, or delete {self.folder}")
        if settings != self.settings:
            changes = differences(settings, self.settings)
            raise InputError(
                f"{self.folder}: begun with other settings: {changes}; give the same, or choose another --out"
            )

    # ------------------------------------------------------------------ the work

    def is_finished(self, piece: Piece) -> bool:
        """Return whether the piece has its final name, which it gets when all of its batches are on the disk."""
        return (self.folder / f"{piece.name}.jsonl").exists()

    def finished_rows(self) -> int:
        """Return the rows of all finished pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces if self.is_finished(piece))

    def divide(self, answer: Answer, unit: str) -> int:
        """Do the pieces that nobody holds, from this process' share on, until a whole round has nothing left for it.

        Return how many rows this process did; ``unit`` is the word for them.
        """
        progress = Progress(unit, self.num_rows, self.finished_rows(), folder=self.folder)
        progress.note(f"batch size {self.batch_size}")
        try:
            self._divide(answer, progress)
            if progress.own:
                progress.report()
        finally:
            progress.close(whole=progress.done >= self.num_rows)
        return progress.own

    def _divide(self, answer: Answer, progress: Progress) -> None:
        turn = len(self.pieces) * machine.rank() // machine.world_size()
        waiting = self.pieces[turn:] + self.pieces[:turn]
        waiting = [piece for piece in waiting if not self.is_finished(piece)]
        helped = True
        while helped and waiting:
            helped, left = False, []
            for piece in waiting:
                if self.is_finished(piece):
                    progress.also_done(piece.stop - piece.start)
                elif self._do(piece, answer, progress):
                    helped = True
                else:
                    left.append(piece)
            waiting = left

    def _do(self, piece: Piece, answer: Answer, progress: Progress) -> bool:
        held = self._claim(piece.name)
        if held is None:
            return False
        with held:
            # Another process may have finished the piece, or the file, between the question and the claim.
            if self.is_finished(piece) or self.out.exists():
                return False
            part = self.folder / f".{piece.name}.part"
            with PieceJournal(part, self._id, piece.number) as journal:
                records = [record for batch in journal.batches for record in batch]
                progress.also_done(len(records))
                for start in range(piece.start + len(records), piece.stop, self.batch_size):
                    batch, made = answer(start, min(start + self.batch_size, piece.stop), records)
                    journal.add(batch)
                    records += batch
                    if made:  # what was known is no speed
                        progress.add(len(batch))
                    else:
                        progress.also_done(len(batch))
            rename(part, self.folder / f"{piece.name}.jsonl")
        return True

    def _claim(self, name: str) -> Claim | None:
        try:
            return claim(self.folder, name)
        except FileNotFoundError:
            if self.out.exists():  # finished by another process, which took the folder away
                return None
            raise

    # ------------------------------------------------------------------ the end

    def finish(self, make: Make) -> tuple[pa.Table, Counter[str]] | None:
        """Write the file when all pieces are finished; return what it holds, or None when others have pieces or write.

        Args:
            make: turns the records of all rows, in order, into (the table, how many captions of each kind it has).

        Raises:
            VerificationError: when a piece is damaged.
        """
        left = [] if self.out.exists() else [piece for piece in self.pieces if not self.is_finished(piece)]
        if left and not self.out.exists():
            holders = ", ".join(sorted({self._holder(piece) for piece in left}))
            count = f"{len(left)} of {len(self.pieces)} pieces are left"
            print(f"{self.out}: this process is done; {count}, held by {holders}; run the same command to go on")
            return None
        # The lock is let go before the folder goes: on some file systems a file in use keeps its folder.
        with self._claim("join") or contextlib.nullcontext() as held:
            made = None
            if held is not None and not self.out.exists():
                table, counts = made = make([record for piece in self.pieces for record in self._read(piece)])
                write_atomic(self.folder / JOINED, encode_captions(table, {**self.settings, "counts": dict(counts)}))
                rename(self.folder / JOINED, self.out)
        if self.out.exists():
            self._sweep()
        if made is None and machine.rank() == 0:
            print(f"{self.out}: this process is done; another one writes the file")
        return made

    def _holder(self, piece: Piece) -> str:
        try:
            return (self.folder / f".{piece.name}.lock").read_text()[:200] or "another process"
        except (OSError, ValueError):
            return "another process"

    def _read(self, piece: Piece) -> list[Record]:
        path = self.folder / f"{piece.name}.jsonl"
        records = [record for batch in read_piece(path, self._id, piece.number) for record in batch]
        if len(records) != piece.stop - piece.start:
            raise VerificationError(f"{path}: damaged; delete this file and run the same command to write it again")
        return records

    def _sweep(self) -> None:
        """Remove the work folder, under its own name at once, and the earlier version's journal."""
        with contextlib.suppress(OSError):  # another process removes it; or looks into it, on some network disks
            remove_folder(self.folder)
        with contextlib.suppress(InputError):  # one of other captions stays
            (self._earlier or EarlierJournal(self._earlier_path, self.settings)).remove()


def say_cost(dry: DryRun, rows: int, measured: tuple[int, float], where: str, price_per_hour: float) -> None:
    """Print rate, time and cost of ``rows`` rows, from one measured batch: (its rows, its seconds)."""
    batch, seconds = measured
    rate = batch / max(seconds, 1e-9)
    dry.rate(rate, "captions", f"per process: one batch of {batch} in {seconds:.2f} s on {where}")
    dry.time(rows / rate, price_per_hour, shared=True)
    dry.print()

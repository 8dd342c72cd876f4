"""What makes a folder of finished shards one dataset: the indexes other readers ask for, and the folder's hash.

In: ``train-*.json`` of complete shards, ``plan.json``. Out: ``info.json`` (timm), ``sizes.json`` (open_clip) and
``SHA256SUMS`` (``sha256sum -c``), all derived, so that writing them twice gives the same bytes.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sha256_file, write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.base.progress import remove_dead_beats
from synclones.shards.lock import claim, remove_locks
from synclones.shards.schema import MAX_INDEX, MAX_SHARDS, SHARD_PATTERN, STATUSES, ShardFiles, shard_name
from synclones.shards.write import is_complete

PLAN, INFO, SIZES, SUMS = "plan.json", "info.json", "sizes.json", "SHA256SUMS"

Summary = dict[str, Any]


def read_plan(folder: Path) -> dict[str, Any]:
    """Read ``plan.json`` of a dataset folder, or an empty dict when there is none.

    Raises:
        VerificationError: it is broken.
    """
    path = Path(folder) / PLAN
    if not path.exists():
        return {}
    try:
        plan = read_json(path)
    except ValueError:
        plan = None
    if not isinstance(plan, dict):
        raise VerificationError(f"{path}: no JSON object; restore the file, or generate into a new folder")
    return plan


def planned_shards(folder: Path) -> int | None:
    """Read ``num_shards`` of plan.json, or None when there is none.

    Raises:
        VerificationError: a number beyond all sets.
    """
    count = read_plan(folder).get("num_shards")
    if type(count) is not int or count < 1:
        return None
    if count > MAX_SHARDS:
        raise VerificationError(f"{Path(folder) / PLAN}: num_shards is above {MAX_SHARDS}; restore the file")
    return count


def read_summary(path: Path) -> Summary:
    """Read a shard's json and check its shape.

    Raises:
        VerificationError: it is missing or broken.
    """
    try:
        # Somebody else may have written it: numbers that add up, hashes that are texts, a name that is one of a shard.
        summary = read_json(path)
        numbers = [summary[k] for k in ("planned", *STATUSES, "first_index", "last_index")]
        sizes = [summary[k]["bytes"] for k in ("tar", "parquet")]
        hashes = [summary[k]["sha256"] for k in ("tar", "parquet")]
        sound = (
            all(type(n) is int and 0 <= n < MAX_INDEX for n in numbers)
            and numbers[0] == sum(numbers[1 : 1 + len(STATUSES)])
            and all(type(n) is int and 0 <= n < 2**63 for n in sizes)
            and all(type(text) is str for text in (summary["plan_id"], *hashes))
            and SHARD_PATTERN.fullmatch(summary["name"]) is not None
            and _are_reasons(summary.get("reasons", {}))
        )
    except FileNotFoundError:
        raise VerificationError(f"{path}: missing; the shard is unfinished, run the same generate command") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise VerificationError(f"{path}: not the json of a shard; delete it and run the same generate command")
    checked: Summary = summary
    return checked


def own_summary(files: ShardFiles) -> Summary:
    """Read a shard's json, which must describe the shard it is named after.

    Raises:
        VerificationError: it is missing or broken, or describes another shard.
    """
    summary = read_summary(files.json)
    if summary["name"] != files.name:
        raise VerificationError(f"{files.json}: describes {summary['name']}; files were renamed or swapped")
    return summary


def _are_reasons(value: Any) -> bool:
    """Whether this is status -> reason -> count."""
    return isinstance(value, dict) and all(
        isinstance(counts, dict) and all(type(count) is int for count in counts.values()) for counts in value.values()
    )


def shard_names(folder: Path, split: str) -> list[str]:
    """List the shards of a split that have a json, by number."""
    names = [path.stem for path in Path(folder).glob(f"{split}-*.json") if SHARD_PATTERN.fullmatch(path.stem)]
    return sorted(names, key=lambda name: int(name.removeprefix(f"{split}-")))


def present_split(folder: Path) -> str:
    """Return the split of a folder: its plan's, else ``test`` or ``val`` when it has such shards, else ``train``."""
    with contextlib.suppress(VerificationError):  # of a broken plan, which whoever needs it tells of
        if (planned := read_plan(folder).get("split")) in ("train", "test", "val"):
            return str(planned)
    return next((split for split in ("test", "val") if shard_names(folder, split)), "train")


def expected_names(folder: Path, split: str) -> list[str]:
    """List the shards a folder should hold: by plan.json's ``num_shards``, else info.json, else those present."""
    count = planned_shards(folder)
    if count is not None:
        return [shard_name(split, number, count) for number in range(count)]
    listed = _listed_in_info(Path(folder) / INFO, split)
    return listed if listed else shard_names(folder, split)


def _listed_in_info(path: Path, split: str) -> list[str]:
    try:
        filenames = read_json(path)["splits"][split]["filenames"]
        names = [str(name).removesuffix(".tar") for name in filenames]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if SHARD_PATTERN.fullmatch(name)]


def index_files(summaries: list[Summary], split: str) -> dict[str, bytes]:
    """Make info.json and sizes.json (name -> bytes) from the shards' jsons. Lengths count stored samples."""
    lengths = {f"{summary['name']}.tar": summary["ok"] for summary in summaries}
    info = {
        "name": split,
        "num_samples": sum(lengths.values()),
        "filenames": list(lengths),
        "shard_lengths": list(lengths.values()),
    }
    return {INFO: pretty_json({"splits": {split: info}}), SIZES: pretty_json(lengths)}


def checksums(hashes: dict[str, str]) -> bytes:
    """Return the bytes of SHA256SUMS for name -> sha256, sorted by name, as ``sha256sum -c`` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())).encode()


def finish_folder(folder: Path, split: str | None = None, extra_files: Iterable[str] = ()) -> str:
    """Write info.json, sizes.json and SHA256SUMS, clean up, and return the folder's content hash.

    ``split``: read from the folder by default. ``extra_files``: further names in the folder that belong to its
    identity. Any number of processes may call this.

    Raises:
        InputError: a shard is missing or unfinished.
    """
    folder = Path(folder)
    split = split or present_split(folder)
    names = _complete_names(folder, split)
    held = claim(folder, "folder", wait=True)
    assert held is not None, "a claim that waits is always granted"
    with held:
        for name, data in derived_files(folder, names, split, extra_files).items():
            write_atomic(folder / name, data)
        _remove_leftovers(folder, names)
    remove_locks(folder)
    remove_dead_beats(folder)
    return content_hash(folder)


def derived_files(folder: Path, names: list[str], split: str, extra_files: Iterable[str] = ()) -> dict[str, bytes]:
    """Make info.json, sizes.json and, last, SHA256SUMS (name -> bytes) from plan.json and complete shards' jsons.

    Raises:
        VerificationError: a shard's json is missing or broken.
    """
    summaries = [own_summary(ShardFiles(folder, name)) for name in names]
    derived = index_files(summaries, split)
    hashes = {name: sha256_file(folder / name) for name in (PLAN, *extra_files) if (folder / name).is_file()}
    hashes |= {name: sha256_bytes(data) for name, data in derived.items()}
    for summary in summaries:
        hashes |= _shard_hashes(folder, summary)
    return {**derived, SUMS: checksums(hashes)}


def _complete_names(folder: Path, split: str) -> list[str]:
    count = planned_shards(folder)
    present = shard_names(folder, split)
    names = present if count is None else [shard_name(split, number, count) for number in range(count)]
    names = names or [shard_name(split, 0, 1)]
    missing = [name for name in names if not is_complete(folder, name)]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(names)} shards are unfinished, the first is {missing[0]}; "
            "run the same generate command to finish them"
        )
    return names


def _shard_hashes(folder: Path, summary: Summary) -> dict[str, str]:
    name = summary["name"]
    return {
        f"{name}.tar": summary["tar"]["sha256"],
        f"{name}.parquet": summary["parquet"]["sha256"],
        f"{name}.json": sha256_file(folder / f"{name}.json"),
    }


def _remove_leftovers(folder: Path, names: list[str]) -> None:
    """What kills left beside complete shards: a journal after its json, the temporary files of atomic writes."""
    for name in names:
        files = ShardFiles(folder, name)
        files.journal.unlink(missing_ok=True)
        files.part.unlink(missing_ok=True)
    remove_dead_temporaries(folder)


def identity_files(folder: Path) -> list[Path]:
    """List the files whose bytes are promised, as SHA256SUMS does, and SHA256SUMS itself, sorted by name.

    Raises:
        VerificationError: SHA256SUMS is missing or broken.
    """
    folder = Path(folder)
    return sorted(folder / name for name in [*read_checksums(folder), SUMS])


def read_checksums(folder: Path) -> dict[str, str]:
    """Read SHA256SUMS: name -> sha256.

    Raises:
        VerificationError: it is missing, or a line is not one of ours.
    """
    path = Path(folder) / SUMS
    if not path.is_file():
        raise VerificationError(f"{path}: missing; the folder is unfinished, run the same generate command")
    hashes: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        plain = bool(name) and "/" not in name and not name.startswith(".") and name not in hashes
        if not (separator and plain and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
            raise VerificationError(f"{path}:{number}: no line of `sha256sum`; run the same generate command")
        hashes[name] = digest
    return hashes


def content_hash(folder: Path) -> str:
    """Return the identity of a finished folder: the sha256 of its SHA256SUMS.

    Raises:
        VerificationError: there is none.
    """
    path = Path(folder) / SUMS
    if not path.is_file():
        raise VerificationError(f"{path}: missing; the folder is unfinished, run the same generate command")
    return sha256_file(path)

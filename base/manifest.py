"""Says what produced a folder, and follows it back: every output folder has a ``manifest.json`` that names its parents.

In: stage, resolved config, parents, counts, times. Out: ``manifest.json``; `trace` prints the chain down to prompts,
`lineage` gives the hashes in it.
"""

import subprocess
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, one_line
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, parse_json, pretty_json, read_json

MANIFEST_FILE = "manifest.json"
CHECKOUT = Path(__file__).resolve().parent.parent
SCHEMA_VERSION = 1
MAX_GENERATIONS = 20
MAX_FOLDERS = 200
LIBRARIES = (
    *("synclones", "torch", "torchvision", "diffusers", "transformers", "tokenizers", "accelerate", "timm"),
    *("open_clip_torch", "webdataset", "numpy", "pyarrow", "pillow", "simplejpeg", "safetensors", "scikit-learn"),
    "peft",
)


@dataclass(frozen=True)
class Parent:
    """Something a folder was made from: a name for people, where it was, and the hash of its content."""

    name: str
    path: str
    content_hash: str


def versions() -> dict[str, str]:
    """Installed versions of ``LIBRARIES``, read without importing any of them; absent ones are left out."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def write_manifest(
    folder: Path,
    stage: str,
    config: dict[str, Any],
    parents: list[Parent],
    counts: dict[str, Any],
    times: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write ``folder/manifest.json``; ``extra`` may hold the folder's own ``content_hash``, which children name.

    One that says the same but for times is left as it is: it tells when the folder was made, not when it was looked at.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "config": config,
        "parents": [asdict(parent) for parent in parents],
        "counts": counts,
        "times": times,
        "versions": versions(),
        "import_path": str(CHECKOUT),
        "git_commit": _git_commit(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    record |= extra or {}
    try:
        earlier = read_json(folder / MANIFEST_FILE)
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict) or _timeless(earlier) != _timeless(parse_json(canonical_json(record))):
        write_atomic(folder / MANIFEST_FILE, pretty_json(record))


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("times", "written")}


def _git_commit() -> str:
    """Commit of the checkout that runs, with ``+changes`` when it differs from it; empty outside a checkout."""
    if not (CHECKOUT / ".git").exists():
        return ""
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(CHECKOUT), *command], capture_output=True, text=True, timeout=10
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head + ("+changes" if changes else "")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        InputError: when it has none, or one that cannot be read.
    """
    path = Path(folder) / MANIFEST_FILE
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{folder}: no {MANIFEST_FILE}; give a folder that a synclones command finished") from None
    except (ValueError, NotADirectoryError):
        record = None
    if not _is_manifest(record):
        raise InputError(f"{path}: not a manifest; give a folder that a synclones command finished")
    known: dict[str, Any] = record
    return known


def _is_manifest(record: Any) -> bool:
    """Whether what every manifest has is there and of its type, and the rest too where it is there."""
    if not isinstance(record, dict) or not isinstance(record.get("stage"), str):
        return False
    names = set(Parent.__dataclass_fields__)
    parents = record.get("parents", [])
    kinds = isinstance(record.get("counts", {}), dict) and isinstance(parents, list)
    return kinds and all(
        isinstance(parent, dict) and set(parent) == names and all(isinstance(text, str) for text in parent.values())
        for parent in parents
    )


def lineage(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return all that a folder was made from, as far as manifests lie here: content hash -> the way to it.

    The way is the paths from the folder's own parent to what has the hash, as manifests write them. A folder that is
    another by now than its child's manifest says is not looked into, nor one whose manifest cannot be read.
    """
    ways: dict[str, tuple[str, ...]] = {}
    waiting: list[tuple[Path, tuple[str, ...]]] = [(Path(folder), ())]
    # Nearest first; each hash is followed once, so manifests that name each other end.
    while waiting:
        child, way = waiting.pop(0)
        for parent in _stated_parents(child):
            if not parent.content_hash or parent.content_hash in ways:
                continue
            ways[parent.content_hash] = (*way, parent.path)
            source = find_parent(child, parent.path)
            if source is not None and _content_hash(source) == parent.content_hash and len(way) < MAX_GENERATIONS:
                waiting.append((source, ways[parent.content_hash]))
    return ways


def _stated_parents(folder: Path) -> list[Parent]:
    try:
        return [Parent(**parent) for parent in read_manifest(folder).get("parents", [])]
    except (InputError, OSError):
        return []


def _content_hash(folder: Path) -> str:
    try:
        return str(read_manifest(folder).get("content_hash") or "")
    except (InputError, OSError):
        return ""


def trace(folder: Path) -> str:
    """Return the chain from a folder down to its prompts, one indented line each; what changed since is noted."""
    return "\n".join(map(one_line, _trace(Path(folder), read_manifest(folder), [], set())))


def trace_tree(folder: Path) -> dict[str, Any]:
    """Return the chain from a folder down to its prompts as nested JSON values.

    Each has ``stage`` (or ``name`` for what is no folder of ours), ``path``, ``content_hash`` as its child stated it,
    ``counts``, ``written``, ``parents``; ``found`` says whether it lies here, ``changed`` whether it is another by now.
    """
    return _tree(Path(folder), read_manifest(folder), ())


def _tree(folder: Path, record: dict[str, Any], above: tuple[Path, ...]) -> dict[str, Any]:
    own = folder.resolve()
    facts = {name: record.get(name) for name in ("stage", "content_hash", "counts", "written")}
    looks_further = own not in above and len(above) < MAX_GENERATIONS
    parents = [Parent(**parent) for parent in record.get("parents", [])] if looks_further else []
    return {**facts, "path": str(folder), "parents": [_tree_parent(folder, one, (*above, own)) for one in parents]}


def _tree_parent(child: Path, parent: Parent, above: tuple[Path, ...]) -> dict[str, Any]:
    stated = {"name": parent.name, "path": parent.path, "content_hash": parent.content_hash}
    source = find_parent(child, parent.path)
    if source is None:
        return {**stated, "found": False, "parents": []}
    if (source / MANIFEST_FILE).is_file():
        record = read_manifest(source)
        tree, now = _tree(source, record, above), str(record.get("content_hash") or "")
    else:
        facts = _table_facts(source) if source.suffix == ".parquet" and source.is_file() else {}
        shown: dict[str, Any] = {key: facts[key] for key in ("recipe", "classes", "num_rows", "seed") if key in facts}
        tree, now = {"parents": [], **shown}, str(facts.get("content_sha256", parent.content_hash))
    return {**tree, **stated, "found": True, "changed": now != parent.content_hash}


def _trace(folder: Path, record: dict[str, Any], children: list[Path], shown: set[Path]) -> list[str]:
    """Return the lines of a folder and its parents.

    Args:
        children: the folders from the first one down to this one's child, which was made from it.
        shown: folders whose parents stand further up already; without it a folder that names itself twice would
            double the lines with every generation.
    """
    depth, own = len(children), folder.resolve()
    counts = ", ".join(f"{value} {name}" for name, value in record.get("counts", {}).items())
    content = str(record.get("content_hash") or "unhashed")[:16]
    lines = [f"{'  ' * depth}{record['stage']} {folder}  {content}  {counts}  {record.get('written', 'undated')}"]
    parents = record.get("parents", [])
    if own in children or (own in shown and parents):
        why = "the manifests name each other" if own in children else "its parents are above"
        return [f"{lines[0]}  ({why})"]
    shown.add(own)
    for parent in parents:
        lines += _trace_parent(folder, Parent(**parent), [*children, own], shown)
    return lines


def _trace_parent(child: Path, parent: Parent, children: list[Path], shown: set[Path]) -> list[str]:
    depth = len(children)
    own = f"{'  ' * depth}{parent.name} {parent.path}  {parent.content_hash[:16]}"
    source = find_parent(child, parent.path)
    if source is None:
        return [f"{own}  (not found here)"]
    if depth > MAX_GENERATIONS:
        return [f"{own}  (more than {MAX_GENERATIONS} generations)"]
    if (source / MANIFEST_FILE).is_file():
        record = read_manifest(source)
        lines, now = _trace(source, record, children, shown), str(record.get("content_hash") or "")
    else:
        facts = _table_facts(source) if source.suffix == ".parquet" and source.is_file() else {}
        about = ", ".join(f"{key} {facts[key]}" for key in ("recipe", "classes", "num_rows", "seed") if key in facts)
        lines, now = [f"{own}  {about}".rstrip()], facts.get("content_sha256", parent.content_hash)
        lines += _trace_maker(source, parent.content_hash, children, shown)
    if now != parent.content_hash:
        then, today = (str(digest)[:16] or "unhashed" for digest in (parent.content_hash, now))
        note = f"(changed since: it was {then} then, it is {today} now)"
        lines.insert(1, f"{'  ' * (depth + 1)}{note}")
    return lines


def _trace_maker(file: Path, content_hash: str, children: list[Path], shown: set[Path]) -> list[str]:
    """Return the lines of the folder that a file was made in, where its manifest names the file by that hash."""
    if not (file.parent / MANIFEST_FILE).is_file():
        return []
    record = read_manifest(file.parent)
    files = record.get("files")
    if not isinstance(files, dict) or files.get(file.name) != content_hash:
        return []
    return _trace(file.parent, record, [*children, file.resolve()], shown)


def find_parent(child: Path, path: str) -> Path | None:
    """Return where a recorded path lies: as it stands, then from the child upwards, for a tree may have moved."""
    candidates = [Path(path), *(base / path for base in (child.resolve(), *child.resolve().parents))]
    return next((candidate for candidate in candidates if _is_there(candidate)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that is closed to us, or no name that a file can have
        return False


def names_of_classes(folder: Path) -> dict[str, str]:
    """Return class id -> name, by the first table of prompts behind a folder that says so; nothing where none does."""
    waiting, seen = [Path(folder)], set[Path]()
    while waiting and len(seen) < MAX_FOLDERS:
        child = waiting.pop(0)
        if child.resolve() in seen:
            continue
        seen.add(child.resolve())
        if child.suffix == ".parquet" and child.is_file():
            names = _table_facts(child).get("class_names")
            if isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values()):
                return names
        else:
            parents = (find_parent(child, parent.path) for parent in _stated_parents(child))
            waiting += [parent for parent in parents if parent is not None]
    return {}


def _table_facts(path: Path) -> dict[str, Any]:
    """What a prompt table says of itself in its metadata; nothing for a table that somebody else wrote."""
    import pyarrow
    import pyarrow.parquet

    try:
        facts = parse_json((pyarrow.parquet.read_metadata(path).metadata or {})[b"synclones"])
    except (KeyError, ValueError, OSError, pyarrow.ArrowException):
        return {}
    return facts if isinstance(facts, dict) else {}

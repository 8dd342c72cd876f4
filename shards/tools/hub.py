"""Uploads a finished dataset folder as a dataset repository of the Hugging Face Hub.

In: a folder whose every byte agrees with its hashes, ``OWNER/NAME``. Out: the repository, private unless asked. The
upload is huggingface_hub's own, which goes on where a killed one was; the token is the one of ``hf auth login``.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.resume import typed
from synclones.shards.index import identity_files
from synclones.shards.lock import claim, remove_locks
from synclones.shards.schema import SHARD_PATTERN
from synclones.shards.sources.hub_files import hub_errors, words_of
from synclones.shards.stores.store import refuse_store
from synclones.shards.verify import verify

CARD = "README.md"
BESIDE = ("config.yaml", "croissant.json", "preview.html", CARD, MANIFEST_FILE)  # nothing else leaves this disk
_IN_PUBLIC = "upload the finished set with `synclones shards push FOLDER {} --public`"


def check_repository(name: str, public: bool = False) -> frozenset[str]:
    """Ask the hub for a dataset repository that a set may go to; return the names of the files it has already.

    Raises:
        InputError: no such name, no valid token, offline mode, or a repository that is private and should be public, or
            the other way round.
        MachineError: the hub does not answer.
    """
    from huggingface_hub import HfApi, get_token, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        sound = name.count("/") == 1
    except HFValidationError:
        sound = False
    if not sound:
        raise InputError(f"{name!r}: no name of a repository; give OWNER/NAME of letters, digits and -_.")
    if is_offline_mode():
        raise InputError(f"{name}: HF_HUB_OFFLINE is set; unset it to upload, or leave the upload for later")
    if get_token() is None:
        raise InputError(f"{name}: no token for the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN")
    with hub_errors(name, "run the same command again"):
        try:
            info = HfApi(token=True, library_name="synclones").dataset_info(name)
        except RepositoryNotFoundError:
            return frozenset()  # it will be made
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise InputError(f"{name}: {words_of(error)}; check the token with `hf auth whoami`") from None
            raise
    if bool(info.private) == public:
        access, wish = (
            ("private", "change that on its settings page") if public else ("public", _IN_PUBLIC.format(name))
        )
        raise InputError(f"{name}: exists and is {access}; {wish}, or choose another name")
    return frozenset(file.rfilename for file in info.siblings or [])


def refuse_other_shards(name: str, present: Iterable[str], shards: Iterable[str]) -> None:
    """Refuse a repository with shards that are not among those of the set: readers would mix the two.

    Raises:
        InputError: it holds one.
    """
    own = set(shards)
    others = sorted(file for file in present if SHARD_PATTERN.fullmatch(Path(file).stem) and Path(file).stem not in own)
    if others:
        raise InputError(f"{name}: holds {others[0]}, which is not of this set; choose another name")


def push(folder: Path, name: str, public: bool = False) -> str:
    """Verify a folder and upload it; the URL. Safe to repeat: what is there already is not sent again.

    Shards go first and the rest follows, so that a new repository with a manifest is whole. Journals, locks, logs and
    files that are not the set's stay here.

    Raises:
        InputError: as `check_repository`; an unfinished folder; a repository with shards that are not the set's.
        VerificationError: the folder is damaged.
        MachineError: the hub or the network failed; the folder is as it was.
    """
    from huggingface_hub import HfApi

    refuse_store(folder)
    present = check_repository(name, public)
    shards, others = _files(folder)
    refuse_other_shards(name, present, (Path(shard).stem for shard in shards))
    words = ["shards", "push", str(folder), name, *(["--public"] if public else [])]
    again = f"the folder is whole; repeat with `{typed(words)}`"
    with hub_errors(name, again):
        api = HfApi(token=True, library_name="synclones")
        url = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        for names, what in ((shards, "shards"), (others, "card, indexes and manifest")):
            with _only(folder, names) as chosen:
                api.upload_folder(repo_id=name, repo_type="dataset", folder_path=chosen, commit_message=f"Add {what}")
    return str(url)


def push_once(folder: Path, name: str) -> str | None:
    """Upload as `push` does, or return None while another process of the same job does it."""
    held = claim(folder, "hub")
    if held is None:
        return None
    try:
        with held:
            return push(folder, name)
    finally:
        remove_locks(folder)


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the shards' files, and of the rest, of a folder that is finished and sound."""
    read_manifest(folder)
    if not (folder / CARD).is_file():
        raise InputError(f"{folder}: no {CARD}, without which the hub cannot show the set; give a generated folder")
    verify(folder)
    identity = [path.name for path in identity_files(folder)]
    shards = [name for name in identity if SHARD_PATTERN.fullmatch(Path(name).stem)]
    return shards, [*(name for name in identity if name not in shards), *(n for n in BESIDE if (folder / n).is_file())]


@contextmanager
def _only(folder: Path, names: list[str]) -> Iterator[Path]:
    """A folder of links to these files: the client compares every file with every pattern, too slow for many shards."""
    with tempfile.TemporaryDirectory(prefix="synclones-") as temporary:
        for name in names:
            (Path(temporary) / name).symlink_to((folder / name).resolve())
        yield Path(temporary)

"""The files of a dataset repository of the Hugging Face Hub, at one commit.

In: ``hf://[datasets/]OWNER/NAME[@revision][/path]``. Out: `RemoteFiles`; the revision is resolved once, so that all
files are of one commit. The token is the one of ``hf auth login``, or ``HF_TOKEN``. With ``HF_HUB_OFFLINE`` set the
commit is that of the last start without it, and nothing is asked of the hub: what is not on this disk is refused.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from synclones.base.errors import InputError, MachineError, SynclonesError
from synclones.base.files import sha256_bytes
from synclones.shards.index import SUMS
from synclones.shards.sources.class_lists import CLASS_LIST
from synclones.shards.sources.hub_memory import HubMemory
from synclones.shards.sources.remote import RemoteFile, RemoteFiles
from synclones.shards.stores.store import Missing

CLIENTS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3", "hf_xet"}
_URL = re.compile(
    r"hf://(?:datasets/)?(?!(?:datasets|models|spaces)/)(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^/@?#]+))?(?:/(?P<path>[^@?#]+))?"
)
_SMALL_AT_ONCE = 8
_KEPT = (SUMS, CLASS_LIST)  # what every start asks for; all else lies in the cache under the hash that it states
_UNSET = "unset it, or copy the set to this disk"


class HubFiles(RemoteFiles):
    """A dataset repository, or a folder of one.

    Attributes:
        repository: ``OWNER/NAME``.
    """

    def __init__(self, url: str, cache: Path | None = None):
        """Ask the hub for the commit, or with HF_HUB_OFFLINE this disk.

        ``cache``: folder of the caches of all sets; without it nothing is known offline.

        Raises:
            InputError: no such URL or repository, no right to read it, or one that is not known offline.
            MachineError: the hub does not answer.
        """
        match = _URL.fullmatch(url.rstrip("/"))
        if match is None or ".." in url.split("/"):
            raise InputError(
                f"{url[:200]}: expected hf://datasets/OWNER/NAME, with @revision or /path behind it or not"
            )
        self.url, self.repository = url.rstrip("/"), f"{match['owner']}/{match['name']}"
        self._below = f"{match['path'].strip('/')}/" if match["path"] else ""
        import huggingface_hub.constants

        self._memory = HubMemory(cache and cache / sha256_bytes(self.url.encode())[:16])
        self._is_offline = huggingface_hub.constants.HF_HUB_OFFLINE
        if not self._is_offline:
            self.revision, self._files = self._asked(match["revision"])
            self._memory.keep(self.revision, self._files)
            return
        known = self._memory.listing()
        if known is None:
            raise InputError(f"{self.url}: HF_HUB_OFFLINE is set and the set was never read here; {_UNSET}")
        self.revision, self._files = known

    def _asked(self, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
        """Return the commit of a revision and its files below the URL."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        with hub_errors(self.url, "run the same command again"):
            try:
                info = HfApi(library_name="synclones").dataset_info(
                    self.repository, revision=revision, files_metadata=True
                )
            except HfHubHTTPError as error:
                if error.response.status_code in (401, 403, 404):
                    step = "check owner, name, revision and `hf auth whoami`"
                    raise InputError(f"{self.url}: {words_of(error)}; {step}") from None
                raise
        files = {}
        for file in info.siblings or []:
            name = file.rfilename.removeprefix(self._below)
            if file.rfilename.startswith(self._below) and file.size is not None:
                sha256 = str(file.lfs.sha256) if file.lfs else ""
                files[name] = RemoteFile(name, int(file.size), sha256, str(file.blob_id or ""))
        return str(info.sha), files

    def listing(self) -> dict[str, RemoteFile]:
        return dict(self._files)

    def read_small(self, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
        wanted = list(names)
        for name in wanted:
            if name not in self._files:
                raise Missing(f"{self.url}/{name}: is not there")
        small = [name for name in wanted if self._files[name].size <= max_bytes]

        def read(name: str) -> bytes:
            kept = self._memory.small(self._files[name]) if self._is_offline and name in _KEPT else None
            if kept is not None:
                return kept
            with tempfile.TemporaryDirectory(prefix="synclones-") as temporary:
                return self.fetch(self._files[name], Path(temporary)).read_bytes()

        with ThreadPoolExecutor(_SMALL_AT_ONCE, thread_name_prefix="hub") as pool:
            contents = dict(zip(small, pool.map(read, small), strict=True))
        for name in set(_KEPT) & set(contents):
            self._memory.keep_small(self._files[name], contents[name])
        return {name: contents.get(name, b"\0" * (max_bytes + 1)) for name in wanted}

    def fetch(self, file: RemoteFile, folder: Path) -> Path:
        if self._is_offline:
            raise InputError(
                f"{self.url}/{file.name}: HF_HUB_OFFLINE is set and the file is not in the cache; {_UNSET}"
            )
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        with hub_errors(f"{self.url}/{file.name}", "run the same command again"):
            try:
                path = hf_hub_download(
                    self.repository,
                    f"{self._below}{file.name}",
                    repo_type="dataset",
                    revision=self.revision,
                    local_dir=folder,
                    library_name="synclones",
                )
            except EntryNotFoundError:
                raise self.changed(file, "is gone") from None
        return Path(path)


@contextmanager
def hub_errors(name: str, then: str) -> Iterator[None]:
    """Raise one line in place of what the client raises within the context; errors of this disk stay what they are."""
    try:
        yield
    except SynclonesError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and _module(error) == "builtins" and error.filename:
            raise
        if not (isinstance(error, (OSError, ValueError, RuntimeError)) or _module(error) in CLIENTS):
            raise
        raise MachineError(f"{name}: {words_of(error)}; {then}") from None


def _module(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def words_of(error: Exception) -> str:
    """Return an error's words as one line."""
    return " ".join(str(error).split()) or type(error).__name__

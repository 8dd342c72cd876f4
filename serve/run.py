"""Shows sets, training runs and results in a web browser, and changes nothing.

In: folders. Out: pages at http://127.0.0.1:8765 until Ctrl-C.

    synclones serve data/x runs/x results/x
"""

import re
import socket
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from synclones.base.config import check_ranges
from synclones.base.errors import InputError
from synclones.base.process import run_main
from synclones.base.stage import Stage, Verb

OWN_NAMES = ("127.0.0.1", "localhost", "::1", "[::1]")
HOST_NAME = re.compile(
    r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?"
)  # no wildcard: it would let all through
EVERYWHERE = ("0.0.0.0", "::", "")
LIBRARIES = ("starlette", "uvicorn")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Show sets, training runs and results in a web browser; nothing is written."""

    folders: tuple[Path, ...] = field(default=(), kw_only=False)
    """Sets, runs, results, or folders with some of them; by default data, runs and results here."""
    host: str = "127.0.0.1"
    """Address to listen at; by default this machine alone can connect."""
    port: int = 8765
    """Port to listen at; 0 for any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which browsers reach this server; requests for other names are refused."""

    def __post_init__(self) -> None:
        check_ranges(self, port=(0, 65535))
        for name in self.allowed_hosts:
            if not HOST_NAME.fullmatch(name):
                raise InputError(f"--allowed-hosts: {name!r} was given, expected a name or an address without a port")


def main(argv: list[str]) -> None:
    """Serve folders."""
    STAGE.main(argv)


def serve(config: ServeConfig) -> None:
    """Answer requests until a signal ends it.

    Raises:
        InputError: there is nothing to show, a library is missing, or the port is taken.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise InputError(f"synclones serve: {missing[0]} is not installed; run: pip install 'synclones[serve]'")

    import uvicorn

    from synclones.serve.app import make_app
    from synclones.serve.folders import Folders

    folders = Folders(config.folders)
    listening = _listen(config.host, config.port)
    app = make_app(folders, (*OWN_NAMES, *_names_of(config.host), *config.allowed_hosts))
    options = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=1
    )
    count = len(folders.all())
    print(f"{_address(config.host, listening)}  {count} folder{'' if count == 1 else 's'}; Ctrl-C ends it", flush=True)
    if config.host not in OWN_NAMES:
        print(
            "whoever reaches this machine over the network can look at these folders; further names that browsers know "
            "it by are given with --allowed-hosts",
            file=sys.stderr,
        )
    try:
        uvicorn.Server(options).run(sockets=[listening])
    except KeyboardInterrupt:  # how it is meant to end
        print("ended", file=sys.stderr)


def _names_of(host: str) -> list[str]:
    return [] if host in EVERYWHERE else [host, f"[{host}]"] if ":" in host else [host]


def _listen(host: str, port: int) -> socket.socket:
    try:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=kind)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # behind it the address stands once more
        raise InputError(f"--host {host} --port {port}: {reason}; give another, or --port 0 for any free one") from None


def _address(host: str, listening: socket.socket) -> str:
    shown = "127.0.0.1" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


STAGE = Stage(
    name="serve",
    phrase="Show sets, training runs and results in a web browser; nothing is written.",
    verbs={"run": Verb(ServeConfig, serve)},
    examples=(
        "synclones serve",
        "synclones serve data/x runs/a runs/b results/x",
        "synclones serve /scratch/me --port 0",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))

"""The browser as an application: which address shows what, and what is refused whoever asks.

In: `Folders` and the names under which the server may be addressed. Out: a Starlette application that only reads. A
request names a folder, and is answered when that is one of those looked at; no path is ever made from an address.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synclones.base.errors import InputError, SynclonesError, VerificationError, as_synclones_error
from synclones.serve.dataset import Dataset, Datasets
from synclones.serve.folders import RESULTS, RUN, SET, Folder, Folders, NotServed
from synclones.serve.pages.frame import Shown, problem_page
from synclones.serve.pages.home import home_page
from synclones.serve.pages.image import image_page
from synclones.serve.pages.images import classes_page, images_page, whole_number
from synclones.serve.pages.results import report, results_page
from synclones.serve.pages.runs import runs_page
from synclones.shards.schema import MAX_INDEX

THREADS = 4  # requests that are worked on at once: each may hold some shards' rows
HEADERS = {
    # No script runs, whatever a prompt or a report says, and no other site shows or reads what is here.
    "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


class Browser:
    """What is shown at which address."""

    def __init__(self, folders: Folders):
        self._folders, self._datasets = folders, Datasets()

    def pages(self) -> dict[str, Callable[[Request], Response]]:
        """Return address -> what answers it."""
        return {
            "/": self.home,
            "/images": self.images,
            "/image": self.image,
            "/image.jpg": self.image_bytes,
            "/classes": self.classes,
            "/runs": self.runs,
            "/results": self.results,
            "/report": self.report,
            "/favicon.ico": lambda request: Response(status_code=204),  # which browsers ask for
        }

    def home(self, request: Request) -> Response:
        """Return the page of all folders."""
        return HTMLResponse(home_page(self._folders))

    def images(self, request: Request) -> Response:
        """Return a page of images that are sought in a set."""
        folder, dataset = self._set(request)
        return _shown(images_page(folder, dataset, request.query_params.multi_items(), self._folders))

    def image(self, request: Request) -> Response:
        """Return the page of one image."""
        folder, dataset = self._set(request)
        return HTMLResponse(image_page(folder, dataset, _index(request)))

    def image_bytes(self, request: Request) -> Response:
        """Return an image as it is stored."""
        _, dataset = self._set(request)
        data = dataset.sample(_index(request)).jpg
        kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
        if kind is None:
            raise VerificationError(f"{dataset.folder}: image {_index(request)} is no JPEG, PNG or WebP")
        return Response(data, media_type=kind)

    def classes(self, request: Request) -> Response:
        """Return the list of the classes of a set."""
        folder, dataset = self._set(request)
        return HTMLResponse(classes_page(folder, dataset, request.query_params))

    def runs(self, request: Request) -> Response:
        """Return the page of some training runs."""
        every = request.query_params.multi_items()
        return _shown(runs_page(self._chosen(RUN, request), self._folders, every))

    def results(self, request: Request) -> Response:
        """Return the page of the numbers of some folders."""
        return HTMLResponse(results_page(self._chosen(RESULTS, request), self._folders))

    def report(self, request: Request) -> Response:
        """Return the report that lies in a folder of results."""
        return HTMLResponse(report(self._folders.get(request.query_params.get("folder", ""), RESULTS)))

    def _set(self, request: Request) -> tuple[Folder, Dataset]:
        folder = self._folders.get(request.query_params.get("folder", ""), SET)
        return folder, self._datasets.get(folder.path)

    def _chosen(self, kind: str, request: Request) -> list[Folder]:
        names = list(dict.fromkeys(request.query_params.getlist("folder")))
        if not names:
            raise InputError("folder: none was chosen; go back and choose some")
        return [self._folders.get(name, kind) for name in names]


def make_app(folders: Folders, hosts: Sequence[str]) -> Starlette:
    """Return the application; ``hosts``: the names and addresses that a request may ask for in its ``Host``."""
    named = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(
        routes=[Route(path, page) for path, page in Browser(folders).pages().items()],
        middleware=[Middleware(Guarded), named],
        exception_handlers={SynclonesError: _refused, OSError: _refused, HTTPException: _unknown},
        lifespan=_few_threads,
    )


def _index(request: Request) -> int:
    return whole_number(request.query_params, "index", None, MAX_INDEX)


def _shown(shown: Shown) -> Response:
    return HTMLResponse(shown.page, shown.status, headers={"refresh": shown.refresh} if shown.refresh else {})


def _refused(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NotServed) else 400 if isinstance(error, InputError) else 500
    return HTMLResponse(problem_page(status, str(as_synclones_error(error) or error)), status)


def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return HTMLResponse(problem_page(error.status_code, str(error.detail)), error.status_code)


@asynccontextmanager
async def _few_threads(app: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


class Guarded:
    """Refuses every method but GET and HEAD, and gives every answer the headers of `HEADERS`."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            refusal = problem_page(405, f"{scope['method'][:20]}: this server only shows; GET and HEAD are answered")
            await HTMLResponse(refusal, 405, headers={"allow": "GET, HEAD"})(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)

"""A stand-in of the API on this machine, over real HTTP: for the demo, and for tests that need no network."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from orpipeline.catalogue import CATALOGUE
from orpipeline.clock import Clock, newest_completed_day, utc_now
from orpipeline.openrouter.client import DEMO_HEADER
from orpipeline.openrouter.response import WINDOW_DAYS
from orpipeline.testing.sample_catalogue import sample_catalogue
from orpipeline.testing.sample_responses import sample_response

KEY = "sk-or-made-up-0123456789abcdef"
"""A made-up API key. The stand-in accepts any key."""
_BASE = "/api/v1"
_PATH = f"{_BASE}/classifications/task"
# How often the server checks whether it must stop: the default would delay each test by half a second.
_STOP_SECONDS = 0.01


@dataclass(frozen=True)
class Reply:
    """One reply of the stand-in: its status, body and headers.

        >>> from orpipeline.testing import Reply
        >>> busy = Reply(b"<html>busy</html>", 503, {"Retry-After": "20"})

    `Content-Type` and `Content-Length` are added unless you set them. There is no `Date` unless you set one. `act`
    replaces all of this: it gets the request's handler and can do anything, such as closing the connection.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


@dataclass(frozen=True)
class Request:
    """One received request: its path with query, its headers, and its time in monotonic seconds.

    >>> from orpipeline.testing import Request
    >>> Request("/api/v1/classifications/task?window=7d", {"Host": "127.0.0.1"}, at=12.5).path
    '/api/v1/classifications/task?window=7d'
    """

    path: str
    headers: Mapping[str, str]
    at: float


class LocalApi:
    """The API on a free port of this machine, until the `with` block ends.

        >>> import httpx
        >>> from orpipeline.testing import LocalApi
        >>> with LocalApi() as api:
        ...     api.fail_next(429, retry_after=20)
        ...     for _ in range(2):
        ...         reply = httpx.get(f"{api.base_url}/classifications/task", headers={"Authorization": "Bearer x"})
        ...         print(reply.status_code, reply.headers.get("Retry-After"), len(api.requests))
        429 20 1
        200 None 2

    It serves the made-up response of the newest completed day at `clock`, and rejects a missing key (401), another
    window (400) and another path (404), as the API does. A header marks the response as made up, and it is archived
    with the origin `demo`. `serve` and `fail_next` set other replies, which are sent whatever the request is.
    `requests` has the received requests, oldest first.

    The model catalogue (`GET /models`, without a key) is apart from all of that: its requests are in
    `catalogue_requests`, and `serve_catalogue` sets its replies.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self.requests: list[Request] = []
        self.catalogue_requests: list[Request] = []
        self._catalogue: Reply | None = None
        self._clock = clock
        self._failures: list[Reply] = []
        self._script: list[Reply] = []
        self._lock = threading.Lock()  # each request has a thread of its own
        self._server = _Server(self._handle)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_STOP_SECONDS,), daemon=True)

    @property
    def base_url(self) -> str:
        """The value of `Settings(base_url=...)` and ORPIPELINE_BASE_URL that selects this stand-in."""
        return f"http://127.0.0.1:{self._server.server_port}/api/v1"

    def serve(self, *replies: Reply | bytes) -> None:
        """Send these replies to the next requests, in order; the last one repeats. Bytes are a body with status 200.

        Without replies, the API serves the made-up responses again.
        """
        with self._lock:
            self._script = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]

    def serve_catalogue(self, reply: Reply | bytes | None) -> None:
        """Send this reply to every request for the model catalogue; None: the made-up catalogue again."""
        with self._lock:
            self._catalogue = Reply(reply) if isinstance(reply, bytes) else reply

    def fail_next(
        self, status: int, *, retry_after: float | str | None = None, times: int = 1, message: str = "made-up failure"
    ) -> None:
        """Send an error to the next `times` requests, then go on as before.

        `retry_after` is sent as `Retry-After`: seconds, or an HTTP date. `message` is the error's text. The client
        itself retries a 5XX twice, so a run fails only after three of them.
        """
        body = json.dumps({"error": {"code": status, "message": message}}).encode()
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        with self._lock:
            self._failures += [Reply(body, status, headers)] * times

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request(handler.path, dict(handler.headers), time.monotonic())
        with self._lock:
            is_catalogue = urlsplit(handler.path).path == f"{_BASE}{CATALOGUE.path}"
            (self.catalogue_requests if is_catalogue else self.requests).append(request)
            reply = self._catalogue if is_catalogue else self._next_reply()
        _send(handler, reply or self._made_up(handler))

    def _next_reply(self) -> Reply | None:
        if self._failures:
            return self._failures.pop(0)
        return self._script.pop(0) if len(self._script) > 1 else next(iter(self._script), None)

    def _made_up(self, handler: BaseHTTPRequestHandler) -> Reply:
        """Return the reply of the API to a request, with made-up figures."""
        url, made_up = urlsplit(handler.path), {DEMO_HEADER: "made-up data"}
        if url.path == f"{_BASE}{CATALOGUE.path}":
            return Reply(sample_catalogue(newest_completed_day(self._clock())), headers=made_up)
        if url.path != _PATH:
            return _error(404, "Not found")
        scheme, _, key = handler.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return _error(401, "No auth credentials found")
        window = f"{WINDOW_DAYS}d"
        if parse_qs(url.query).get("window", [window]) != [window]:
            return _error(400, f"window must be {window}")
        return Reply(
            sample_response(newest_completed_day(self._clock())),
            headers={**made_up, "Cache-Control": "private, max-age=60, stale-while-revalidate=300"},
        )


class _Server(ThreadingHTTPServer):
    """A server on a free port of the loopback address, which looks up no host name."""

    daemon_threads = True

    def __init__(self, handle: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # the body, a second write, must not wait for an acknowledgement

            def do_GET(self) -> None:
                handle(self)

            def log_message(self, format: str, *args: object) -> None:
                pass  # a test's output shows the test

        super().__init__(("127.0.0.1", 0), Handler)

    def server_bind(self) -> None:
        """Bind the port. The base class looks up the host's name, which takes seconds without a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    if reply.act is not None:
        reply.act(handler)
        handler.close_connection = True
        return
    handler.send_response_only(reply.status)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(reply.body)


def _error(status: int, message: str) -> Reply:
    return Reply(json.dumps({"error": {"code": status, "message": message}}).encode(), status)

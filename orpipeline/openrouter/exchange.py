"""One HTTP request and its complete response, with one deadline for all of it.

httpx limits each single read. A server that sends a byte now and then, or one informational response after another,
stays below such a limit for hours, and looking up a host name has no limit at all. So each request has a thread, and
the caller waits for it until the deadline and no longer.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from orpipeline.network import require_allowed


@dataclass(frozen=True)
class Response:
    """A response, complete or cut off at the requested size."""

    status: int
    headers: httpx.Headers
    body: bytes
    """The body as sent, with its content encoding."""


class DeadlineError(Exception):
    """The response was not complete when the deadline came."""


def get(
    url: str, headers: Mapping[str, str], *, timeout: httpx.Timeout, seconds: float, limit: int, trust_env: bool
) -> Response:
    """Send a GET request, and return its response with at most `limit` bytes of its body. Follow no redirect.

    `seconds` limits everything together: name lookup, connection, TLS, headers, body. `timeout` is httpx's, for each
    single step. `trust_env` is whether the environment's proxies apply. Raises DeadlineError, httpx.HTTPError,
    httpx.InvalidURL, UnicodeError for an invalid host name, and NetworkInTestError.
    """
    require_allowed(httpx.URL(url).host)
    if seconds <= 0:
        raise DeadlineError
    connection, response = _Connection(), Future[Response]()
    # A signal can interrupt a wait for a lock at any point. Waiting for the future could then raise a RuntimeError.
    unfinished = threading.Lock()
    unfinished.acquire()

    def run() -> None:
        try:
            # UTF-8, because an app's title can be in any language; httpx's default is ASCII.
            encoded = httpx.Headers(dict(headers), encoding="utf-8")
            with httpx.Client(headers=encoded, timeout=timeout, trust_env=trust_env, follow_redirects=False) as http:
                received = _receive(http, url, limit, connection)
        except BaseException as error:
            response.set_exception(error)
        else:
            response.set_result(received)
        finally:
            connection.release()
            unfinished.release()

    try:
        threading.Thread(target=run, name="orpipeline-request", daemon=True).start()
        unfinished.acquire(timeout=seconds)
        if not response.done():
            raise DeadlineError
        return response.result()
    finally:  # also after an interrupt
        if not response.done():
            connection.break_off()


def _receive(http: httpx.Client, url: str, limit: int, connection: _Connection) -> Response:
    with http.stream("GET", url, extensions={"trace": connection.trace}) as response:
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) >= limit:
                break
    return Response(response.status_code, response.headers, bytes(body[:limit]))


class _Connection:
    """The connection of a request, which another thread can break off.

    Breaking it off ends the thread's wait for the server. It works on a duplicate of the socket and closes nothing of
    the thread's: the number of a closed socket can be reused at once, and the thread would write into another file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._broken_off = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the connected socket. httpx calls this for each event of the request."""
        if event.endswith("connect_tcp.complete"):
            connected: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock, suppress(OSError):  # without free file descriptors, the thread ends by its timeouts
                self._socket = socket.socket(fileno=os.dup(connected.fileno()))
                if self._broken_off:  # while connecting; so the request with its key is never sent
                    self._shut_down()

    def break_off(self) -> None:
        """Make the thread's current and later reads and writes fail."""
        with self._lock:
            self._broken_off = True
            self._shut_down()

    def release(self) -> None:
        """Close the duplicate."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the server has closed the connection
                self._socket.shutdown(socket.SHUT_RDWR)

"""A proxy in front of a store's server that counts requests and fails at will."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

Fault = str
"""`drop`: close the connection in the middle of the upload. `swallow`: forward the request, but not its response.
`403`, `503`: answer that, and forward nothing."""


class FaultyStore:
    """Forwards HTTP requests to a port on loopback. `requests` has each one's method and path, as they arrive."""

    def __init__(self, port: int) -> None:
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        """Called before each request is forwarded."""
        self._faults: list[tuple[str, re.Pattern[str], int]] = []
        self._lock = Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError, TimeoutError):
                    super().handle_one_request()

            def _forward(self) -> None:
                proxy.requests.append((self.command, self.path))
                fault = proxy._next_fault(f"{self.command} {self.path}")
                length = int(self.headers.get("Content-Length", 0))
                if fault == "drop":
                    self.rfile.read(length // 2)
                    return self._close()
                body = self.rfile.read(length)
                if fault in ("403", "503"):
                    self.send_response(int(fault))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return None
                proxy.before(self.command, self.path)
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
                if fault == "swallow":
                    return self._close()
                self.send_response_only(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                is_head = self.command == "HEAD"
                self.send_header("Content-Length", response.headers["Content-Length"] if is_head else str(len(content)))
                self.end_headers()
                if not is_head:
                    self.wfile.write(content)
                return None

            def _close(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the base class's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, fault: Fault, pattern: str, times: int = 1) -> None:
        """Let the next requests whose `METHOD path` matches fail in this way."""
        with self._lock:
            self._faults.append((fault, re.compile(pattern), times))

    def recover(self) -> None:
        """Fail no more."""
        with self._lock:
            self._faults.clear()

    def _next_fault(self, request: str) -> Fault | None:
        with self._lock:
            for n, (fault, pattern, times) in enumerate(self._faults):
                if pattern.search(request):
                    self._faults[n : n + 1] = [(fault, pattern, times - 1)] if times > 1 else []
                    return fault
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

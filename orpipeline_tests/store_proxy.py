"""A proxy in front of the tests' S3 server, which records the requests and can fail them."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "server", "date"}
Fault = str | int
"""A status: send it, and forward nothing. `drop`: close the connection in the middle of the upload. `swallow`: forward
the request, but not its response."""


class StoreProxy:
    """A proxy on loopback of the S3 server at `upstream`.

    `requests` are the method and path of each request, such as `PUT /test-1/reports/index.html`. `reject` is
    called before a request is forwarded, and can give it a status, which the proxy then sends itself.
    """

    def __init__(self, upstream: str) -> None:
        self.requests: list[str] = []
        self.reject: Callable[[str], int | None] = lambda _: None
        self._faults: list[tuple[Fault, re.Pattern[str], int]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(urlsplit(upstream).netloc))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, fault: Fault, pattern: str, times: int = 1) -> None:
        """Let the next requests that match `pattern` fail in this way."""
        with self._lock:
            self._faults.append((fault, re.compile(pattern), times))

    def recover(self) -> None:
        """Fail no more."""
        with self._lock:
            self._faults.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault_of(self, request: str) -> Fault | None:
        with self._lock:
            for n, (fault, pattern, times) in enumerate(self._faults):
                if pattern.search(request):
                    self._faults[n : n + 1] = [(fault, pattern, times - 1)] if times > 1 else []
                    return fault
        return self.reject(request)

    def _handler(self, upstream: str) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError, TimeoutError):
                    super().handle_one_request()

            def forward(self) -> None:
                request = f"{self.command} {self.path}"
                proxy.requests.append(request)
                fault = proxy._fault_of(request)
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length // 2 if fault == "drop" else length)
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault != "drop":
                    connection = http.client.HTTPConnection(upstream, timeout=30)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    response = connection.getresponse()
                    content = response.read()
                    connection.close()
                if fault is not None:
                    self.close_connection = True
                    with suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in _NOT_PASSED_ON:
                        self.send_header(name, value)
                size = response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", size)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - the standard library's names

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler

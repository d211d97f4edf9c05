"""An HTTP server on loopback that sends scripted replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

KEY = "sk-or-test-0123456789abcdef"


@dataclass(frozen=True)
class Reply:
    """One reply: its status, body and headers (`Date` only if given); or `act`, which does anything instead."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


@dataclass(frozen=True)
class Request:
    """One received request: its path with query, its headers and its time (monotonic seconds)."""

    path: str
    headers: Mapping[str, str]
    at: float


class ScriptedApi:
    """Answers each request with the next reply of `script`; the last one repeats."""

    def __init__(self) -> None:
        self.script: list[Reply] = [Reply(status=500)]
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(Request(self.path, dict(self.headers), time.monotonic()))
                reply = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if reply.act is not None:
                    reply.act(self)
                    self.close_connection = True
                    return
                self.send_response_only(reply.status)
                headers = {"Content-Type": "application/json", **reply.headers}
                headers.setdefault("Content-Length", str(len(reply.body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                pass  # keep the test output clean

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # With the default, each test would wait half a second for the server to stop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/api/v1"

    def answers(self, *replies: Reply | bytes) -> None:
        """Set the script; bytes are a body with status 200."""
        self.script = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

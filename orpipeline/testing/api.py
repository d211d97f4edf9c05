"""A stand-in of the API on this machine, over real HTTP: for the demo, and for tests that need no network.

    with DemoApi() as api:
        Client(api_key="any", base_url=api.base_url).fetch()

It serves made-up answers for the newest completed day and rejects a missing key and another window, as the API does.
A header marks each answer as made up, and it is archived with the origin `demo`.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orpipeline.clock import Clock, newest_completed_day, utc_now
from orpipeline.openrouter.client import DEMO_HEADER
from orpipeline.testing.sample_answers import WINDOW_DAYS, demo_answer

KEY = "demo-key"
"""The key that the demo sends; the stand-in accepts any key."""


def demo_app(clock: Clock = utc_now) -> Starlette:
    """Return the stand-in as an ASGI application. It serves the newest completed day at `clock`."""

    def classifications(request: Request) -> Response:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return _error(401, "No auth credentials found")
        if request.query_params.get("window", f"{WINDOW_DAYS}d") != f"{WINDOW_DAYS}d":
            return _error(400, "window must be 7d")
        return Response(
            demo_answer(newest_completed_day(clock())),
            media_type="application/json",
            headers={
                DEMO_HEADER: "made-up data",
                "Cache-Control": "private, max-age=60, stale-while-revalidate=300",
            },
        )

    return Starlette(routes=[Route("/api/v1/classifications/task", classifications)])


def _error(code: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=code)


class DemoApi:
    """The stand-in as a context manager. It listens on a free port of the loopback address."""

    def __init__(self, clock: Clock = utc_now) -> None:
        config = uvicorn.Config(demo_app(clock), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def base_url(self) -> str:
        """The value of ORPIPELINE_BASE_URL that selects the stand-in."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/api/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the stand-in of the API did not start")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)

"""The client against an HTTP server that misbehaves."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpipeline import isolation
from orpipeline.clock import API_CLOCK_TOLERANCE
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.client import DEMO_HEADER, MAX_BODY_BYTES, AppHeaders, Client
from orpipeline.openrouter.errors import (
    AnswerTimeoutError,
    BadRequestError,
    ConnectionFailedError,
    ForbiddenError,
    InsecureUrlError,
    MissingKeyError,
    OpenRouterError,
    RateLimitedError,
    ServerBusyError,
    ServerError,
    StatusError,
    UnauthorizedError,
    UnexpectedStatusError,
    UnreadableAnswerError,
)
from orpipeline.openrouter.redaction import key_pattern
from orpipeline.openrouter.stated_time import stated_time
from orpipeline.settings import TESTING
from orpipeline.testing import LocalApi, Reply, sample_answer
from orpipeline.testing.local_api import KEY
from orpipeline_tests.processes import started

NOW = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
ANSWER = sample_answer(date(2026, 10, 6))


def client_of(api: LocalApi, **changes: Any) -> Client:
    client = Client(
        api_key=KEY,
        base_url=api.base_url,
        clock=lambda: NOW,
        retry_wait_seconds=0.01,
        read_timeout_seconds=5,
        total_timeout_seconds=10,
    )
    return replace(client, **changes)


def error_body(code: object, message: object = "no", **more: object) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, **more}}).encode()


def raw(*headers: str, status: int = 200, body: bytes = ANSWER) -> Reply:
    """Return a reply with exactly these headers. The server closes the connection after the body."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} Reason", *headers, "Connection: close"))
        handler.wfile.write(head.encode() + b"\r\n" + body)

    return Reply(act=act)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    # Closing with a linger time of 0 sends a reset.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _hang(handler: BaseHTTPRequestHandler) -> None:  # noqa: ARG001
    time.sleep(1)


RESET = Reply(act=_reset)
HANG = Reply(act=_hang)
TRUNCATED = Reply(ANSWER[:1000], headers={"Content-Length": str(len(ANSWER)), "Connection": "close"})


# The request


def test_exactly_the_documented_request_is_sent(api: LocalApi) -> None:
    api.serve(ANSWER)
    client_of(api).fetch()
    (request,) = api.requests
    assert request.path == "/api/v1/classifications/task?window=7d"
    assert {name.lower(): value for name, value in request.headers.items()} == {
        "host": api.base_url.split("/")[2],
        "authorization": f"Bearer {KEY}",
        "user-agent": f"orpipeline/{version('orpipeline')}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }


def test_the_app_headers_are_sent_where_they_are_set(api: LocalApi) -> None:
    api.serve(ANSWER)
    client_of(api, app=AppHeaders(referer="https://example.org", title="Market", categories="data")).fetch()
    client_of(api, app=AppHeaders(referer="", title="Only this")).fetch()
    named = ("http-referer", "x-openrouter-title", "x-openrouter-categories")
    sent = [{n.lower(): v for n, v in request.headers.items() if n.lower() in named} for request in api.requests]
    assert sent == [
        dict(zip(named, ("https://example.org", "Market", "data"), strict=True)),
        {"x-openrouter-title": "Only this"},
    ]


def test_an_app_title_may_be_in_any_language(api: LocalApi) -> None:
    api.serve(ANSWER)
    client_of(api, app=AppHeaders(title="Café 市場")).fetch()
    # The server reads headers as Latin-1.
    assert api.requests[0].headers["X-OpenRouter-Title"].encode("latin-1").decode() == "Café 市場"


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_no_request_is_sent(api: LocalApi, key: str | None) -> None:
    with pytest.raises(MissingKeyError, match="OPENROUTER_API_KEY"):
        client_of(api, api_key=key).fetch()
    assert api.requests == []


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY} x", f"{KEY}\r\nX-Y: z", f"{KEY}\x7f", f"{KEY}é"])
def test_an_invalid_key_is_never_sent(api: LocalApi, key: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        client_of(api, api_key=key).fetch()
    assert api.requests == []
    assert KEY not in str(caught.value)


# Answers


@pytest.mark.parametrize("body", [ANSWER, b' {"data":\r\n{}, "x": "\xc3\xa9\\u00e9" }\n', b'{"data":{"a":NaN}}', b"{}"])
def test_the_bytes_are_returned_unchanged(api: LocalApi, body: bytes) -> None:
    api.serve(body)
    answer = client_of(api).fetch()
    assert answer.body == body
    assert (answer.status, answer.fetched_at, answer.origin) == (200, NOW, "api")
    assert answer.url == f"{api.base_url}/classifications/task?window=7d"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["Date: Wed, 07 Oct 2026 00:20:01 GMT"], datetime(2026, 10, 7, 0, 20, 1, tzinfo=UTC)),
        (["Date: Wed, 07 Oct 2026 02:20:01 +0200"], datetime(2026, 10, 7, 0, 20, 1, tzinfo=UTC)),
        ([], None),
        (["Date: yesterday"], None),
        (["Date: Fri, 13 Nov 2026 00:00:00 +99999999999999999"], None),
        (["Date: Fri, 31 Dec 9999 23:59:59 -0100"], None),
    ],
)
def test_the_servers_date_is_returned_in_utc(api: LocalApi, headers: list[str], expected: datetime | None) -> None:
    api.serve(raw(*headers))
    answer = client_of(api).fetch()
    assert (answer.server_date, answer.fetched_at) == (expected, NOW)


@pytest.mark.parametrize("off", [timedelta(minutes=11), timedelta(minutes=-11), timedelta(days=400)], ids=str)
def test_if_this_machines_clock_is_wrong_the_servers_time_is_the_fetch_time(
    api: LocalApi, caplog: pytest.LogCaptureFixture, off: timedelta
) -> None:
    sent = (NOW - off).replace(microsecond=0)
    api.serve(raw(f"Date: {format_datetime(sent, usegmt=True)}"))
    assert client_of(api).fetch().fetched_at == sent
    (warning,) = caplog.messages
    assert f"shows {NOW:%Y-%m-%d %H:%M:%S} UTC" in warning
    assert f"is of {sent:%Y-%m-%d %H:%M:%S} UTC" in warning


def test_the_time_of_a_cached_answer_is_not_the_fetch_time(api: LocalApi, caplog: pytest.LogCaptureFixture) -> None:
    cached = NOW.replace(microsecond=0) - API_CLOCK_TOLERANCE + timedelta(seconds=1)
    api.serve(raw(f"Date: {format_datetime(cached, usegmt=True)}"))
    assert client_of(api).fetch().fetched_at == NOW
    assert not caplog.messages


def test_an_answer_of_the_stand_in_is_marked_as_demo(api: LocalApi) -> None:
    api.serve(Reply(ANSWER, headers={DEMO_HEADER: "1"}))
    assert client_of(api).fetch().origin == "demo"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZip"])
def test_a_gzipped_answer_is_unpacked(api: LocalApi, encoding: str) -> None:
    api.serve(Reply(gzip.compress(ANSWER), headers={"Content-Encoding": encoding}))
    assert client_of(api).fetch().body == ANSWER


# Errors that the API states


@pytest.mark.parametrize("body", [error_body(0, "because"), b"<html>because</html>"])
@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, BadRequestError, 1),
        (401, UnauthorizedError, 1),
        (403, ForbiddenError, 1),
        (404, UnexpectedStatusError, 1),
        (429, RateLimitedError, 1),
        (201, UnexpectedStatusError, 1),
        (302, UnexpectedStatusError, 1),
        (500, ServerError, 3),
        (599, ServerError, 3),
    ],
)
def test_each_status_has_its_error_and_only_5xx_is_retried(
    api: LocalApi, status: int, kind: type[StatusError], tries: int, body: bytes
) -> None:
    api.serve(Reply(body, status=status))
    with pytest.raises(StatusError) as caught:
        client_of(api).fetch()
    assert (type(caught.value), caught.value.status) == (kind, status)
    assert len(api.requests) == tries
    assert str(status) in str(caught.value)
    assert ("because" in str(caught.value)) == body.startswith(b"{")


@pytest.mark.parametrize(
    ("code", "kind", "status", "tries"),
    [
        (429, RateLimitedError, 429, 1),
        (401, UnauthorizedError, 401, 1),
        (403, ForbiddenError, 403, 1),
        ("429", RateLimitedError, 429, 1),
        (400, BadRequestError, 400, 1),
        (402, UnexpectedStatusError, 402, 1),
        (500, ServerError, 500, 3),
        (503, ServerError, 503, 3),
        (200, ServerError, 500, 3),
        (True, ServerError, 500, 3),
        (-1, ServerError, 500, 3),
        (10**300, ServerError, 500, 3),
        ("model_overloaded", ServerError, 500, 3),
        (None, ServerError, 500, 3),
    ],
)
def test_an_error_body_with_status_200_is_the_error_of_its_code(
    api: LocalApi, code: object, kind: type[StatusError], status: int, tries: int
) -> None:
    api.serve(error_body(code))
    with pytest.raises(StatusError) as caught:
        client_of(api).fetch()
    assert (type(caught.value), caught.value.status) == (kind, status)
    assert len(api.requests) == tries
    assert len(str(caught.value)) < 500


def test_a_redirect_is_not_followed(api: LocalApi) -> None:
    with LocalApi() as other:
        other.serve(ANSWER)
        api.serve(Reply(status=302, headers={"Location": f"{other.base_url}/classifications/task"}))
        with pytest.raises(UnexpectedStatusError, match="302"):
            client_of(api).fetch()
        assert other.requests == []
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        {"body": b" " * (MAX_BODY_BYTES + 1)},
        {"body": b"x", "headers": {"Content-Encoding": "br"}},
        {"body": b"x", "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=["too large", "unknown encoding", "no gzip"],
)
def test_an_error_status_with_an_unreadable_body_keeps_its_error(api: LocalApi, spoilt: dict[str, Any]) -> None:
    api.serve(Reply(status=503, **spoilt), Reply(status=429, **spoilt))
    with pytest.raises(RateLimitedError):
        client_of(api).fetch()
    assert len(api.requests) == 2


def test_a_servers_message_is_one_short_printable_line(api: LocalApi) -> None:
    api.serve(Reply(error_body(400, "bad\n\x1b[31mwindow\u202e " + "x" * 5000), status=400))
    with pytest.raises(BadRequestError, match=r"bad .*window") as caught:
        client_of(api).fetch()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# Answers that cannot be read


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"[" * 100_000,
        b"\xff\xfe\xff",
        b'{"data": "\xe9"}',
        b'{"data": "\xed\xa0\x80"}',  # a surrogate, which Python's json lets through
        *(ANSWER.decode().encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    ],
)
def test_an_answer_that_is_not_a_json_object_in_utf_8_is_unreadable(api: LocalApi, body: bytes) -> None:
    api.serve(body)
    with pytest.raises(UnreadableAnswerError) as caught:
        client_of(api).fetch()
    assert caught.value.body == body
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", ANSWER),
        ("gzip", ANSWER),
        ("gzip", gzip.compress(ANSWER)[:-900]),
        ("gzip", gzip.compress(ANSWER)[:-1]),
        ("gzip", gzip.compress(ANSWER) + b"more"),
    ],
)
def test_an_encoding_that_cannot_be_undone_is_unreadable(api: LocalApi, encoding: str, body: bytes) -> None:
    api.serve(Reply(body, headers={"Content-Encoding": encoding}))
    with pytest.raises(UnreadableAnswerError):
        client_of(api).fetch()


def test_an_answer_of_exactly_the_size_limit_is_returned(api: LocalApi) -> None:
    api.serve(b"{}".ljust(MAX_BODY_BYTES))
    assert len(client_of(api).fetch().body) == MAX_BODY_BYTES


def test_an_endless_answer_is_cut_off(api: LocalApi) -> None:
    sent = 0

    def pour(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while sent < 20 * MAX_BODY_BYTES:
                sent += handler.wfile.write(b" " * 100_000)
        except OSError:
            pass  # the client has closed the connection

    api.serve(Reply(act=pour))
    with pytest.raises(UnreadableAnswerError, match="10,000,000") as caught:
        client_of(api).fetch()
    assert len(caught.value.body) == MAX_BODY_BYTES
    assert sent < 20 * MAX_BODY_BYTES


def test_a_gzip_bomb_is_rejected_in_bounded_memory(api: LocalApi) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(60)) + packer.flush()
    api.serve(Reply(bomb, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableAnswerError, match="10,000,000"):
            client_of(api).fetch()
        assert tracemalloc.get_traced_memory()[1] < 5 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


# Connections that fail


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(RESET, ConnectionFailedError), (TRUNCATED, ConnectionFailedError), (HANG, AnswerTimeoutError)],
    ids=["reset", "truncated", "hang"],
)
def test_a_transient_failure_is_tried_three_times(api: LocalApi, reply: Reply, kind: type[OpenRouterError]) -> None:
    client = client_of(api, read_timeout_seconds=0.3)
    api.serve(reply)
    with pytest.raises(kind):
        client.fetch()
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    "failure", [RESET, TRUNCATED, HANG, Reply(status=503)], ids=["reset", "truncated", "hang", "503"]
)
def test_a_third_try_can_succeed(api: LocalApi, failure: Reply) -> None:
    api.serve(failure, failure, ANSWER)
    assert client_of(api, read_timeout_seconds=0.3).fetch().body == ANSWER
    assert len(api.requests) == 3


def test_a_429_ends_the_tries(api: LocalApi) -> None:
    api.serve(Reply(status=500), Reply(status=429), ANSWER)
    with pytest.raises(RateLimitedError):
        client_of(api).fetch()
    assert len(api.requests) == 2


def test_the_waits_between_tries_grow(api: LocalApi) -> None:
    api.serve(Reply(status=500))
    with pytest.raises(ServerError):
        client_of(api, retry_wait_seconds=0.1).fetch()
    first, second, third = (request.at for request in api.requests)
    assert second - first >= 0.1
    assert third - second >= 0.2


def test_no_try_starts_after_the_deadline(api: LocalApi) -> None:
    api.serve(Reply(status=500))
    begun = time.monotonic()
    with pytest.raises(ServerError):
        client_of(api, retry_wait_seconds=2, total_timeout_seconds=1).fetch()
    assert len(api.requests) == 1
    assert time.monotonic() - begun < 2


# One deadline for everything

DEADLINE = 0.6
HEAD = b"HTTP/1.1 200 OK\r\n"


def endless(start: bytes, piece: bytes) -> Reply:
    """Return a reply that repeats a piece until the client closes the connection, for 20 s at most."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        for _ in range(400):
            try:
                handler.wfile.write(piece)
            except OSError:
                return  # the client has closed the connection
            time.sleep(0.05)

    return Reply(act=act)


def request_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "orpipeline-request"]


def assert_ends_at_the_deadline(client: Client) -> None:
    begun = time.monotonic()
    with pytest.raises(AnswerTimeoutError, match=r"no complete answer within 0\.6 s"):
        client.fetch()
    assert DEADLINE <= time.monotonic() - begun < DEADLINE + 0.5
    assert all(thread.daemon for thread in request_threads())


@pytest.mark.parametrize(
    "reply",
    [
        endless(b"", b"H"),
        endless(HEAD, b"X"),
        endless(HEAD + b"X: ", b"x"),
        endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;x=", b"x"),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", b"x"),
        endless(HEAD + b"Content-Length: 1000\r\n\r\n{}", b" "),
        endless(HEAD + b"Connection: close\r\n\r\n{}", b" "),
        HANG,
    ],
    ids=["status", "header name", "header", "103", "chunk extension", "trailer", "body", "body without end", "nothing"],
)
def test_an_answer_that_never_ends_is_given_up_at_the_deadline(api: LocalApi, reply: Reply) -> None:
    api.serve(reply)
    assert_ends_at_the_deadline(client_of(api, total_timeout_seconds=DEADLINE))
    assert len(api.requests) == 1
    for thread in request_threads():
        thread.join(0.5)  # it ends at once, and not with the server
    assert not request_threads()


def test_an_answer_that_is_complete_just_before_the_deadline_is_accepted(api: LocalApi) -> None:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(HEAD + f"Content-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER[:-1])
        time.sleep(1.2)
        handler.wfile.write(ANSWER[-1:])

    api.serve(Reply(act=act))
    assert client_of(api, total_timeout_seconds=1.5).fetch().body == ANSWER


def test_a_server_that_does_not_answer_the_tls_handshake_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        base_url = f"https://127.0.0.1:{server.getsockname()[1]}/api/v1"
        assert_ends_at_the_deadline(Client(KEY, base_url, total_timeout_seconds=DEADLINE))
        for thread in request_threads():
            thread.join(0.5)
        assert not request_threads()


def test_a_name_lookup_that_hangs_is_given_up_at_the_deadline_and_the_key_is_never_sent(
    api: LocalApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, released = socket.getaddrinfo, threading.Event()

    def hang(*arguments: Any, **options: Any) -> Any:
        released.wait(10)
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert_ends_at_the_deadline(client_of(api, total_timeout_seconds=DEADLINE))
    released.set()
    for thread in request_threads():
        thread.join(5)
    assert not request_threads()
    assert api.requests == []


def test_all_tries_and_waits_share_the_deadline(api: LocalApi) -> None:
    api.serve(HANG)
    begun = time.monotonic()
    with pytest.raises(AnswerTimeoutError):
        client_of(api, read_timeout_seconds=0.4, total_timeout_seconds=DEADLINE).fetch()
    assert time.monotonic() - begun < DEADLINE + 0.5
    assert len(api.requests) == 2


_FETCH_UNTIL_INTERRUPTED = """
import sys, threading
from orpipeline.openrouter.client import Client
print("open", flush=True)
try:
    Client("a-key", sys.argv[1]).fetch()
except KeyboardInterrupt:
    print("interrupted", all(thread.daemon for thread in threading.enumerate()[1:]), flush=True)
"""


def test_an_interrupt_ends_the_wait_at_once(api: LocalApi) -> None:
    api.serve(endless(b"", b"H"))
    with started(_FETCH_UNTIL_INTERRUPTED, api.base_url) as process:
        while not api.requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=5)[0] == "interrupted True\n"
        assert process.returncode == 0


def test_nothing_listening_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        # Bound, but not listening: every connection fails.
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}/api/v1"
        with pytest.raises(ConnectionFailedError, match=re.escape(base_url)):
            Client(api_key=KEY, base_url=base_url, retry_wait_seconds=0.01).fetch()


def _allow_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TESTING)
    monkeypatch.setattr(isolation, "folder", None)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "[::1", "\u2028"])
def test_an_invalid_host_name_is_a_failed_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _allow_other_hosts(monkeypatch)  # no such host can be looked up
    with pytest.raises(ConnectionFailedError, match="ORPIPELINE_BASE_URL"):
        Client(api_key=KEY, base_url=f"https://{host}/api/v1", retry_wait_seconds=0.01).fetch()


# The key goes to the API and nowhere else


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/api/v1",
        "http://localhost.example/api/v1",
        "http://127.0.0.1@192.0.2.1/",
        "http://[2001:db8::1]",
    ],
)
def test_the_key_is_not_sent_unencrypted_to_another_machine(url: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.sqlite"
    with pytest.raises(InsecureUrlError, match="ORPIPELINE_ALLOW_HTTP"):
        Client(KEY, url, budget=Budget(path)).fetch()
    assert not path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "[::1]"])
def test_the_key_is_sent_unencrypted_on_this_machine(host: str) -> None:
    # Nothing listens on port 9, so a request fails to connect.
    with pytest.raises(ConnectionFailedError):
        Client(KEY, f"http://{host}:9/api/v1", retry_wait_seconds=0.01).fetch()


def test_a_proxy_gets_no_request_to_this_machine_and_a_setting_allows_http_elsewhere(
    api: LocalApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _allow_other_hosts(monkeypatch)  # the proxy is on this machine
    api.serve(ANSWER)
    with LocalApi() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/api/v1"))
        proxy.serve(ANSWER)
        client_of(api).fetch()
        assert (len(api.requests), len(proxy.requests)) == (1, 0)
        client_of(api, base_url="http://api.invalid/api/v1", allow_http=True).fetch()
        assert [request.path for request in proxy.requests] == [
            "http://api.invalid/api/v1/classifications/task?window=7d"
        ]


# The key stays secret


def test_the_key_is_in_no_representation(api: LocalApi) -> None:
    api.serve(ANSWER)
    client = client_of(api)
    assert KEY not in f"{client!r} {client} {client.fetch()!r}"


ECHOES = {
    "error message": Reply(error_body(401, f"no user for {KEY}"), status=401),
    "message cut inside the key": Reply(error_body(400, "x" * 190 + KEY), status=400),
    "nested message": Reply(error_body(400, {"sent": [KEY]}), status=400),
    "error under status 200": Reply(error_body(400, f"bad {KEY}")),
    "rate limit": Reply(error_body(429, KEY, metadata={"headers": {"X-RateLimit-Reset": KEY}}), status=429),
    "HTML": Reply(f"<html>{KEY}</html>".encode()),
    "HTML cut inside the key": Reply(b"<html>" + b"x" * 60 + KEY.encode()),
    "JSON list": Reply(json.dumps([KEY]).encode()),
    "valid answer": Reply(ANSWER[:-1] + f',"sent":"{KEY}"}}'.encode()),
    "gzipped valid answer": Reply(
        gzip.compress(ANSWER[:-1] + f',"sent":"{KEY}"}}'.encode()), headers={"Content-Encoding": "gzip"}
    ),
    "too large": Reply(KEY.encode().ljust(MAX_BODY_BYTES + 1)),
    "too large, cut inside the key": Reply(b" " * (MAX_BODY_BYTES - 15) + KEY.encode() + b" " * 100_000),
    "too large, nothing but keys": Reply(KEY.encode() * (MAX_BODY_BYTES // 20)),
    "too large, unpacked": Reply(
        gzip.compress(b" " * (MAX_BODY_BYTES - 15) + KEY.encode() + b" " * 100_000),
        headers={"Content-Encoding": "gzip"},
    ),
    "incomplete gzip": Reply(gzip.compress(ANSWER + KEY.encode())[:-1], headers={"Content-Encoding": "gzip"}),
    "UTF-16": Reply(json.dumps({"data": {}, "sent": KEY}).encode("utf-16")),
    "escaped": Reply(ANSWER[:-1] + b',"sent":"%b"}' % "".join(f"\\u{ord(c):04X}" for c in KEY).encode()),
    "escaped in a message": Reply(
        error_body(400, "".join(f"\\u{ord(c):04x}" for c in KEY) + f" {quote(KEY, safe='')}"), status=400
    ),
    "unknown encoding": Reply(f"sent {KEY}".encode(), headers={"Content-Encoding": f"br; {KEY}"}),
    "no gzip": Reply(f"sent {KEY}".encode(), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_is_removed(api: LocalApi, reply: Reply) -> None:
    api.serve(reply)
    with pytest.raises(OpenRouterError) as caught:
        client_of(api).fetch()
    body = caught.value.body if isinstance(caught.value, UnreadableAnswerError) else b""
    shown = f"{caught.value} {caught.value!r}".encode() + body
    assert KEY[:10].encode() not in shown.replace(b"\0", b"")
    assert b"u0073" not in shown


@pytest.mark.parametrize("key", ['sk-or-"quoted"', "sk-or-back\\slash"])
def test_a_key_that_json_escapes_is_found_in_an_answer_too(api: LocalApi, key: str) -> None:
    api.serve(json.dumps({"data": {}, "sent": key}).encode())
    with pytest.raises(UnreadableAnswerError) as caught:
        client_of(api, api_key=key).fetch()
    assert json.dumps(key)[1:-1].encode() not in caught.value.body


def escape(character: str, how: int) -> str:
    code = f"{ord(character):02x}"
    forms = [character, f"\\u00{code}", f"\\u00{code.upper()}", f"%{code}", f"%{code.upper()}", f"\\x{code}"]
    return [*forms, f"\\{character}"][how]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=len(KEY), max_size=len(KEY)), st.integers(0, 2), st.data())
def test_a_key_is_found_in_any_mix_of_escapes(how: list[int], levels: int, data: st.DataObject) -> None:
    text = "".join(map(escape, KEY, how))
    for _ in range(levels):
        text = data.draw(st.sampled_from([json.dumps(text)[1:-1], text.replace("\\", "\\u005c"), quote(text, "\\")]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]))
    found = key_pattern(KEY).sub(b"[key]", f"before {text} after".encode(encoding))
    ascii_only = found.replace(b"\0", b"").removeprefix(b"\xff\xfe")
    # Of several backslashes before the first character, all but one stay.
    assert re.fullmatch(rb"before [\\u05c]*\[key\] after", ascii_only)


BACKSLASHES = b"\\" * 1000


@pytest.mark.parametrize(
    "piece",
    [b"\\", b"\\u005c", b"%", b"25", b"\0", b"s\0\0\0", b"\\u0073", KEY[:-1].encode(), b"sk" + BACKSLASHES],
    ids=range(9),
)
def test_the_search_for_the_key_takes_linear_time(piece: bytes) -> None:
    pattern, begun = key_pattern(KEY), time.monotonic()
    for start in (b"", b"s", b"%", b"sk-or"):
        assert pattern.search(start + piece * (500_000 // len(piece))) is None
    assert time.monotonic() - begun < 5  # it takes about 0.2 s; quadratic time would be minutes


# The time that an error states


def millis(at: datetime) -> str:
    return str(round(at.timestamp() * 1000))


NOW_SECOND = NOW.replace(microsecond=0)
SOON = NOW_SECOND + timedelta(minutes=7)
DAY = timedelta(days=1)


def http(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


def stated(headers: Mapping[str, str] | list[tuple[str, str]], error: Mapping[str, Any] | None = None) -> Any:
    """Return the time that a 429 with these headers and this error states."""
    return stated_time(httpx.Headers(headers), error or {}, NOW, with_resets=True)


@pytest.mark.parametrize(
    ("headers", "inner", "expected"),
    [
        ({"Retry-After": "30"}, {}, NOW + timedelta(seconds=30)),
        ({"Retry-After": " 1.5 "}, {}, NOW + timedelta(seconds=1.5)),
        ({"Retry-After": "0"}, {}, NOW),
        ({"Retry-After": http(SOON)}, {}, SOON),
        ({"X-RateLimit-Reset": millis(SOON)}, {}, SOON),
        ({"X-RateLimit-Reset": str(round(SOON.timestamp()))}, {}, SOON),
        ({}, {"X-RateLimit-Reset": millis(SOON)}, SOON),
        ({}, {"x-ratelimit-reset": int(millis(SOON))}, SOON),
        ({}, {"Retry-After": 30}, NOW + timedelta(seconds=30)),
    ],
)
def test_the_stated_time_is_read_in_every_form(
    headers: Mapping[str, str], inner: Mapping[str, object], expected: datetime
) -> None:
    assert stated(headers, {"metadata": {"headers": inner}}) == expected


@pytest.mark.parametrize(
    ("headers", "inner"),
    [
        ([("Retry-After", "30"), ("X-RateLimit-Reset", millis(SOON))], {}),
        ([("Retry-After", "420"), ("X-RateLimit-Reset", millis(NOW_SECOND + timedelta(minutes=1)))], {}),
        ([("Retry-After", "30"), ("Retry-After", "420"), ("Retry-After", "60")], {}),
        ([("Retry-After", "30, 420,60")], {}),
        ([("Retry-After", f"{http(NOW_SECOND)}, {http(SOON)}")], {}),
        ([("Retry-After", "30")], {"Retry-After": ["60", 420], "retry-after": "90"}),
        ([("X-RateLimit-Reset", millis(NOW_SECOND))], {"X-RateLimit-Reset": [millis(SOON)]}),
        # What is past or not a time does not count.
        ([("Retry-After", "-1"), ("Retry-After", "soon"), ("Retry-After", "nan"), ("Retry-After", "420")], {}),
    ],
)
def test_of_several_stated_times_the_latest_counts(headers: list[tuple[str, str]], inner: Mapping[str, object]) -> None:
    found = stated(headers, {"metadata": {"headers": inner}})
    assert timedelta(minutes=7) - timedelta(seconds=1) < found - NOW <= timedelta(minutes=7)


@pytest.mark.parametrize("off", [timedelta(hours=3), timedelta(hours=-3), timedelta(days=400)], ids=str)
@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset"])
def test_a_stated_date_is_relative_to_the_servers_own_date(name: str, off: timedelta) -> None:
    at = SOON + off
    headers = {"Date": http(NOW_SECOND + off), name: http(at) if name == "Retry-After" else millis(at)}
    assert stated(headers) == NOW + timedelta(minutes=7)
    assert stated({"Date": "garbage", "Retry-After": http(SOON)}) == SOON


ABSURD = {
    "Retry-After": ["86401", "1e300", "9" * 5000, http(NOW + 365 * DAY)],
    "X-RateLimit-Reset": ["9" * 17, "9" * 5000, millis(NOW + 365 * DAY)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ABSURD.items() for value in values])
@pytest.mark.parametrize("where", ["header", "body"])
def test_a_longer_stated_wait_counts_as_24_hours(name: str, value: str, where: str) -> None:
    given_there = {name: value}
    found = stated(given_there) if where == "header" else stated({}, {"metadata": {"headers": given_there}})
    assert found == NOW + DAY


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "nan",
        "inf",
        http(NOW - timedelta(seconds=5)),
        "Fri, 13 Nov 2026 00:00:00 +99999999999999999",
        "Fri, 31 Dec 9999 23:59:59 -0100",
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset"])
def test_a_time_that_is_past_or_not_a_time_is_ignored(name: str, value: str) -> None:
    assert stated({name: value}) is None
    assert stated({}, {"metadata": {"headers": {name: [value]}}}) is None


def test_a_reset_that_is_past_is_ignored() -> None:
    for past in (millis(NOW - timedelta(seconds=5)), str(round(NOW.timestamp()) - 5), "60"):
        assert stated({"X-RateLimit-Reset": past}) is None


@pytest.mark.parametrize("metadata", [None, "x", [], {"headers": None}, {"headers": ["Retry-After"]}, {"headers": {}}])
def test_metadata_of_any_shape_is_ignored(metadata: object) -> None:
    assert stated({}, {"metadata": metadata}) is None


json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(max_examples=100, deadline=None)
@given(header=st.text(), sent=st.text(), inner=json_scalars | st.lists(json_scalars))
def test_no_stated_time_makes_the_client_raise(header: str, sent: str, inner: object) -> None:
    for name in ("Retry-After", "X-RateLimit-Reset"):
        headers = httpx.Headers({name: header, "Date": sent}, encoding="utf-8")
        found = stated_time(headers, {"metadata": {"headers": {name: inner}}}, NOW, with_resets=True)
        assert found is None or NOW <= found <= NOW + DAY


@pytest.mark.parametrize("under", [429, 200])
def test_a_rate_limit_error_states_the_time(api: LocalApi, under: int) -> None:
    body = error_body(429, "Slow down", metadata={"headers": {"X-RateLimit-Reset": millis(SOON)}})
    api.serve(Reply(body, status=under))
    with pytest.raises(RateLimitedError, match=r"Slow down.*00:27:03 UTC on 2026-10-07") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == SOON


def test_a_rate_limits_headers_count_in_any_case(api: LocalApi) -> None:
    api.serve(Reply(status=429, headers={"retry-after": "60"}))
    with pytest.raises(RateLimitedError) as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == NOW + timedelta(seconds=60)


def test_a_rate_limit_without_a_time_shows_later(api: LocalApi) -> None:
    api.serve(Reply(status=429))
    with pytest.raises(RateLimitedError, match="Try again later") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at is None


@pytest.mark.parametrize(
    "reply",
    [
        raw("Retry-After: 60", "Retry-After: 420", "X-RateLimit-Reset: " + millis(SOON + DAY), status=503),
        raw("Retry-After: 420", status=500, body=b"<html>"),
        Reply(error_body(503, metadata={"headers": {"Retry-After": [420]}})),
    ],
    ids=["503", "500", "error under status 200"],
)
def test_a_5xx_that_states_a_time_is_not_retried_before_it(api: LocalApi, reply: Reply) -> None:
    api.serve(reply, ANSWER)
    with pytest.raises(ServerBusyError, match="00:27:03 UTC on 2026-10-07, as it states") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == NOW + timedelta(minutes=7)
    assert len(api.requests) == 1


def test_a_reset_time_alone_does_not_delay_a_5xx(api: LocalApi) -> None:
    api.serve(raw(f"X-RateLimit-Reset: {millis(SOON)}", status=503), ANSWER)
    assert client_of(api).fetch().body == ANSWER

"""The client against an HTTP server that misbehaves."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpipeline.openrouter.client import DEMO_HEADER, MAX_BODY_BYTES, AppHeaders, Client, earliest_retry
from orpipeline.openrouter.errors import (
    AnswerTimeoutError,
    BadRequestError,
    ConnectionFailedError,
    MissingKeyError,
    OpenRouterError,
    RateLimitedError,
    ServerError,
    StatusError,
    UnauthorizedError,
    UnexpectedStatusError,
    UnreadableAnswerError,
)
from orpipeline.testing.sample_answers import demo_answer
from orpipeline_tests.scripted_api import KEY, Reply, ScriptedApi, drip

NOW = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
ANSWER = demo_answer(date(2026, 10, 6))


def client_of(api: ScriptedApi, **changes: Any) -> Client:
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


def raw(*headers: str, body: bytes = ANSWER) -> Reply:
    """Return a reply with exactly these headers. The server closes the connection after the body."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *headers, "Connection: close"))
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


def test_exactly_the_documented_request_is_sent(api: ScriptedApi) -> None:
    api.answers(ANSWER)
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


def test_the_app_headers_are_sent_where_they_are_set(api: ScriptedApi) -> None:
    api.answers(ANSWER)
    client_of(api, app=AppHeaders(referer="https://example.org", title="Market", categories="data")).fetch()
    client_of(api, app=AppHeaders(referer="", title="Only this")).fetch()
    named = ("http-referer", "x-openrouter-title", "x-openrouter-categories")
    sent = [{n.lower(): v for n, v in request.headers.items() if n.lower() in named} for request in api.requests]
    assert sent == [
        dict(zip(named, ("https://example.org", "Market", "data"), strict=True)),
        {"x-openrouter-title": "Only this"},
    ]


def test_an_app_title_may_be_in_any_language(api: ScriptedApi) -> None:
    api.answers(ANSWER)
    client_of(api, app=AppHeaders(title="Café 市場")).fetch()
    # The server reads headers as Latin-1.
    assert api.requests[0].headers["X-OpenRouter-Title"].encode("latin-1").decode() == "Café 市場"


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_no_request_is_sent(api: ScriptedApi, key: str | None) -> None:
    with pytest.raises(MissingKeyError, match="OPENROUTER_API_KEY"):
        client_of(api, api_key=key).fetch()
    assert api.requests == []


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY} x", f"{KEY}\r\nX-Y: z", f"{KEY}\x7f", f"{KEY}é"])
def test_an_invalid_key_is_never_sent(api: ScriptedApi, key: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        client_of(api, api_key=key).fetch()
    assert api.requests == []
    assert KEY not in str(caught.value)


# Answers


@pytest.mark.parametrize("body", [ANSWER, b' {"data":\r\n{}, "x": "\xc3\xa9\\u00e9" }\n', b'{"data":{"a":NaN}}', b"{}"])
def test_the_bytes_are_returned_unchanged(api: ScriptedApi, body: bytes) -> None:
    api.answers(body)
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
def test_the_servers_date_is_returned_in_utc(api: ScriptedApi, headers: list[str], expected: datetime | None) -> None:
    api.answers(raw(*headers))
    assert client_of(api).fetch().server_date == expected


def test_an_answer_of_the_stand_in_is_marked_as_demo(api: ScriptedApi) -> None:
    api.answers(Reply(ANSWER, headers={DEMO_HEADER: "1"}))
    assert client_of(api).fetch().origin == "demo"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZip"])
def test_a_gzipped_answer_is_unpacked(api: ScriptedApi, encoding: str) -> None:
    api.answers(Reply(gzip.compress(ANSWER), headers={"Content-Encoding": encoding}))
    assert client_of(api).fetch().body == ANSWER


# Errors that the API states


@pytest.mark.parametrize("body", [error_body(0, "because"), b"<html>because</html>"])
@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        (400, BadRequestError, 1),
        (401, UnauthorizedError, 1),
        (403, UnexpectedStatusError, 1),
        (404, UnexpectedStatusError, 1),
        (429, RateLimitedError, 1),
        (201, UnexpectedStatusError, 1),
        (302, UnexpectedStatusError, 1),
        (500, ServerError, 3),
        (599, ServerError, 3),
    ],
)
def test_each_status_has_its_error_and_only_5xx_is_retried(
    api: ScriptedApi, status: int, kind: type[StatusError], tries: int, body: bytes
) -> None:
    api.answers(Reply(body, status=status))
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
    api: ScriptedApi, code: object, kind: type[StatusError], status: int, tries: int
) -> None:
    api.answers(error_body(code))
    with pytest.raises(StatusError) as caught:
        client_of(api).fetch()
    assert (type(caught.value), caught.value.status) == (kind, status)
    assert len(api.requests) == tries
    assert len(str(caught.value)) < 500


def test_a_redirect_is_not_followed(api: ScriptedApi) -> None:
    with ScriptedApi() as other:
        other.answers(ANSWER)
        api.answers(Reply(status=302, headers={"Location": f"{other.base_url}/classifications/task"}))
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
def test_an_error_status_with_an_unreadable_body_keeps_its_error(api: ScriptedApi, spoilt: dict[str, Any]) -> None:
    api.answers(Reply(status=503, **spoilt), Reply(status=429, **spoilt))
    with pytest.raises(RateLimitedError):
        client_of(api).fetch()
    assert len(api.requests) == 2


def test_a_servers_message_is_one_short_printable_line(api: ScriptedApi) -> None:
    api.answers(Reply(error_body(400, "bad\n\x1b[31mwindow\u202e " + "x" * 5000), status=400))
    with pytest.raises(BadRequestError, match=r"bad .*window") as caught:
        client_of(api).fetch()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# Answers that cannot be read


@pytest.mark.parametrize(
    "body", [b"<html>busy</html>", b"", b"[]", b'"text"', b"null", b"\xff\xfe\xff", b"[" * 100_000]
)
def test_an_answer_that_is_not_a_json_object_is_unreadable(api: ScriptedApi, body: bytes) -> None:
    api.answers(body)
    with pytest.raises(UnreadableAnswerError) as caught:
        client_of(api).fetch()
    assert caught.value.body == body
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", ANSWER), ("gzip", ANSWER), ("gzip", gzip.compress(ANSWER)[:-900])]
)
def test_an_encoding_that_cannot_be_undone_is_unreadable(api: ScriptedApi, encoding: str, body: bytes) -> None:
    api.answers(Reply(body, headers={"Content-Encoding": encoding}))
    with pytest.raises(UnreadableAnswerError):
        client_of(api).fetch()


def test_an_answer_of_exactly_the_size_limit_is_returned(api: ScriptedApi) -> None:
    api.answers(b"{}".ljust(MAX_BODY_BYTES))
    assert len(client_of(api).fetch().body) == MAX_BODY_BYTES


def test_an_endless_answer_is_cut_off(api: ScriptedApi) -> None:
    sent = 0

    def pour(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while sent < 20 * MAX_BODY_BYTES:
                sent += handler.wfile.write(b" " * 100_000)
        except OSError:
            pass  # the client has closed the connection

    api.answers(Reply(act=pour))
    with pytest.raises(UnreadableAnswerError, match="10,000,000") as caught:
        client_of(api).fetch()
    assert len(caught.value.body) == MAX_BODY_BYTES
    assert sent < 20 * MAX_BODY_BYTES


def test_a_gzip_bomb_is_rejected_in_bounded_memory(api: ScriptedApi) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(60)) + packer.flush()
    api.answers(Reply(bomb, headers={"Content-Encoding": "gzip"}))
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
def test_a_transient_failure_is_tried_three_times(api: ScriptedApi, reply: Reply, kind: type[OpenRouterError]) -> None:
    client = client_of(api, read_timeout_seconds=0.3)
    api.answers(reply)
    with pytest.raises(kind):
        client.fetch()
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    "failure", [RESET, TRUNCATED, HANG, Reply(status=503)], ids=["reset", "truncated", "hang", "503"]
)
def test_a_third_try_can_succeed(api: ScriptedApi, failure: Reply) -> None:
    api.answers(failure, failure, ANSWER)
    assert client_of(api, read_timeout_seconds=0.3).fetch().body == ANSWER
    assert len(api.requests) == 3


def test_a_429_ends_the_tries(api: ScriptedApi) -> None:
    api.answers(Reply(status=500), Reply(status=429), ANSWER)
    with pytest.raises(RateLimitedError):
        client_of(api).fetch()
    assert len(api.requests) == 2


def test_the_waits_between_tries_grow(api: ScriptedApi) -> None:
    with pytest.raises(ServerError):
        client_of(api, retry_wait_seconds=0.1).fetch()
    first, second, third = (request.at for request in api.requests)
    assert second - first >= 0.1
    assert third - second >= 0.2


def test_no_try_starts_after_the_total_timeout(api: ScriptedApi) -> None:
    begun = time.monotonic()
    with pytest.raises(ServerError):
        client_of(api, retry_wait_seconds=2, total_timeout_seconds=1).fetch()
    assert len(api.requests) == 1
    assert time.monotonic() - begun < 2


def test_a_slow_drip_ends_with_the_total_timeout(api: ScriptedApi) -> None:
    api.answers(Reply(act=drip))
    begun = time.monotonic()
    with pytest.raises(AnswerTimeoutError, match="too slowly"):
        client_of(api, retry_wait_seconds=2, total_timeout_seconds=0.3).fetch()
    assert time.monotonic() - begun < 2
    assert len(api.requests) == 1


def test_a_client_that_starts_slowly_does_not_retry_after_the_deadline(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = httpx.Client.__init__

    def slowly(self: httpx.Client, **options: Any) -> None:
        time.sleep(0.4)
        make(self, **options)

    monkeypatch.setattr(httpx.Client, "__init__", slowly)
    api.answers(Reply(act=drip))
    with pytest.raises(AnswerTimeoutError):
        client_of(api, retry_wait_seconds=0.01, total_timeout_seconds=0.5).fetch()
    assert len(api.requests) == 1


def test_nothing_listening_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        # Bound, but not listening: every connection fails.
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}/api/v1"
        with pytest.raises(ConnectionFailedError, match=re.escape(base_url)):
            Client(api_key=KEY, base_url=base_url, retry_wait_seconds=0.01).fetch()


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "[::1", "\u2028"])
def test_an_invalid_host_name_is_a_failed_connection(host: str) -> None:
    with pytest.raises(ConnectionFailedError, match="ORPIPELINE_BASE_URL"):
        Client(api_key=KEY, base_url=f"http://{host}/api/v1", retry_wait_seconds=0.01).fetch()


# The key stays secret


def test_the_key_is_in_no_representation(api: ScriptedApi) -> None:
    api.answers(ANSWER)
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
    "unknown encoding": Reply(f"sent {KEY}".encode(), headers={"Content-Encoding": f"br; {KEY}"}),
    "no gzip": Reply(f"sent {KEY}".encode(), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_is_removed(api: ScriptedApi, reply: Reply) -> None:
    api.answers(reply)
    with pytest.raises(OpenRouterError) as caught:
        client_of(api).fetch()
    body = caught.value.body if isinstance(caught.value, UnreadableAnswerError) else b""
    assert KEY[:10] not in f"{caught.value} {caught.value!r} {body.decode()}"


@pytest.mark.parametrize("key", ['sk-or-"quoted"', "sk-or-back\\slash"])
def test_a_key_that_json_escapes_is_found_in_an_answer_too(api: ScriptedApi, key: str) -> None:
    api.answers(json.dumps({"data": {}, "sent": key}).encode())
    with pytest.raises(UnreadableAnswerError) as caught:
        client_of(api, api_key=key).fetch()
    assert json.dumps(key)[1:-1].encode() not in caught.value.body


# The time that a 429 states


def millis(at: datetime) -> str:
    return str(round(at.timestamp() * 1000))


SOON = NOW.replace(microsecond=0) + timedelta(minutes=7)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("headers", "inner", "expected"),
    [
        ({"Retry-After": "30"}, {}, NOW + timedelta(seconds=30)),
        ({"Retry-After": " 1.5 "}, {}, NOW + timedelta(seconds=1.5)),
        ({"Retry-After": "0"}, {}, NOW),
        ({"Retry-After": "86400"}, {}, NOW + DAY),
        ({"Retry-After": format_datetime(SOON, usegmt=True)}, {}, SOON),
        ({"X-RateLimit-Reset": millis(SOON)}, {}, SOON),
        ({"X-RateLimit-Reset": str(round(SOON.timestamp()))}, {}, SOON),
        ({}, {"X-RateLimit-Reset": millis(SOON)}, SOON),
        ({}, {"x-ratelimit-reset": int(millis(SOON))}, SOON),
        ({}, {"Retry-After": 30}, NOW + timedelta(seconds=30)),
        # Retry-After counts first; an absurd value is skipped.
        ({"Retry-After": "30", "X-RateLimit-Reset": millis(SOON)}, {}, NOW + timedelta(seconds=30)),
        ({"Retry-After": "-1", "X-RateLimit-Reset": millis(SOON)}, {}, SOON),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "-1"}, {"X-RateLimit-Reset": millis(SOON)}, SOON),
    ],
)
def test_the_stated_time_is_read_in_every_form(
    headers: Mapping[str, str], inner: Mapping[str, object], expected: datetime
) -> None:
    assert earliest_retry(headers, {"metadata": {"headers": inner}}, NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "nan",
        "inf",
        "1e300",
        "9" * 5000,
        str(365 * 86400),
        format_datetime(NOW - timedelta(seconds=5), usegmt=True),
        format_datetime(NOW + 365 * DAY, usegmt=True),
        "Fri, 13 Nov 2026 00:00:00 +99999999999999999",
        "Fri, 31 Dec 9999 23:59:59 -0100",
        millis(NOW - timedelta(seconds=5)),
        millis(NOW + 365 * DAY),
        str(round(NOW.timestamp()) - 5),
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset"])
@pytest.mark.parametrize("where", ["header", "body"])
def test_an_absurd_time_is_ignored(name: str, value: str, where: str) -> None:
    stated = {name: value}
    found = (
        earliest_retry(stated, {}, NOW)
        if where == "header"
        else earliest_retry({}, {"metadata": {"headers": stated}}, NOW)
    )
    assert found is None


@pytest.mark.parametrize("metadata", [None, "x", [], {"headers": None}, {"headers": ["Retry-After"]}, {"headers": {}}])
def test_metadata_of_any_shape_is_ignored(metadata: object) -> None:
    assert earliest_retry({}, {"metadata": metadata}, NOW) is None


json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(max_examples=30)
@given(header=st.text(), inner=json_scalars | st.lists(json_scalars))
def test_no_stated_time_makes_the_client_raise(header: str, inner: object) -> None:
    for name in ("Retry-After", "X-RateLimit-Reset"):
        found = earliest_retry({name: header}, {"metadata": {"headers": {name: inner}}}, NOW)
        assert found is None or NOW <= found <= NOW + DAY


@pytest.mark.parametrize("under", [429, 200])
def test_a_rate_limit_error_states_the_time(api: ScriptedApi, under: int) -> None:
    body = error_body(429, "Slow down", metadata={"headers": {"X-RateLimit-Reset": millis(SOON)}})
    api.answers(Reply(body, status=under))
    with pytest.raises(RateLimitedError, match=r"Slow down.*00:27:03 UTC on 2026-10-07") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == SOON


def test_a_rate_limits_headers_count_in_any_case(api: ScriptedApi) -> None:
    api.answers(Reply(status=429, headers={"retry-after": "60"}))
    with pytest.raises(RateLimitedError) as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == NOW + timedelta(seconds=60)


def test_a_rate_limit_without_a_time_shows_later(api: ScriptedApi) -> None:
    api.answers(Reply(status=429))
    with pytest.raises(RateLimitedError, match="Try again later") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at is None

"""The client against an HTTP server that misbehaves."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline import network
from orpipeline.errors import (
    ApiKeyError,
    NextAttempt,
    OpenRouterError,
    RateLimitedError,
    SettingsError,
    StatusError,
    TransportError,
    UnreadableResponseError,
)
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.client import DEMO_HEADER, MAX_BODY_BYTES, Client, open_client
from orpipeline.openrouter.stated_time import stated_time
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY

NOW = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
BODY = sample_response(date(2026, 10, 6))
PACKED = gzip.compress(BODY)
TRANSIENT, PERSON, STATED = NextAttempt.TRANSIENT, NextAttempt.NEEDS_PERSON, NextAttempt.STATES_TIME


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


def _reset(handler: BaseHTTPRequestHandler) -> None:
    # Closing with a linger time of 0 sends a reset.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _hang(handler: BaseHTTPRequestHandler) -> None:  # noqa: ARG001
    time.sleep(1)


RESET = Reply(act=_reset)
HANG = Reply(act=_hang)
TRUNCATED = Reply(BODY[:1000], headers={"Content-Length": str(len(BODY)), "Connection": "close"})


# The request


def test_exactly_the_documented_request_is_sent_and_the_key_is_in_no_representation(api: LocalApi) -> None:
    api.serve(BODY)
    client = client_of(api)
    assert KEY not in f"{client!r} {client} {client.fetch()!r}"
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


def test_the_app_headers_that_are_set_are_sent_in_any_language(api: LocalApi, tmp_path: Path) -> None:
    api.serve(BODY)
    settings = Settings(
        data_dir=tmp_path,
        base_url=api.base_url,
        http_referer="https://example.org",
        app_title="Café 市場",
        app_categories="",
    )
    open_client(settings, KEY).fetch()
    sent = {name.lower(): value for name, value in api.requests[0].headers.items()}
    assert sent["http-referer"] == "https://example.org"
    # The server reads headers as Latin-1.
    assert sent["x-openrouter-title"].encode("latin-1").decode() == "Café 市場"
    assert "x-openrouter-categories" not in sent


@pytest.mark.parametrize(
    "key", [None, "", f"{KEY}\n", f" {KEY}", f"{KEY} x", f"{KEY}\r\nX-Y: z", f"{KEY}\x7f", f"{KEY}é"]
)
def test_without_a_valid_key_no_request_is_sent(api: LocalApi, key: str | None) -> None:
    client = client_of(api, api_key=key)
    for call in (client.fetch, client.check):
        with pytest.raises(ApiKeyError, match="OPENROUTER_API_KEY") as caught:
            call()
        assert KEY not in str(caught.value)
    assert api.requests == []


# Responses


@pytest.mark.parametrize(
    ("body", "encoding", "packed"),
    [
        *((body, None, body) for body in (BODY, b' {"x":\r\n"\xc3\xa9\\u00e9" }\n', b'{"data":{"a":NaN}}', b"{}")),
        *((BODY, encoding, PACKED) for encoding in ("gzip", "GZip")),
        (BODY, "deflate", zlib.compress(BODY)),
        (b"{}".ljust(MAX_BODY_BYTES), None, b"{}".ljust(MAX_BODY_BYTES)),
    ],
)
def test_the_bytes_are_returned_unchanged(api: LocalApi, body: bytes, encoding: str | None, packed: bytes) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    api.serve(Reply(packed, headers=headers), Reply(packed, headers={**headers, DEMO_HEADER: "1"}))
    response = client_of(api).fetch()
    assert (response.body, response.fetched_at, response.origin) == (body, NOW, "api")
    assert response.url == f"{api.base_url}/classifications/task?window=7d"
    assert client_of(api).fetch() == replace(response, origin="demo")


def http(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


NOW_SECOND = NOW.replace(microsecond=0)
LATE = NOW_SECOND + timedelta(minutes=11)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (http(LATE), LATE),
        (http(NOW_SECOND - timedelta(days=400)), NOW_SECOND - timedelta(days=400)),
        ("Wed, 07 Oct 2026 03:20:01 +0200", datetime(2026, 10, 7, 1, 20, 1, tzinfo=UTC)),
        (None, NOW),
        ("yesterday", NOW),
        ("Fri, 13 Nov 2026 00:00:00 +99999999999999999", NOW),
        ("Fri, 31 Dec 9999 23:59:59 -0100", NOW),
    ],
)
def test_the_fetch_time_is_the_servers_date_or_else_this_machines_time(
    api: LocalApi, sent: str | None, expected: datetime
) -> None:
    api.serve(Reply(BODY, headers={"Date": sent} if sent else {}))
    assert client_of(api).fetch().fetched_at == expected


# Errors that the API states


@pytest.mark.parametrize("form", ["JSON", "JSON with status 200"])
@pytest.mark.parametrize(
    ("status", "kind", "next_attempt", "tries"),
    [
        (400, StatusError, PERSON, 1),
        *((status, ApiKeyError, PERSON, 1) for status in (401, 403)),
        (429, RateLimitedError, STATED, 1),
        *((status, StatusError, TRANSIENT, 1) for status in (201, 302, 404)),
        *((status, StatusError, TRANSIENT, 3) for status in (500, 599)),
    ],
)
def test_each_status_has_its_error_and_only_5xx_is_retried(
    api: LocalApi, status: int, kind: type[OpenRouterError], next_attempt: NextAttempt, tries: int, form: str
) -> None:
    body = error_body(status, "because")
    if form == "JSON with status 200" and status >= 400:
        api.serve(body)
    else:  # a redirect is not followed
        api.serve(Reply(body, status=status, headers={"Location": f"{api.base_url}/elsewhere"}))
    with pytest.raises(kind, match=str(status)) as caught:
        client_of(api).fetch()
    assert (type(caught.value), getattr(caught.value, "status", status)) == (kind, status)
    assert (caught.value.next_attempt, len(api.requests)) == (next_attempt, tries)
    assert "because" in str(caught.value)
    assert getattr(caught.value, "retry_at", None) is None
    assert ("Try again later" in str(caught.value)) == (next_attempt is not PERSON)


@pytest.mark.parametrize(
    ("code", "status"),
    [("429", 429), (402, 402), *((code, 500) for code in (200, True, -1, 10**300, "model_overloaded", None))],
)
def test_an_error_body_with_status_200_is_the_error_of_its_code_or_500(
    api: LocalApi, code: object, status: int
) -> None:
    api.serve(error_body(code))
    with pytest.raises(StatusError) as caught:
        client_of(api).fetch()
    assert caught.value.status == status
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        {"body": b" " * (MAX_BODY_BYTES + 1)},
        {"body": b"x", "headers": {"Content-Encoding": "br"}},
        {"body": b"x", "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=["empty", "too large", "unknown encoding", "no gzip"],
)
def test_an_error_status_with_an_unreadable_body_keeps_its_error(api: LocalApi, spoilt: dict[str, Any]) -> None:
    api.serve(Reply(status=503, **spoilt), Reply(status=429, **spoilt))
    with pytest.raises(RateLimitedError):
        client_of(api).fetch()
    assert len(api.requests) == 2


def test_a_servers_message_is_one_short_printable_line(api: LocalApi) -> None:
    api.serve(Reply(error_body(400, "bad\n\x1b[31mwindow\u202e " + "x" * 5000), status=400))
    with pytest.raises(StatusError, match=r"bad .*window") as caught:
        client_of(api).fetch()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


# Responses that cannot be read


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *((None, body) for body in (b"<html>busy</html>", b"", b"[]", b'"text"', b"null", b"[" * 100_000)),
        *((None, body) for body in (b"\xff\xfe\xff", b'{"data": "\xe9"}')),
        (None, b'{"data": "\xed\xa0\x80"}'),  # a surrogate, which Python's json lets through
        *((None, BODY.decode().encode(code)) for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *(("gzip", BODY), ("gzip", PACKED[:-900]), ("deflate", PACKED), ("br", PACKED)),
    ],
)
def test_what_is_not_a_json_object_in_utf_8_is_unreadable(api: LocalApi, encoding: str | None, body: bytes) -> None:
    api.serve(Reply(body, headers={"Content-Encoding": encoding} if encoding else {}))
    with pytest.raises(UnreadableResponseError) as caught:
        client_of(api).fetch()
    assert encoding or caught.value.body == body
    assert len(api.requests) == 1


def test_a_gzip_bomb_is_rejected_in_bounded_memory(api: LocalApi) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 10_000_000) for _ in range(25)) + packer.flush()
    api.serve(Reply(bomb, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableResponseError, match="10,000,000"):
            client_of(api).fetch()
        assert tracemalloc.get_traced_memory()[1] < 200_000_000  # one chunk of the network, unpacked, and copies
    finally:
        tracemalloc.stop()


# Connections that fail


@pytest.mark.parametrize(
    "failure", [RESET, TRUNCATED, HANG, Reply(status=503)], ids=["reset", "truncated", "hang", "503"]
)
def test_a_transient_failure_is_tried_three_times(api: LocalApi, failure: Reply) -> None:
    client = client_of(api, read_timeout_seconds=0.3)
    api.serve(failure, failure, BODY)
    assert client.fetch().body == BODY
    assert len(api.requests) == 3
    api.serve(failure)
    with pytest.raises(StatusError if failure.status == 503 else TransportError) as caught:
        client.fetch()
    assert (caught.value.next_attempt, len(api.requests)) == (TRANSIENT, 6)


def trickle(head: bytes) -> Reply:
    """Return a reply whose body goes on until the client closes the connection, for 10 s at most."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head)
        with suppress(OSError):
            for _ in range(200):
                handler.wfile.write(b" ")
                time.sleep(0.05)

    return Reply(act=act)


@pytest.mark.parametrize(
    ("reply", "limits", "error", "tries"),
    [
        (Reply(status=500), {"retry_wait_seconds": 2}, "failed", 1),
        (HANG, {}, "timed out", 1),
        (HANG, {"read_timeout_seconds": 0.4}, "timed out", 2),
        (trickle(b"Content-Length: 1000\r\n\r\n{}"), {}, "not complete after 0.6 s", 1),
        (trickle(b"Connection: close\r\n\r\n{}"), {}, "not complete after 0.6 s", 1),
    ],
    ids=["no try after it", "no response", "two tries", "endless body", "endless body without length"],
)
def test_all_tries_and_waits_share_one_deadline(
    api: LocalApi, reply: Reply, limits: dict[str, float], error: str, tries: int
) -> None:
    api.serve(reply)
    begun = time.monotonic()
    with pytest.raises((StatusError, TransportError), match=re.escape(error)):
        client_of(api, **limits, total_timeout_seconds=0.6).fetch()
    assert time.monotonic() - begun < 1.1
    assert len(api.requests) == tries


def test_a_server_that_does_not_complete_the_tls_handshake_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        base_url = f"https://127.0.0.1:{server.getsockname()[1]}/api/v1"
        begun = time.monotonic()
        with pytest.raises(TransportError, match="timed out"):
            Client(KEY, base_url, total_timeout_seconds=0.6).fetch()
        assert time.monotonic() - begun < 1.1


def _allow_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(network.TESTING, raising=False)
    monkeypatch.setattr(network, "test_folder", None)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "[::1", "\u2028", "127.0.0.1:9"])
def test_a_host_that_does_not_exist_is_a_failed_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _allow_other_hosts(monkeypatch)  # no such host can be looked up, and nothing listens on port 9
    with pytest.raises(TransportError, match=f"{re.escape(host)}.*sent no complete response.*ORPIPELINE_BASE_URL"):
        Client(KEY, f"https://{host}/api/v1", retry_wait_seconds=0.01).fetch()


# The key goes to the API and nowhere else


@pytest.mark.parametrize("host", ["192.0.2.1", "localhost.example", "127.0.0.1@192.0.2.1", "[2001:db8::1]"])
def test_the_key_is_not_sent_unencrypted_to_another_machine(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _allow_other_hosts(monkeypatch)
    client = Client(KEY, f"http://{host}/api/v1", budget=Budget(tmp_path / "budget.sqlite"))
    for call in (client.fetch, client.check):
        with pytest.raises(ApiKeyError, match="https:// address"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "[::1]"])
def test_the_key_is_sent_unencrypted_on_this_machine(host: str) -> None:
    # Nothing listens on port 9, so a request fails to connect.
    with pytest.raises(TransportError):
        Client(KEY, f"http://{host}:9/api/v1", retry_wait_seconds=0.01).fetch()


def test_a_proxy_gets_no_request_to_this_machine(api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> None:
    _allow_other_hosts(monkeypatch)  # the proxy is on this machine
    api.serve(BODY)
    with LocalApi() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/api/v1"))
        proxy.serve(BODY)
        client_of(api).fetch()
        assert (len(api.requests), len(proxy.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5h://127.0.0.1:1"),
        ("all_proxy", "socks://anna:pass@word@127.0.0.1:1"),
        ("NO_PROXY", "[::1]"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSLKEYLOGFILE", "/nonexistent/file"),
    ],
)
def test_an_unusable_proxy_or_certificate_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # as in an environment without it
    monkeypatch.setenv("HTTPS_PROXY", "anna:password@127.0.0.1:1")  # a valid one, with a password
    monkeypatch.setenv(name, value)
    client = Client(KEY, "https://127.0.0.1:9/api/v1", budget=Budget(tmp_path / "budget.sqlite"))
    for call in (client.check, client.fetch):
        with pytest.raises(SettingsError) as caught:
            call()
        assert f"{name}={value.replace('anna:pass@word@', '')}" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "word" not in str(caught.value)
    assert not list(tmp_path.iterdir())


# The key stays secret


CUT_IN_THE_KEY = b" " * (MAX_BODY_BYTES - 15) + KEY.encode() + b" " * 100_000
ECHOES = {
    "error message": Reply(error_body(401, f"no user for {KEY}"), status=401),
    "message cut inside the key": Reply(error_body(400, "x" * 190 + KEY), status=400),
    "nested message": Reply(error_body(400, {"sent": [KEY]}), status=400),
    "error under status 200": Reply(error_body(400, f"bad {KEY}")),
    "rate limit": Reply(error_body(429, KEY, metadata={"headers": {"X-RateLimit-Reset": KEY}}), status=429),
    "HTML cut inside the key": Reply(b"<html>" + b"x" * 60 + KEY.encode()),
    "JSON list": Reply(json.dumps([KEY]).encode()),
    "valid response": Reply(BODY[:-1] + f',"sent":"{KEY}"}}'.encode()),
    "too large, cut inside the key": Reply(CUT_IN_THE_KEY),
    "wrong encoding": Reply(f"sent {KEY}".encode(), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_is_removed(api: LocalApi, reply: Reply) -> None:
    api.serve(reply)
    with pytest.raises(OpenRouterError) as caught:
        client_of(api).fetch()
    body = caught.value.body if isinstance(caught.value, UnreadableResponseError) else b""
    assert KEY[:10].encode() not in f"{caught.value} {caught.value!r}".encode() + body


@pytest.mark.parametrize("key", ['sk-or-"quoted"', "sk-or-back\\slash", "sk-or/slash"])
def test_a_key_that_json_escapes_is_found_in_a_response_too(api: LocalApi, key: str) -> None:
    escaped = json.dumps(key)[1:-1].replace("/", "\\/").encode()
    api.serve(b'{"data": {}, "sent": "%b"}' % escaped)
    with pytest.raises(UnreadableResponseError, match="contains the API key") as caught:
        client_of(api, api_key=key).fetch()
    assert caught.value.body == b'{"data": {}, "sent": "[key]"}'


# The time that an error states

SOON = NOW_SECOND + timedelta(minutes=7)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
IN_420 = NOW + 420 * SECOND


def millis(at: datetime) -> str:
    return str(round(at.timestamp() * 1000))


def stated(headers: Mapping[str, str] | list[tuple[str, str]], inner: object = None) -> Any:
    """Return the time that a 429 with these headers, and these in its body, states."""
    error = {"metadata": {"headers": inner}}
    return stated_time(httpx.Headers(headers, encoding="utf-8"), error, NOW, with_resets=True)


@pytest.mark.parametrize(
    ("headers", "inner", "expected"),
    [
        ([("retry-after", "30")], {}, NOW + 30 * SECOND),
        ([("Retry-After", " 1.5 ")], {}, NOW + 1.5 * SECOND),
        ([("Retry-After", "0")], {}, NOW),
        ([("Retry-After", http(SOON))], {}, SOON),
        ([("X-RateLimit-Reset", millis(SOON))], {}, SOON),
        ([("X-RateLimit-Reset", str(round(SOON.timestamp())))], {}, SOON),
        ([], {"X-RateLimit-Reset": millis(SOON)}, SOON),
        ([], {"x-ratelimit-reset": int(millis(SOON))}, SOON),
        ([], {"Retry-After": 30}, NOW + 30 * SECOND),
        # Of several, the latest counts.
        ([("Retry-After", "30"), ("X-RateLimit-Reset", millis(SOON))], {}, SOON),
        ([("Retry-After", "420"), ("X-RateLimit-Reset", millis(NOW_SECOND))], {}, IN_420),
        ([("Retry-After", "30"), ("Retry-After", "420"), ("Retry-After", "60")], {}, IN_420),
        ([("Retry-After", "30")], {"Retry-After": ["60", 420], "retry-after": "90"}, IN_420),
        # What is past or not a time does not count.
        ([("Retry-After", "-1"), ("Retry-After", "soon"), ("Retry-After", "nan"), ("Retry-After", "420")], {}, IN_420),
    ],
)
def test_the_stated_time_is_read_in_every_form(
    headers: list[tuple[str, str]], inner: Mapping[str, object], expected: datetime
) -> None:
    assert stated(headers, inner) == expected


@pytest.mark.parametrize("off", [timedelta(hours=3), timedelta(hours=-3), timedelta(days=400)], ids=str)
@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset"])
def test_a_stated_date_is_relative_to_the_servers_own_date(name: str, off: timedelta) -> None:
    at = SOON + off
    headers = {"Date": http(NOW_SECOND + off), name: http(at) if name == "Retry-After" else millis(at)}
    assert stated(headers) == NOW + timedelta(minutes=7)
    assert stated({"Date": "garbage", "Retry-After": http(SOON)}) == SOON


YEAR_AHEAD, JUST_PAST = NOW + 365 * DAY, NOW - 5 * SECOND
OUT_OF_RANGE = "Fri, 13 Nov 2026 00:00:00 +99999999999999999"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # A longer wait counts as 24 hours.
        *(("Retry-After", value, NOW + DAY) for value in ("86401", "9" * 5000, http(YEAR_AHEAD))),
        *(("X-RateLimit-Reset", value, NOW + DAY) for value in ("9" * 17, "9" * 5000, millis(YEAR_AHEAD))),
        # What is past or not a time is ignored.
        *(("Retry-After", value, None) for value in ("", "soon", "-1", "nan", "inf", http(JUST_PAST), OUT_OF_RANGE)),
        *(("X-RateLimit-Reset", value, None) for value in ("", "soon", "60", millis(JUST_PAST), http(SOON))),
    ],
)
def test_an_absurd_time_counts_as_24_hours_or_is_ignored(name: str, value: str, expected: datetime | None) -> None:
    assert stated({name: value}) == stated({}, {name: [value]}) == expected


RESET_SOON = {"metadata": {"headers": {"X-RateLimit-Reset": millis(SOON)}}}
json_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = json_scalars | st.lists(json_scalars)


@given(
    header=st.text(), sent=st.text(), inner=json_values, metadata=json_values | st.just({"headers": ["Retry-After"]})
)
def test_no_stated_time_makes_the_client_raise(header: str, sent: str, inner: object, metadata: object) -> None:
    for name in ("Retry-After", "X-RateLimit-Reset"):
        found = stated({name: header, "Date": sent}, {name: inner})
        assert found is None or NOW <= found <= NOW + DAY
    assert stated_time(httpx.Headers(), {"metadata": metadata}, NOW, with_resets=True) is None


@pytest.mark.parametrize(
    ("reply", "kind", "expected"),
    [
        (Reply(error_body(429, **RESET_SOON), status=429), RateLimitedError, SOON),
        (Reply(error_body(429, **RESET_SOON)), RateLimitedError, SOON),
        (Reply(status=503, headers={"Retry-After": "420", "X-RateLimit-Reset": millis(LATE)}), StatusError, IN_420),
        (Reply(b"<html>", status=500, headers={"Retry-After": "420"}), StatusError, IN_420),
        (Reply(error_body(503, metadata={"headers": {"Retry-After": [420]}})), StatusError, IN_420),
    ],
    ids=["429", "429 under 200", "503", "500", "503 under 200"],
)
def test_no_request_is_sent_before_the_time_that_an_error_states(
    api: LocalApi, reply: Reply, kind: type[StatusError], expected: datetime
) -> None:
    api.serve(reply, BODY)
    with pytest.raises(kind, match="Try again at 00:27:03 UTC on 2026-10-07") as caught:
        client_of(api).fetch()
    assert caught.value.retry_at == expected
    assert (caught.value.next_attempt, len(api.requests)) == (STATED, 1)


def test_a_reset_time_alone_does_not_delay_a_5xx(api: LocalApi) -> None:
    api.serve(Reply(status=503, headers={"X-RateLimit-Reset": millis(SOON)}), BODY)
    assert client_of(api).fetch().body == BODY

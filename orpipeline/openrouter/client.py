"""The client of `GET /classifications/task`. It returns the answer's bytes or raises a typed error."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any

import httpx
from tenacity import (
    Retrying,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from orpipeline.clock import Clock, utc_now
from orpipeline.openrouter.answer import Answer, parse_json
from orpipeline.openrouter.budget import Budget, BudgetError, BudgetSpentError
from orpipeline.openrouter.errors import (
    AnswerTimeoutError,
    BadRequestError,
    ConnectionFailedError,
    MissingKeyError,
    OpenRouterError,
    RateLimitedError,
    ServerError,
    StatusError,
    TransportError,
    UnauthorizedError,
    UnexpectedStatusError,
    UnreadableAnswerError,
)
from orpipeline.settings import DEFAULT_BASE_URL

MAX_BODY_BYTES = 10_000_000
"""The size limit of an answer. A usual one has about 31 kB."""
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
TOTAL_TIMEOUT_SECONDS = 55.0
"""The limit for all tries together, waits included."""
TRIES = 3
LONGEST_WAIT_SECONDS = 60.0
"""The client waits for a cool-down up to this long. A longer one is left to a later run."""
WINDOW_DAYS = 7
"""The only window that the API serves today."""
DEMO_HEADER = "X-Orpipeline-Demo"
"""The stand-in of the API marks its answers with this header. They are archived with the origin `demo`."""

_MAX_COOL_DOWN = timedelta(days=1)
_MESSAGE_LENGTH = 200


@dataclass(frozen=True)
class AppHeaders:
    """The optional headers that OpenRouter uses to attribute requests to an app."""

    referer: str | None = None
    title: str | None = None
    categories: str | None = None

    def as_headers(self) -> dict[str, str]:
        """Return the headers that are set, under their documented names."""
        named = {
            "HTTP-Referer": self.referer,
            "X-OpenRouter-Title": self.title,
            "X-OpenRouter-Categories": self.categories,
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Client:
    """Fetches the task classifications from the API.

    `api_key` is sent as the bearer token and appears nowhere else. `retry_wait_seconds` is the wait before the
    second try; it doubles, with jitter. `transport` is httpx's, for example for a proxy. With a `budget`, each request
    is counted before it is sent, and a 429 stops all processes that share the budget. `sleep` waits for the end of a
    short cool-down.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str = DEFAULT_BASE_URL
    app: AppHeaders = field(default_factory=AppHeaders)
    clock: Clock = utc_now
    retry_wait_seconds: float = 0.5
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS
    total_timeout_seconds: float = TOTAL_TIMEOUT_SECONDS
    transport: httpx.BaseTransport | None = None
    budget: Budget | None = None
    sleep: Callable[[float], None] = time.sleep

    @property
    def url(self) -> str:
        """The requested URL, with its query."""
        return f"{self.base_url}/classifications/task?window={WINDOW_DAYS}d"

    def fetch(self) -> Answer:
        """Send the request and return the answer. Retry transient failures.

        After a failed connection, a timeout or a 5XX it retries: 3 tries, exponential waits with jitter, less than a
        minute in total. After a 429 it waits once for a cool-down of up to 60 s. Raises `MissingKeyError` before any
        request, `BudgetSpentError` if the budget allows no request, and the other errors of
        `orpipeline.openrouter.errors`.
        """
        headers = self._headers()
        try:
            answer = self._fetch(headers)
        except RateLimitedError as error:
            wait = (error.retry_at - self.clock()).total_seconds() if error.retry_at and self.budget else None
            if isinstance(error, BudgetSpentError) or wait is None or wait > LONGEST_WAIT_SECONDS:
                raise
            self.sleep(max(wait, 0))
            answer = self._fetch(headers)
        if self.budget is not None:
            # A budget that cannot be written must not discard a good answer.
            with suppress(BudgetError):
                self.budget.good_answer()
        return answer

    def _fetch(self, headers: dict[str, str]) -> Answer:
        # UTF-8, because an app's title can be in any language; httpx's default is ASCII.
        encoded = httpx.Headers(headers, encoding="utf-8")
        with httpx.Client(transport=self.transport, follow_redirects=False, headers=encoded) as http:
            deadline = time.monotonic() + self.total_timeout_seconds
            tries = Retrying(
                retry=retry_if_exception_type((TransportError, ServerError)),
                # No try starts after the deadline that ends the current one.
                stop=lambda state: state.attempt_number >= TRIES or time.monotonic() + state.upcoming_sleep >= deadline,
                wait=wait_exponential_jitter(
                    multiplier=self.retry_wait_seconds, max=10.0, jitter=self.retry_wait_seconds
                ),
                reraise=True,
            )
            return tries(self._fetch_once, http, deadline)

    def _headers(self) -> dict[str, str]:
        if not self.api_key:
            raise MissingKeyError(
                "OPENROUTER_API_KEY is not set, so no request was sent. Set it to a key from "
                "openrouter.ai/settings/keys, or try `orpipeline demo`, which needs no key."
            )
        if not (self.api_key.isascii() and self.api_key.isprintable()) or " " in self.api_key:
            raise UnauthorizedError(
                "OPENROUTER_API_KEY contains a space or another invalid character, so no request was sent. "
                "Copy the key again.",
                status=401,
            )
        return {
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": f"orpipeline/{version('orpipeline')}",
            "Accept": "application/json",
            # The archive stores the bytes as sent. The answer is small enough without compression.
            "Accept-Encoding": "identity",
            **self.app.as_headers(),
        }

    def _fetch_once(self, http: httpx.Client, deadline: float) -> Answer:
        if self.budget is not None:
            self.budget.spend()
        left = max(deadline - time.monotonic(), 0.1)
        timeout = httpx.Timeout(min(self.read_timeout_seconds, left), connect=min(CONNECT_TIMEOUT_SECONDS, left))
        try:
            with http.stream("GET", self.url, timeout=timeout) as response:
                try:
                    body = self._read(response, deadline)
                except UnreadableAnswerError:
                    if response.status_code == httpx.codes.OK:
                        raise
                    body = b""  # the status is enough
        except httpx.TimeoutException:
            raise AnswerTimeoutError(
                f"{self.base_url} did not answer in time ({self.read_timeout_seconds:g} s for a try). Try again later."
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last for a host's name
            raise ConnectionFailedError(
                f"{self.base_url} could not be reached: {self._safe(str(error) or type(error).__name__)}. "
                "Check the network and ORPIPELINE_BASE_URL."
            ) from None
        self._raise_for_error(response, body)
        self._reject_echoed_key(body)
        return Answer(
            body=body,
            status=response.status_code,
            server_date=_http_date(response.headers.get("Date")),
            fetched_at=self.clock(),
            url=self.url,
            origin="demo" if DEMO_HEADER in response.headers else "api",
        )

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        """Read the body as sent, in bounded memory and time."""
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise self._too_large(bytes(body))
            if time.monotonic() > deadline:
                raise AnswerTimeoutError(
                    f"{self.base_url} sends its answer too slowly: {len(body):,} bytes in "
                    f"{self.total_timeout_seconds:g} s. Try again later."
                )
        return self._decoded(bytes(body), response.headers.get("Content-Encoding", "identity"))

    def _decoded(self, body: bytes, encoding: str) -> bytes:
        """Undo a content encoding that was not requested, up to the size limit."""
        if encoding.lower() in ("", "identity"):
            return body
        if encoding.lower() not in ("gzip", "x-gzip"):
            raise self._unreadable(
                f"{self.base_url} sent an answer with the encoding {self._safe(encoding)}, which was not requested. "
                "Try again later.",
                body,
            )
        try:
            decoded = zlib.decompressobj(wbits=31).decompress(body, MAX_BODY_BYTES + 1)
        except zlib.error:
            raise self._unreadable(
                f"{self.base_url} sent an answer that is marked as gzip but is not. Try again later.", body
            ) from None
        if len(decoded) > MAX_BODY_BYTES:
            raise self._too_large(body)
        return decoded

    def _too_large(self, body: bytes) -> UnreadableAnswerError:
        return self._unreadable(
            f"{self.base_url} sent more than {MAX_BODY_BYTES:,} bytes, more than any answer of this endpoint. "
            "The rest was not read. Check ORPIPELINE_BASE_URL.",
            body,
        )

    def _unreadable(self, message: str, body: bytes) -> UnreadableAnswerError:
        return UnreadableAnswerError(message, body=self._without_key(body)[:MAX_BODY_BYTES])

    def _raise_for_error(self, response: httpx.Response, body: bytes) -> None:
        status = response.status_code
        try:
            payload = parse_json(body)
        except ValueError:
            payload = None
        error = payload.get("error") if isinstance(payload, dict) else None
        if status == httpx.codes.OK:
            if error is not None:
                # OpenRouter also sends errors with status 200; the body has the error's code.
                status = _error_code(error)
            elif isinstance(payload, dict):
                return
            else:
                # Remove the key before cutting: half a key would not be found.
                shown = self._safe(self._without_key(body)[:80].decode("utf-8", "replace"))
                raise self._unreadable(
                    f"{self.base_url} sent an answer that is not a JSON object; it starts with {shown!r}. "
                    "Check ORPIPELINE_BASE_URL; if it is right, try again later.",
                    body,
                )
        stated = error if isinstance(error, dict) else {"message": error}
        raise self._status_error(status, stated, response.headers)

    def _reject_echoed_key(self, body: bytes) -> None:
        # Archived answers are permanent and shared, so they must not contain a secret.
        if self._without_key(body) != body:
            raise self._unreadable(
                f"{self.base_url} sent an answer that contains the API key. It is archived without the key. "
                "Check ORPIPELINE_BASE_URL and replace the key.",
                body,
            )

    def _status_error(self, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> OpenRouterError:
        message = self._safe(str(error.get("message") or "")) or "no message"
        if status == 429:
            retry_at = earliest_retry(headers, error, self.clock())
            if self.budget is not None:
                retry_at = self.budget.cool_down(retry_at)
            when = f"at {retry_at:%H:%M:%S} UTC on {retry_at:%Y-%m-%d}" if retry_at else "later"
            return RateLimitedError(
                f"The API rejects further requests for now (429: {message}). Try again {when}.", retry_at=retry_at
            )
        if status == 401:
            return UnauthorizedError(
                f"The API does not accept the key in OPENROUTER_API_KEY (401: {message}). Set a valid key.",
                status=status,
            )
        if status == 400:
            return BadRequestError(
                f"The API does not accept the request (400: {message}). Check for a newer version of orpipeline.",
                status=status,
            )
        kind: Callable[..., StatusError] = ServerError if 500 <= status < 600 else UnexpectedStatusError
        return kind(f"The API at {self.base_url} failed ({status}: {message}). Try again later.", status=status)

    def _without_key(self, body: bytes) -> bytes:
        for form in self._key_forms():
            body = body.replace(form.encode(), b"[key]")
        return body

    def _key_forms(self) -> tuple[str, ...]:
        """Return the key, and the key as JSON or a `repr` writes it."""
        return (self.api_key, json.dumps(self.api_key)[1:-1]) if self.api_key else ()

    def _safe(self, text: str) -> str:
        """Return a server's text for a log: without the key and control characters, and short."""
        for form in self._key_forms():
            text = text.replace(form, "[key]")
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:_MESSAGE_LENGTH]


def _error_code(error: object) -> int:
    """Return the status in an error body, or 500 if it has none."""
    code = _number(error.get("code")) if isinstance(error, dict) else None
    return int(code) if code is not None and 400 <= code < 600 else 500


def earliest_retry(headers: Mapping[str, str], error: Mapping[str, Any], now: datetime) -> datetime | None:
    """Return the time (UTC) that a 429 states for the next request, or None if it states no usable one.

    In this order: `Retry-After` in seconds or as an HTTP date; `X-RateLimit-Reset` as a header, or in the
    error body's `metadata.headers`, in milliseconds or seconds since the epoch. A time in the past, or
    more than a day away (the API's longest limit is per day), is ignored.
    """
    inner = error.get("metadata")
    inner = inner.get("headers") if isinstance(inner, dict) else None
    inner = {str(k).lower(): v for k, v in inner.items()} if isinstance(inner, dict) else {}
    times = [
        _retry_after(headers.get("Retry-After"), now),
        _retry_after(inner.get("retry-after"), now),
        _epoch(headers.get("X-RateLimit-Reset")),
        _epoch(inner.get("x-ratelimit-reset")),
    ]
    return next((at for at in times if at is not None and now <= at <= now + _MAX_COOL_DOWN), None)


def _retry_after(value: object, now: datetime) -> datetime | None:
    seconds = _number(value)
    if seconds is None:
        return _http_date(value) if isinstance(value, str) else None
    return now + timedelta(seconds=seconds) if 0 <= seconds <= _MAX_COOL_DOWN.total_seconds() else None


def _epoch(value: object) -> datetime | None:
    number = _number(value)
    if number is None or number < 0:
        return None
    seconds = number / 1000 if number > 1e11 else number  # 1e11 seconds is the year 5138
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _number(value: object) -> float | None:
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if abs(number) < 1e18 else None  # also rules out NaN and infinity


def _http_date(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None

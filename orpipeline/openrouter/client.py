"""The client of `GET /classifications/task`: one request, its answer's bytes, or a typed error."""

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
"""An answer is about 31 kB; what is larger than this is not read to its end."""
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
TOTAL_TIMEOUT_SECONDS = 55.0
"""All tries together, waits included, stay under a minute."""
TRIES = 3
LONGEST_WAIT_SECONDS = 60.0
"""A longer cool-down after a 429 is left to a later run: no process sleeps through it."""
WINDOW_DAYS = 7
"""The only window that the API serves today."""
DEMO_HEADER = "X-Orpipeline-Demo"
"""The stand-in of the API marks its answers with this header, and they are archived as `demo`."""

_MAX_COOL_DOWN = timedelta(days=1)
_MESSAGE_LENGTH = 200


@dataclass(frozen=True)
class AppHeaders:
    """The optional headers by which OpenRouter attributes requests to an app."""

    referer: str | None = None
    title: str | None = None
    categories: str | None = None

    def as_headers(self) -> dict[str, str]:
        """Return those that are set, under the names that the API documents."""
        named = {
            "HTTP-Referer": self.referer,
            "X-OpenRouter-Title": self.title,
            "X-OpenRouter-Categories": self.categories,
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Client:
    """Asks the API for its task classifications.

    `api_key` is sent as the bearer token and appears nowhere else. `retry_wait_seconds` is the wait before
    the second try; it doubles, with jitter. `transport` is httpx's, for those who go through a proxy. With a
    `budget`, each request is counted before it is sent, and a 429 is noted for everybody; `sleep` is what a short
    cool-down is waited with.
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
        """What is asked, with its query."""
        return f"{self.base_url}/classifications/task?window={WINDOW_DAYS}d"

    def fetch(self) -> Answer:
        """Ask once, and again only for what passes by itself, and return the answer's bytes.

        Asks again (3 tries in all, exponential waits with jitter, under a minute altogether) after a failed
        connection, a timeout and a 5XX. A cool-down of up to 60 s after a 429 is waited here, once. Raises
        `MissingKeyError` before any request, `BudgetSpentError` where the budget allows none, and otherwise the
        errors of `orpipeline.openrouter.errors`.
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
            # An answer that came is worth more than the note that it came.
            with suppress(BudgetError):
                self.budget.good_answer()
        return answer

    def _fetch(self, headers: dict[str, str]) -> Answer:
        # As UTF-8, so that an app's title may be in any language; httpx itself takes ASCII only.
        encoded = httpx.Headers(headers, encoding="utf-8")
        with httpx.Client(transport=self.transport, follow_redirects=False, headers=encoded) as http:
            deadline = time.monotonic() + self.total_timeout_seconds
            tries = Retrying(
                retry=retry_if_exception_type((TransportError, ServerError)),
                # The deadline that ends a try also says whether there is time for another.
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
                "OPENROUTER_API_KEY is not set, so nothing was asked. Set it to a key from "
                "openrouter.ai/settings/keys, or try `orpipeline demo`, which needs none."
            )
        if not (self.api_key.isascii() and self.api_key.isprintable()) or " " in self.api_key:
            raise UnauthorizedError(
                "OPENROUTER_API_KEY holds a space or a character that no key has, so nothing was asked. "
                "Copy the key again.",
                status=401,
            )
        return {
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": f"orpipeline/{version('orpipeline')}",
            "Accept": "application/json",
            # The answer is small; unencoded, its bytes are the ones that were sent.
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
                    body = b""  # an error's status says enough without its body
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
        self._refuse_echoed_key(body)
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
        """Undo a content encoding that came although none was asked for; never past the size limit."""
        if encoding.lower() in ("", "identity"):
            return body
        if encoding.lower() not in ("gzip", "x-gzip"):
            raise self._unreadable(
                f"{self.base_url} sent an answer encoded as {self._safe(encoding)}, which was not asked for.", body
            )
        try:
            decoded = zlib.decompressobj(wbits=31).decompress(body, MAX_BODY_BYTES + 1)
        except zlib.error:
            raise self._unreadable(f"{self.base_url} sent an answer that says gzip but is none.", body) from None
        if len(decoded) > MAX_BODY_BYTES:
            raise self._too_large(body)
        return decoded

    def _too_large(self, body: bytes) -> UnreadableAnswerError:
        return self._unreadable(
            f"{self.base_url} sent more than {MAX_BODY_BYTES:,} bytes, which no answer of this endpoint has; "
            "it was not read to its end.",
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
                # Seen from this vendor: an error body under status 200. Its own code says what it is.
                status = _error_code(error)
            elif isinstance(payload, dict):
                return
            else:
                # Cut after the key is out: half a key would be found no more.
                shown = self._safe(self._without_key(body)[:80].decode("utf-8", "replace"))
                raise self._unreadable(
                    f"{self.base_url} answered with something that is no JSON object, beginning {shown!r}. "
                    "Check ORPIPELINE_BASE_URL; if it is right, try again later.",
                    body,
                )
        said = error if isinstance(error, dict) else {"message": error}
        raise self._status_error(status, said, response.headers)

    def _refuse_echoed_key(self, body: bytes) -> None:
        # What is archived stays for ever and is passed on; a secret must not be in it.
        if self._without_key(body) != body:
            raise self._unreadable(
                f"{self.base_url} sent an answer that holds the API key, so it was not kept as it is. "
                "Check ORPIPELINE_BASE_URL, and replace the key.",
                body,
            )

    def _status_error(self, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> OpenRouterError:
        said = self._safe(str(error.get("message") or "")) or "no message"
        if status == 429:
            retry_at = earliest_retry(headers, error, self.clock())
            if self.budget is not None:
                retry_at = self.budget.cool_down(retry_at)
            when = f"at {retry_at:%H:%M:%S} UTC on {retry_at:%Y-%m-%d}" if retry_at else "later"
            return RateLimitedError(
                f"The API refuses more requests for now (429: {said}). Try again {when}.", retry_at=retry_at
            )
        if status == 401:
            return UnauthorizedError(
                f"The API does not accept the key in OPENROUTER_API_KEY (401: {said}). Set a valid key.",
                status=status,
            )
        if status == 400:
            return BadRequestError(f"The API does not accept the request (400: {said}).", status=status)
        kind: Callable[..., StatusError] = ServerError if 500 <= status < 600 else UnexpectedStatusError
        return kind(f"The API at {self.base_url} failed ({status}: {said}). Try again later.", status=status)

    def _without_key(self, body: bytes) -> bytes:
        for form in self._key_forms():
            body = body.replace(form.encode(), b"[key]")
        return body

    def _key_forms(self) -> tuple[str, ...]:
        """Return the key as it is, and as JSON or a `repr` would have written it."""
        return (self.api_key, json.dumps(self.api_key)[1:-1]) if self.api_key else ()

    def _safe(self, text: str) -> str:
        """Return a server's text fit for a log: no key, no control characters, not long."""
        for form in self._key_forms():
            text = text.replace(form, "[key]")
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:_MESSAGE_LENGTH]


def _error_code(error: object) -> int:
    """Return the status that an error body names, or 500 where it names none."""
    code = _number(error.get("code")) if isinstance(error, dict) else None
    return int(code) if code is not None and 400 <= code < 600 else 500


def earliest_retry(headers: Mapping[str, str], error: Mapping[str, Any], now: datetime) -> datetime | None:
    """Return when a 429 says to come back (UTC), or None where it says nothing usable.

    In this order: `Retry-After` in seconds or as an HTTP date; `X-RateLimit-Reset` as a header, or in the
    error body's `metadata.headers`, in milliseconds or seconds since the epoch. A moment in the past, or
    more than a day away (the API's longest limit is a day's), counts as nothing said.
    """
    inner = error.get("metadata")
    inner = inner.get("headers") if isinstance(inner, dict) else None
    inner = {str(k).lower(): v for k, v in inner.items()} if isinstance(inner, dict) else {}
    said = [
        _retry_after(headers.get("Retry-After"), now),
        _retry_after(inner.get("retry-after"), now),
        _epoch(headers.get("X-RateLimit-Reset")),
        _epoch(inner.get("x-ratelimit-reset")),
    ]
    return next((at for at in said if at is not None and now <= at <= now + _MAX_COOL_DOWN), None)


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

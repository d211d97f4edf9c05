"""The client of `GET /classifications/task`. It returns the answer's bytes or raises a typed error."""

from __future__ import annotations

import logging
import re
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception, wait_exponential_jitter

from orpipeline.clock import API_CLOCK_TOLERANCE, Clock, utc_now
from orpipeline.errors import NextAttempt
from orpipeline.network import is_loopback
from orpipeline.openrouter import exchange
from orpipeline.openrouter.answer import Answer, parse_json
from orpipeline.openrouter.budget import Budget, BudgetError, BudgetSpentError, open_budget
from orpipeline.openrouter.errors import (
    AnswerTimeoutError,
    BadRequestError,
    ConnectionFailedError,
    ForbiddenError,
    InsecureUrlError,
    MissingKeyError,
    RateLimitedError,
    ServerBusyError,
    ServerError,
    StatusError,
    TransportError,
    UnauthorizedError,
    UnexpectedStatusError,
    UnreadableAnswerError,
)
from orpipeline.openrouter.redaction import PLACEHOLDER, key_pattern
from orpipeline.openrouter.stated_time import http_date, stated_time
from orpipeline.settings import DEFAULT_BASE_URL, Settings

MAX_BODY_BYTES = 10_000_000
"""The size limit of an answer. A usual one has about 31 kB."""
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
"""The limit for each single read."""
TOTAL_TIMEOUT_SECONDS = 55.0
"""The limit for everything together: all tries, and the waits between them."""
SHORTEST_TRY_SECONDS = 5.0
"""A wait for a cool-down must leave this much of the total. A longer one is left to a later run."""
TRIES = 3
WINDOW_DAYS = 7
"""The only window that the API serves today."""
DEMO_HEADER = "X-Orpipeline-Demo"
"""The stand-in of the API marks its answers with this header. They are archived with the origin `demo`."""

_MESSAGE_LENGTH = 200
_MARGIN_BYTES = 65_536
"""How much more is read of a body that is too large: a key that the limit would cut in two is found."""
_log = logging.getLogger(__name__)


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
    second try; it doubles, with jitter. With a `budget`, each request is counted before it is sent, and a time that the
    API states for the next request holds for all processes that share the budget. `sleep` waits for the end of a short
    cool-down. `allow_http` permits an `http://` address on another machine.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str = DEFAULT_BASE_URL
    app: AppHeaders = field(default_factory=AppHeaders)
    clock: Clock = utc_now
    retry_wait_seconds: float = 0.5
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS
    total_timeout_seconds: float = TOTAL_TIMEOUT_SECONDS
    budget: Budget | None = None
    sleep: Callable[[float], None] = time.sleep
    allow_http: bool = False

    @property
    def url(self) -> str:
        """The requested URL, with its query."""
        return f"{self.base_url}/classifications/task?window={WINDOW_DAYS}d"

    def fetch(self) -> Answer:
        """Send the request and return the answer. Retry transient failures.

        After a failed connection, a timeout or a 5XX it retries: 3 tries, exponential waits with jitter. If the API
        states a time for the next request, it waits for it, once. All of this takes less than a minute. Raises
        `MissingKeyError` and `InsecureUrlError` before any request, `BudgetSpentError` if the budget allows no request,
        NetworkInTestError in a test if the API is on another machine, and the other errors of
        `orpipeline.openrouter.errors`.
        """
        headers = self._headers()
        is_local = self._require_safe_url()
        deadline = time.monotonic() + self.total_timeout_seconds
        try:
            answer = self._fetch(headers, deadline, is_local=is_local)
        except StatusError as error:
            if isinstance(error, BudgetSpentError) or error.retry_at is None:
                raise
            wait = max((error.retry_at - self.clock()).total_seconds(), 0)
            if time.monotonic() + wait + SHORTEST_TRY_SECONDS > deadline:
                raise
            self.sleep(wait)
            answer = self._fetch(headers, deadline, is_local=is_local)
        if self.budget is not None:
            # A budget that cannot be written must not discard a good answer.
            with suppress(BudgetError):
                self.budget.good_answer()
        return answer

    def check(self) -> None:
        """Raise the error with which every `fetch` ends before its request: no usable key, or an unsafe address."""
        self._headers()
        self._require_safe_url()

    def _fetch(self, headers: dict[str, str], deadline: float, *, is_local: bool) -> Answer:
        tries = Retrying(
            retry=retry_if_exception(_is_retried),
            stop=lambda state: state.attempt_number >= TRIES or time.monotonic() + state.upcoming_sleep >= deadline,
            wait=wait_exponential_jitter(multiplier=self.retry_wait_seconds, max=10.0, jitter=self.retry_wait_seconds),
            reraise=True,
        )
        return tries(self._fetch_once, headers, deadline, is_local=is_local)

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

    def _require_safe_url(self) -> bool:
        """Return whether the API is on this machine, over `http://`. Raise before the key is sent unencrypted."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise self._unreachable(error) from None
        if url.scheme != "http":
            return False
        if is_loopback(url.host):
            return True
        if not self.allow_http:
            raise InsecureUrlError(
                f"{self.base_url} is not encrypted, so others could read the API key, and no request was sent. Set "
                "ORPIPELINE_BASE_URL to an https:// address, or ORPIPELINE_ALLOW_HTTP=true if you trust the network."
            )
        return False

    def _fetch_once(self, headers: dict[str, str], deadline: float, *, is_local: bool) -> Answer:
        if self.budget is not None:
            self.budget.spend()
        try:
            response = exchange.get(
                self.url,
                headers,
                timeout=httpx.Timeout(self.read_timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
                seconds=deadline - time.monotonic(),
                limit=MAX_BODY_BYTES + _MARGIN_BYTES,
                # A proxy must not get a request to this machine: its own loopback address is another one.
                trust_env=not is_local,
            )
        except exchange.DeadlineError:
            raise self._timeout(f"no complete answer within {self.total_timeout_seconds:g} s") from None
        except httpx.ConnectTimeout:
            raise self._timeout(f"no connection within {CONNECT_TIMEOUT_SECONDS:g} s") from None
        except httpx.TimeoutException:
            raise self._timeout(f"nothing for {self.read_timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last for a host's name
            raise self._unreachable(error) from None
        try:
            body = self._decoded(response.body, response.headers.get("Content-Encoding", "identity"))
        except UnreadableAnswerError:
            if response.status == httpx.codes.OK:
                raise
            body = b""  # the status is enough
        self._raise_for_error(response, body)
        self._reject_echoed_key(body)
        server_date = http_date(response.headers.get("Date"))
        return Answer(
            body=body,
            status=response.status,
            server_date=server_date,
            fetched_at=self._fetched_at(server_date),
            url=self.url,
            origin="demo" if DEMO_HEADER in response.headers else "api",
        )

    def _fetched_at(self, server_date: datetime | None) -> datetime:
        """Return the time of the answer: by this machine's clock or, if the answer shows that it is wrong, its own."""
        now = self.clock()
        if server_date is None or abs(server_date - now) <= API_CLOCK_TOLERANCE:
            return now
        _log.warning(
            "This machine's clock shows %s UTC, but the API's answer is of %s UTC. Its time is archived as the fetch "
            "time. Set the clock.",
            f"{now:%Y-%m-%d %H:%M:%S}",
            f"{server_date:%Y-%m-%d %H:%M:%S}",
        )
        return server_date

    def _timeout(self, what: str) -> AnswerTimeoutError:
        return AnswerTimeoutError(f"{self.base_url} did not answer in time ({what}). Try again later.")

    def _unreachable(self, error: Exception) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"{self.base_url} could not be reached: {self._safe(str(error) or type(error).__name__)}. "
            "Check the network and ORPIPELINE_BASE_URL."
        )

    def _decoded(self, body: bytes, encoding: str) -> bytes:
        """Undo a content encoding that was not requested, and check the size."""
        if encoding.lower() in ("gzip", "x-gzip"):
            unpacker = zlib.decompressobj(wbits=31)
            try:
                packed, body = body, unpacker.decompress(body, MAX_BODY_BYTES + _MARGIN_BYTES)
            except zlib.error:
                raise self._unreadable(
                    f"{self.base_url} sent an answer that is marked as gzip but is not. Try again later.", body
                ) from None
            if len(body) <= MAX_BODY_BYTES and (not unpacker.eof or unpacker.unused_data):
                raise self._unreadable(
                    f"{self.base_url} sent an incomplete gzip stream ({len(packed):,} bytes). Try again later.", body
                )
        elif encoding.lower() not in ("", "identity"):
            raise self._unreadable(
                f"{self.base_url} sent an answer with the encoding {self._safe(encoding)}, which was not requested. "
                "Try again later.",
                body,
            )
        if len(body) > MAX_BODY_BYTES:
            raise UnreadableAnswerError(
                f"{self.base_url} sent more than {MAX_BODY_BYTES:,} bytes, more than any answer of this endpoint. "
                "The rest was not read. Check ORPIPELINE_BASE_URL.",
                body=self._without_key(body)[:-_MARGIN_BYTES],  # its end can be the beginning of a key
            )
        return body

    def _unreadable(self, message: str, body: bytes) -> UnreadableAnswerError:
        return UnreadableAnswerError(message, body=self._without_key(body))

    def _raise_for_error(self, response: exchange.Response, body: bytes) -> None:
        status = response.status
        try:
            payload = _parse_utf8(body)
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
                    f"{self.base_url} sent an answer that is not a JSON object in UTF-8; it starts with {shown!r}. "
                    "Check ORPIPELINE_BASE_URL; if it is right, try again later.",
                    body,
                )
        stated = error if isinstance(error, dict) else {"message": error}
        raise self._status_error(status, stated, response.headers)

    def _reject_echoed_key(self, body: bytes) -> None:
        # Archived answers are permanent and shared, so they must not contain a secret.
        if self._key_pattern is not None and self._key_pattern.search(body):
            raise self._unreadable(
                f"{self.base_url} sent an answer that contains the API key. Check ORPIPELINE_BASE_URL and replace the "
                "key.",
                body,
            )

    def _status_error(self, status: int, error: Mapping[str, Any], headers: httpx.Headers) -> StatusError:
        message = self._safe(str(error.get("message") or "")) or "no message"
        if status == 429:
            retry_at = stated_time(headers, error, self.clock(), with_resets=True)
            if self.budget is not None:
                retry_at = self.budget.cool_down(retry_at)
            when = f"at {retry_at:%H:%M:%S} UTC on {retry_at:%Y-%m-%d}" if retry_at else "later"
            return RateLimitedError(
                f"The API rejects further requests for now (429: {message}). Try again {when}.",
                status=status,
                retry_at=retry_at,
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
        if status == 403:
            return ForbiddenError(
                f"The API does not allow this request with the key in OPENROUTER_API_KEY (403: {message}). Check the "
                "key's rights and the account, or set another key.",
                status=status,
            )
        if not 500 <= status < 600:
            return UnexpectedStatusError(
                f"The API at {self.base_url} failed ({status}: {message}). Try again later.", status=status
            )
        # A reset time on a 5XX is about the limits, which are not why it failed.
        retry_at = stated_time(headers, error, self.clock(), with_resets=False)
        if retry_at is None:
            return ServerError(
                f"The API at {self.base_url} failed ({status}: {message}). Try again later.", status=status
            )
        if self.budget is not None:
            retry_at = self.budget.cool_down(retry_at, status)
        return ServerBusyError(
            f"The API at {self.base_url} failed ({status}: {message}). Try again at {retry_at:%H:%M:%S} UTC on "
            f"{retry_at:%Y-%m-%d}, as it states.",
            status=status,
            retry_at=retry_at,
        )

    @cached_property
    def _key_pattern(self) -> re.Pattern[bytes] | None:
        return key_pattern(self.api_key) if self.api_key else None

    def _without_key(self, body: bytes) -> bytes:
        return self._key_pattern.sub(PLACEHOLDER, body) if self._key_pattern is not None else body

    def _safe(self, text: str) -> str:
        """Return a server's text for a log: without the key and control characters, and short."""
        text = self._without_key(text.encode(errors="replace")).decode(errors="replace")
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:_MESSAGE_LENGTH]


def _error_code(error: object) -> int:
    """Return the status in an error body, or 500 if it has none."""
    code = error.get("code") if isinstance(error, dict) else None
    stated = re.fullmatch(r"([45][0-9]{2})(\.0)?", str(code))
    return int(stated[1]) if stated else 500


def _parse_utf8(body: bytes) -> Any:
    """Return the value of a JSON text in UTF-8; raises ValueError for anything else, such as JSON in UTF-16."""
    body.decode()
    if b"\0" in body:  # UTF-16 and UTF-32; no JSON in UTF-8 contains it
        raise ValueError("not UTF-8")
    return parse_json(body)


def _is_retried(error: BaseException) -> bool:
    """Return whether the client tries again by itself."""
    return isinstance(error, TransportError | ServerError) and error.next_attempt is NextAttempt.TRANSIENT


def open_client(settings: Settings, api_key: str | None) -> Client:
    """Return the client of the settings' API, on their request budget."""
    return Client(
        api_key=api_key,
        base_url=settings.base_url,
        app=AppHeaders(settings.http_referer, settings.app_title, settings.app_categories),
        budget=open_budget(settings),
        allow_http=settings.allow_http,
    )

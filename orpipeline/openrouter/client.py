"""The client of OpenRouter's API. It returns the response's bytes or raises a typed error."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential_jitter

from orpipeline.clock import Clock, utc_now
from orpipeline.errors import (
    ApiKeyError,
    BudgetSpentError,
    OpenRouterError,
    RateLimitedError,
    SettingsError,
    StatusError,
    StoreError,
    TransportError,
    UnreadableResponseError,
)
from orpipeline.network import is_loopback, require_allowed
from orpipeline.openrouter.response import CLASSIFICATIONS, Dataset, Response, parse_json
from orpipeline.openrouter.stated_time import http_date, stated_time
from orpipeline.settings import DEFAULT_BASE_URL, Settings
from orpipeline.text import one_line

if TYPE_CHECKING:
    from orpipeline.openrouter.budget import Budget

MAX_BODY_BYTES = 10_000_000
"""The size limit of a response. A usual one has about 31 kB."""
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
"""The limit for each single read."""
TOTAL_TIMEOUT_SECONDS = 55.0
"""The limit for everything together: all tries, and the waits between them. It is checked between reads."""
TRIES = 3
DEMO_HEADER = "X-Orpipeline-Demo"
"""The stand-in of the API marks its responses with this header. They are archived with the origin `demo`."""

_MESSAGE_LENGTH = 200
# The variables that httpx reads.
_PROXIES = re.compile("(https?|all|no)_proxy", re.IGNORECASE)
_CERTIFICATES = re.compile("SSL_CERT_(FILE|DIR)|SSLKEYLOGFILE")
_CREDENTIALS = re.compile("(?<=//).*@|^[^/]*@")


@dataclass(frozen=True)
class Client:
    """Fetches a dataset from the API: by default the task classifications.

    `api_key` is sent as the bearer token and appears nowhere else. `app_headers` are the optional headers that
    OpenRouter uses to attribute requests to an app. `retry_wait_seconds` is the wait before the second try; it doubles,
    with jitter. With a `budget`, each request is counted before it is sent, and a time that the API states for the next
    request holds for all processes that share the budget. `sleep` waits between two tries.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str = DEFAULT_BASE_URL
    dataset: Dataset = CLASSIFICATIONS
    app_headers: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = utc_now
    retry_wait_seconds: float = 0.5
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS
    total_timeout_seconds: float = TOTAL_TIMEOUT_SECONDS
    budget: Budget | None = None
    sleep: Callable[[float], None] = time.sleep

    @property
    def url(self) -> str:
        """The requested URL, with its query."""
        return f"{self.base_url}{self.dataset.path}"

    def fetch(self) -> Response:
        """Send the request and return the response. Retry transient failures.

        After a failed connection, a timeout or a 5XX it retries: 3 tries, exponential waits with jitter. If the API
        states a time for the next request, it waits until then instead. All of this takes about a minute at most: an
        error with a later time is raised at once. Raises ApiKeyError before any request, BudgetSpentError if the budget
        allows no request, SettingsError if the environment's proxy or certificates cannot be used, StoreError if the
        budget cannot be used, and the other subclasses of OpenRouterError.
        """
        tries = Retrying(
            retry=retry_if_exception(_is_retried),
            stop=stop_after_attempt(TRIES) | stop_before_delay(self.total_timeout_seconds),
            wait=self._wait_seconds,
            sleep=self.sleep,
            reraise=True,
        )
        with self._connections() as http:
            response = tries(self._fetch_once, http, time.monotonic() + self.total_timeout_seconds)
        if self.budget is not None:
            # A budget that cannot be written must not discard a good response.
            with suppress(StoreError):
                self.budget.good_response()
        return response

    def check(self) -> None:
        """Raise the error with which every `fetch` ends before its request: key, address, proxy or certificates."""
        self._connections().close()

    def _wait_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StatusError) and error.retry_at is not None:
            return max((error.retry_at - self.clock()).total_seconds(), 0)
        first = self.retry_wait_seconds
        return wait_exponential_jitter(multiplier=first, max=10.0, jitter=first)(state)

    def _connections(self) -> httpx.Client:
        """Return httpx's client. Raise SettingsError if the environment's proxy or certificates are unusable."""
        headers, is_local = self._headers(), self._is_local()
        try:
            # UTF-8, because an app's title can be in any language; httpx's default is ASCII.
            encoded = httpx.Headers(headers, encoding="utf-8")
            # A proxy must not get a request to this machine, which is another one there.
            return httpx.Client(headers=encoded, trust_env=not is_local)
        except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
            of_kind = _CERTIFICATES if isinstance(error, OSError) else _PROXIES
            set_ones = {name: value for name, value in os.environ.items() if value and of_kind.fullmatch(name)}
            variables = ", ".join(f"{name}={_CREDENTIALS.sub('', value)}" for name, value in set_ones.items())
            why = "" if of_kind is _PROXIES else f": {self._safe(str(error)).rstrip('.')}"
            raise SettingsError(
                f"No request can be sent with the environment's {variables or 'settings'}{why}. Correct or unset it."
            ) from None

    def _headers(self) -> dict[str, str]:
        key = self.api_key or ""
        if ((key or self.dataset.needs_key) and not (key and key.isascii() and key.isprintable())) or " " in key:
            raise ApiKeyError(
                f"OPENROUTER_API_KEY {'contains a space or another invalid character' if key else 'is not set'}, so no "
                "request was sent. Set it to a key from openrouter.ai/settings/keys, or try `orpipeline demo`, which "
                "needs no key."
            )
        return {
            **({"Authorization": f"Bearer {key}"} if key else {}),
            "User-Agent": f"orpipeline/{version('orpipeline')}",
            "Accept": "application/json",
            # The archive stores the bytes as sent. The response is small enough without compression.
            "Accept-Encoding": "identity",
            **self.app_headers,
        }

    def _is_local(self) -> bool:
        """Return whether the API is on this machine, over `http://`. Raise before the key is sent unencrypted."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise self._unreachable(error) from None
        require_allowed(url.host)
        if url.scheme != "http":
            return False
        if not is_loopback(url.host):
            raise ApiKeyError(
                f"{self.base_url} is not encrypted, so others could read the API key, and no request was sent. Set "
                "ORPIPELINE_BASE_URL to an https:// address."
            )
        return is_loopback(url.host)

    def _fetch_once(self, http: httpx.Client, deadline: float) -> Response:
        if self.budget is not None:
            self.budget.spend()
        body, is_complete, left = bytearray(), False, max(deadline - time.monotonic(), 0.01)
        timeout = httpx.Timeout(min(self.read_timeout_seconds, left), connect=min(CONNECT_TIMEOUT_SECONDS, left))
        try:
            with http.stream("GET", self.url, timeout=timeout) as received, suppress(httpx.DecodingError):
                for chunk in received.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        break
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout(f"the response was not complete after {self.total_timeout_seconds:g} s")
                else:
                    is_complete = True
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last for a host's name
            raise self._unreachable(error) from None
        return self._response(received, bytes(body) if is_complete else b"")  # a part could end within the key

    def _response(self, received: httpx.Response, body: bytes) -> Response:
        """Return the response, or raise the error that it is."""
        try:
            payload = parse_json(body)
        except ValueError:
            payload = None
        error = payload.get("error") if isinstance(payload, dict) else None
        stated = error if isinstance(error, dict) else {"message": error}
        if received.status_code != httpx.codes.OK:
            raise self._status_error(received.status_code, stated, received.headers)
        if error is not None:  # OpenRouter also sends errors with status 200; the body has the error's code
            code = str(stated.get("code"))
            status = int(code) if re.fullmatch("[45][0-9]{2}", code) else 500
            raise self._status_error(status, stated, received.headers)
        without_key = self._without_key(body)
        if not body:
            what = f"is empty, wrongly compressed, or longer than {MAX_BODY_BYTES:,} bytes"
        elif not isinstance(payload, dict):
            start = self._safe(without_key[:80].decode(errors="replace"))
            what = f"is not a JSON object in UTF-8; it starts with {start!r}"
        elif without_key != body:  # archived responses are permanent and shared
            what = "contains the API key, so replace the key"
        else:
            origin = "demo" if DEMO_HEADER in received.headers else "api"
            fetched_at = http_date(received.headers.get("Date")) or self.clock()
            return Response(body, fetched_at, self.url, origin)
        raise UnreadableResponseError(
            f"{self.base_url} sent a response that {what}. Check ORPIPELINE_BASE_URL; if it is right, try again later.",
            body=without_key,
        )

    def _status_error(self, status: int, error: Mapping[str, Any], headers: httpx.Headers) -> OpenRouterError:
        message = f"{status}: {self._safe(str(error.get('message') or '')) or 'no message'}"
        if status in (401, 403):
            return ApiKeyError(
                f"The API does not accept the key in OPENROUTER_API_KEY ({message}). Check the key, its rights and the "
                "account, or set another key."
            )
        retry_at = None
        if status == 429 or status >= 500:
            # A reset time on a 5XX is about the limits, which are not why it failed.
            retry_at = stated_time(headers, error, self.clock(), with_resets=status == 429)
            if self.budget is not None and (retry_at or status == 429):
                retry_at = self.budget.cool_down(retry_at, status)
        when = f"at {retry_at:%H:%M:%S} UTC on {retry_at:%Y-%m-%d}" if retry_at else "later"
        todo = f"Try again {when}" if status != 400 else "Check for a newer version of orpipeline"
        what = {400: "does not accept the request", 429: "rejects further requests for now"}.get(status, "failed")
        kind = RateLimitedError if status == 429 else StatusError
        return kind(f"The API at {self.base_url} {what} ({message}). {todo}.", status=status, retry_at=retry_at)

    def _unreachable(self, error: Exception) -> TransportError:
        return TransportError(
            f"{self.base_url} sent no complete response: {self._safe(str(error) or type(error).__name__)}. "
            "Check the network and ORPIPELINE_BASE_URL."
        )

    def _without_key(self, body: bytes) -> bytes:
        """Return the body with `[key]` in place of the API key, as text and as JSON escapes it."""
        escaped = json.dumps(self.api_key or "")[1:-1]
        for form in (self.api_key, escaped, escaped.replace("/", "\\/")):
            body = body.replace(form.encode(), b"[key]") if form else body
        return body

    def _safe(self, text: str) -> str:
        """Return a server's text for a log: in one short line without the key."""
        return one_line(self._without_key(text.encode(errors="replace")).decode(errors="replace"))[:_MESSAGE_LENGTH]


def open_client(settings: Settings, api_key: str | None, dataset: Dataset = CLASSIFICATIONS) -> Client:
    """Return the client of the settings' API for a dataset, on their request budget."""
    from orpipeline.openrouter.budget import open_budget  # SQLAlchemy takes 0.2 s, and no definition needs it

    app = {
        "HTTP-Referer": settings.http_referer,
        "X-OpenRouter-Title": settings.app_title,
        "X-OpenRouter-Categories": settings.app_categories,
    }
    return Client(
        api_key=api_key,
        base_url=settings.base_url,
        dataset=dataset,
        app_headers={name: value for name, value in app.items() if value},
        budget=open_budget(settings),
    )


def _is_retried(error: BaseException) -> bool:
    """Return whether the client tries again by itself."""
    if isinstance(error, StatusError):
        return not isinstance(error, BudgetSpentError) and (error.status >= 500 or error.retry_at is not None)
    return isinstance(error, TransportError)

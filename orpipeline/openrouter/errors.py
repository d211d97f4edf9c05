"""What can go wrong when the API is called, as a tree that you catch at the level you need.

- `OpenRouterError`
    - `MissingKeyError`: no key is set; no request was sent
    - `InsecureUrlError`: the key would be sent unencrypted; no request was sent
    - `StatusError`: the API answered with an error
        - `BadRequestError` (400), `UnauthorizedError` (401), `ForbiddenError` (403), `RateLimitedError` (429),
          `ServerError` (5XX; `ServerBusyError` if it states a time), `UnexpectedStatusError` (any other)
    - `TransportError`: no complete answer arrived
        - `AnswerTimeoutError`, `ConnectionFailedError`
    - `UnreadableAnswerError`: the status is 200, but the body is not the expected JSON, or it contains the key
"""

from __future__ import annotations

from datetime import datetime

from orpipeline.errors import NextAttempt, OrpipelineError


class OpenRouterError(OrpipelineError):
    """The API gave no usable answer.

    >>> import orpipeline
    >>> api = orpipeline.OpenRouterResource(base_url="https://openrouter.ai/api/v1", state="/srv/openrouter/state")
    >>> try:
    ...     answer = api.client().fetch()
    ... except orpipeline.OpenRouterError as error:
    ...     print(type(error).__name__)
    MissingKeyError
    """


class MissingKeyError(OpenRouterError):
    """No API key is set. Raised before any request is sent."""

    next_attempt = NextAttempt.NEEDS_PERSON


class InsecureUrlError(OpenRouterError):
    """The API's address is `http://` on another machine: the key would be readable on the way. No request was sent."""

    next_attempt = NextAttempt.NEEDS_PERSON


class StatusError(OpenRouterError):
    """The API answered with an error.

    `status` is the HTTP status, or the `error.code` of an error body with HTTP status 200. `retry_at` is the earliest
    time (UTC) for the next request, or None if the API states no usable one.
    """

    def __init__(self, message: str, *, status: int, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_at = retry_at


class BadRequestError(StatusError):
    """400: the API does not accept the request, for example its `window`."""

    next_attempt = NextAttempt.NEEDS_PERSON


class UnauthorizedError(StatusError):
    """401: the API does not know the key."""

    next_attempt = NextAttempt.NEEDS_PERSON


class ForbiddenError(StatusError):
    """403: the API does not allow this key the request."""

    next_attempt = NextAttempt.NEEDS_PERSON


class RateLimitedError(StatusError):
    """429: too many requests."""

    next_attempt = NextAttempt.STATES_TIME


class ServerError(StatusError):
    """5XX: the API or its edge failed. The client has already retried."""


class ServerBusyError(ServerError):
    """5XX with a `Retry-After`: the API failed, and states when to send the next request."""

    next_attempt = NextAttempt.STATES_TIME


class UnexpectedStatusError(StatusError):
    """A status that the API does not document, for example a redirect."""


class TransportError(OpenRouterError):
    """No complete answer arrived. The client has already retried."""


class AnswerTimeoutError(TransportError):
    """The connection or the answer took longer than allowed."""


class ConnectionFailedError(TransportError):
    """The connection failed, or broke before the answer was complete."""


class UnreadableAnswerError(OpenRouterError):
    """The status is 200, but the body is not a JSON object in UTF-8, is too large, or contains the API key.

    `body` is the part that was read, without the API key: not the bytes that OpenRouter sent.
    """

    def __init__(self, message: str, *, body: bytes) -> None:
        super().__init__(message)
        self.body = body

"""What can go wrong when the API is asked, as a tree that callers catch at the level they need.

- `OpenRouterError`
    - `MissingKeyError`: no key is set; nothing was sent
    - `StatusError`: the API answered, with an error
        - `BadRequestError` (400), `UnauthorizedError` (401), `RateLimitedError` (429), `ServerError` (5XX),
          `UnexpectedStatusError` (any other)
    - `TransportError`: no answer came
        - `AnswerTimeoutError`, `ConnectionFailedError`
    - `UnreadableAnswerError`: an answer came with status 200, but it is not the JSON that was asked for
"""

from __future__ import annotations

from datetime import datetime

from orpipeline.errors import OrpipelineError


class OpenRouterError(OrpipelineError):
    """Any failure to get an answer from the API."""


class MissingKeyError(OpenRouterError):
    """No API key is set. Raised before any request is sent."""


class StatusError(OpenRouterError):
    """The API answered with an error.

    `status` is the HTTP status, or the `error.code` of an error body that came with status 200.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class BadRequestError(StatusError):
    """400: the API does not accept the request, for example its `window`."""


class UnauthorizedError(StatusError):
    """401: the API does not know the key."""


class RateLimitedError(StatusError):
    """429: too many requests.

    `retry_at` is the earliest moment (UTC) at which the API says that it will answer again, or None where
    it says nothing usable.
    """

    def __init__(self, message: str, *, retry_at: datetime | None) -> None:
        super().__init__(message, status=429)
        self.retry_at = retry_at


class ServerError(StatusError):
    """5XX: the API or its edge failed. It was asked again in place before this was raised."""


class UnexpectedStatusError(StatusError):
    """A status that the API's documentation does not name, a redirect among them."""


class TransportError(OpenRouterError):
    """No complete answer came. The API was asked again in place before this was raised."""


class AnswerTimeoutError(TransportError):
    """The connection or the answer took longer than allowed."""


class ConnectionFailedError(TransportError):
    """The connection could not be made, or broke before the answer was complete."""


class UnreadableAnswerError(OpenRouterError):
    """The answer came with status 200 but is not a JSON object, is too large, or is encoded unexpectedly.

    `body` is what came, as far as it was read, so that it can be kept aside.
    """

    def __init__(self, message: str, *, body: bytes) -> None:
        super().__init__(message)
        self.body = body

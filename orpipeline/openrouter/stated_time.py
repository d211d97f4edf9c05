"""The time that an error states for the next request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

LONGEST_STATED_WAIT = timedelta(days=1)
"""A longer stated wait counts as this: the API's longest limit is per day."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e\+?[0-9]+)?", re.IGNORECASE)


def stated_time(
    headers: httpx.Headers, error: Mapping[str, Any], now: datetime, *, with_resets: bool
) -> datetime | None:
    """Return the latest time (UTC) that an error states for the next request, or None if it states no usable one.

    Reads every `Retry-After` (seconds or an HTTP date) and, `with_resets`, every `X-RateLimit-Reset` (milliseconds or
    seconds since the epoch), among the headers and in the error body's `metadata.headers`. Dates are relative to the
    response's own `Date`, so a wrong clock here does not matter. A time in the past is ignored, and one more than 24
    hours ahead counts as 24 hours.
    """
    sent = http_date(headers.get("Date")) or now
    waits = [wait for value in _values("Retry-After", headers, error) for wait in _waits(value, sent)]
    if with_resets:
        resets = map(_number, _values("X-RateLimit-Reset", headers, error))
        waits += [_epoch_seconds(reset) - sent.timestamp() for reset in resets if reset is not None]
    latest = max((wait for wait in waits if wait >= 0), default=None)
    if latest is None:
        return None
    return now + timedelta(seconds=min(latest, LONGEST_STATED_WAIT.total_seconds()))


def http_date(value: str | None) -> datetime | None:
    """Return the time (UTC) of an HTTP date, or None if it is not one."""
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _values(name: str, headers: httpx.Headers, error: Mapping[str, Any]) -> Iterator[str]:
    """Yield each value that the headers and the error body give for a header."""
    yield from headers.get_list(name)
    metadata = error.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, dict) else None
    for key, value in inner.items() if isinstance(inner, dict) else ():
        if key.lower() == name.lower():
            yield from map(str, value if isinstance(value, list) else [value])


def _waits(retry_after: str, sent: datetime) -> Iterator[float]:
    """Yield the seconds of a `Retry-After`. A proxy may have joined several with commas, which dates contain too."""
    for part in {retry_after, *retry_after.split(",")}:
        seconds, at = _number(part), http_date(part)
        if seconds is not None:
            yield seconds
        elif at is not None:
            yield (at - sent).total_seconds()


def _epoch_seconds(number: float) -> float:
    return number / 1000 if number > 1e11 else number  # 1e11 seconds is the year 5138


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None

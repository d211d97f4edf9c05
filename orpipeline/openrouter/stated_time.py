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

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def stated_time(
    headers: httpx.Headers, error: Mapping[str, Any], now: datetime, *, with_resets: bool
) -> datetime | None:
    """Return the latest time (UTC) that an error states for the next request, or None if it states no usable one.

    Reads every `Retry-After` (seconds or an HTTP date) and, `with_resets`, every `X-RateLimit-Reset` (milliseconds or
    seconds since the epoch), among the headers and in the error body's `metadata.headers`. Dates are relative to the
    response's own `Date`, so a wrong clock here does not matter. A time in the past is ignored, and one more than 24
    hours ahead counts as 24 hours.
    """
    sent, waits = http_date(headers.get("Date")) or now, []
    for value in _values("Retry-After", headers, error):
        at = http_date(value)
        if _NUMBER.fullmatch(value):
            waits.append(float(value))
        elif at is not None:
            waits.append((at - sent).total_seconds())
    for value in _values("X-RateLimit-Reset", headers, error) if with_resets else ():
        if _NUMBER.fullmatch(value):
            reset = float(value)
            seconds = reset / 1000 if reset > 1e11 else reset  # 1e11 seconds is the year 5138
            waits.append(seconds - sent.timestamp())
    latest = max((wait for wait in waits if wait >= 0), default=None)
    return None if latest is None else now + timedelta(seconds=min(latest, LONGEST_STATED_WAIT.total_seconds()))


def http_date(value: str | None) -> datetime | None:
    """Return the time (UTC) of an HTTP date, or None if it is not one."""
    try:
        parsed = parsedate_to_datetime(value or "")
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _values(name: str, headers: httpx.Headers, error: Mapping[str, Any]) -> Iterator[str]:
    """Yield each value that the headers and the error body give for a header."""
    metadata = error.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, dict) else None
    stated = [value for key, value in inner.items() if key.lower() == name.lower()] if isinstance(inner, dict) else []
    for value in (*headers.get_list(name), *stated):
        yield from (str(one).strip() for one in (value if isinstance(value, list) else [value]))

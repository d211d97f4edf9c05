"""One answer of the API: its bytes, their source and the time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Answer:
    """An answer with status 200, not parsed yet."""

    body: bytes
    """The body exactly as received (after HTTP's own transfer encoding)."""
    status: int
    server_date: datetime | None
    """The answer's `Date` header, in UTC."""
    fetched_at: datetime
    """When the body was complete, in UTC: by the client's clock, or `server_date` if that shows the clock is wrong."""
    url: str
    """The requested URL, with its query."""
    origin: str
    """`api`, or `demo` if the stand-in of the API answered."""


def parse_json(body: bytes, object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Return the value of the JSON text `body`. `object_of` makes each object from its names and values.

    Accepts `NaN` and `Infinity`, as Python's json does: the contracts reject them and name their place. Raises
    ValueError for anything else that is not JSON, and for nesting that is too deep for the parser.
    """
    try:
        return json.loads(body, object_pairs_hook=object_of)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def iso_date(value: object) -> date | None:
    """Return the date of a text `YYYY-MM-DD`, or None for anything else."""
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def read_as_of(body: bytes) -> date | None:
    """Return `data.as_of` of an answer's body, or None if it has no valid one."""
    try:
        payload = parse_json(body)
    except ValueError:
        return None
    data = payload.get("data") if isinstance(payload, dict) else None
    return iso_date(data.get("as_of")) if isinstance(data, dict) else None

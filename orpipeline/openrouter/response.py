"""What the API serves, and one response of it: its bytes, where they came from, and when."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

WINDOW_DAYS = 7
"""The only window that the API serves today."""


@dataclass(frozen=True)
class Response:
    """A response with status 200, not parsed yet."""

    body: bytes
    """The body as received, after HTTP's own transfer and content encodings."""
    fetched_at: datetime
    """The response's `Date`, in UTC, or the client's time if it has none."""
    url: str
    """The requested URL, with its query."""
    origin: str
    """`api`, or `demo` if it came from the stand-in of the API."""


@dataclass(frozen=True)
class Dataset:
    """What the API serves at one path, once a day."""

    name: str
    """The folder of its responses in the archive."""
    path: str
    """The path and query after the API's address."""
    day_of: Callable[[bytes, datetime | None], date | None]
    """Returns the day that a response belongs to, from its bytes and its fetch time; None if they do not tell."""
    needs_key: bool = True


def parse_json(body: bytes, object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Return the value of the JSON text `body`, in UTF-8. `object_of` makes each object from its names and values.

    Accepts `NaN` and `Infinity`, as Python's json does: the contracts reject them and name their place. Raises
    ValueError for anything else that is not JSON, and for nesting that is too deep for the parser.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=object_of)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def iso_date(value: object) -> date | None:
    """Return the date of a text `YYYY-MM-DD`, or None for anything else."""
    try:
        found = date.fromisoformat(str(value))
    except ValueError:
        return None
    return found if str(found) == value else None  # Python also reads other forms, such as 20261006


def read_as_of(body: bytes) -> date | None:
    """Return `data.as_of` of a response's body, or None if it has no valid one."""
    try:
        payload = parse_json(body)
    except ValueError:
        return None
    data = payload.get("data") if isinstance(payload, dict) else None
    return iso_date(data.get("as_of")) if isinstance(data, dict) else None


CLASSIFICATIONS = Dataset(
    "task_classifications", f"/classifications/task?window={WINDOW_DAYS}d", lambda body, _: read_as_of(body)
)

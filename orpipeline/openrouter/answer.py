"""One answer of the API: its bytes, and where and when they came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Answer:
    """An answer with status 200, before anything of it is understood."""

    body: bytes
    """The body exactly as received (after HTTP's own transfer encoding)."""
    status: int
    server_date: datetime | None
    """The answer's `Date` header, in UTC."""
    fetched_at: datetime
    """When the whole body was here, by our clock, in UTC."""
    url: str
    """What was asked, with its query."""
    origin: str
    """`api`, or `demo` where the stand-in of the API answered."""


def parse_json(body: bytes) -> Any:
    """Return what the JSON text `body` holds.

    `NaN` and `Infinity` are read (as Python's json does), so that the contracts can name the place where
    they stand. Raises ValueError for anything that is not JSON, nesting too deep for the parser included.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def iso_date(value: object) -> date | None:
    """Return the date that a text `YYYY-MM-DD` names, or None for anything else."""
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


class _DatedData(msgspec.Struct):
    as_of: str


class _DatedAnswer(msgspec.Struct):
    data: _DatedData


_DATED_ANSWER = msgspec.json.Decoder(_DatedAnswer)


def read_as_of(body: bytes) -> date | None:
    """Return `data.as_of` of an answer's body, or None where no date can be told from it."""
    try:
        # As text, for what msgspec skips it would not decode: what is no UTF-8 is no answer.
        return iso_date(_DATED_ANSWER.decode(body.decode()).data.as_of)
    except (ValueError, RecursionError):
        pass  # msgspec is stricter than JSON as Python reads it: NaN, say
    try:
        payload = parse_json(body)
    except ValueError:
        return None
    data = payload.get("data") if isinstance(payload, dict) else None
    return iso_date(data.get("as_of")) if isinstance(data, dict) else None

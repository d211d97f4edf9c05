"""The second dataset: OpenRouter's model catalogue, with the names, prices and open weights of all models.

`GET /models` serves the catalogue of the moment and keeps no history. It does not name its day: the catalogue that is
fetched on 7 October belongs to 6 October, the newest completed day, and shows the models as of that day's end.
"""

from __future__ import annotations

from datetime import date, datetime

from orpipeline.clock import newest_completed_day
from orpipeline.openrouter.response import Dataset, parse_json


def _day_of(body: bytes, fetched_at: datetime | None) -> date | None:
    """Return the day that had just ended when a catalogue was fetched; None for anything else or an unknown time."""
    return newest_completed_day(fetched_at) if fetched_at is not None and listed_models(body) else None


def listed_models(body: bytes) -> list[object]:
    """Return the entries of a catalogue's `data`, or none if it is not a catalogue."""
    try:
        payload = parse_json(body)
    except ValueError:
        return []
    data = payload.get("data") if isinstance(payload, dict) else None
    return data if isinstance(data, list) and any(isinstance(one, dict) and "id" in one for one in data) else []


CATALOGUE = Dataset("models", "/models", _day_of, needs_key=False)

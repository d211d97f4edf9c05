"""Made-up answers that a test can change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from orpipeline.testing.sample_answers import demo_answer

DAY = date(2026, 10, 6)
Bend = Callable[[dict[str, Any]], None]


def answer(day: date = DAY, bend: Bend | None = None) -> bytes:
    """Return a made-up answer for a day, after `bend` has changed its `data`."""
    payload = json.loads(demo_answer(day))
    if bend is not None:
        bend(payload["data"])
    return json.dumps(payload).encode()


def one_tag_answer(day: date, models: Mapping[str, float], *, task: str = "Debugging", label: str = "Code") -> bytes:
    """Return an answer with a single tag, whose traffic goes to `models`."""
    only = {
        "tag": "code:debugging",
        "display_name": task,
        "macro_category": "code",
        "usage_share": 1.0,
        "token_share": 1.0,
        "category_usage_share": 1.0,
        "category_token_share": 1.0,
        "models": [{"id": name, "tag_usage_share": s, "tag_token_share": s} for name, s in models.items()],
    }
    group = {"key": "code", "label": label, "usage_share": 1.0, "token_share": 1.0}
    data = {"as_of": day.isoformat(), "window_days": 7, "classifications": [only], "macro_categories": [group]}
    return json.dumps({"data": data}).encode()


def tag(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the classification of the tag `name`."""
    found: dict[str, Any] = next(task for task in data["classifications"] if task["tag"] == name)
    return found


def macro(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the macro-category `key`."""
    found: dict[str, Any] = next(macro for macro in data["macro_categories"] if macro["key"] == key)
    return found

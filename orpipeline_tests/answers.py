"""Made-up answers that a test can change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from orpipeline.testing import sample_answer

DAY = date(2026, 10, 6)
Bend = Callable[[dict[str, Any]], None]


def answer(day: date = DAY, bend: Bend | None = None) -> bytes:
    """Return `sample_answer`, until the last callers use it."""
    return sample_answer(day, change=bend)


def tag(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the classification of the tag `name`."""
    found: dict[str, Any] = next(task for task in data["classifications"] if task["tag"] == name)
    return found


def macro(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the macro-category `key`."""
    found: dict[str, Any] = next(macro for macro in data["macro_categories"] if macro["key"] == key)
    return found

"""Parts of a response that a test changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

DAY = date(2026, 10, 6)
Bend = Callable[[dict[str, Any]], None]


def tag(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the classification of the tag `name`."""
    found: dict[str, Any] = next(task for task in data["classifications"] if task["tag"] == name)
    return found


def macro(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the macro-category `key`."""
    found: dict[str, Any] = next(macro for macro in data["macro_categories"] if macro["key"] == key)
    return found

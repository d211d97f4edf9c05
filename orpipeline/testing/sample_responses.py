"""Made-up responses of the API, in its shape and rounding, with figures that you set or with invented ones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from orpipeline.clock import as_day
from orpipeline.openrouter.response import WINDOW_DAYS
from orpipeline.testing.market import DISPLAY_NAMES, listed_models, traffic

_MACROS = {"code": "Code", "data": "Data", "agent": "Agent", "general": "General"}


@dataclass(frozen=True)
class Task:
    """One tag of a response, with the figures that you set; the others follow from them.

        >>> from orpipeline.testing import Task
        >>> Task("code:debugging", 0.4, models={"author/large": 0.6, "author/small:free": (0.3, 0.1)}).usage_share
        0.4

    All shares are fractions of 1, published with 3 decimals. Nothing is checked, so figures can also be invalid.
    """

    tag: str
    """For example `code:debugging`, or `translation`."""
    usage_share: float = 1.0
    """The tag's share of all requests. The API's sum to 1 over the tags."""
    token_share: float | None = None
    """Its share of all tokens; by default the same as `usage_share`."""
    display_name: str | None = None
    """By default the API's name of the tag, or one made from the tag."""
    macro_category: str | None = None
    """By default the tag's prefix, or `general` without one."""
    category_usage_share: float | None = None
    """Its share of the requests of its macro-category; by default what follows from `usage_share` of all tags."""
    category_token_share: float | None = None
    """Its share of the tokens of its macro-category; by default what follows from `token_share` of all tags."""
    models: Mapping[str, float | tuple[float, float]] = field(default_factory=dict)
    """The listed models in the response's order, by id: the share of the tag's requests, or the shares of its requests
    and of its tokens. The API lists the top models by requests, so these sum to at most 1."""


def sample_response(
    as_of: date | str, tasks: Sequence[Task] | None = None, *, change: Callable[[dict[str, Any]], object] | None = None
) -> bytes:
    """Return a made-up response of `GET /classifications/task` for the window that ends with `as_of`.

        >>> from orpipeline.testing import Task, sample_response
        >>> len(sample_response("2026-10-06")) > 25_000  # 29 tags, with 10 models each
        True
        >>> small = sample_response("2026-10-06", [Task("code:debugging", models={"author/large": 0.6})])
        >>> invalid = sample_response("2026-10-06", change=lambda data: data.update(window_days=30))

    Args:
        as_of: A day, also as ISO text.
        tasks: The tags, in the response's order; the API's are sorted by usage share. Macro-categories are sums over
            their tags. Without `tasks`, a date always gives the same bytes: 29 tags, four macro-categories.
        change: Is called with the response's `data` before it becomes JSON, and can set every figure in it.
    """
    day = as_day(as_of)
    data = _data(day, _tasks(day) if tasks is None else tasks)
    if change is not None:
        change(data)
    return json.dumps({"data": data}, separators=(",", ":")).encode()


def _tasks(as_of: date) -> list[Task]:
    usage, tokens = traffic(as_of)
    return [
        Task(tag, usage[tag], tokens[tag], models=listed_models(tag, as_of))
        for tag in sorted(usage, key=lambda tag: -usage[tag])
    ]


def _data(as_of: date, tasks: Sequence[Task]) -> dict[str, Any]:
    usage = {task.tag: task.usage_share for task in tasks}
    tokens = {task.tag: task.usage_share if task.token_share is None else task.token_share for task in tasks}
    macro_of = {task.tag: task.macro_category or _macro(task.tag) for task in tasks}
    tags = []
    for task in tasks:
        category = _category_shares(task.tag, usage, tokens, macro_of)
        if task.category_usage_share is not None:
            category["category_usage_share"] = task.category_usage_share
        if task.category_token_share is not None:
            category["category_token_share"] = task.category_token_share
        tags.append(
            {
                "tag": task.tag,
                "display_name": task.display_name or DISPLAY_NAMES.get(task.tag) or _title(task.tag),
                "macro_category": macro_of[task.tag],
                "usage_share": _published(task.usage_share),
                "token_share": _published(tokens[task.tag]),
                **category,
                "models": [_listed(model_id, shares) for model_id, shares in task.models.items()],
            }
        )
    used = dict.fromkeys(macro_of.values())
    labels = {key: label for key, label in _MACROS.items() if key in used}
    labels |= {key: _title(key) for key in used if key not in _MACROS}
    macro_usage, macro_tokens = _by_macro(usage, macro_of), _by_macro(tokens, macro_of)
    macros = [
        {
            "key": key,
            "label": label,
            "usage_share": _published(macro_usage[key]),
            "token_share": _published(macro_tokens[key]),
        }
        for key, label in labels.items()
    ]
    return {
        "window_days": WINDOW_DAYS,
        "as_of": as_of.isoformat(),
        "classifications": tags,
        "macro_categories": macros,
    }


def _category_shares(
    tag: str, usage: Mapping[str, float], tokens: Mapping[str, float], macro_of: Mapping[str, str]
) -> dict[str, float]:
    """Return a tag's shares of its macro-category."""
    return {
        f"category_{name}_share": _published(_quotient(shares[tag], _by_macro(shares, macro_of)[macro_of[tag]]))
        for name, shares in (("usage", usage), ("token", tokens))
    }


def _listed(model_id: str, shares: float | tuple[float, float]) -> dict[str, object]:
    usage, tokens = shares if isinstance(shares, tuple) else (shares, shares)
    return {"id": model_id, "tag_usage_share": _published(usage), "tag_token_share": _published(tokens)}


def _macro(tag: str) -> str:
    prefix = tag.split(":")[0]
    return prefix if ":" in tag else "general"


def _title(name: str) -> str:
    return name.split(":")[-1].replace("_", " ").title()


def _by_macro(shares: Mapping[str, float], macro_of: Mapping[str, str]) -> Mapping[str, float]:
    summed: dict[str, float] = defaultdict(float)
    for tag, share in shares.items():
        summed[macro_of[tag]] += share
    return summed


def _quotient(share: float, total: float) -> float:
    return share / total if total else 0.0


def _published(share: float) -> float:
    return round(share, 3)

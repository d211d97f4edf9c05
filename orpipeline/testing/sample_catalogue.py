"""Made-up model catalogues, in the shape of `GET /models`, for the models of the sample responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any

from orpipeline.clock import as_day
from orpipeline.testing.sample_responses import sample_response


def sample_catalogue(as_of: date | str, *, change: Callable[[list[dict[str, Any]]], object] | None = None) -> bytes:
    """Return a made-up response of `GET /models`: the models that `sample_response(as_of)` lists.

        >>> from orpipeline.testing import sample_catalogue
        >>> free = sample_catalogue("2026-10-06", change=lambda models: models[0].update(pricing={"prompt": "0"}))

    A date always gives the same bytes. A third of the models have open weights, and each price is cut once in a while.

    Args:
        as_of: A day, also as ISO text.
        change: Is called with the response's `data`, a list of models, before it becomes JSON.
    """
    day = as_day(as_of)
    listed = {
        model["id"] for tag in json.loads(sample_response(day))["data"]["classifications"] for model in tag["models"]
    }
    models = [_model(model_id, day) for model_id in sorted(listed)]
    if change is not None:
        change(models)
    return json.dumps({"data": models}, separators=(",", ":")).encode()


def _model(listed_as: str, day: date) -> dict[str, Any]:
    slug, _, variant = listed_as.partition(":")
    undated = slug[:-9] if slug[-8:].isdigit() else slug
    author, _, model = undated.partition("/")
    number = int.from_bytes(blake2b(slug.encode(), digest_size=4).digest())
    name = f"{author.replace('-', ' ').title()}: {model.replace('-', ' ').title()}"
    cuts = (day.toordinal() + number) // 90 % 4  # a price falls three times, and then begins again
    prompt = 0.0 if variant == "free" else round(0.02 * 1.6 ** (number % 12), 2) * 0.7**cuts
    created = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number % 500)
    return {
        "id": f"{undated}:{variant}" if variant else undated,
        "canonical_slug": slug,
        "hugging_face_id": f"{author}/{model}" if number % 3 == 0 else "",
        "name": f"{name} ({variant})" if variant else name,
        "created": int(created.timestamp()),
        "context_length": 2 ** (15 + number % 6),
        "pricing": {"prompt": f"{prompt / 1e6:.12f}", "completion": f"{prompt * 4 / 1e6:.12f}"},
        "expiration_date": None,
    }

"""From the bytes of a catalogue to the rows of the table `models`, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from orpipeline.catalogue import listed_models
from orpipeline.catalogue.tables import Models
from orpipeline.contracts import rules
from orpipeline.contracts.findings import finding_frame, shown, shown_names
from orpipeline.contracts.validation import row_findings
from orpipeline.openrouter.response import iso_date

MOST_MODELS = 20_000
_KNOWN = {
    *("id", "canonical_slug", "hugging_face_id", "name", "created", "description", "context_length", "architecture"),
    *("pricing", "top_provider", "per_request_limits", "supported_parameters", "default_parameters"),
    *("supported_voices", "knowledge_cutoff", "expiration_date", "benchmarks", "alias_target", "links", "reasoning"),
}
"""The fields of an entry that are known. Others are reported, and the archive has them."""
_NO_FIXED_PRICE = -1.0  # of routers, whose price is that of the model that they choose


def catalogue_rows(day: date, body: bytes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a catalogue's rows, and the findings on them, with the columns of `FINDINGS_SCHEMA`.

    A finding of severity ERROR rejects the catalogue: no row of it may be stored.
    """
    entries = listed_models(body)
    objects = [one for one in entries if isinstance(one, dict)]
    rows: list[dict[str, Any]] = []
    originals: dict[tuple[str, str, int], str] = {}
    for number, entry in enumerate(objects[:MOST_MODELS]):
        row, wrong = _row(day, entry)
        rows.append(row)
        originals |= {("models", name, number): shown(value) for name, value in wrong.items()}
    frame = pl.DataFrame(rows, schema=Models.polars_schema(), orient="row")
    unknown = sorted({name for one in objects for name in one} - _KNOWN)
    found = [
        *row_findings("models", Models.to_schema(), frame, originals),
        _of_all(day, rules.PLAUSIBLE_COUNT, [f"{len(entries)} entries"] if not 0 < len(entries) <= MOST_MODELS else []),
        _of_all(day, rules.REQUIRED_FIELDS, ["an entry that is not an object"] if len(objects) < len(entries) else []),
        _of_all(day, rules.NO_UNKNOWN_FIELDS, [shown_names(unknown)] if unknown else []),
    ]
    return frame, pl.concat(found)


def _of_all(day: date, rule: rules.Rule, found: Iterable[str]) -> pl.DataFrame:
    return finding_frame(rule, "raw_models", ((day, "data", str(day), what) for what in found))


def _row(day: date, entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an entry's row, and the values that did not fit a column that may not be NULL, by column."""
    pricing = entry.get("pricing")
    prices = pricing if isinstance(pricing, dict) else {}
    created, length = (_whole_number(entry.get(name)) for name in ("created", "context_length"))
    texts = {column: entry.get(name) for column, name in _TEXTS.items()}
    wrong = {column: value for column, value in texts.items() if not isinstance(value, str)}
    model_id = texts["model_id"] if "model_id" not in wrong else ""
    row = {
        "as_of": day,
        **{column: None if column in wrong else value for column, value in texts.items()},
        "author": str(model_id).removeprefix("~").partition("/")[0],
        "created": datetime.fromtimestamp(created, UTC) if created is not None and created < 10**11 else None,
        "open_weights": bool(entry.get("hugging_face_id")),
        "context_length": length,
        "prompt_price": _price(prices.get("prompt")),
        "completion_price": _price(prices.get("completion")),
        "expires": iso_date(entry.get("expiration_date")),
    }
    return row, wrong


_TEXTS = {"model_id": "id", "permaslug": "canonical_slug", "name": "name"}


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else None


def _price(stated: object) -> float | None:
    """Return a price in USD per million tokens: NaN for what is not a number, None for a price that is not fixed."""
    try:
        price = float(stated) if isinstance(stated, str | float | int) else float("nan")
    except (ValueError, OverflowError):
        price = float("nan")
    # Ten digits: 0.00000004 USD times a million is 0.04, and not 0.039999999999999994.
    return None if price == _NO_FIXED_PRICE else float(f"{price * 1e6:.10g}")

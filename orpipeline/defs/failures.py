"""The failure of a run: which of its days failed, why, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from orpipeline.clock import day_spans
from orpipeline.defs.events import failure
from orpipeline.defs.metadata import table
from orpipeline.errors import DayNotAvailableError, InvalidSnapshotError, OrpipelineError, StoreError

_SHOWN_SPANS = 10  # of each kind of failed days; the failure's metadata has all


def days_failed(
    errors: Mapping[date, OrpipelineError],
    not_fetched: Mapping[date, OrpipelineError],
    days: Sequence[date],
    newest: date,
) -> dg.Failure:
    """Return the failure that lists the failed days by kind, and gives one error of each kind in full."""
    failed = dict(sorted({**errors, **not_fetched}.items()))
    by_kind: dict[str, dict[date, OrpipelineError]] = {}
    for day, error in failed.items():
        kind = "Not fetched" if day in not_fetched else _kind(day, error, newest)
        by_kind.setdefault(kind, {})[day] = error
    firsts = {kind: next(iter(of_kind.values())) for kind, of_kind in by_kind.items()}
    metadata: dict[str, Any] = {}
    # The sensor reads the run's `error` to know whether, and when, to call the API again: it comes last.
    for kind in sorted(firsts, key="Not fetched".__eq__):
        metadata |= failure(firsts[kind]).metadata
    metadata["failed_days"] = table(
        {"days": span, "why": kind} for kind, of_kind in by_kind.items() for span in day_spans(of_kind)
    )
    count = len(failed.keys() & set(days))
    others = "; the others are loaded" if count < len(days) else ""
    kinds = " ".join(f"{kind}: {_some_spans(of_kind)}. {firsts[kind]}" for kind, of_kind in by_kind.items())
    return dg.Failure(f"{count} of {len(days)} days failed{others}. {kinds}", metadata=metadata, allow_retries=False)


def _kind(day: date, error: OrpipelineError, newest: date) -> str:
    """Return the kind of a failed day: each kind needs a different action from you."""
    if isinstance(error, InvalidSnapshotError):
        return "Rejected"
    if isinstance(error, StoreError):
        return "Damaged"
    return "Not archived" if isinstance(error, DayNotAvailableError) and day < newest else "Not fetched"


def _some_spans(days: Mapping[date, OrpipelineError]) -> str:
    """Return how many days there are, and their first spans."""
    spans = day_spans(days)
    rest = f", and {len(spans) - _SHOWN_SPANS} more ranges" if len(spans) > _SHOWN_SPANS else ""
    shown = ", ".join(spans[:_SHOWN_SPANS])
    return f"{shown}{rest}" if len(days) == 1 else f"{len(days)} days, {shown}{rest}"

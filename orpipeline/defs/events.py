"""What Dagster is told of materialized days: metadata, data versions, and which days of which asset."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.archive.folder import Record
from orpipeline.citation import citation
from orpipeline.contracts.judgement import InvalidSnapshotError
from orpipeline.defs.metadata import (
    SPARKLINE_DAYS,
    findings_table,
    leaderboard_metadata,
    macros_metadata,
    table,
    task_models_metadata,
    tasks_metadata,
    trends_metadata,
)
from orpipeline.defs.specs import DATA_VERSION_TAG, RAW, table_key
from orpipeline.errors import OrpipelineError
from orpipeline.importing.importer import PartlyImportedError
from orpipeline.openrouter.errors import RateLimitedError
from orpipeline.snapshot import Judged
from orpipeline.warehouse.database import Warehouse

_SHOWN_FILES = 20  # the run's log has all
Materialization = tuple[dg.AssetKey, date, Record, dict[str, Any]]
"""An asset, its day, the answer that the day was made from, and metadata."""


def raw_events(judged: Judged) -> Iterator[Materialization]:
    """Yield what is to be said of the raw answers."""
    for day, record in judged.raw.items():
        metadata = {
            "file": dg.MetadataValue.path(record.path),
            "sha256": record.sha256,
            "revision": record.revision,
            "bytes": record.size,
            "fetched_at": dg.MetadataValue.timestamp(record.fetched_at),
            "origin": record.origin,
            "source": dg.MetadataValue.text(record.source),
            "citation": citation(day, record.origin),
        }
        yield RAW, day, record, metadata


def table_events(
    judged: Judged,
    frames: Mapping[str, pl.DataFrame],
    row_counts: Mapping[str, int],
    tables: Warehouse,
    seconds: float | None = None,
) -> Iterator[Materialization]:
    """Yield what is to be said of the tables' days, from the frames that were written, `seconds` after the start."""
    days = sorted(judged.chosen)
    if not days:
        return
    trends = tables.read("model_trends", since=days[0] - timedelta(days=SPARKLINE_DAYS), until=days[-1])
    warnings = dict(judged.findings.filter(severity="WARN").group_by("as_of").len().iter_rows())
    rows_of = {name: _by_day(frame) for name, frame in frames.items()}
    for day in days:
        record = judged.chosen[day]
        recent = trends.filter(pl.col("as_of").is_between(day - timedelta(days=SPARKLINE_DAYS), day))
        shown: dict[str, dict[str, Any]] = {
            "snapshots": {
                "revision": record.revision,
                "validation_warnings": warnings.get(day, 0),
                "file": dg.MetadataValue.path(record.path),
                **({} if seconds is None else {"seconds": seconds}),
            },
            "task_classifications": tasks_metadata(rows_of["task_classifications"][day]),
            "macro_categories": macros_metadata(rows_of["macro_categories"][day]),
            "task_models": task_models_metadata(rows_of["task_models"][day]),
            "model_leaderboard": leaderboard_metadata(rows_of["model_leaderboard"][day], recent),
            "model_trends": trends_metadata(recent, day),
        }
        for name, metadata in shown.items():
            # The view has a row for each of the leaderboard's, and changes when it does.
            table = "model_leaderboard" if name == "model_trends" else name
            counts = {
                "dagster/row_count": row_counts[table],
                "dagster/partition_row_count": len(rows_of[table][day]),
            }
            sources = {"citation": citation(day, record.origin), "sha256": record.sha256}
            yield table_key(name), day, record, {**metadata, **counts, **sources}


def _by_day(frame: pl.DataFrame) -> defaultdict[date, pl.DataFrame]:
    """Return a frame's rows by day, empty frames for days without rows."""
    parts = {key[0]: rows for key, rows in frame.partition_by("as_of", as_dict=True).items()}
    return defaultdict(frame.clear, parts)


def log_day(context: dg.OpExecutionContext | dg.AssetExecutionContext, event: Materialization) -> None:
    """Log that a day of an asset is materialized, apart from what the step puts out."""
    key, day, record, metadata = event
    tags = {DATA_VERSION_TAG: data_version([record]).value}
    context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata, tags=tags))


def data_version(records: Sequence[Record]) -> dg.DataVersion:
    """Return the sha256 of a day's bytes; for several days in one output, the sha256 of theirs."""
    shas = [record.sha256 for record in records]
    return dg.DataVersion(shas[0] if len(shas) == 1 else hashlib.sha256("".join(shas).encode()).hexdigest())


def failure(error: OrpipelineError) -> dg.Failure:
    """Return the failure that ends a run with an error of ours, and what there is to see of it."""
    metadata: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, InvalidSnapshotError):
        metadata["findings"] = findings_table(error.findings)
    if isinstance(error, PartlyImportedError):
        metadata["refused"] = table({"file": no.source, "why": no.reason} for no in error.refused[:_SHOWN_FILES])
    if isinstance(error, RateLimitedError) and error.retry_at:
        metadata["next_attempt"] = dg.MetadataValue.timestamp(error.retry_at)
    return dg.Failure(str(error), metadata=metadata, allow_retries=False)

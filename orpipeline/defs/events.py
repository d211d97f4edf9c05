"""What Dagster is told of materialized days: metadata, data versions, and which days of which asset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.archive import Record
from orpipeline.citation import citation
from orpipeline.contracts.validation import InvalidSnapshotError
from orpipeline.defs.specs import DATA_VERSION_TAG, RAW, table_key, table_metadata
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.errors import RateLimitedError
from orpipeline.snapshot import Judged

Materialization = tuple[dg.AssetKey, date, Record, dict[str, Any]]
"""An asset, its day, the answer that the day was made from, and metadata."""


def raw_events(judged: Judged) -> Iterator[Materialization]:
    """Yield what is to be said of the raw answers."""
    for day, record in judged.newest.items():
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
    judged: Judged, frames: Mapping[str, pl.DataFrame], row_counts: Mapping[str, int]
) -> Iterator[Materialization]:
    """Yield what is to be said of the tables' days, from the frames that were written."""
    for name, frame in frames.items():
        rows_of = {key[0]: rows for key, rows in frame.partition_by("as_of", as_dict=True).items()}
        for day, record in sorted(judged.chosen.items()):
            metadata: dict[str, Any] = {
                "dagster/row_count": row_counts[name],
                "dagster/partition_row_count": len(rows_of[day]),
                "citation": citation(day, record.origin),
                "sha256": record.sha256,
            }
            if name == "model_leaderboard":
                metadata |= _leaderboard_metadata(rows_of[day])
            yield table_key(name), day, record, metadata
            if name == "model_leaderboard":
                # The view has a row for each of the leaderboard's, and changes when it does.
                counts = ("dagster/row_count", "dagster/partition_row_count", "citation", "sha256")
                yield table_key("model_trends"), day, record, {name: metadata[name] for name in counts}


def _leaderboard_metadata(rows: pl.DataFrame) -> dict[str, Any]:
    """Return the day's top 10 of all traffic, and the figures that are worth a plot over days."""
    everything = rows.filter(scope="all").sort("usage_rank", "model_id")
    top = everything.head(10)
    return {
        "top_10": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "rank": row["usage_rank"],
                        "model": row["model_id"],
                        "usage_share": f"{row['usage_share']:.1%}",
                        "at_most": f"{row['usage_share_upper']:.1%}",
                    }
                )
                for row in top.iter_rows(named=True)
            ]
        ),
        "models": len(everything),
        "top_model_usage_share": float(top["usage_share"][0]),
        "top_5_usage_share": float(top.head(5)["usage_share"].sum()),
    }


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
        metadata["findings"] = table_metadata(error.findings)
    if isinstance(error, RateLimitedError) and error.retry_at:
        metadata["next_attempt"] = dg.MetadataValue.timestamp(error.retry_at)
    return dg.Failure(str(error), metadata=metadata, allow_retries=False)

"""The assets: a day's answer, the tables that it makes, and the leaderboard."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from orpipeline.archive import Archive
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.rules import CHECKS
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.events import Materialization, data_version, failure, log_day, raw_events, table_events
from orpipeline.defs.metadata import findings_table, table
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import ArchiveResource, OpenRouterResource, WarehouseResource
from orpipeline.defs.specs import (
    HISTORY_CHECKS,
    LOST_DAYS,
    RAW,
    RESTATEMENT,
    asset_specs,
    check_specs,
)
from orpipeline.errors import OrpipelineError
from orpipeline.snapshot import Fetch, Judged, capture, judge_days, load, lost_days, restatements
from orpipeline.warehouse.database import Warehouse

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


class SnapshotConfig(dg.Config):
    """The run config of a snapshot."""

    fetch: Fetch = Field(
        default=Fetch.auto,
        description="`auto`: ask the API only for the newest completed UTC day, and only if the archive lacks it. "
        "`always`: ask it and keep the answer under its own `as_of`. `never`: use the archive alone.",
    )
    revision: int | None = Field(
        default=None,
        ge=1,
        description="Put this revision of a restated day into the tables, in place of the newest that holds.",
    )


@dg.multi_asset(
    name="snapshot",
    specs=asset_specs(),
    check_specs=check_specs(),
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
    pool="warehouse",
)
def snapshot(
    context: dg.AssetExecutionContext,
    config: SnapshotConfig,
    openrouter: OpenRouterResource,
    archive: ArchiveResource,
    warehouse: WarehouseResource,
) -> Iterator[Event]:
    """Fetch a day's answer, keep it, hold it against the contracts, and replace the day's rows in all tables.

    One step, because a day's tables change together or not at all: whichever of the tables is selected, all
    of them are made again from the archive.
    """
    now, tables = utc_now(), warehouse.warehouse()
    raw_selected, tables_selected = RAW in context.selected_asset_keys, context.selected_asset_keys - {RAW}
    try:
        kept = archive.archive()
        days = _days(context, kept)
        # Checks alone judge what is there.
        fetch = config.fetch if context.selected_asset_keys else Fetch.never
        answer = capture(openrouter.client(), kept, days, fetch, now)
        if answer is not None:
            context.log.info(f"The API answered with {answer.record.as_of}: {answer.record.path}")
        judged = judge_days(
            kept, tables, days, now=now, answered=answer.record.as_of if answer else None, revision=config.revision
        )
        if raw_selected:
            yield from _report(context, raw_events(judged), whole=len(judged.newest) == len(days))
        yield from _checks(context, judged)
        yield from _history_checks(context, judged, kept, tables, newest_completed_day(now))
        if tables_selected:
            context.log.info(f"Replacing {len(judged.chosen)} of {len(days)} days in {len(TABLES)} tables")
            frames, row_counts = load(tables, judged)
            seconds = round((utc_now() - now).total_seconds(), 3)
            events = table_events(judged, frames, row_counts, tables, seconds)
            yield from _report(context, events, whole=not judged.errors)
    except OrpipelineError as error:
        raise failure(error) from error
    # An answer that is refused is none the less kept: that fails the tables, not the raw asset.
    failed = judged.errors if tables_selected else _unarchived(judged)
    if failed:
        raise _days_failed(failed, len(days))


def _days(context: dg.AssetExecutionContext, archive: Archive) -> list[date]:
    """Return the days of the run's partitions; for checks that are run by themselves, the newest archived one."""
    if context.has_partition_key or context.has_partition_key_range:
        return [date.fromisoformat(key) for key in sorted(context.partition_keys)]
    return archive.days()[-1:]


def _report(context: dg.AssetExecutionContext, events: Iterator[Materialization], *, whole: bool) -> Iterator[Event]:
    """Tell Dagster which partitions of which assets are materialized now.

    A step's output stands for all of the run's partitions. So only where every day is good (`whole`) are
    outputs yielded; otherwise one materialization is logged for each good day, and the others stay unmade.
    Tables that changed without having been selected are logged too.
    """
    by_asset: dict[dg.AssetKey, list[Materialization]] = {}
    for event in events:
        by_asset.setdefault(event[0], []).append(event)
    for key, materializations in by_asset.items():
        if whole and key in context.selected_asset_keys:
            for _, day, _, metadata in materializations:
                context.add_asset_metadata(metadata, asset_key=key, partition_key=day.isoformat())
            yield dg.MaterializeResult(
                asset_key=key, data_version=data_version([record for _, _, record, _ in materializations])
            )
            continue
        for materialization in materializations:
            log_day(context, materialization)


def _checks(context: dg.AssetExecutionContext, judged: Judged) -> Iterator[dg.AssetCheckResult]:
    """Yield a result for each selected check, with the rows that break it as a table."""
    if not judged.newest:
        return  # no answer: nothing was checked, and no check shall say that it passed
    days = [day.isoformat() for day in judged.newest]
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"
    for key in sorted(context.selected_asset_check_keys, key=str):
        if key in HISTORY_CHECKS:
            continue
        check = CHECKS[key.name]
        broken = judged.findings.filter(pl.col("rule").is_in([rule.name for rule in check.rules]))
        metadata: dict[str, Any] = {"days": span, "failing_rows": len(broken)}
        if len(broken):
            metadata["first_failing_rows"] = findings_table(broken)
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=not len(broken),
            severity=dg.AssetCheckSeverity[check.severity],
            metadata=metadata,
        )


def _history_checks(
    context: dg.AssetExecutionContext, judged: Judged, archive: Archive, tables: Warehouse, newest: date
) -> Iterator[dg.AssetCheckResult]:
    """Yield what is to be said of more than the run's own answers: lost days, and how far restated days moved."""
    if LOST_DAYS in context.selected_asset_check_keys:
        lost = [day.isoformat() for day in lost_days(archive, tables, newest)]
        yield dg.AssetCheckResult(
            asset_key=LOST_DAYS.asset_key,
            check_name=LOST_DAYS.name,
            passed=not lost,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"lost_days": len(lost), "newest_lost": ", ".join(lost[-20:]) or "none"},
        )
    if RESTATEMENT in context.selected_asset_check_keys and judged.chosen:
        moved = restatements(archive, judged)
        rows = [
            {"day": f"{r.day} r{r.revision}", "tag": r.tag, "share": r.share, "change": f"{r.largest_change:+.3f}"}
            for r in moved[-20:]
        ]
        metadata: dict[str, Any] = {
            "restated_days": len(moved),
            "largest_change": max((abs(r.largest_change) for r in moved), default=0.0),
        }
        yield dg.AssetCheckResult(
            asset_key=RESTATEMENT.asset_key,
            check_name=RESTATEMENT.name,
            passed=True,
            metadata=metadata | ({"changes": table(rows)} if rows else {}),
        )


def _unarchived(judged: Judged) -> dict[date, OrpipelineError]:
    return {day: error for day, error in judged.errors.items() if day not in judged.newest}


def _days_failed(errors: Mapping[date, OrpipelineError], asked: int) -> dg.Failure:
    """Return the failure that names the days that could not be made, one of them in full."""
    first = errors[min(errors)]
    if asked == 1:
        return failure(first)
    days = ", ".join(day.isoformat() for day in sorted(errors)[:20])
    more = f" and {len(errors) - 20} more" if len(errors) > 20 else ""
    return dg.Failure(
        f"{len(errors)} of {asked} days could not be materialized; the others were. Missing: {days}{more}. {first}",
        metadata=failure(first).metadata,
        allow_retries=False,
    )

"""The assets: a day's answer, the tables that it makes, and the leaderboard."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from orpipeline.archive.folder import Archive, ArchiveError
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.judgement import InvalidSnapshotError
from orpipeline.contracts.rules import CHECKS
from orpipeline.contracts.tables import TABLES
from orpipeline.days import day_spans
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
from orpipeline.openrouter.client import Client
from orpipeline.snapshot import (
    DayNotAvailableError,
    Fetch,
    Judged,
    capture,
    judge_days,
    load,
    lost_days,
    restatements,
)
from orpipeline.warehouse.database import Warehouse

_SHOWN_SPANS = 10  # of each kind of failed days; the failure's metadata has all
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
        answered, not_fetched = _capture(context, openrouter.client(), kept, days, fetch, now)
        judged = judge_days(kept, tables, days, now=now, answered=answered, revision=config.revision)
        if raw_selected:
            yield from _report(context, raw_events(judged), whole=len(judged.newest) == len(days))
        yield from _checks(context, judged)
        if tables_selected:
            context.log.info(f"Replacing {len(judged.chosen)} of {len(days)} days in {len(TABLES)} tables")
            reported = judged.raw
            judged, frames, row_counts = load(tables, judged)
            if raw_selected:
                # Of days that were judged again: what another process archived meanwhile is in the tables now.
                anew = (event for event in raw_events(judged) if reported.get(event[1]) != event[2])
                yield from _report(context, anew, whole=False)
            seconds = round((utc_now() - now).total_seconds(), 3)
            events = table_events(judged, frames, row_counts, tables, seconds)
            yield from _report(context, events, whole=not judged.errors)
        # They look at other answers too, and whatever is wrong with those must not stop the tables.
        yield from _history_checks(context, judged, kept, tables, newest_completed_day(now))
    except OrpipelineError as error:
        raise failure(error) from error
    # An answer that is refused is none the less kept: that fails the tables, not the raw asset.
    failed = judged.errors if tables_selected else _unarchived(judged)
    if failed or not_fetched:
        raise _days_failed(failed, not_fetched, days, newest_completed_day(now))


def _capture(
    context: dg.AssetExecutionContext,
    client: Client,
    archive: Archive,
    days: Sequence[date],
    fetch: Fetch,
    now: datetime,
) -> tuple[date | None, dict[date, OrpipelineError]]:
    """Ask the API where `fetch` says so; return the `as_of` of its answer, if it has one.

    Of a range, the API can serve the newest day alone: where it cannot be asked, the others are made none the less, and
    the error is returned as that day's.
    """
    try:
        answer = capture(client, archive, days, fetch, now)
    except OrpipelineError as error:
        if len(days) == 1:
            raise
        context.log.warning(str(error))
        return None, {newest_completed_day(now): error}
    if answer is None:
        return None, {}
    context.log.info(f"The API answered with {answer.record.as_of}: {answer.record.path}")
    return answer.record.as_of, {}


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
        moved, unreadable = restatements(archive, judged)
        rows = [
            {"day": f"{r.day} r{r.revision}", "tag": r.tag, "share": r.share, "change": f"{r.largest_change:+.3f}"}
            for r in moved[-20:]
        ]
        metadata: dict[str, Any] = {
            "restated_days": len(moved),
            "largest_change": max((abs(r.largest_change) for r in moved), default=0.0),
        }
        if unreadable:
            metadata["not_compared"] = table({"why": str(error)} for error in unreadable[:20])
        yield dg.AssetCheckResult(
            asset_key=RESTATEMENT.asset_key,
            check_name=RESTATEMENT.name,
            passed=True,
            metadata=metadata | ({"changes": table(rows)} if rows else {}),
        )


def _unarchived(judged: Judged) -> dict[date, OrpipelineError]:
    return {day: error for day, error in judged.errors.items() if day not in judged.newest}


def _days_failed(
    failed: Mapping[date, OrpipelineError],
    not_fetched: Mapping[date, OrpipelineError],
    days: Sequence[date],
    newest: date,
) -> dg.Failure:
    """Return the failure that says of each kind which days failed, and of one of them why and what to do."""
    errors = dict(sorted({**failed, **not_fetched}.items()))
    if len(days) == 1:
        return failure(*errors.values())
    by_kind: dict[str, dict[date, OrpipelineError]] = {}
    for day, error in errors.items():
        kind = "Not fetched" if day in not_fetched else _kind(day, error, newest)
        by_kind.setdefault(kind, {})[day] = error
    firsts = {kind: next(iter(of_kind.values())) for kind, of_kind in by_kind.items()}
    metadata: dict[str, Any] = {}
    # Who looks for the run's `error` wants to know whether the API can be asked again, and when.
    for kind in sorted(firsts, key="Not fetched".__eq__):
        metadata |= failure(firsts[kind]).metadata
    metadata["failed_days"] = table(
        {"days": span, "why": kind} for kind, of_kind in by_kind.items() for span in day_spans(of_kind)
    )
    count = len(errors.keys() & set(days))
    others = "; the others are materialized" if count < len(days) else ""
    kinds = " ".join(f"{kind}: {_some_spans(of_kind)}. {firsts[kind]}" for kind, of_kind in by_kind.items())
    return dg.Failure(f"{count} of {len(days)} days failed{others}. {kinds}", metadata=metadata, allow_retries=False)


def _kind(day: date, error: OrpipelineError, newest: date) -> str:
    """Return what a person calls days that failed like this one: what there is to do is not the same."""
    if isinstance(error, InvalidSnapshotError):
        return "Refused"
    if isinstance(error, ArchiveError):
        return "Damaged"
    return "Not archived" if isinstance(error, DayNotAvailableError) and day < newest else "Not fetched"


def _some_spans(days: Mapping[date, OrpipelineError]) -> str:
    """Return how many days there are, and the first spans of them."""
    spans = day_spans(days)
    rest = f", and {len(spans) - _SHOWN_SPANS} more spans" if len(spans) > _SHOWN_SPANS else ""
    shown = ", ".join(spans[:_SHOWN_SPANS])
    return f"{shown}{rest}" if len(days) == 1 else f"{len(days)} days, {shown}{rest}"

"""The job that maintains a DuckLake, and its schedule. A DuckDB file needs neither."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's parameters.

from typing import Any

import dagster as dg

from orpipeline.clock import utc_now
from orpipeline.defs.events import failure
from orpipeline.defs.names import Names
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.maintenance import Maintained, maintain


def maintenance_job(names: Names) -> dg.JobDefinition:
    """Return the job `lake_maintenance`."""

    @dg.op(
        name=names.op("maintain_lake"),
        pool=names.warehouse,
        required_resource_keys={names.warehouse},
        description="Merge small files, expire old snapshots, and delete the files that nothing needs any more.",
    )
    def maintain_lake(context: dg.OpExecutionContext) -> dg.Output[None]:
        warehouse = context.resources._asdict()[names.warehouse].warehouse()
        try:
            maintained = maintain(warehouse, now=utc_now())
        except OrpipelineError as error:
            raise failure(error) from error
        context.log.info(_summary(maintained))
        return dg.Output(None, metadata=_metadata(maintained))

    @dg.job(
        name=names.job("lake_maintenance"),
        description="Merge the lake's small files, and expire snapshots that are older than 30 days.",
        executor_def=dg.in_process_executor,
    )
    def lake_maintenance() -> None:
        maintain_lake()

    return lake_maintenance


def maintenance_schedule(names: Names, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule that maintains the lake once a week, at an hour when no day is fetched."""
    return dg.ScheduleDefinition(
        name=names.job("lake_maintenance_schedule"),
        job=job,
        cron_schedule="40 3 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="On Sundays at 03:40 UTC: merge the lake's small files, and expire old snapshots.",
    )


def _summary(maintained: Maintained) -> str:
    before, after = maintained.before, maintained.after
    return (
        f"{before.files} files became {after.files}, and {before.snapshots} snapshots {after.snapshots}; deleted "
        f"{maintained.deleted} files that were replaced earlier."
    )


def _metadata(maintained: Maintained) -> dict[str, dg.MetadataValue[Any]]:
    before, after = maintained.before, maintained.after
    counts = {
        "files_before": before.files,
        "files": after.files,
        "bytes_before": before.bytes,
        "bytes": after.bytes,
        "snapshots_before": before.snapshots,
        "snapshots": after.snapshots,
        "files_deleted": maintained.deleted,
        "files_to_delete": after.replaced,
    }
    return {
        **{name: dg.MetadataValue.int(count) for name, count in counts.items()},
        "time_travel_since": dg.MetadataValue.timestamp(maintained.oldest),
    }

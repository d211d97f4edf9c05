"""The job that maintains a DuckLake, and its schedule. A DuckDB file needs neither.

Each commit adds files and a snapshot to a lake, and nothing else merges or removes them. DuckLake's own functions do
the work. None of them changes a row, and readers need no lock: a reader keeps the snapshot that it began with, and
files that are no longer needed stay for some time after they were replaced.

DuckLake can also delete files that its catalog does not list. That is left to you: in a folder that two lakes share,
these are the other lake's files.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's parameters.

from datetime import datetime, timedelta
from typing import NamedTuple

import dagster as dg
import duckdb

from orpipeline.clock import utc_now
from orpipeline.defs.events import failure
from orpipeline.defs.names import Names
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.warehouse import Warehouse

KEEP = timedelta(days=30)
"""How far back time travel reaches, if the lake has no option `expire_older_than`."""
GRACE = timedelta(days=1)
"""How long replaced files stay for queries that still read them, if the lake has no option `delete_older_than`."""

_OPTION_SQL = """
SELECT $now - value::INTERVAL FROM ducklake_options(current_database())
WHERE option_name = $option AND scope = 'GLOBAL'
"""
_SIZE_SQL = """
SELECT coalesce(sum(file_count + delete_file_count), 0)::BIGINT,
    coalesce(sum(file_size_bytes + delete_file_size_bytes), 0)::BIGINT,
    (SELECT count(*) FROM ducklake_snapshots(current_database())),
    (SELECT count(*) FROM ducklake_cleanup_old_files(current_database(), dry_run => true, cleanup_all => true))
FROM ducklake_table_info(current_database())
"""
# In this order: rows in the catalog become files, files lose their deleted rows, and then small files are merged.
_REWRITE = (
    "CALL ducklake_flush_inlined_data(current_database())",
    "CALL ducklake_rewrite_data_files(current_database(), delete_threshold => 0.0)",
    "CALL ducklake_merge_adjacent_files(current_database())",
)
_EXPIRE = "CALL ducklake_expire_snapshots(current_database(), older_than => ?)"
_CLEAN_UP = "CALL ducklake_cleanup_old_files(current_database(), older_than => ?)"


class LakeSize(NamedTuple):
    """What a lake consists of. `files` and `bytes` are those of the newest snapshot, for all tables."""

    files: int
    bytes: int
    snapshots: int
    replaced: int
    """Files that no snapshot needs. They are deleted when no query can still read them."""


class Maintained(NamedTuple):
    """The outcome of a maintenance."""

    before: LakeSize
    after: LakeSize
    deleted: int
    """Files that were deleted."""
    oldest: datetime
    """Snapshots that are older are gone, except for the newest one."""


def maintenance_job(names: Names) -> dg.JobDefinition:
    """Return the job `lake_maintenance`."""

    @dg.op(
        name=names.op("maintain_lake"),
        required_resource_keys={names.warehouse},
        description="Merge small files, expire old snapshots, and delete the files that nothing needs any more.",
    )
    def maintain_lake(context: dg.OpExecutionContext) -> dg.Output[None]:
        warehouse = context.resources._asdict()[names.warehouse].warehouse()
        try:
            maintained = maintain(warehouse, now=utc_now())
        except OrpipelineError as error:
            raise failure(error) from error
        before, after = maintained.before, maintained.after
        context.log.info(
            f"{before.files} files became {after.files}, and {before.snapshots} snapshots {after.snapshots}; deleted "
            f"{maintained.deleted} files that were replaced earlier."
        )
        return dg.Output(
            None,
            metadata={
                "files_before": before.files,
                "files": after.files,
                "bytes_before": before.bytes,
                "bytes": after.bytes,
                "snapshots_before": before.snapshots,
                "snapshots": after.snapshots,
                "files_deleted": maintained.deleted,
                "files_to_delete": after.replaced,
                "time_travel_since": dg.MetadataValue.timestamp(maintained.oldest),
            },
        )

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


def maintain(warehouse: Warehouse, *, now: datetime) -> Maintained:
    """Merge the lake's small files, expire old snapshots, and delete the files that nothing needs any more.

    Other writers wait meanwhile; readers do not. The lake's own options `expire_older_than` and `delete_older_than`
    say for how long, and without them, `KEEP` and `GRACE`. Each step is a commit: if a later one fails, the lake is
    intact, and the next maintenance continues. Does nothing if there is no lake yet. Raises WarehouseError.
    """
    if not warehouse.exists:
        nothing = LakeSize(files=0, bytes=0, snapshots=0, replaced=0)
        return Maintained(nothing, nothing, 0, now - KEEP)
    with warehouse.locked() as lake:
        oldest = _limit(lake, now, "expire_older_than", KEEP)
        replaced_before = _limit(lake, now, "delete_older_than", GRACE)
        before = _size(lake)
        lake.execute(_EXPIRE, [oldest]).fetchall()
        for statement in _REWRITE:
            lake.execute(statement).fetchall()
        deleted = len(lake.execute(_CLEAN_UP, [replaced_before]).fetchall())
        return Maintained(before, _size(lake), deleted, oldest)


def _limit(lake: duckdb.DuckDBPyConnection, now: datetime, option: str, default: timedelta) -> datetime:
    """Return the time that is as long before `now` as the lake's option says."""
    stored: list[tuple[datetime]] = lake.execute(_OPTION_SQL, {"now": now, "option": option}).fetchall()
    return stored[0][0] if stored else now - default


def _size(lake: duckdb.DuckDBPyConnection) -> LakeSize:
    (row,) = lake.execute(_SIZE_SQL).fetchall()
    return LakeSize(*row)

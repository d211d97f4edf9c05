"""Maintenance of a DuckLake: each commit adds files and a snapshot, and nothing else merges or removes them.

DuckLake's own functions do the work. None of them changes a row, and readers need no lock: a reader keeps the snapshot
that it began with, and files that are no longer needed stay for some time after they were replaced.

DuckLake can also delete files that its catalog does not list. That is left to you: in a folder that two lakes share,
these are the other lake's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb

from orpipeline.warehouse.database import Warehouse

KEEP = timedelta(days=30)
"""How far back time travel reaches, if the lake has no option `expire_older_than`."""
GRACE = timedelta(days=1)
"""How long replaced files stay for queries that still read them, if the lake has no option `delete_older_than`."""

_OPTION_SQL = """
SELECT $now - value::INTERVAL FROM ducklake_options(current_database())
WHERE option_name = $option AND scope = 'GLOBAL'
"""
_FILES_SQL = """
SELECT coalesce(sum(file_count + delete_file_count), 0)::BIGINT,
    coalesce(sum(file_size_bytes + delete_file_size_bytes), 0)::BIGINT
FROM ducklake_table_info(current_database())
"""
_SNAPSHOTS_SQL = "SELECT count(*) FROM ducklake_snapshots(current_database())"
_REPLACED_SQL = (
    "SELECT count(*) FROM ducklake_cleanup_old_files(current_database(), dry_run => true, cleanup_all => true)"
)
# In this order: rows in the catalog become files, files lose their deleted rows, and then small files are merged.
_REWRITE = (
    "CALL ducklake_flush_inlined_data(current_database())",
    "CALL ducklake_rewrite_data_files(current_database(), delete_threshold => 0.0)",
    "CALL ducklake_merge_adjacent_files(current_database())",
)
_EXPIRE = "CALL ducklake_expire_snapshots(current_database(), older_than => ?)"
_CLEAN_UP = "CALL ducklake_cleanup_old_files(current_database(), older_than => ?)"


@dataclass(frozen=True)
class LakeSize:
    """What a lake consists of. `files` and `bytes` are those of the newest snapshot, for all tables."""

    files: int
    bytes: int
    snapshots: int
    replaced: int
    """Files that no snapshot needs. They are deleted when no query can still read them."""


_NOTHING = LakeSize(files=0, bytes=0, snapshots=0, replaced=0)


@dataclass(frozen=True)
class Maintained:
    """The outcome of a maintenance."""

    before: LakeSize
    after: LakeSize
    deleted: int
    """Files that were deleted."""
    oldest: datetime
    """Snapshots that are older are gone, except for the newest one."""


def maintain(
    warehouse: Warehouse, *, now: datetime, keep: timedelta | None = None, grace: timedelta | None = None
) -> Maintained:
    """Merge the lake's small files, expire old snapshots, and delete the files that nothing needs any more.

    Other writers wait meanwhile; readers do not. By default, `keep` and `grace` are the lake's own options
    `expire_older_than` and `delete_older_than`, and without these, `KEEP` and `GRACE`. Each step is a commit. If a
    later one fails, the lake is intact, and the next maintenance continues. Does nothing if there is no lake yet.
    Raises WarehouseError.
    """
    if not warehouse.exists:
        return Maintained(_NOTHING, _NOTHING, 0, now - (KEEP if keep is None else keep))
    with warehouse.locked() as lake:
        oldest = _limit(lake, now, keep, "expire_older_than", KEEP)
        replaced_before = _limit(lake, now, grace, "delete_older_than", GRACE)
        before = _size(lake)
        lake.execute(_EXPIRE, [oldest]).fetchall()
        for statement in _REWRITE:
            lake.execute(statement).fetchall()
        deleted = len(lake.execute(_CLEAN_UP, [replaced_before]).fetchall())
        return Maintained(before, _size(lake), deleted, oldest)


def _limit(
    lake: duckdb.DuckDBPyConnection, now: datetime, given: timedelta | None, option: str, default: timedelta
) -> datetime:
    """Return the time that is `given` before `now`, or without it as long before as the lake's option says."""
    stored: list[tuple[datetime]] = []
    if given is None:
        stored = lake.execute(_OPTION_SQL, {"now": now, "option": option}).fetchall()
    return stored[0][0] if stored else now - (default if given is None else given)


def _size(lake: duckdb.DuckDBPyConnection) -> LakeSize:
    files, size = _row(lake, _FILES_SQL)
    (snapshots,), (replaced,) = _row(lake, _SNAPSHOTS_SQL), _row(lake, _REPLACED_SQL)
    return LakeSize(files=files, bytes=size, snapshots=snapshots, replaced=replaced)


def _row(lake: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = lake.execute(query).fetchall()
    return row

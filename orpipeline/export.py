"""The tables and views as Parquet files in a folder of your choice, for other tools."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

from orpipeline.clock import Clock, utc_now
from orpipeline.contracts.tables import EXPORTED
from orpipeline.errors import OrpipelineError
from orpipeline.files import is_temporary
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.parquet import Exported, write_parquet
from orpipeline.warehouse.published import PublishedCopy, is_copy, local_copy
from orpipeline.warehouse.tables import Tables

_ABANDONED_AFTER = timedelta(hours=1)


class ExportError(OrpipelineError):
    """The export cannot be written. Its earlier files are complete."""


def export_tables(
    warehouse: Warehouse,
    to: Path,
    *,
    everything: bool = False,
    clock: Clock = utc_now,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the months that are missing from the folder `to`, or have days that changed, as `write_parquet` does.

    With `everything`, write all months. Days that only `to` has stay. `on_progress` is called with the number of days
    written since the last call. Raises ExportError if the warehouse is empty or the folder cannot be written.
    """
    with _source(warehouse) as tables:
        days = tables.days()
        if not days:
            raise ExportError(
                f"The warehouse {warehouse.name} is empty: there is nothing to export. Run `orpipeline run` or "
                "`orpipeline import` first."
            )
        _require_own_layout(to)
        try:
            _sweep(to, clock)
            return write_parquet(tables, to, mirror=False, changed=days if everything else (), on_progress=on_progress)
        except OSError as error:
            raise ExportError(
                f"Cannot write the export to {to}: {error.strerror}. Its earlier months are complete. Free disk space "
                "or fix the folder's permissions, and run the export again."
            ) from error


def _source(warehouse: Warehouse) -> AbstractContextManager[Tables]:
    """Open the published copy if it is current, because a long export would keep a run out; otherwise the warehouse."""
    if warehouse.is_file and warehouse.published is not None:
        copy = local_copy(warehouse.path, warehouse.published)
        if is_copy(warehouse.path, copy):
            return PublishedCopy(copy, schema=warehouse.schema).reading()
    return warehouse.reading()


def _require_own_layout(to: Path) -> None:
    """Raise ExportError if version 0.1 exported to the folder: readers of a table would get its days twice."""
    for name in EXPORTED:
        older = next((to / name).glob("as_of=*"), None)
        if older is not None:
            raise ExportError(
                f"{older} is from orpipeline 0.1, which wrote a folder for each day; nothing was changed. Export to "
                "another folder, or remove these folders first."
            )


def _sweep(to: Path, clock: Clock) -> None:
    """Remove temporary files that killed exports left an hour ago or longer; a running export has newer ones."""
    oldest = (clock() - _ABANDONED_AFTER).timestamp()
    for path in to.glob(".*"):
        if is_temporary(path) and path.is_file() and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)

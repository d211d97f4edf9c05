"""The job that brings in earlier snapshots."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's parameters.

from collections.abc import Callable, Collection
from datetime import date
from itertools import chain

import dagster as dg
from pydantic import Field

from orpipeline.answer_files import find_files
from orpipeline.archive import Archive
from orpipeline.clock import utc_now
from orpipeline.defs.events import failure, log_day, raw_events, table_events
from orpipeline.defs.partitions import known_days
from orpipeline.defs.resources import ArchiveResource, WarehouseResource
from orpipeline.defs.runs import unreported
from orpipeline.defs.specs import DAILY_ASSETS
from orpipeline.errors import OrpipelineError
from orpipeline.history import Imported, Progress, import_files, make_tables, out_of_date
from orpipeline.snapshot import missing_days
from orpipeline.warehouse.database import Warehouse


class ImportConfig(dg.Config):
    """The run config of an import."""

    paths: list[str] = Field(
        description="Files, folders and patterns, on the machine that the run is on: plain answers or envelopes, as "
        "`.json`, `.json.gz`, `.jsonl`, `.zip` or `.tar.gz`."
    )
    dry_run: bool = Field(default=False, description="Say what would come in, and change nothing.")


Watch = Callable[[str, int], Progress]
"""Is told that a part of the work begins, and how much of it there is; returns what is told how it comes on."""


def import_job(watch: Watch, done: Callable[[Imported], None] = lambda _: None) -> dg.JobDefinition:
    """Return the job, with somebody who watches it. `done` is told what came in."""

    @dg.op(pool="warehouse", description="Archive earlier snapshots, make their tables, and tell Dagster of the days.")
    def import_snapshots(
        context: dg.OpExecutionContext, config: ImportConfig, archive: ArchiveResource, warehouse: WarehouseResource
    ) -> None:
        kept, tables = archive.archive(), warehouse.warehouse()
        try:
            first, newest = known_days()
            files = find_files(config.paths)
            reading = watch("Reading", sum(file.size for file in files))
            imported = import_files(
                kept, files, first=first, newest=newest, dry_run=config.dry_run, on_progress=reading
            )
            context.log.info(_summary(imported))
            if not config.dry_run:
                _materialize(context, kept, tables, imported.days, watch)
            done(imported)
            imported.raise_for_refused(dry_run=config.dry_run)
        except OrpipelineError as error:
            raise failure(error) from error

    @dg.job(
        name="import_archive",
        description="Bring in snapshots that somebody else kept: archive, tables, and materialized partitions.",
    )
    def import_archive() -> None:
        import_snapshots()

    return import_archive


def _materialize(
    context: dg.OpExecutionContext, archive: Archive, tables: Warehouse, days: Collection[date], watch: Watch
) -> None:
    """Make the tables of the days that need it, and tell Dagster of those and of any that it does not know."""
    outdated = _outdated_versions(archive, tables, days)
    wanted = out_of_date(archive, tables, days, now=utc_now()) | unreported(context.instance, outdated)
    made, reported = watch("Tables", len(wanted)), watch("Dagster's events", len(wanted) * len(DAILY_ASSETS))
    for judged, frames, row_counts in make_tables(archive, tables, wanted, now=utc_now()):
        made(len(judged.newest))
        for error in judged.errors.values():
            context.log.warning(str(error))
        for event in chain(raw_events(judged), table_events(judged, frames, row_counts, tables)):
            log_day(context, event)
            reported(1)


def _outdated_versions(archive: Archive, tables: Warehouse, days: Collection[date]) -> dict[date, set[str]]:
    """Return the data versions of each day's revisions that neither the archive's newest nor the tables' one has."""
    stored = dict(tables.read("snapshots").select("as_of", "sha256").iter_rows())
    revisions = {day: [record.sha256 for record in archive.revisions(day)] for day in days}
    return {day: set(versions[:-1]) - {versions[-1], stored.get(day)} for day, versions in revisions.items()}


def _summary(imported: Imported) -> str:
    missing = missing_days(imported.days)
    return (
        f"{len(imported.new)} new, {len(imported.same)} the same, {len(imported.restated)} restated, "
        f"{len(imported.refused)} refused; days still missing in between: {len(missing)}"
    )


import_archive = import_job(lambda _part, _size: lambda _progress: None)

"""The job that brings in earlier snapshots."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's parameters.

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import date
from itertools import chain

import dagster as dg
from pydantic import Field

from orpipeline.archive.folder import Archive, ArchiveError
from orpipeline.clock import utc_now
from orpipeline.days import day_spans
from orpipeline.defs.events import failure, log_day, raw_events, table_events
from orpipeline.defs.partitions import known_days
from orpipeline.defs.resources import ArchiveResource, WarehouseResource
from orpipeline.defs.runs import unreported
from orpipeline.defs.specs import DAILY_ASSETS
from orpipeline.errors import OrpipelineError
from orpipeline.importing.formats import find_files
from orpipeline.importing.importer import Imported, import_files, still_missing
from orpipeline.rebuild import Progress, make_tables, out_of_date
from orpipeline.warehouse.database import Warehouse


class ImportConfig(dg.Config):
    """The run config of an import."""

    paths: list[str] = Field(
        description="Files, folders and patterns, on the machine that the run is on: plain answers or envelopes, as "
        "`.json`, `.json.gz`, `.jsonl`, `.zip` or `.tar.gz`."
    )
    dry_run: bool = Field(default=False, description="Say what would come in, and change nothing.")


Watch = Callable[[str, int, str], Progress]
"""Is told that a part of the work begins, and how much of it there is in what unit; returns what is told how it comes
on."""


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
            reading = watch("Reading", sum(file.size for file in files), "bytes")
            imported = import_files(
                kept, files, first=first, newest=newest, dry_run=config.dry_run, on_progress=reading
            )
            # What is archived is in, whatever becomes of the tables.
            context.log.info(_summary(imported, still_missing(kept, imported)))
            done(imported)
            if not config.dry_run:
                _materialize(context, kept, tables, imported.days, watch)
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
    made = watch("Tables", len(wanted), "days")
    reported = watch("Dagster's events", len(wanted) * len(DAILY_ASSETS), "events")
    for judged, frames, row_counts in make_tables(archive, tables, wanted, now=utc_now()):
        made(len(judged.newest.keys() | judged.errors.keys()))
        for error in judged.errors.values():
            context.log.warning(str(error))
        events = chain(raw_events(judged), table_events(judged, frames, row_counts, tables))
        # Day by day: where it is interrupted, the days before are whole for Dagster too.
        for event in sorted(events, key=lambda event: event[1]):
            log_day(context, event)
            reported(1)


def _outdated_versions(archive: Archive, tables: Warehouse, days: Collection[date]) -> dict[date, set[str]]:
    """Return the data versions of each day's revisions that neither the archive's newest nor the tables' one has."""
    stored = dict(tables.read("snapshots").select("as_of", "sha256").iter_rows())
    outdated: dict[date, set[str]] = {}
    for day in days:
        with suppress(ArchiveError):  # whoever makes the day's tables is told
            *older, newest = (record.sha256 for record in archive.revisions(day))
            outdated[day] = set(older) - {newest, stored.get(day)}
    return outdated


def _summary(imported: Imported, missing: Sequence[date]) -> str:
    counts = (
        f"{len(imported.new)} new, {len(imported.same)} the same, {len(imported.restated)} restated, "
        f"{len(imported.refused)} refused; days still missing in between: {', '.join(day_spans(missing)) or 'none'}"
    )
    return "\n".join([counts, *(f"refused: {no.source}: {no.reason}" for no in imported.refused)])


import_archive = import_job(lambda _part, _size, _unit: lambda _progress: None)

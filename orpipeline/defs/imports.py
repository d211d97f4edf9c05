"""The job that imports earlier responses."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an op's parameters.

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from datetime import date
from itertools import chain

import dagster as dg
from pydantic import Field

from orpipeline.archive import DIGITS, Archive
from orpipeline.clock import day_spans, utc_now
from orpipeline.defs.catalogue import catalogue_materializations
from orpipeline.defs.checks import imported_evaluations
from orpipeline.defs.events import failure, raw_materializations, table_materializations
from orpipeline.defs.jobs import loaded_versions
from orpipeline.defs.names import VIRTUAL_ASSETS, Names
from orpipeline.defs.partitions import known_days
from orpipeline.errors import OrpipelineError
from orpipeline.importing.files import find_files
from orpipeline.importing.importer import Imported, import_files, still_missing
from orpipeline.load import load_batches, load_catalogues, validate_days
from orpipeline.text import plain
from orpipeline.warehouse.warehouse import Warehouse

_SHOWN_REJECTED = 100  # the run's log is stored in Dagster's database


class ImportConfig(dg.Config):
    """The run config of an import."""

    paths: list[str] = Field(
        description="Files, folders and patterns on the machine that executes the run: JSON with responses in it, "
        "also gzipped or in a `.zip`, `.tar` or `.tar.gz`."
    )
    dry_run: bool = Field(default=False, description="Report what would be imported, and change nothing.")


Progress = Callable[[int], None]
"""Is called with the amount of work done since the last call."""
Watch = Callable[[str, int, str], Progress]
"""Is called when a part of the work begins, with its name, amount and unit; returns what to call with progress."""


def _unwatched(_part: str, _size: int, _unit: str) -> Progress:
    return lambda _done: None


def import_job(
    names: Names,
    partitions: dg.DailyPartitionsDefinition,
    watch: Watch = _unwatched,
    on_imported: Callable[[Imported], None] = lambda _: None,
) -> dg.JobDefinition:
    """Return the job `import_archive`. `watch` and `on_imported` are called with its progress and its outcome."""

    @dg.op(
        name=names.op("import"),
        required_resource_keys={names.archive, names.warehouse},
        description="Archive earlier responses, rebuild their days' tables, and report the days to Dagster.",
    )
    def import_responses(context: dg.OpExecutionContext, config: ImportConfig) -> None:
        resources = context.resources._asdict()
        archive, warehouse = resources[names.archive].archive(), resources[names.warehouse].warehouse()
        try:
            first, newest = known_days(partitions)
            files = find_files(config.paths)
            reading = watch("Reading", sum(file.size for file in files), "bytes")
            imported = import_files(
                archive, files, first=first, newest=newest, dry_run=config.dry_run, on_progress=reading
            )
            # Responses stay archived even if loading the tables fails.
            context.log.info(_summary(imported, still_missing(archive, imported)))
            on_imported(imported)
            if imported.days and not config.dry_run:
                _materialize(context, names, archive, warehouse, imported.days, watch, newest)
            if imported.catalogues and not config.dry_run:
                loaded = load_catalogues(archive, warehouse, sorted(set(imported.catalogues)), now=utc_now())
                for materialization in catalogue_materializations(names, loaded):
                    context.log_event(materialization.event(names))
            imported.raise_for_rejected(dry_run=config.dry_run)
        except OrpipelineError as error:
            raise failure(error) from error

    @dg.job(
        name=names.job("import_archive"),
        description="Import saved responses, rebuild their days' tables, and mark the days as materialized.",
        executor_def=dg.in_process_executor,
    )
    def import_archive() -> None:
        import_responses()

    return import_archive


def _materialize(
    context: dg.OpExecutionContext,
    names: Names,
    archive: Archive,
    warehouse: Warehouse,
    days: Collection[date],
    watch: Watch,
    newest: date,
) -> None:
    """Rebuild the days that are out of date, and report those and any that Dagster does not know, with the checks."""
    wanted = _days_to_load(context.instance, names, archive, warehouse, days)
    rebuilt = watch("Tables", len(wanted), "days")
    reported = watch("Dagster's events", len(wanted) * (len(names.daily_assets) + len(VIRTUAL_ASSETS)), "events")
    loaded = None
    for loaded in load_batches(archive, warehouse, wanted, now=utc_now()):
        validated = loaded.validated
        rebuilt(len(validated.newest.keys() | validated.errors.keys()))
        for error in validated.errors.values():
            context.log.warning(str(error))
        materializations = chain(raw_materializations(names, validated), table_materializations(names, loaded))
        # Day by day: if the import is interrupted, Dagster knows the earlier days completely.
        for materialization in sorted(materializations, key=lambda m: m.day):
            context.log_event(materialization.event(names))
            reported(1)
    if loaded is not None:
        for evaluation in imported_evaluations(names, archive, loaded, newest):
            context.log_event(evaluation)  # type: ignore[arg-type] # it takes evaluations, too


def _days_to_load(
    instance: dg.DagsterInstance, names: Names, archive: Archive, warehouse: Warehouse, days: Collection[date]
) -> set[date]:
    """Return the days whose rows are not those of the archive's newest revision, or that Dagster does not know."""
    with warehouse.reading() as tables:
        if not tables.are_current:
            return set(days)
        stored = dict(tables.read("snapshots").select("as_of", "sha256").iter_rows())
    revisions = {day: [one.digest for one in of_day] for day, of_day in archive.revisions_of(days).items() if of_day}
    outdated = {day: set(digests) - {digests[-1], stored.get(day, "")[:DIGITS]} for day, digests in revisions.items()}
    changed = {day for day, digests in revisions.items() if not stored.get(day, "").startswith(digests[-1])}
    # If the newest revision is rejected, an older one is right.
    chosen = validate_days(archive, changed & stored.keys(), now=utc_now()).chosen
    changed -= {day for day, one in chosen.items() if stored[day].startswith(one.digest)}
    return changed | _unreported(instance, names, outdated)


def _unreported(instance: dg.DagsterInstance, names: Names, days: Mapping[date, Container[str]]) -> set[date]:
    """Return the days that an asset has no current materialization for.

    `days` gives how each day's outdated data versions begin: those of its other revisions. Queries the event log
    once for each asset, however many days there are.
    """
    found: set[date] = set()
    for key in names.daily_assets:
        versions = loaded_versions(instance, key)
        reported = instance.get_materialized_partitions(key)
        for day, outdated in days.items():
            partition = day.isoformat()
            version = versions.get(partition)
            if partition not in reported or (version is not None and version[:DIGITS] in outdated):
                found.add(day)
    return found


def _summary(imported: Imported, missing: Sequence[date]) -> str:
    counts = (
        f"{len(imported.new)} new, {len(imported.same)} unchanged, {len(imported.restated)} restated, "
        f"{len(imported.rejected)} rejected; days still missing in between: {', '.join(day_spans(missing)) or 'none'}"
    )
    shown = [plain(f"rejected: {one.source}: {one.reason}") for one in imported.rejected[:_SHOWN_REJECTED]]
    more = [f"and {len(imported.rejected) - len(shown)} more rejected"] if len(imported.rejected) > len(shown) else []
    return "\n".join([counts, *shown, *more])

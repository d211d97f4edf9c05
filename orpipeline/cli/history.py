"""The commands for earlier days: `import`, `rebuild` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli.terminal import (
    command_settings,
    day_option,
    demo_option,
    examples,
    out,
    print_line,
    print_rows,
    progress_bars,
    some_days,
    span,
    watcher,
)
from orpipeline.clock import day_spans, newest_completed_day, utc_now
from orpipeline.errors import NotPublishedError, OrpipelineError, SettingsError
from orpipeline.settings import Settings, url_scheme

if TYPE_CHECKING:
    from orpipeline.archive import Archive
    from orpipeline.importing.files import ResponseFile
    from orpipeline.importing.importer import Imported


@click.command(
    "import",
    short_help="Import responses that you or others have saved.",
    epilog=examples(
        "orpipeline import responses/ backup.tar.gz",
        "orpipeline import --dry-run 'responses/2026-1*.json.gz'",
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Show what would be imported, and change nothing.")
@demo_option
def import_(paths: tuple[str, ...], dry_run: bool, demo: bool) -> None:
    """Import responses that you or others have saved.

    PATH is a file, a folder, or a pattern in quotes. Files can be JSON, also gzipped or in a .zip, .tar or .tar.gz.
    Responses are found wherever they are in the JSON. Each one is validated and archived under its own `as_of`, and
    that day's tables are rebuilt. You can run the same import again: responses that are already archived are skipped.
    """
    settings = command_settings(demo=demo)
    if dry_run:
        _try_import(settings, paths)
    else:
        _import(settings, paths)


def _import(settings: Settings, paths: Sequence[str]) -> None:
    from orpipeline.archive import Archive
    from orpipeline.cli.dagster_runs import run_import

    _find_files(paths)  # a wrong path is reported before anything is created
    outcome: list[Imported] = []
    try:
        with progress_bars() as progress:
            run_import(paths, settings, watcher(progress), outcome.append)
    finally:  # what was archived before a failure is shown, too
        for imported in outcome:
            print_line("Imported:")
            _print_imported(imported, Archive(settings.archive))


def _try_import(settings: Settings, paths: Sequence[str]) -> None:
    from orpipeline.archive import Archive
    from orpipeline.importing.importer import import_files

    files, archive = _find_files(paths), Archive(settings.archive)
    with progress_bars() as progress:
        imported = import_files(
            archive,
            files,
            first=settings.start_date,
            newest=newest_completed_day(utc_now()),
            dry_run=True,
            on_progress=watcher(progress)("Reading", sum(file.size for file in files), "bytes"),
        )
    print_line("This would be imported (nothing was changed):")
    _print_imported(imported, archive)
    imported.raise_for_rejected(dry_run=True)


def _find_files(paths: Sequence[str]) -> Sequence[ResponseFile]:
    from orpipeline.importing.files import find_files

    try:
        return find_files(paths)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _print_imported(imported: Imported, archive: Archive) -> None:
    """Print what an import did, the days in between that are still missing, and why responses were rejected."""
    from orpipeline.importing.importer import still_missing

    def responses(days: Sequence[date]) -> str:
        """Return the span of the days, with the number of responses if a day has several."""
        of_days = span(sorted(set(days)))
        return of_days if len(set(days)) == len(days) else f"{len(days)} responses of {of_days}"

    missing = still_missing(archive, imported)
    print_rows(
        [
            ("new", responses(imported.new)),
            ("same", responses(imported.same)),
            ("restated", responses(imported.restated)),
            *([("catalogues", span(sorted(set(imported.catalogues))))] if imported.catalogues else []),
            ("rejected", len(imported.rejected)),
            ("still missing", f"{len(missing)}: {', '.join(day_spans(missing))}" if missing else "none"),
        ]
    )
    for rejected in imported.rejected:
        print_line(f"rejected: {rejected.source}: {rejected.reason}")


@click.command(
    short_help="Rebuild the tables from the archive alone.",
    epilog=examples(
        "orpipeline rebuild",
        "orpipeline rebuild --from 2026-10-01 --to 2026-10-31",
    ),
)
@day_option("--from", "since", about="The first day.  [default: the archive's first]")
@day_option("--to", "until", about="The last day.  [default: the archive's last]")
@demo_option
def rebuild(since: date | None, until: date | None, demo: bool) -> None:
    """Rebuild the tables from the archive alone.

    If the tables are of another version, or if the warehouse's file is damaged or missing, it rebuilds all days,
    whatever the range is. A damaged file is kept aside.
    """
    first, last = since or date.min, until or date.max
    if first > last:
        raise click.UsageError(f"--from {first} is after --to {last}.")
    settings = command_settings(demo=demo)
    from orpipeline.archive import Archive
    from orpipeline.load import rebuild as rebuild_tables
    from orpipeline.warehouse.warehouse import open_warehouse

    archive = Archive(settings.archive)
    count = sum(first <= day <= last for day in archive.days())
    rebuilt = rebuild_tables(archive, open_warehouse(settings), now=utc_now(), since=since, until=until)
    if not (count or rebuilt.gone):
        raise OrpipelineError(f"The archive {settings.archive} has no day in that range; nothing was changed.")
    if rebuilt.set_aside is not None:
        print_line(f"The damaged warehouse is kept aside: {rebuilt.set_aside}")
        print_line("Tables of yours that it had are not in the new one.")
    print_rows([("rebuilt", span(rebuilt.days)), ("no longer there", some_days(rebuilt.gone))])
    if rebuilt.errors:
        raise OrpipelineError(
            f"Days whose newest response cannot be used: {some_days(sorted(rebuilt.errors))}. "
            f"{rebuilt.errors[min(rebuilt.errors)]}"
        )


@click.command(
    short_help="Export the tables and views as Parquet files.",
    epilog=examples("orpipeline export --to parquet/", "orpipeline export --to parquet/ --demo"),
)
@click.option("--to", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to.")
@demo_option
def export(to: Path, demo: bool) -> None:
    """Export the tables and views as Parquet files.

    There is one file for each table and view, such as `task_models.parquet`, which is replaced whole. The folder also
    gets a description of itself: README, licence, citation and `datapackage.json`. Every run already writes the same
    files beside the copy for readers, in the folder `published` of the reports.
    """
    if url_scheme(str(to)) is not None:
        raise click.UsageError("--to must be a folder on this machine, not a URL.")
    settings = command_settings(demo=demo)
    from orpipeline.warehouse.publishing import write_parquet
    from orpipeline.warehouse.reading import readable_tables
    from orpipeline.warehouse.warehouse import open_warehouse

    with readable_tables(open_warehouse(settings)) as tables, out.status("Writing"):
        days = write_parquet(tables, to.absolute(), setting="--to")
    if not days:
        raise NotPublishedError("The tables have no days yet: there is nothing to export. Run or import a day first.")
    print_rows([("written", span(days))])

"""The command line. Each command's help says what it does; errors are one line on standard error.

Dagster, polars and pandera are imported within the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.errors import OrpipelineError
from orpipeline.settings import FIRST_DOCUMENTED_DAY, Settings, api_key, load_settings

if TYPE_CHECKING:
    from orpipeline.archive.folder import Archive, ArchiveError
    from orpipeline.defs.imports import Watch
    from orpipeline.importing.formats import AnswerFile
    from orpipeline.importing.importer import Imported
    from orpipeline.warehouse.database import Warehouse

out = Console()


DAY = click.DateTime(["%Y-%m-%d"])
day_option = click.option(
    "--date",
    "at",
    type=DAY,
    metavar="YYYY-MM-DD",
    help="The day, by its as_of.  [default: the newest]",
)
demo_option = click.option("--demo", is_flag=True, help="Use the demo's data folder.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.version_option(package_name="orpipeline", message="%(prog)s %(version)s")
def cli(debug: bool) -> None:
    """The market-share history that OpenRouter does not keep."""


@cli.command()
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Days of history.")
def demo(days: int) -> None:
    """Run the whole pipeline on made-up data: no key, no network, its own data folder."""
    settings = load_settings()
    newest = newest_completed_day(utc_now())
    first = newest - timedelta(days=days - 1)
    out.print(f"A demo with made-up data: {days} days up to {newest}, in {_demo_dir(settings)}", soft_wrap=True)
    with _demo_api(settings, first):
        _import_demo_history(load_settings(), first, newest)
        _run([first + timedelta(days=n) for n in range(days)], "auto")
    _show_leaderboard(load_settings(), None, "all", 10, "table")
    me = "orpipeline" if shutil.which("orpipeline") else sys.argv[0]
    out.print(
        f"\nWhat next:\n  {load_settings().reports / 'leaderboard.html'}  (open it in a browser)\n"
        f"  {me} dev --demo  (the same in the Dagster UI)\n"
        f"  {me} leaderboard --demo --scope code  (who is asked to write code)\n"
        f"  export OPENROUTER_API_KEY=...; {me} run  (the real thing, for yesterday)",
        soft_wrap=True,
    )


@cli.command()
@demo_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that the UI listens on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Its port.")
def dev(demo: bool, host: str, port: int) -> None:
    """Start the Dagster UI, its schedules and sensors, with state that lasts."""
    settings = load_settings()
    with _demo_api(settings, None) if demo else nullcontext():
        settings = load_settings()
        from orpipeline.cli.dagster_runs import create_instance, packaged_file, prepare_dagster_home

        home = prepare_dagster_home(settings)
        create_instance()
        out.print(f"Dagster's state: {home}\nData: {settings.data_dir}", soft_wrap=True)
        if api_key() is None:
            out.print("OPENROUTER_API_KEY is not set: the schedule skips, and its days cannot be had again.")
        out.print(f"Open http://{host}:{port}/asset-groups once it says that it serves. Ctrl-C ends it.\n")
        # Dagster would have people type `dg dev`, which needs a package more and does the same.
        python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
        command = [*python, "-m", "dagster", "dev", "-w", str(packaged_file("workspace.yaml"))]
        # Dagster lets a file `.env` in the current folder win over the environment: not over the demo's.
        folder = settings.data_dir if demo else None
        code = _call([*command, "-h", host, "-p", str(port)], folder)
    if code:
        raise OrpipelineError(f"The Dagster UI ended with exit code {code}; its own lines above say why.")


@cli.command()
@day_option
@click.option(
    "--fetch",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Whether the API is asked; auto asks only for the newest day, if the archive lacks it.",
)
@click.option("--no-report", is_flag=True, help="Leave the report as it is: drawing it takes longer than all else.")
def run(at: datetime | None, fetch: str, no_report: bool) -> None:
    """Run the job daily_snapshot for one day: fetch, keep, validate, make the tables, draw the report."""
    day = at.date() if at else newest_completed_day(utc_now())
    _run([day], fetch, report=not no_report)
    out.print(f"{day} is in the archive and in the tables.")


@cli.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--dry-run", is_flag=True, help="Say what would come in, and change nothing.")
@demo_option
def import_(paths: tuple[str, ...], dry_run: bool, demo: bool) -> None:
    """Bring in snapshots that somebody else kept: files, folders, or patterns in quotes.

    Plain answers of the API or envelopes, as .json, .json.gz, .jsonl, .zip or .tar.gz, whatever their names. Each is
    validated and kept under its own as_of; then its tables are made. Run it again at any time: what is there already
    is left alone.
    """
    settings = _settings(demo)
    from orpipeline.archive.folder import Archive
    from orpipeline.cli import terminal
    from orpipeline.importing.formats import NoSuchFileError, find_files
    from orpipeline.importing.importer import still_missing

    archive = Archive(settings.archive)
    try:
        files = find_files(paths)
    except NoSuchFileError as error:
        raise click.UsageError(str(error)) from None
    with _progress() as progress:
        watch = _watcher(progress)
        if dry_run:
            imported = _dry_run(settings, archive, files, watch)
            terminal.print_imported(out, imported, still_missing(archive, imported), dry_run=True)
            imported.raise_for_refused(dry_run=True)
            return
        from orpipeline.cli.dagster_runs import prepare_dagster_home, run_import

        prepare_dagster_home(settings)
        outcome: list[Imported] = []
        try:
            run_import(paths, settings, watch, outcome.append, partial(terminal.print_line, progress.console))
        finally:
            progress.stop()
            for imported in outcome:
                terminal.print_imported(out, imported, still_missing(archive, imported), dry_run=False)


@cli.command()
@click.option("--from", "since", type=DAY, metavar="YYYY-MM-DD", help="The first day.  [default: the archive's first]")
@click.option("--to", "until", type=DAY, metavar="YYYY-MM-DD", help="The last day.  [default: the archive's last]")
@demo_option
def rebuild(since: datetime | None, until: datetime | None, demo: bool) -> None:
    """Make the tables again from the archive alone, and say where they were not the same."""
    settings = _settings(demo)
    from orpipeline import rebuild as rebuilding
    from orpipeline.archive.folder import Archive
    from orpipeline.cli import terminal

    archive, warehouse = Archive(settings.archive), _warehouse(settings)
    first, last = since.date() if since else date.min, until.date() if until else date.max
    if first > last:
        raise click.UsageError(f"--from {first} is after --to {last}.")
    days = [day for day in archive.days() if first <= day <= last]
    if not days:
        raise OrpipelineError(f"The archive {settings.archive} has no day in that range; nothing was changed.")
    with _progress() as progress:
        done = _watcher(progress)("Tables", len(days), "days")
        rebuilt = rebuilding.rebuild(archive, warehouse, now=utc_now(), since=first, until=last, on_progress=done)
    terminal.print_rebuilt(out, rebuilt)
    if rebuilt.errors:
        raise OrpipelineError(
            f"Days that are not as their newest answer says: {terminal.some_days(sorted(rebuilt.errors))}. "
            f"{rebuilt.errors[min(rebuilt.errors)]}"
        )


@cli.command()
@day_option
@click.option("--scope", default="all", show_default=True, help="`all`, or a macro-category such as `code`.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many models.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md"]),
    default="table",
    show_default=True,
    help="For people, or for machines and for pasting.",
)
@demo_option
def leaderboard(at: datetime | None, scope: str, top: int, form: str, demo: bool) -> None:
    """Show the model leaderboard of a day."""
    settings = _settings(demo)
    _show_leaderboard(settings, at.date() if at else None, scope, top, form)


@cli.command()
@click.option("--to", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to.")
@click.option("--all", "everything", is_flag=True, help="Write all days again, not only those that changed.")
@demo_option
def export(to: Path, everything: bool, demo: bool) -> None:
    """Write the tables as Parquet, a file a table and day, with their citation and data dictionary.

    Days that the folder has already are left alone, so that it can be run every day.
    """
    settings = _settings(demo)
    from orpipeline.cli import terminal
    from orpipeline.export import export_tables

    warehouse = _warehouse(settings)
    with _progress() as progress:
        done = _watcher(progress)("Days", len(warehouse.days()), "days")
        exported = export_tables(warehouse, to, everything=everything, on_progress=done)
    terminal.print_rows(
        out, [("written", terminal.span(exported.written)), ("unchanged", terminal.span(exported.unchanged))]
    )


@cli.command()
@day_option
@demo_option
def report(at: datetime | None, demo: bool) -> None:
    """Write the day's report: a page to open in a browser, and its picture."""
    settings = _settings(demo)
    with out.status("Drawing"):
        from orpipeline.archive.folder import Archive
        from orpipeline.cli import terminal
        from orpipeline.report.files import write_report

        written = write_report(
            settings.reports,
            Archive(settings.archive),
            _warehouse(settings),
            day=at.date() if at else None,
            now=utc_now(),
        )
    terminal.print_rows(out, [("page", str(written.page)), ("picture", str(written.picture))])


@cli.command()
@click.option("--deep", is_flag=True, help="Also read every archived answer and compare its sha256.")
@demo_option
def doctor(deep: bool, demo: bool) -> None:
    """Show what is set, what is missing, which days are lost, and how much of the API budget is used."""
    settings = _settings(demo)
    from orpipeline.archive.folder import Archive
    from orpipeline.cli import terminal
    from orpipeline.history import lost_days
    from orpipeline.openrouter.budget import shared_budget
    from orpipeline.rebuild import damaged_answers

    now = utc_now()
    newest = newest_completed_day(now)
    archive, warehouse = Archive(settings.archive), _warehouse(settings)
    kept, made = archive.days(), warehouse.days()
    lost = lost_days(archive, warehouse, newest)
    budget = shared_budget(settings.state, settings.requests_per_minute, settings.requests_per_day).state()
    rows = [
        ("key", "set" if api_key() else "OPENROUTER_API_KEY is not set: nothing can be fetched"),
        ("API", settings.base_url),
        ("archive", f"{settings.archive}: {terminal.span(kept)}"),
        ("warehouse", f"{settings.warehouse}: {terminal.span(made)}"),
        (
            "newest day",
            f"{newest}: {'archived' if newest in kept else 'not fetched yet; it can be had until 24:00 UTC'}",
        ),
        ("not in tables", terminal.some_days(sorted(set(kept) - set(made)))),
        ("lost days", terminal.some_days(lost)),
        (
            "requests",
            f"{budget.used_last_minute} of {budget.per_minute} in the last minute, {budget.used_last_day} of "
            f"{budget.per_day} in the last 24 hours",
        ),
    ]
    if budget.next_request_at is not None:
        rows.append(("next request", f"{budget.next_request_at:%Y-%m-%d %H:%M:%S} UTC"))
    damaged: list[ArchiveError] = []
    if deep:
        folders = archive.folders()
        with _progress() as progress:
            damaged = damaged_answers(archive, _watcher(progress)("Reading the archive", len(folders), "answers"))
        whole = len(folders) - len(damaged)
        rows.append(("sha256", f"{whole} of {len(folders)} archived answers are as they were kept"))
    terminal.print_rows(out, rows)
    for error in damaged:
        terminal.print_line(out, str(error))
    if damaged:
        raise OrpipelineError(f"{len(damaged)} archived answers are damaged; they are named above.")


def _settings(demo: bool) -> Settings:
    """Return the settings, or those of the demo's own folder."""
    settings = load_settings()
    if demo:
        _use_demo(settings, None)
        settings = load_settings()
    return settings


def _warehouse(settings: Settings) -> Warehouse:
    from orpipeline.warehouse.database import Warehouse

    return Warehouse(settings.warehouse, lock_wait_seconds=settings.lock_wait_seconds)


class _Rate(ProgressColumn):
    """How much of its task's unit is done in a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, nothing while it is not known."""
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        if speed is None:
            return Text()
        return Text(f"{filesize.decimal(int(speed))}/s" if unit == "bytes" else f"{speed:.0f} {unit}/s")


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _watcher(progress: Progress) -> Watch:
    def watch(part: str, size: int, unit: str) -> Callable[[int], None]:
        task = progress.add_task(part, total=size, unit=unit)
        return lambda done: progress.advance(task, done)

    return watch


def _dry_run(settings: Settings, archive: Archive, files: Sequence[AnswerFile], watch: Watch) -> Imported:
    from orpipeline.importing.importer import import_files

    return import_files(
        archive,
        files,
        first=settings.start_date,
        newest=newest_completed_day(utc_now()),
        dry_run=True,
        on_progress=watch("Reading", sum(file.size for file in files), "bytes"),
    )


def _show_leaderboard(settings: Settings, day: date | None, scope: str, top: int, form: str) -> None:
    import polars as pl

    from orpipeline.cli import terminal

    warehouse = _warehouse(settings)
    snapshots = warehouse.read("snapshots", since=day, until=day)
    if snapshots.is_empty():
        if day is None:
            raise OrpipelineError(f"The warehouse {settings.warehouse} is empty. Run `orpipeline run` first.")
        raise OrpipelineError(
            f"The tables have no rows for {day}: they have {terminal.span(warehouse.days())}. If the archive has that "
            f"day or the API still serves it, run `orpipeline run --date {day}`; otherwise import it."
        )
    shown, citation = snapshots.row(-1, named=True)["as_of"], snapshots["citation"][-1]
    rows = warehouse.read("model_leaderboard", since=shown, until=shown)
    trends = warehouse.read("model_trends", since=shown, until=shown)
    changes = trends.select("window_days", "scope", "model_id", "usage_rank_7d", "usage_share_change_7d", "first_seen")
    ranked = (
        rows.filter(scope=scope)
        .join(changes, on=["window_days", "scope", "model_id"], how="left")
        .sort("usage_rank", "model_id")
        .head(top)
    )
    if ranked.is_empty():
        scopes = ", ".join(rows["scope"].unique().sort())
        raise OrpipelineError(f"{shown} has no scope {scope!r}; it has {scopes}.")
    if form == "csv":
        sys.stdout.write(terminal.as_csv(ranked, citation))
        return
    if form == "json":
        sys.stdout.write(terminal.as_json(ranked, shown, scope, citation))
        return
    week_before = shown - timedelta(days=7)
    known = week_before in warehouse.days()
    moved = [terminal.moved(row, week_before, known=known) for row in ranked.iter_rows(named=True)]
    ranked = ranked.with_columns(pl.Series("moved", moved, dtype=pl.String))
    title = f"{'DEMO, made-up data: ' if snapshots['origin'][-1] == 'demo' else ''}Model leaderboard, "
    title += f"scope {scope}, {ranked['window_days'][0]} days up to {shown}"
    if form == "table":
        terminal.print_leaderboard(out, ranked, title=title, citation=citation)
    else:
        sys.stdout.write(terminal.as_markdown(ranked, title=title, citation=citation))


def _run(days: list[date], fetch: str, *, report: bool = True) -> None:
    """Run the snapshot job in this process, with a line of progress while it works."""
    with out.status("Starting Dagster") as status:
        settings = load_settings()
        from orpipeline.cli.dagster_runs import prepare_dagster_home, run_snapshot
        from orpipeline.defs.partitions import daily_partitions, known_days
        from orpipeline.snapshot import Fetch

        first, newest = known_days(daily_partitions(settings))
        for day in (days[0], days[-1]):
            if not first <= day <= newest:
                raise click.UsageError(f"{day} is outside the daily partitions, {first} to {newest}.")
        prepare_dagster_home(settings)
        status.update(f"Running daily_snapshot for {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else ""))
        run_snapshot(settings, days, Fetch[fetch], status.update, report=report)


def _call(command: list[str], folder: Path | None) -> int:
    """Run a program to its end, and end it when this process is asked to end."""
    with subprocess.Popen(command, cwd=folder) as process:  # noqa: S603 - our own interpreter
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # Ctrl-C has reached the program too; it ends in order


def _demo_dir(settings: Settings) -> Path:
    return settings.data_dir / "demo"


def _use_demo(settings: Settings, first: date | None) -> None:
    """Point this process at the demo's own folder, and at nothing of the user's.

    Each place is named: an unset variable could still come from a file `.env`.
    """
    folder = _demo_dir(settings)
    os.environ.pop("DAGSTER_HOME", None)
    os.environ |= {
        "ORPIPELINE_DATA_DIR": str(folder),
        "ORPIPELINE_ARCHIVE": str(folder / "raw"),
        "ORPIPELINE_WAREHOUSE": str(folder / "warehouse.duckdb"),
    }
    from orpipeline.archive.folder import Archive

    known = [*Archive(folder / "raw").days()[:1], *([first] if first else [])]
    os.environ["ORPIPELINE_START_DATE"] = min(known, default=FIRST_DOCUMENTED_DAY).isoformat()


@contextmanager
def _demo_api(settings: Settings, first: date | None) -> Iterator[None]:
    from orpipeline.testing.api import KEY, DemoApi

    _use_demo(settings, first)
    with DemoApi() as api:
        os.environ |= {"ORPIPELINE_BASE_URL": api.base_url, "OPENROUTER_API_KEY": KEY}
        yield


def _import_demo_history(settings: Settings, first: date, newest: date) -> None:
    """Archive the days before the newest, as if they had been kept from the start."""
    from orpipeline.archive.folder import Archive
    from orpipeline.testing.sample_answers import demo_answer

    archive = Archive(settings.archive)
    for n in range((newest - first).days):
        day = first + timedelta(days=n)
        fetched_at = utc_now().replace(hour=0, minute=20, second=0, microsecond=0) - timedelta(days=(newest - day).days)
        archive.put(demo_answer(day), fetched_at=fetched_at, source="orpipeline demo (made up)", origin="demo")


def main() -> None:
    """Run the command line, with errors in one line: exit 1 where something failed, 2 on wrong use."""
    debug = "--debug" in sys.argv[1:]
    # Being asked to end is an interruption too: in order, with a line that says so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "orpipeline"
        _say_error(f"{error.format_message()} See `{path} --help`.", debug)
        code = 2
    except (OrpipelineError, click.ClickException) as error:
        _say_error(error.format_message() if isinstance(error, click.ClickException) else str(error), debug)
        code = 1
    except (KeyboardInterrupt, click.Abort):
        _say_error("interrupted; the archive and the tables are whole.", debug=False)
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): no error, and nothing more to print.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        _say_error(f"unexpected {type(error).__name__}: {error}. `--debug` shows where.", debug)
        code = 1
    sys.exit(code or 0)


def _say_error(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    from orpipeline.text import plain

    print(f"orpipeline: {plain(' '.join(message.split()))}", file=sys.stderr)


if __name__ == "__main__":
    main()

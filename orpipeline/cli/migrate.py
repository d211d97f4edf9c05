"""The command `migrate`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orpipeline.cli import terminal
from orpipeline.cli.options import command_settings, demo_option, examples
from orpipeline.cli.terminal import out
from orpipeline.settings import PREFIX, Settings, url_scheme

if TYPE_CHECKING:
    from orpipeline.migration import Migrated
    from orpipeline.warehouse.database import Warehouse


@click.command(
    short_help="Move the tables into another engine.",
    epilog=examples(
        "orpipeline migrate --to 'ducklake:postgres:dbname=lake host=db.example user=orpipeline'",
        "orpipeline migrate --to /srv/openrouter/warehouse.duckdb    # and back",
    ),
)
@click.option(
    "--to",
    "place",
    required=True,
    metavar="URL",
    help="A DuckDB file, `ducklake:postgres:...` or `md:database`, as in ORPIPELINE_WAREHOUSE.",
)
@click.option("--lake-data", metavar="URL", help="Where the new lake keeps its files.  [default: ORPIPELINE_LAKE_DATA]")
@click.option(
    "--without", multiple=True, metavar="SCHEMA.NAME", help="Leave out a table or view of your own. Can be repeated."
)
@demo_option
def migrate(place: str, lake_data: str | None, without: tuple[str, ...], demo: bool) -> None:
    """Move the tables into another engine.

    All tables and views are copied in one transaction, yours too, and compared row by row before it is committed. Until
    then, no run can write. The source is not changed, and neither are your settings: the command prints what to set. It
    never overwrites other rows, and a second migration changes nothing.
    """
    lake_data = lake_data or _lake_data_of_the_target()
    settings = command_settings(demo=demo)
    changed = {"warehouse": _absolute(place)} | ({"lake_data": _absolute(lake_data)} if lake_data else {})
    given = settings.model_dump(include=settings.model_fields_set)
    if url_scheme(place) != "ducklake":
        given.pop("lake_data", None)  # of the source: only a lake uses it
    new = Settings.model_validate({**given, **changed})
    from orpipeline import migration

    with out.status("Copying and comparing the tables"):
        migrated = migration.migrate(_warehouse(settings), _warehouse(new), without=without)
    _print_migrated(migrated)
    terminal.print_line(out, "Your settings are unchanged. To use the new warehouse, set:")
    for name, value in changed.items():
        terminal.print_line(out, f"{PREFIX}{name.upper()}={shlex.quote(value)}")


def _lake_data_of_the_target() -> str | None:
    """Return ORPIPELINE_LAKE_DATA if the source is not a lake. Then it is not a setting of the source."""
    if url_scheme(os.environ.get(f"{PREFIX}WAREHOUSE", "")) == "ducklake":
        return None
    return os.environ.pop(f"{PREFIX}LAKE_DATA", None)


def _print_migrated(migrated: Migrated) -> None:
    width = max((len(moved.name) for moved in migrated.relations), default=0)
    for moved in migrated.relations:
        what = "view" if moved.rows is None else f"{moved.rows} rows"
        done = "already there" if not moved.copied else "created" if moved.rows is None else "copied"
        equal = "" if moved.rows is None else ", all rows are equal"
        terminal.print_line(out, f"{moved.name:<{width}}  {what} {done}{equal}")
    for name in migrated.not_kept:
        terminal.print_line(out, f"Not copied: {name}")


def _warehouse(settings: Settings) -> Warehouse:
    """Return the settings' warehouse, without the published copy: only the next run replaces that."""
    from orpipeline.warehouse.database import Warehouse

    return Warehouse(
        settings.warehouse, lake_data=settings.lake_data, lock_wait_seconds=settings.lock_wait_seconds, published=None
    )


def _absolute(place: str) -> str:
    """Return a path of the current folder as an absolute one. The settings check everything else."""
    return place if url_scheme(place) else str(Path(place).expanduser().absolute())

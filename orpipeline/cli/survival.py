"""Where each part of a pipeline is, and whether it survives the loss of this machine. Opens no connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from orpipeline.cli.options import dagster_home
from orpipeline.errors import OrpipelineError
from orpipeline.network import is_loopback
from orpipeline.settings import PREFIX, Settings

_LAKE = "ducklake:postgres:"


@dataclass(frozen=True)
class Part:
    """A part of a pipeline: its name, its place without any password, and the setting that moves it."""

    name: str
    place: str
    setting: str
    survives: bool
    """Whether it is beyond this machine."""
    is_rebuilt: bool = False
    """Whether `orpipeline rebuild` and the next run restore it from the archive."""
    for_several_hosts: bool = False
    """Whether its engine is chosen for several hosts."""


def parts(settings: Settings) -> list[Part]:
    """Return the parts, those that hold the most first. Reads Dagster's `dagster.yaml`, without importing Dagster."""
    found = [_stored("archive", settings.archive, "ARCHIVE"), *_tables(settings), _budget(settings)]
    reports = _stored("reports", settings.reports, "REPORTS")
    found += [Part("reports", reports.place, reports.setting, reports.survives, is_rebuilt=True), _dagster(settings)]
    if isinstance(settings.archive, str):
        found.append(Part("spool", str(settings.spool), f"{PREFIX}DATA_DIR", survives=False))
    return found


def rows(found: list[Part]) -> list[tuple[str, str]]:
    """Return a header, and a row for each part: what happens to it if this machine is lost, and where it is."""
    archive_survives = next(part.survives for part in found if part.name == "archive")
    shown = [("", f"{'if this machine is lost':<26}where it is")]
    for part in found:
        rebuilt = part.is_rebuilt and archive_survives
        outcome = "survives" if part.survives else "rebuilt from the archive" if rebuilt else "lost"
        shown.append((part.name, f"{outcome:<26}{part.place}"))
    return shown


def contradiction(found: list[Part]) -> str | None:
    """Return what several hosts could not share, if an engine for several hosts is set; None if nothing."""
    shared = [part for part in found if part.for_several_hosts and part.survives]
    local = [part for part in found if not part.survives and part.name != "spool"]
    if not shared or not local:
        return None
    return (
        f"other hosts can use {', '.join(part.name for part in shared)}, but only this machine has "
        f"{', '.join(part.name for part in local)}: for several hosts, also set "
        f"{', '.join(part.setting for part in local)}, or share the folders"
    )


def _stored(name: str, place: Path | str, setting: str) -> Part:
    """Return a part in a folder or an object store."""
    if isinstance(place, Path):
        return Part(name, str(place), PREFIX + setting, survives=False)
    from orpipeline.stores import host_of

    return Part(name, place, PREFIX + setting, survives=not is_loopback(host_of(place)))


def _tables(settings: Settings) -> list[Part]:
    place, setting = settings.warehouse, f"{PREFIX}WAREHOUSE"
    if isinstance(place, Path):
        return [Part("warehouse", str(place), setting, survives=False, is_rebuilt=True)]
    where, survives = _in_postgres(place.removeprefix(_LAKE), setting)
    files = _stored("lake's files", settings.lake_data, "LAKE_DATA")
    return [
        Part("warehouse", where, setting, survives, is_rebuilt=True, for_several_hosts=True),
        Part(files.name, files.place, files.setting, files.survives, is_rebuilt=True),
    ]


def _budget(settings: Settings) -> Part:
    setting = f"{PREFIX}STATE"
    if isinstance(settings.state, Path):
        return Part("budget", str(settings.state), setting, survives=False)
    where, survives = _in_postgres(settings.state, setting)
    return Part("budget", where, setting, survives, for_several_hosts=True)


def _in_postgres(conninfo: str, setting: str) -> tuple[str, bool]:
    """Return where a database is, and whether that is beyond this machine."""
    from orpipeline import postgres

    try:
        return postgres.place(conninfo, setting=setting), not postgres.is_local(conninfo, setting=setting)
    except OrpipelineError:  # psycopg is not installed, which is a problem of its own; settings contain no password
        return conninfo, True


def _dagster(settings: Settings) -> Part:
    home = dagster_home(settings)
    setting = "the storage in $DAGSTER_HOME/dagster.yaml"
    url = _postgres_storage(home / "dagster.yaml")
    if url is None:
        return Part("Dagster's runs", str(home), setting, survives=False)
    host = url.get("host") or "localhost"
    survives = not (is_loopback(host) or host.startswith("/"))
    place = f"Postgres at {host}/{url.get('database', '')}"
    return Part("Dagster's runs", place, setting, survives, for_several_hosts=True)


def _postgres_storage(path: Path) -> dict[str, str] | None:
    """Return the host and the database of Dagster's storage if it is in Postgres, else None."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # Dagster reports it
    if not isinstance(config, dict):
        return None
    storage, of_runs = config.get("storage"), config.get("run_storage")  # the latter is the older way
    postgres = storage.get("postgres") if isinstance(storage, dict) else None
    if isinstance(of_runs, dict) and "postgres" in str(of_runs.get("module")):
        postgres = of_runs.get("config")
    if not isinstance(postgres, dict):
        return None
    if "postgres_url" in postgres:
        parts = urlsplit(_value(postgres["postgres_url"]))
        return {"host": parts.hostname or "", "database": parts.path.lstrip("/")}
    database = postgres.get("postgres_db")
    if not isinstance(database, dict):
        return {}
    return {"host": _value(database.get("hostname")), "database": _value(database.get("db_name"))}


def _value(configured: Any) -> str:
    """Return a value of `dagster.yaml`, which can name an environment variable."""
    if isinstance(configured, Mapping):
        name = str(configured.get("env", ""))
        return os.environ.get(name) or f"${name}"
    return str(configured or "")

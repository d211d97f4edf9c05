"""The public surface: everything that other people's code, queries and schedules refer to by name.

`surface.json` records it. After a change that is meant, record the new surface, and read the file's diff:

    python -m orpipeline_tests.surface
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import dagster as dg
from _pytest.fixtures import FixtureFunctionDefinition
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import orpipeline.testing
from orpipeline.archive import Archive
from orpipeline.cli.commands import cli
from orpipeline.contracts.tables import DUCKDB_TYPES, RELATIONS, DayTable
from orpipeline.defs.assets import SnapshotConfig
from orpipeline.defs.build import build_defs
from orpipeline.defs.imports import ImportConfig
from orpipeline.defs.io_manager import MISSING_DAYS
from orpipeline.defs.names import Names
from orpipeline.defs.reports import ReportConfig
from orpipeline.load import load_batches
from orpipeline.report.files import write_report
from orpipeline.settings import API_KEY, PREFIX, Settings
from orpipeline.testing import plugin, sample_response
from orpipeline.warehouse.reading import readable_tables
from orpipeline.warehouse.warehouse import open_warehouse
from orpipeline_tests.responses import DAY

RECORDED = Path(__file__).with_suffix(".json")
COMMAND = "python -m orpipeline_tests.surface"

Surface = Mapping[str, Mapping[str, str]]
"""By section, each name and what it is."""

BREAKS = {
    "names": "Python code and tests that use it",
    "parameters": "Python code that passes it, and `defs.yaml` files that set it",
    "settings": "environments, `.env` files and Python code that set it",
    "columns": "SQL and downstream assets that read it",
    "assets": "downstream assets, selections and automation that name it",
    "resources": "assets and code locations that require or replace it",
    "automation": "launchers, alerts and Dagster's stored on/off states that name it",
    "run config": "schedules, scripts and people that launch runs with it",
    "input metadata": "downstream assets whose inputs have it",
    "files": "readers, scripts and backups that open it",
    "commands": "cron lines, CI jobs and scripts that use it",
}
"""By section, who refers to the names in it."""

_METHODS = {"WarehouseResource": ["get_connection"], "OpenRouterMarketShare": ["build_defs"]}
"""The public methods: all others return objects of internal classes, or are hooks for Dagster."""


def surface() -> Surface:
    """Return the public surface of the installed package."""
    defs = build_defs(Settings(data_dir="/srv/openrouter"), alerts=True)
    # A lake has all jobs and schedules that a file has, and those of its maintenance.
    with_lake = build_defs(Settings(data_dir="/srv/openrouter", warehouse="ducklake:postgres:dbname=lake"), alerts=True)
    return {
        "names": dict(_names()),
        "parameters": dict(_parameters()),
        "settings": dict(_settings()),
        "columns": dict(_columns()),
        "assets": dict(_assets(defs)),
        "resources": {key: type(value).__name__ for key, value in (defs.resources or {}).items()},
        "automation": dict(_automation(with_lake)),
        "run config": dict(_run_config()),
        "input metadata": {MISSING_DAYS: "fail|allow = fail"},
        "files": _files(),
        "commands": dict(_commands(click.Context(cli, info_name="orpipeline"))),
    }


def changes(recorded: Surface, current: Surface) -> list[str]:
    """Return one line for each difference: what changed, and whom that can break."""
    lines = []
    for section, breaks in BREAKS.items():
        before, after = recorded.get(section, {}), current.get(section, {})
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                lines.append(f"{section}: {name} is gone: breaks {breaks}")
            elif name not in before:
                lines.append(f"{section}: {name} is new: `{after[name]}`")
            elif before[name] != after[name]:
                lines.append(f"{section}: {name} was `{before[name]}` and is `{after[name]}`: can break {breaks}")
    return lines


def _public() -> Iterator[tuple[str, Any]]:
    """Yield every public object, and the public methods of classes."""
    for prefix, module in (("", orpipeline), ("testing.", orpipeline.testing)):
        for name in dir(module):
            public = getattr(module, name)
            yield f"{prefix}{name}", public
            methods = [other for other in vars(public) if _is_method(public, other)] if prefix else []
            for method in _METHODS.get(name, methods):
                yield f"{prefix}{name}.{method}", inspect.getattr_static(public, method)


def _is_method(public: Any, name: str) -> bool:
    found = inspect.getattr_static(public, name)
    is_method = inspect.isfunction(found) or isinstance(found, property | cached_property)
    return inspect.isclass(public) and name[0] != "_" and is_method


def _names() -> Iterator[tuple[str, str]]:
    for name, public in _public():
        yield name, _kind(public)
    for name, fixture in vars(plugin).items():
        if name[0] != "_" and isinstance(fixture, FixtureFunctionDefinition):
            yield f"fixture {name}", "pytest fixture"


def _kind(public: Any) -> str:
    if inspect.isfunction(public):
        return f"function, returns {_annotation(inspect.signature(public).return_annotation)}"
    if not inspect.isclass(public):
        return "property" if isinstance(public, property | cached_property) else type(public).__name__
    base = next(base for base in public.__mro__[1:] if not base.__name__.startswith("_"))
    return "class" if base is object else f"class({base.__name__})"


def _parameters() -> Iterator[tuple[str, str]]:
    for name, public in _public():
        if inspect.isclass(public) and issubclass(public, BaseModel):
            if public is not Settings:
                yield from (
                    (f"{name}({field.alias or key})", _field(field)) for key, field in public.model_fields.items()
                )
        elif inspect.isfunction(public) or (inspect.isclass(public) and not issubclass(public, Exception | DayTable)):
            for parameter in inspect.signature(public).parameters.values():
                if parameter.name != "self":
                    yield f"{name}({parameter.name})", _parameter(parameter)


def _parameter(parameter: inspect.Parameter) -> str:
    only = "keyword only, " if parameter.kind is parameter.KEYWORD_ONLY else ""
    default = parameter.default
    if default is parameter.empty:
        shown = "(default none)" if parameter.kind is parameter.VAR_POSITIONAL else _REQUIRED
    else:
        shown = f"= {default.__name__}" if inspect.isfunction(default) else f"= {default!r}"
    return f"{only}{_annotation(parameter.annotation)} {shown}"


def _annotation(annotation: Any) -> str:
    # Without modules: those of the standard library's classes differ between Python versions.
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"[A-Za-z_][A-Za-z0-9_.]*[.]", "", text)


_REQUIRED = "(required)"


def _field(details: FieldInfo) -> str:
    if details.is_required():
        default = _REQUIRED
    elif details.default_factory is not None:
        default = "(default computed)"
    else:
        value = details.default
        default = f"= {value.value!r}" if isinstance(value, Enum) else f"= {value!r}"
    return f"{_annotation(details.annotation)} {default}"


def _settings() -> Iterator[tuple[str, str]]:
    yield API_KEY, "not a field: read when the API is called"
    for name, details in Settings.model_fields.items():
        yield f"{PREFIX}{name.upper()}", f"{name}: {_field(details)}"


def _columns() -> Iterator[tuple[str, str]]:
    for relation, model in RELATIONS.items():
        key = model.primary_key()
        for column, details in model.columns().items():
            null = "" if details.nullable else " NOT NULL"
            kind = details.dtype.type
            yield f"{column} of {relation}", f"{DUCKDB_TYPES[kind]}{null}, {kind}{', key' if column in key else ''}"


def _assets(defs: dg.Definitions) -> Iterator[tuple[str, str]]:
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key):
        partitions = "daily partitions" if spec.partitions_def else "not partitioned"
        view = ", a view" if spec.is_virtual else ""
        table = spec.metadata.get("dagster/table_name")
        where = f", table {table} by {spec.metadata['partition_expr']}" if table else ""
        yield spec.key.to_user_string(), f"{partitions}, group {spec.group_name}{view}{where}"


def _automation(defs: dg.Definitions) -> Iterator[tuple[str, str]]:
    repository = defs.get_repository_def()
    for job in repository.get_all_jobs():
        if not job.name.startswith("__"):
            yield f"job {job.name}", "job"
    for schedule in repository.schedule_defs:
        yield f"schedule {schedule.name}", f"{schedule.cron_schedule} {schedule.execution_timezone}"
    for sensor in repository.sensor_defs:
        yield f"sensor {sensor.name}", sensor.default_status.value


def _run_config() -> Iterator[tuple[str, str]]:
    steps: dict[str, type[dg.Config]] = {
        "snapshot": SnapshotConfig,
        "import": ImportConfig,
        "leaderboard_report": ReportConfig,
    }
    for step, config in steps.items():
        for field, details in config.model_fields.items():
            yield f"{Names().op(step)}.{field}", _field(details)


def _commands(context: click.Context) -> Iterator[tuple[str, str]]:
    command = context.command
    yield context.command_path, "command"
    for parameter in command.params:  # without `--help`, which click adds
        kind = parameter.type.name if not isinstance(parameter.type, click.Choice) else "|".join(parameter.type.choices)
        if isinstance(parameter, click.Option):
            required = f" {_REQUIRED}" if parameter.required else ""
            value = "flag" if parameter.is_flag else f"takes {parameter.metavar or kind}{required}"
            yield f"{context.command_path} {'/'.join((*parameter.opts, *parameter.secondary_opts))}", value
        else:
            yield f"{context.command_path} {parameter.human_readable_name}", "argument"
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(click.Context(child, info_name=name, parent=context))


def _files() -> dict[str, str]:
    """Return the files of one loaded day in a data folder."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=folder)
        load(settings, DAY)
        with readable_tables(open_warehouse(settings)) as tables:
            write_report(settings.reports, tables, now=_noon(DAY))
        paths = [path.relative_to(folder) for path in sorted(settings.data_dir.rglob("*")) if path.is_file()]
    return {str(path): f"after {DAY} is loaded" for path in paths if not any(part[0] == "." for part in path.parts)}


def load(settings: Settings, *days: date) -> None:
    """Load made-up responses as an import does, and publish the tables."""
    archive = Archive(settings.archive)
    for day in days:
        archive.put(sample_response(day), fetched_at=_noon(day), source="a test", origin="import")
    for loaded in load_batches(archive, open_warehouse(settings), days, now=_noon(max(days))):
        assert not loaded.validated.errors


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)


def recorded() -> Surface:
    """Return the surface as the file records it."""
    read: Surface = json.loads(RECORDED.read_text())
    return read


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(surface(), indent=2, ensure_ascii=False) + "\n")

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
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import dagster as dg
from _pytest.fixtures import FixtureFunctionDefinition
from pydantic import BaseModel

import orpipeline.testing
from orpipeline.archive import Archive
from orpipeline.cli.commands import cli
from orpipeline.contracts.table import DUCKDB_TYPES, Table
from orpipeline.contracts.tables import RELATIONS
from orpipeline.defs.assets import SnapshotConfig
from orpipeline.defs.build import build_defs
from orpipeline.defs.catalogue import CatalogueConfig
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
_METHODS = {"WarehouseResource": ["get_connection"], "OpenRouterMarketShare": ["build_defs"]}
"""The public methods: all others return objects of internal classes, or are hooks for Dagster."""


def surface() -> Mapping[str, Mapping[str, str]]:
    """Return the public surface of the installed package: by section, each name and what it is."""
    # A lake has all jobs and schedules that a file has, and those of its maintenance.
    settings = Settings(data_dir="/srv/openrouter", warehouse="ducklake:postgres:dbname=lake")
    defs = build_defs(settings, alerts=True)
    steps: dict[str, type[dg.Config]] = {
        "snapshot": SnapshotConfig,
        "catalogue": CatalogueConfig,
        "import": ImportConfig,
        "leaderboard_report": ReportConfig,
    }
    return {
        "python": dict(_python()),
        "settings": {API_KEY: "read when the API is called", **_fields(Settings, PREFIX, str.upper)},
        "columns": dict(_columns()),
        "definitions": dict(_definitions(defs)),
        "run config": {
            name: text for step, config in steps.items() for name, text in _fields(config, Names().op(step)).items()
        },
        "input metadata": {MISSING_DAYS: "fail|allow = fail"},
        "files": _files(),
        "commands": dict(_commands(click.Context(cli, info_name="orpipeline"))),
    }


def _python() -> Iterator[tuple[str, str]]:
    for prefix, module in (("", orpipeline), ("testing.", orpipeline.testing)):
        for name in dir(module):
            public = getattr(module, name)
            yield f"{prefix}{name}", _described(public)
            methods = [other for other in vars(public) if _is_method(public, other)] if prefix else []
            for method in _METHODS.get(name, methods):
                yield f"{prefix}{name}.{method}", _described(inspect.getattr_static(public, method))
    for name, fixture in vars(plugin).items():
        if name[0] != "_" and isinstance(fixture, FixtureFunctionDefinition):
            yield f"fixture {name}", "pytest fixture"


def _is_method(public: Any, name: str) -> bool:
    found = inspect.getattr_static(public, name)
    is_method = inspect.isfunction(found) or isinstance(found, property | cached_property)
    return inspect.isclass(public) and name[0] != "_" and is_method


def _described(public: Any) -> str:
    """Return a function's or class's parameters, without the modules of types: those differ between Python versions."""
    if inspect.isclass(public) and issubclass(public, BaseModel):
        parameters = ", ".join(f"{name}: {text}" for name, text in _fields(public).items())
        return f"class {public.__mro__[1].__name__}({parameters})"
    if inspect.isclass(public) and issubclass(public, Exception | Table):
        return f"class {public.__mro__[1].__name__}"
    if inspect.isfunction(public) or inspect.isclass(public):
        return _plain(str(inspect.signature(public)))
    return type(public).__name__


def _fields(model: type[BaseModel] | type[dg.Config], prefix: str = "", case: Any = str) -> dict[str, str]:
    found = {}
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else " = computed" if field.default_factory else f" = {field.default!r}"
        found[f"{prefix}{'' if prefix in ('', PREFIX) else '.'}{case(field.alias or name)}"] = (
            _plain(inspect.formatannotation(field.annotation)) + default
        )
    return found


def _plain(text: str) -> str:
    return re.sub(r"<function (\w+) at \w+>", r"\1", re.sub(r"[A-Za-z_][A-Za-z0-9_.]*[.](?=[A-Za-z_])", "", text))


def _columns() -> Iterator[tuple[str, str]]:
    for relation, model in RELATIONS.items():
        key = model.primary_key()
        for column, details in model.columns().items():
            null, kind = "" if details.nullable else " NOT NULL", details.dtype.type
            yield f"{column} of {relation}", f"{DUCKDB_TYPES[kind]}{null}, {kind}{', key' if column in key else ''}"


def _definitions(defs: dg.Definitions) -> Iterator[tuple[str, str]]:
    for spec in sorted(defs.resolve_all_asset_specs(), key=lambda spec: spec.key):
        parts = ["daily" if spec.partitions_def else "not partitioned", f"group {spec.group_name}"]
        parts += ["a view"] if spec.is_virtual else []
        parts += [str(found) for name in ("dagster/table_name", "partition_expr") if (found := spec.metadata.get(name))]
        yield f"asset {spec.key.to_user_string()}", ", ".join(parts)
    for key, resource in (defs.resources or {}).items():
        yield f"resource {key}", type(resource).__name__
    repository = defs.get_repository_def()
    for job in repository.get_all_jobs():
        if not job.name.startswith("__"):
            yield f"job {job.name}", "job"
    for schedule in repository.schedule_defs:
        yield f"schedule {schedule.name}", f"{schedule.cron_schedule} {schedule.execution_timezone}"
    for sensor in repository.sensor_defs:
        yield f"sensor {sensor.name}", sensor.default_status.value


def _commands(context: click.Context) -> Iterator[tuple[str, str]]:
    command = context.command
    yield context.command_path, "command"
    for parameter in command.params:  # without `--help`, which click adds
        kind = "|".join(parameter.type.choices) if isinstance(parameter.type, click.Choice) else parameter.type.name
        names = "/".join((*parameter.opts, *parameter.secondary_opts))
        is_flag = isinstance(parameter, click.Option) and parameter.is_flag
        required = ", required" if parameter.required else ""
        yield f"{context.command_path} {names}", "flag" if is_flag else f"{parameter.metavar or kind}{required}"
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


def text() -> str:
    """Return the surface as the file has it."""
    return json.dumps(surface(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    RECORDED.write_text(text())

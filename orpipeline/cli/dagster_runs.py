"""Runs of Dagster in this process. Importing this module imports Dagster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

# A run that is created in this process appears on Dagster's job pages only if it names its code location. Dagster has
# no public names for this.
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager  # it has no public name
from dagster._core.storage.tags import (  # the UI sets these tags, too
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from orpipeline.build import build_defs
from orpipeline.capture import Fetch
from orpipeline.cli.dagster_state import dagster_instance
from orpipeline.defs.imports import Watch, import_job
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import resources
from orpipeline.errors import OrpipelineError
from orpipeline.importing.importer import Imported
from orpipeline.settings import Settings

_NAMES = Names()
_CODE_LOCATION = "orpipeline"  # as workspace.yaml and pyproject.toml name it


class RunFailedError(OrpipelineError):
    """A run ended without success."""


def run_snapshot(
    settings: Settings,
    days: Sequence[date],
    fetch: Fetch,
    on_log: Callable[[str], None],
    *,
    on_warning: Callable[[str], None] = lambda _: None,
    report: bool = True,
) -> Mapping[str, str]:
    """Run the job `daily_snapshot` in this process: for one day, or for a range of days as one run.

    Returns the paths of the report's files by name, as the run recorded them. The report is not written for a range, or
    with `report=False`. `on_log` is called with each message that the run
    logs, and `on_warning` with each warning. Raises RunFailedError with the run's own message, and KeyboardInterrupt if
    SIGINT or SIGTERM ended the run: Dagster handles both, and makes them the step's failure.
    """
    first, last = min(days).isoformat(), max(days).isoformat()
    is_range = first != last
    tags = (
        {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
        if is_range
        else {"dagster/partition": first}
    )
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    selection = _NAMES.daily_assets if is_range or not report else None
    listeners = (_LogLines(on_log), _LogLines(on_warning, only=logging.WARNING))

    def on_event(entry: dg.EventLogEntry) -> None:
        for listener in listeners:
            listener(entry)

    return _report_files(_run(job, snapshot_config(_NAMES, fetch), on_event, selection=selection, tags=tags))


def run_report(settings: Settings) -> Mapping[str, str]:
    """Materialize the report in this process. Returns and raises as `run_snapshot` does."""
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    return _report_files(_run(job, {}, _LogLines(lambda _: None), selection=[_NAMES.report]))


def _report_files(result: dg.JobExecutionResult) -> Mapping[str, str]:
    return {
        name: value.value
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == _NAMES.report
        for name, value in event.materialization.metadata.items()
        if isinstance(value, dg.PathMetadataValue) and value.value
    }


def run_import(
    paths: Sequence[str],
    settings: Settings,
    watch: Watch,
    on_imported: Callable[[Imported], None],
    on_warning: Callable[[str], None],
) -> None:
    """Run the job `import_archive` in this process; `watch` and `on_imported` are called during the run.

    `on_warning` is called with each warning. Raises as `run_snapshot` does.
    """
    importing = import_job(_NAMES, daily_partitions(settings), watch, on_imported)
    defs = dg.Definitions(jobs=[importing], resources=resources(settings, _NAMES))
    job = defs.resolve_job_def(importing.name)
    config = {"ops": {_NAMES.op("import"): {"config": {"paths": list(paths)}}}}
    _run(job, config, _LogLines(on_warning, only=logging.WARNING))


@dataclass(frozen=True)
class _LogLines:
    """Passes the messages that a run logs to a function; with `only`, those of that level."""

    call: Callable[[str], None]
    only: int | None = None

    def __call__(self, entry: dg.EventLogEntry) -> None:
        level = int(entry.level)
        if level >= logging.INFO and not entry.is_dagster_event and self.only in (None, level):
            self.call(entry.user_message)


def _run(
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    on_event: Callable[[dg.EventLogEntry], None],
    *,
    selection: Sequence[dg.AssetKey] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.JobExecutionResult:
    """Execute a job of the code location in this process, as one of its runs. Raises as `run_snapshot` does."""
    with dagster_instance() as instance:
        # The run prints nothing to capture, and the processes that capture print a traceback at the terminal's Ctrl-C.
        instance._compute_log_manager = NoOpComputeLogManager()
        run = instance.create_run_for_job(
            job,
            # The terminal shows the command's own lines only.
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={**job.run_tags, **(tags or {})},
            asset_selection=frozenset(selection) if selection else None,
            remote_job_origin=job_origin(job.name),
        )
        instance.add_event_listener(run.run_id, on_event)
        result = execute_run(InMemoryJob(job), run, instance, raise_on_error=False)
    errors = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if any(data.error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for data in errors if data.error):
        raise KeyboardInterrupt
    if not result.success:
        raise RunFailedError(_reason(errors, run.run_id))
    return result


def job_origin(job: str) -> RemoteJobOrigin:
    """Return where Dagster finds a job: in the stand-alone code location."""
    target = LoadableTargetOrigin(module_name="orpipeline.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, _CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)


def _reason(errors: Sequence[Any], run_id: str) -> str:
    """Return the message of the first failed step."""
    for data in errors:
        if data.user_failure_data and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        cause = data.error
        while cause is not None and cause.cause is not None:
            cause = cause.cause
        if cause is not None:
            return f"Unexpected {' '.join(cause.message.split())} (a bug; see run {run_id})"
    return f"Run {run_id} failed; the Dagster UI shows its log."

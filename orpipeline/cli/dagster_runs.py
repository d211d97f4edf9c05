"""Runs of Dagster in this process. Importing this module imports Dagster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager  # it has no public name

from orpipeline.capture import Fetch
from orpipeline.cli.dagster_state import dagster_instance
from orpipeline.defs.build import build_defs
from orpipeline.defs.imports import Watch, import_job
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import resources
from orpipeline.errors import OrpipelineError
from orpipeline.importing.importer import Imported
from orpipeline.settings import Settings

_NAMES = Names()
# The UI lists a run under its job by this tag: the repository in the code location of workspace.yaml.
_TAGS = {".dagster/repository": "__repository__@orpipeline"}


def run_snapshot(
    settings: Settings,
    days: Sequence[date],
    fetch: Fetch,
    on_log: Callable[[str], None],
    on_warning: Callable[[str], None],
    *,
    report: bool = True,
) -> Mapping[str, str]:
    """Run the job `daily_snapshot` in this process: for one day, or for a range of days as one run.

    Returns the paths of the report's files by name, as the run recorded them. The report is not written for a range, or
    with `report=False`. `on_log` is called with each message that the run logs, and `on_warning` with each warning.
    Raises OrpipelineError with the run's own message, and KeyboardInterrupt if SIGINT or SIGTERM ended the run: Dagster
    handles both, and makes them the step's failure.
    """
    first, last = min(days).isoformat(), max(days).isoformat()
    is_range = first != last
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    result = _run(
        job,
        snapshot_config(_NAMES, fetch),
        on_log,
        on_warning,
        partition_key=None if is_range else first,
        # The UI sets these tags for a range.
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        if is_range
        else {},
        selection=[*_NAMES.daily_assets, *_NAMES.catalogue_assets] if is_range or not report else None,
    )
    return _report_files(result)


def run_report(settings: Settings) -> Mapping[str, str]:
    """Materialize the report in this process. Returns and raises as `run_snapshot` does."""
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    return _report_files(_run(job, {}, _ignore, _ignore, selection=[_NAMES.report]))


def _report_files(result: dg.ExecuteInProcessResult) -> Mapping[str, str]:
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
    _run(job, config, _ignore, on_warning)


def _run(
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    on_log: Callable[[str], None],
    on_warning: Callable[[str], None],
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    selection: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """Execute a job of the code location in this process. Raises as `run_snapshot` does."""
    run_id = str(uuid4())

    def on_event(entry: dg.EventLogEntry) -> None:
        if not entry.is_dagster_event and int(entry.level) >= logging.INFO:
            on_log(entry.user_message)
            if int(entry.level) == logging.WARNING:
                on_warning(entry.user_message)

    with dagster_instance() as instance:
        # The run prints nothing to capture, and the processes that capture print a traceback at the terminal's Ctrl-C.
        instance._compute_log_manager = NoOpComputeLogManager()
        instance.add_event_listener(run_id, on_event)
        result = job.execute_in_process(
            # The terminal shows the command's own lines only.
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            partition_key=partition_key,
            raise_on_error=False,
            asset_selection=selection,
            run_id=run_id,
            tags={**_TAGS, **(tags or {})},
        )
    errors = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if any(data.error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for data in errors if data.error):
        raise KeyboardInterrupt
    if not result.success:
        raise OrpipelineError(_reason(errors, run_id))
    return result


def _ignore(_: str) -> None:
    pass


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

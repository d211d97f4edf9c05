"""Runs of Dagster in this process, and its state on disk. Importing this module imports Dagster."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import dagster as dg
import yaml

# Only a configuration names it publicly, and that of the user's DAGSTER_HOME is also the UI's, which captures output.
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from orpipeline.capture import Fetch
from orpipeline.cli.terminal import dagster_home, print_line
from orpipeline.defs.build import build_defs
from orpipeline.defs.imports import Watch, import_job
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.partitions import daily_partitions, known_days
from orpipeline.defs.resources import resources
from orpipeline.errors import DagsterStateError, OrpipelineError, StoreError
from orpipeline.importing.importer import Imported
from orpipeline.settings import Settings, project_dir
from orpipeline.stores import Store

_NAMES = Names()
# The UI lists a run under its job by this tag: the repository in the code location of workspace.yaml.
_TAGS = {".dagster/repository": "__repository__@orpipeline"}
_LOCK_WAIT_SECONDS = 120  # creating the databases takes a second or two; eight processes wait for each other


def _ignore(_: str) -> None:
    pass


def run_days(
    settings: Settings,
    days: Sequence[date],
    fetch: Fetch,
    on_log: Callable[[str], None] = _ignore,
    *,
    report: bool = True,
) -> Mapping[str, str]:
    """Run the job `daily_snapshot` in this process for the days from the first to the last, as one run.

    The report of the newest day follows, unless `report` is False. Returns the paths of its files by name (`page`,
    `picture`, ...). `on_log` is called with each message that the run logs; warnings are printed when it has ended.

    Raises UsageError for a day that is not a partition, OrpipelineError with the run's own message, and
    KeyboardInterrupt if SIGINT or SIGTERM ended the run: Dagster handles both, and makes them the step's failure.
    """
    first, last = min(days), max(days)
    earliest, newest = known_days(daily_partitions(settings))
    for day in (first, last):
        if not earliest <= day <= newest:
            raise click.UsageError(f"{day} is outside the daily partitions, {earliest} to {newest}.")
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    is_range, tables = first < last, [*_NAMES.daily_assets, *_NAMES.catalogue_assets]
    on_log(f"Running daily_snapshot for {first}{f' to {last}' if is_range else ''}")
    done = _run(
        settings,
        job,
        snapshot_config(_NAMES, fetch),
        on_log,
        partition_key=None if is_range else str(first),
        # The UI sets these tags for a range.
        tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
        if is_range
        else {},
        selection=tables if is_range or not report else None,
    )
    if is_range and report:  # the run of a range leaves it out
        on_log("Writing the report")
        done = _run(settings, job, {}, selection=[_NAMES.report])
    return _report_files(done)


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
) -> None:
    """Run the job `import_archive` in this process; `watch` and `on_imported` are called during the run.

    Raises as `run_days` does.
    """
    importing = import_job(_NAMES, daily_partitions(settings), watch, on_imported)
    defs = dg.Definitions(jobs=[importing], resources=resources(settings, _NAMES))
    job = defs.resolve_job_def(importing.name)
    config = {"ops": {_NAMES.op("import"): {"config": {"paths": list(paths)}}}}
    _run(settings, job, config)


def _run(
    settings: Settings,
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    on_log: Callable[[str], None] = _ignore,
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    selection: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """Execute a job of the code location in this process, and print its warnings. Raises as `run_days` does."""
    run_id, warnings = str(uuid4()), list[str]()

    def on_event(entry: dg.EventLogEntry) -> None:
        if not entry.is_dagster_event and int(entry.level) >= logging.INFO:
            on_log(entry.user_message)
            if int(entry.level) == logging.WARNING:
                warnings.append(entry.user_message)

    prepare_dagster_home(settings)
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
    reason = "" if result.success else _reason(errors, run_id)
    for warning in warnings:
        if not reason or reason not in warning:
            print_line(warning)
    if any(data.error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for data in errors if data.error):
        raise KeyboardInterrupt
    if reason:
        raise OrpipelineError(reason)
    return result


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


def packaged_file(name: str) -> Path:
    """Return `dagster.yaml` or `workspace.yaml`: beside `pyproject.toml`, or from the installed wheel."""
    return (project_dir() or Path(__file__).parents[1]) / name


def prepare_dagster_home(settings: Settings) -> Path:
    """Ensure that DAGSTER_HOME is a permanent folder, and return it.

    A DAGSTER_HOME in the environment is used unchanged. Otherwise it is the settings' folder, with a copy of the
    project's `dagster.yaml`. The copy has no storage paths: Dagster's defaults apply. Raises DagsterStateError if the
    folder cannot be written.
    """
    home: Path | str = os.environ.get("DAGSTER_HOME", "")
    try:
        home = dagster_home(settings).absolute()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.environ.get("DAGSTER_HOME"):
            _write_instance_config(home / "dagster.yaml")
    except (OSError, StoreError, RuntimeError) as error:  # the latter for `~user` of an unknown user
        raise DagsterStateError(
            f"Cannot store Dagster's state in {home}: {getattr(error, 'strerror', None) or error}. Set DAGSTER_HOME or "
            "ORPIPELINE_DATA_DIR to a folder that you can write to."
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _write_instance_config(path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(packaged_file("dagster.yaml").read_text())
    for place in ("storage", "local_artifact_storage", "compute_logs"):
        del config[place]
    text = "# Written by orpipeline from its own dagster.yaml; your changes here are lost.\n" + yaml.safe_dump(config)
    if not path.exists() or path.read_bytes() != text.encode():
        Store(path.parent, setting="DAGSTER_HOME").replace({path.name: text.encode()})


@contextmanager
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance in DAGSTER_HOME, which `prepare_dagster_home` has set.

    One process at a time opens it: Dagster's SQLite databases are unusable for ever if two processes create them at
    once. Raises DagsterStateError if it cannot be opened, or if it fails later.
    """
    try:
        with FileLock(Path(os.environ["DAGSTER_HOME"], ".orpipeline.lock"), timeout=_LOCK_WAIT_SECONDS):
            opened = dg.DagsterInstance.get()
    except Exception as error:  # whatever storage is configured there, it may raise its own errors
        raise _broken("cannot be opened", error, "No run was started, and the tables are unchanged.") from error
    try:
        with opened as instance:
            yield instance
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        effect = "The archive and the tables are consistent."
        raise _broken("failed during the run", error, effect) from error


def _broken(what: str, error: Exception, effect: str) -> DagsterStateError:
    home, text = os.environ["DAGSTER_HOME"], " ".join(str(getattr(error, "orig", None) or error).split())
    return DagsterStateError(
        f"Dagster's state in {home} {what}: {text.rstrip('.') or type(error).__name__}. {effect} Fix `dagster.yaml` "
        f"there or, if the databases are damaged, move {home} away: the next run creates them again, and `orpipeline "
        "import` of your archive's folder records the archived days. Only the history of runs is lost.",
    )

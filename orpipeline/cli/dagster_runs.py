"""How the commands use Dagster: its state, and runs in this process. Importing this module imports Dagster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

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
from sqlalchemy.exc import SQLAlchemyError

from orpipeline.build import build_defs
from orpipeline.capture import Fetch
from orpipeline.defs.imports import Watch, import_job
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import resources
from orpipeline.errors import OrpipelineError, SettingsError
from orpipeline.files import replace_file
from orpipeline.importing.importer import Imported
from orpipeline.settings import Settings, project_dir

_NAMES = Names()
_CODE_LOCATION = "orpipeline"  # as workspace.yaml and pyproject.toml name it


class RunFailedError(OrpipelineError):
    """A run ended without success."""


def packaged_file(name: str) -> Path:
    """Return `dagster.yaml` or `workspace.yaml`: beside `pyproject.toml`, or from the installed wheel."""
    return (project_dir() or Path(__file__).parents[1]) / name


def prepare_dagster_home(settings: Settings) -> Path:
    """Ensure that DAGSTER_HOME is a permanent folder, and return it.

    A DAGSTER_HOME in the environment is used unchanged. Otherwise it is the settings' folder, with a copy of the
    project's `dagster.yaml`. The copy has no storage paths: Dagster's defaults apply.
    """
    configured = os.environ.get("DAGSTER_HOME")
    home = Path(configured).expanduser().absolute() if configured else settings.dagster_home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not configured:
            _write_instance_config(home / "dagster.yaml")
    except OSError as error:
        raise SettingsError(
            f"Cannot store Dagster's state in {home}: {error.strerror}. Set DAGSTER_HOME or ORPIPELINE_DATA_DIR "
            "to a folder that you can write to."
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _write_instance_config(path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(packaged_file("dagster.yaml").read_text())
    for place in ("storage", "local_artifact_storage", "compute_logs"):
        del config[place]
    text = "# Written by orpipeline from its own dagster.yaml; your changes here are lost.\n" + yaml.safe_dump(config)
    if not path.exists() or path.read_text() != text:
        replace_file(path, text.encode())


def run_snapshot(
    settings: Settings, days: Sequence[date], fetch: Fetch, on_log: Callable[[str], None], *, report: bool = True
) -> None:
    """Run the job `daily_snapshot` in this process: for one day, or for a range of days as one run.

    The report is not written for a range, or with `report=False`. `on_log` is called with each message that the run
    logs. Raises RunFailedError with the run's own message, and KeyboardInterrupt if SIGINT or SIGTERM ended the run:
    Dagster handles both, and makes them the step's failure.
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
    _run(job, snapshot_config(_NAMES, fetch), _LogLines(on_log), selection=selection, tags=tags)


def run_report(settings: Settings) -> None:
    """Materialize the report in this process. Raises as `run_snapshot` does."""
    job = build_defs(settings).resolve_job_def(_NAMES.job("daily_snapshot"))
    _run(job, {}, _LogLines(lambda _: None), selection=[_NAMES.report])


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
) -> None:
    """Execute a job of the code location in this process, as one of its runs. Raises as `run_snapshot` does."""
    with _state_errors(), dg.DagsterInstance.get() as instance:
        # The run prints nothing to capture, and the processes that capture print a traceback at the terminal's Ctrl-C.
        instance._compute_log_manager = NoOpComputeLogManager()
        run = instance.create_run_for_job(
            job,
            # The terminal shows the command's own lines only.
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={**job.run_tags, **(tags or {})},
            asset_selection=frozenset(selection) if selection else None,
            remote_job_origin=_origin(job.name),
        )
        instance.add_event_listener(run.run_id, on_event)
        result = execute_run(InMemoryJob(job), run, instance, raise_on_error=False)
    errors = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    if any(data.error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for data in errors if data.error):
        raise KeyboardInterrupt
    if not result.success:
        raise RunFailedError(_reason(errors, run.run_id))


def _origin(job: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(module_name="orpipeline.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, _CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)


def create_instance() -> None:
    """Create Dagster's databases, before two processes try to do it at once."""
    with _state_errors(), dg.DagsterInstance.get():
        pass


@contextmanager
def _state_errors() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise RunFailedError(
            f"Dagster's state in {os.environ.get('DAGSTER_HOME')} failed: {reason}. Answers that were already fetched "
            "are in the archive, and the tables are consistent."
        ) from error


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

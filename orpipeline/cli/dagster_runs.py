"""Running the snapshot job from the command line: Dagster's state, one run in this process, its outcome.

Importing this module imports Dagster, and reads the settings for good: the environment must be set before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster._core.storage.tags import (  # the tags that the UI sets too; they have no public name
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from sqlalchemy.exc import SQLAlchemyError

from orpipeline.errors import OrpipelineError, SettingsError
from orpipeline.files import replace_file
from orpipeline.settings import Settings, project_dir
from orpipeline.snapshot import Fetch

if TYPE_CHECKING:
    from orpipeline.defs.imports import Watch
    from orpipeline.importing.importer import Imported


class RunFailedError(OrpipelineError):
    """A run ended without success."""


def packaged_file(name: str) -> Path:
    """Return `dagster.yaml` or `workspace.yaml`: beside `pyproject.toml`, or as the wheel ships it."""
    return (project_dir() or Path(__file__).parents[1]) / name


def prepare_dagster_home(settings: Settings) -> Path:
    """Make sure that there is a DAGSTER_HOME that lasts, and return it.

    One that the environment names is used as it is. Otherwise it is the settings' folder, with the project's
    `dagster.yaml` in it, less the storage paths, which are Dagster's own there.
    """
    named = os.environ.get("DAGSTER_HOME")
    home = Path(named).expanduser().absolute() if named else settings.dagster_home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not named:
            _write_instance_config(home / "dagster.yaml")
    except OSError as error:
        raise SettingsError(
            f"Dagster's state cannot be kept in {home}: {error.strerror}. Set DAGSTER_HOME or ORPIPELINE_DATA_DIR "
            "to a folder that can be written."
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _write_instance_config(path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(packaged_file("dagster.yaml").read_text())
    for place in ("storage", "local_artifact_storage", "compute_logs"):
        del config[place]
    text = "# Written by orpipeline from its own dagster.yaml; changes here are lost.\n" + yaml.safe_dump(config)
    if not path.exists() or path.read_text() != text:
        replace_file(path, text.encode())


def run_snapshot(days: Sequence[date], fetch: Fetch, say: Callable[[str], None], *, report: bool = True) -> None:
    """Run the job `daily_snapshot` for a day, or for the range of days, as one run in this process.

    Without `report`, all of its assets but the report. `say` is told what the run logs, as it goes. Raises
    RunFailedError with the run's own message, and KeyboardInterrupt where SIGINT or SIGTERM ended the run: Dagster
    takes both, and makes them the step's failure.
    """
    from orpipeline.definitions import defs
    from orpipeline.defs.jobs import snapshot_config
    from orpipeline.defs.specs import DAILY_ASSETS

    selected = None if report else DAILY_ASSETS
    job = dg.Definitions.merge(defs, _loggers(say)).resolve_job_def("daily_snapshot")
    first, last = min(days).isoformat(), max(days).isoformat()
    if first == last:
        _run(job, snapshot_config(fetch), selected, partition_key=first)
    else:
        tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
        _run(job, snapshot_config(fetch), selected, tags=tags)


def run_import(
    paths: Sequence[str], settings: Settings, watch: Watch, done: Callable[[Imported], None], say: Callable[[str], None]
) -> None:
    """Run the job `import_archive` in this process; `watch` and `done` are told how it goes.

    `say` is told of warnings. Raises as `run_snapshot` does.
    """
    from orpipeline.defs.imports import import_job
    from orpipeline.defs.resources import resources

    jobs = dg.Definitions(jobs=[import_job(watch, done)], resources=resources(settings))
    job = dg.Definitions.merge(jobs, _loggers(say, only=logging.WARNING)).resolve_job_def("import_archive")
    _run(job, {"ops": {"import_snapshots": {"config": {"paths": list(paths)}}}})


def _run(
    job: dg.JobDefinition,
    config: Mapping[str, Any],
    selected: Sequence[dg.AssetKey] | None = None,
    *,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    with _state_errors(), dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key,
            tags=dict(tags or {}),
            asset_selection=selected,
            run_config={**config, "loggers": {"cli": {"config": {}}}},
            raise_on_error=False,
        )
    if _interrupted(result):
        raise KeyboardInterrupt
    if not result.success:
        raise RunFailedError(_reason(result))


def create_instance() -> None:
    """Make Dagster's databases, before two processes would do so at once."""
    with _state_errors(), dg.DagsterInstance.get():
        pass


@contextmanager
def _state_errors() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise RunFailedError(
            f"Dagster's state in {os.environ.get('DAGSTER_HOME')} failed: {said}. Raw answers that were fetched "
            "are in the archive, and the tables are whole."
        ) from error


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return any(error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for error in errors if error)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            cause = data.error
            while cause is not None and cause.cause is not None:
                cause = cause.cause
            if cause is not None:
                return f"Unexpected {' '.join(cause.message.split())} (a defect; see run {result.run_id})"
    return f"Run {result.run_id} failed; the Dagster UI shows its log."


def _loggers(say: Callable[[str], None], *, only: int | None = None) -> dg.Definitions:
    """Return a logger that tells `say` what a run logs; `only` what is of that level."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if only not in (None, record.levelno):
                return
            meta = getattr(record, "dagster_meta", {})
            say(str(meta.get("orig_message") or record.getMessage()))

    def make(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("orpipeline.cli", level=logging.INFO)
        logger.addHandler(Handler())
        return logger

    logger = dg.LoggerDefinition(make, description="Shows on the command line what the run itself logs.")
    return dg.Definitions(loggers={"cli": logger})

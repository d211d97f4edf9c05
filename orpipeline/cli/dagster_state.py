"""Dagster's state for the commands: its folder, and opening it. Importing this module imports Dagster."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from orpipeline.cli.options import dagster_home
from orpipeline.errors import DagsterStateError, StoreError
from orpipeline.settings import Settings, project_dir
from orpipeline.stores import Store

_LOCK_WAIT_SECONDS = 120  # creating the databases takes a second or two; eight processes wait for each other


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
    home = Path(os.environ["DAGSTER_HOME"])
    try:
        with FileLock(home / ".orpipeline.lock", timeout=_LOCK_WAIT_SECONDS):
            opened = dg.DagsterInstance.get()
    except Exception as error:  # whatever storage is configured there, it may raise its own errors
        raise DagsterStateError(
            f"Dagster's state in {home} cannot be opened: {_reason(error)}. No run was started, and the tables are "
            f"unchanged. {_advice(home, error)}"
        ) from error
    try:
        with opened as instance:
            yield instance
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise DagsterStateError(
            f"Dagster's state in {home} failed during the run: {_reason(error)}. The archive and the tables are "
            f"consistent. {_advice(home, error)}",
            during_run=True,
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return text.rstrip(".") or type(error).__name__


def _advice(home: Path, error: Exception) -> str:
    cause = "Several processes created it at once. " if "more than one head" in str(error) else ""
    return (
        f"{cause}Fix `dagster.yaml` there or, if the databases are damaged, move {home} away: the next run creates "
        "them again, and `orpipeline import` of your archive's folder records the archived days. Only the history of "
        "runs is lost."
    )

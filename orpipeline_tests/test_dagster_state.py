"""Dagster's state: a broken one does not keep a day from being fetched."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.cli.dagster_runs import dagster_instance
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import run_command

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def online(tmp_path: Path, api: LocalApi) -> dict[str, str]:
    """The variables of a pipeline whose API has yesterday's response."""
    api.serve(sample_response(YESTERDAY))
    return {
        "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
        "ORPIPELINE_BASE_URL": api.base_url,
        "OPENROUTER_API_KEY": KEY,
        "DAGSTER_HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data" / "raw")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster's state, created once."""
    home = tmp_path_factory.mktemp("pristine") / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        with dagster_instance():
            pass
    return home


def add_a_second_head(home: Path) -> None:
    # What several processes leave that create the databases at once.
    with sqlite3.connect(home / "history" / "runs.db") as connection:
        connection.execute("INSERT INTO alembic_version VALUES ('567bc23fd1ac')")


def name_a_missing_engine(home: Path) -> None:
    (home / "dagster.yaml").write_text("run_storage: {module: dagster_missing, class: Missing, config: {}}")


@pytest.mark.parametrize("breaking", [add_a_second_head, name_a_missing_engine])
def test_run_fetches_and_archives_the_day_although_dagsters_state_cannot_be_opened(
    tmp_path: Path,
    api: LocalApi,
    online: dict[str, str],
    archive: Archive,
    pristine: Path,
    breaking: Callable[[Path], object],
) -> None:
    shutil.copytree(pristine, tmp_path / "home")
    breaking(tmp_path / "home")
    done = run_command("run", folder=tmp_path, environment=online)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(f"orpipeline: The archive has {YESTERDAY}. Dagster's state in {tmp_path / 'home'}")
    assert "cannot be opened: " in done.stderr
    assert archive.is_current(YESTERDAY)
    assert len(api.requests) == 1


def test_a_state_that_breaks_during_the_run_loses_nothing(
    tmp_path: Path, api: LocalApi, online: dict[str, str], archive: Archive, pristine: Path
) -> None:
    shutil.copytree(pristine, tmp_path / "home")

    def reply(handler: BaseHTTPRequestHandler) -> None:
        for database in (tmp_path / "home").rglob("*.db*"):
            database.unlink()
            database.mkdir()
        body = sample_response(YESTERDAY)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    api.serve(Reply(act=reply))
    done = run_command("run", "--fetch", "always", folder=tmp_path, environment=online)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"orpipeline: The archive has {YESTERDAY}. Dagster's state")
    assert archive.is_current(YESTERDAY)
    assert len(api.requests) == 1


# The command `fetch`


def test_fetch_archives_the_newest_day_once_and_does_nothing_else(
    tmp_path: Path, api: LocalApi, online: dict[str, str], archive: Archive
) -> None:
    done = run_command("fetch", folder=tmp_path, environment=online)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{YESTERDAY} is archived: {archive.place}")
    again = run_command("fetch", folder=tmp_path, environment=online)
    assert (again.returncode, len(api.requests)) == (0, 1)
    assert "the API was not called" in again.stdout
    assert run_command("fetch", "--always", folder=tmp_path, environment=online).returncode == 0
    assert len(api.requests) == 2
    assert archive.days() == [YESTERDAY]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["raw", "state"]


def test_fetch_fails_if_the_day_is_not_published_yet(
    tmp_path: Path, api: LocalApi, online: dict[str, str], archive: Archive
) -> None:
    api.serve(sample_response(YESTERDAY - timedelta(days=1)))
    done = run_command("fetch", folder=tmp_path, environment=online)
    assert done.returncode == 1
    assert f"{YESTERDAY} is not published yet" in done.stderr
    assert archive.days() == [YESTERDAY - timedelta(days=1)]

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # each worker and the process that starts them import this file: the fixtures import what they need
    from orpipeline.testing import LocalApi
    from orpipeline_tests.engines import EnginePlace
    from orpipeline_tests.servers import PostgresServer, S3Server, Webhook
    from orpipeline_tests.world import World

pytest_plugins = ["orpipeline.testing.plugin"]

# Dagster must send nothing, and the developer's own choices must not change a test. orpipeline's plugin hides the rest.
for _name in [name for name in os.environ if name.startswith("DAGSTER_") and name != "DAGSTER_HOME"]:
    del os.environ[_name]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"

# Few examples where a developer waits; `.ci/run` sets `many`.
settings.register_profile("few", max_examples=5, deadline=None)
settings.register_profile("many", max_examples=40, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))

_numbers = itertools.count(1)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: gzip contains the time, and each worker collects the tests by itself."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a current folder, so it finds no `.env`."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def api() -> Iterator[LocalApi]:
    """The stand-in of the API: it sends a test's replies in order, and records the requests."""
    from orpipeline.testing import LocalApi

    with LocalApi() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An empty pipeline without an API key. Its data folder is the environment's."""
    from orpipeline_tests.world import World

    monkeypatch.setenv("ORPIPELINE_DATA_DIR", str(tmp_path / "data"))
    with World(tmp_path / "data", api=api) as pipeline:
        yield pipeline


@pytest.fixture
def online(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty pipeline with an API key."""
    from orpipeline.testing.local_api import KEY

    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    return world


@pytest.fixture
def at_noon() -> Iterator[None]:
    """The clock starts at noon of 2026-10-07."""
    from orpipeline.testing import fixed_clock
    from orpipeline.testing.tables import NOON

    with fixed_clock(NOON, ticking=True):
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres server for all tests of a session, which run side by side with others of their own."""
    from orpipeline_tests.servers import PostgresServer, postgres_programs

    if postgres_programs() is None:
        pytest.skip("Postgres is not installed (Debian: apt-get install postgresql)")
    # Not in pytest's own folder, which another session of pytest closes to the user `postgres`.
    with TemporaryDirectory(prefix="postgres-") as folder, PostgresServer(Path(folder) / "server") as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """The name of a test's own, empty database in `postgres_server`."""
    name = f"test_{next(_numbers)}"
    postgres_server.create_database(name)
    return name


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server for all tests of a session."""
    from orpipeline_tests.servers import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a test's own, empty bucket in `s3_server`, which the environment names for clients."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"test-{next(_numbers)}"
    s3_server.create_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> EnginePlace:
    """The place of a test's own lake, which the first write creates. Its test needs the mark `lake`."""
    from orpipeline.warehouse.ducklake import extension_file
    from orpipeline_tests.engines import EnginePlace

    if not extension_file("ducklake"):
        pytest.skip("DuckLake's extensions for this DuckDB are not installed (the extra `lake`)")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return EnginePlace(server.lake(request.getfixturevalue("database")), tmp_path / "lake")


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> EnginePlace:
    """The place of a test's warehouse: a DuckDB file, and with `ON_BOTH_ENGINES` also a lake."""
    from orpipeline_tests.engines import EnginePlace

    if getattr(request, "param", "file") == "file":
        return EnginePlace(tmp_path / "data" / "warehouse.duckdb")
    place: EnginePlace = request.getfixturevalue("lake")
    return place


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    from orpipeline_tests.servers import Webhook

    hook = Webhook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()

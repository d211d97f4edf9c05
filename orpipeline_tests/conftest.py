from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import time_machine

# The developer's own environment must not reach a test, and no test must reach the developer's data.
for _name in [name for name in os.environ if name.startswith(("ORPIPELINE_", "OPENROUTER_", "DAGSTER_"))]:
    del os.environ[_name]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"

from orpipeline.testing.local_api import KEY, LocalApi  # noqa: E402 - see above
from orpipeline_tests.world import NOON, World  # noqa: E402 - see above


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: gzip contains the time, and each worker collects the tests by itself."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a data folder and a current folder, so it finds no `.env` either."""
    monkeypatch.setenv("ORPIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def api() -> Iterator[LocalApi]:
    """A real HTTP server on loopback that gives a test's answers in order, and records the requests."""
    with LocalApi() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty pipeline."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path / "data", instance)


@pytest.fixture
def at_noon() -> Iterator[None]:
    """The clock starts at noon of 2026-10-07."""
    with time_machine.travel(NOON, tick=True):
        yield


@pytest.fixture
def online(world: World, api: LocalApi, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty pipeline with an API key, whose API is the scripted one."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    return World(world.folder, world.instance, api.base_url)

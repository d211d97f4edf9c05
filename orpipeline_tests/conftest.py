from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import time_machine

# Whatever the developer's own environment says must not reach a test, and no test must reach the developer's data.
# This comes before orpipeline is imported: its partitions are made from the settings once.
for _name in [name for name in os.environ if name.startswith(("ORPIPELINE_", "OPENROUTER_", "DAGSTER_"))]:
    del os.environ[_name]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"

from orpipeline_tests.scripted_api import ScriptedApi  # noqa: E402 - see above
from orpipeline_tests.world import NOON, World  # noqa: E402 - see above


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: gzip holds the time, and workers collect apart."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's data folder and current folder are its own (so that no `.env` is found either)."""
    monkeypatch.setenv("ORPIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """A real HTTP server on loopback that answers as the test says, in order, and notes what it was asked."""
    with ScriptedApi() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A pipeline of the test's own, with nothing in it."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path / "data", instance)


@pytest.fixture
def at_noon() -> Iterator[None]:
    """The clock stands at noon of 2026-10-07 and goes on from there."""
    with time_machine.travel(NOON, tick=True):
        yield

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orpipeline_tests.scripted_api import ScriptedApi

# Whatever the developer's own environment says must not reach a test, and no test must reach the developer's data.
for _name in [name for name in os.environ if name.startswith(("ORPIPELINE_", "OPENROUTER_", "DAGSTER_"))]:
    del os.environ[_name]
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"


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

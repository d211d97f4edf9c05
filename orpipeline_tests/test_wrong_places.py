"""A lake that cannot be used: one line before anything is fetched, unless it worked before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.testing import LocalApi
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import run_command
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.servers import PostgresServer, free_port
from orpipeline_tests.world import World, failure_of

pytestmark = pytest.mark.lake

REASONS = {
    "server": "Connection refused",
    "database": "nothing-here",
    "bucket": "the bucket nowhere does not exist",
    "folder": "ORPIPELINE_LAKE_DATA",
}


@pytest.mark.parametrize("wrong", REASONS)
@pytest.mark.parametrize("engine", ["lake"], indirect=True)
def test_a_wrong_lake_is_one_line_and_nothing_is_fetched(
    engine: EnginePlace, wrong: str, api: LocalApi, bucket: str, tmp_path: Path
) -> None:
    lake, data = str(engine.warehouse), str(engine.lake_data)
    if wrong == "server":
        lake = re.sub(r"port=\d+", f"port={free_port()}", lake)
    elif wrong == "database":
        lake = re.sub(r"dbname=\S+", "dbname=nothing-here", lake)
    elif wrong == "bucket":
        data = bucket.rpartition("/")[0] + "/nowhere"
    else:
        data = str(tmp_path / "file")
        Path(data).touch()
    done = run_command(
        *("run", "--no-report"),
        folder=tmp_path,
        environment={
            "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
            "ORPIPELINE_WAREHOUSE": lake,
            "ORPIPELINE_LAKE_DATA": data,
            "ORPIPELINE_BASE_URL": api.base_url,
            "OPENROUTER_API_KEY": KEY,
        },
    )
    assert (done.returncode, api.requests) == (1, []), done.stderr
    (line,) = done.stderr.splitlines()
    assert REASONS[wrong] in line


@pytest.mark.parametrize("engine", ["lake"], indirect=True)
def test_a_lake_that_worked_before_does_not_prevent_fetching(
    engine: EnginePlace, online: World, api: LocalApi, postgres_server: PostgresServer
) -> None:
    online.settings = engine.settings(online.settings)
    day = newest_completed_day(utc_now())
    assert online.run(day).success is False  # never fetches: nothing is archived yet
    assert online.run(day, fetch=Fetch.auto).success
    postgres_server.stop()
    try:
        failed = failure_of(online.run(day, fetch=Fetch.always))
    finally:
        postgres_server.start()
    assert "Connection refused" in str(failed.description)
    assert len(api.requests) == 2

"""A lake that cannot be used: one line, and the response that was fetched is archived for the next run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.testing import LocalApi
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import run_command
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.servers import free_port
from orpipeline_tests.world import days_of

REASONS = {
    "server": "Connection refused",
    "bucket": "(ORPIPELINE_LAKE_DATA): the bucket nowhere does not exist",
}


@pytest.mark.lake
@pytest.mark.parametrize("wrong", REASONS)
def test_a_wrong_lake_is_one_line_and_the_next_run_needs_no_other_request(
    lake: EnginePlace, wrong: str, api: LocalApi, bucket: str, tmp_path: Path
) -> None:
    catalog, data = str(lake.warehouse), str(lake.lake_data)
    if wrong == "server":
        catalog = re.sub(r"port=\d+", f"port={free_port()}", catalog)
    else:
        data = bucket.rpartition("/")[0] + "/nowhere"
    environment = {
        "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
        "ORPIPELINE_BASE_URL": api.base_url,
        "OPENROUTER_API_KEY": KEY,
    }
    at_wrong_place = {"ORPIPELINE_WAREHOUSE": catalog, "ORPIPELINE_LAKE_DATA": data}
    done = run_command("run", "--no-report", folder=tmp_path, environment=environment | at_wrong_place)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, REASONS[wrong] in line) == (1, True), line
    assert len(Archive(tmp_path / "data" / "raw").days()) == 1
    right = {"ORPIPELINE_WAREHOUSE": str(lake.warehouse), "ORPIPELINE_LAKE_DATA": str(lake.lake_data)}
    done = run_command("run", "--no-report", folder=tmp_path, environment=environment | right)
    assert (done.returncode, len(api.requests)) == (0, 1), done.stderr
    assert len(days_of(lake.open())) == 1

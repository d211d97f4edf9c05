"""Everything beyond one machine at once, as real processes on loopback.

Postgres has Dagster's state, the lake's catalog and the budget. An S3 server has the archive, the lake's files and the
reports. Two code locations run four days at a time, one of the runs is killed, and the tables must be those of the
embedded engines.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from orpipeline.archive import Archive
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.tables import RELATIONS
from orpipeline.load import rebuild
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.cluster import Cluster
from orpipeline_tests.commands import ORPIPELINE
from orpipeline_tests.engines import EnginePlace
from orpipeline_tests.servers import PostgresServer, S3Server

pytestmark = pytest.mark.promise

DAYS = 8
REQUESTS_PER_MINUTE = 3


@pytest.fixture
def places(lake: EnginePlace, postgres_server: PostgresServer, database: str, bucket: str) -> Mapping[str, str]:
    """The settings of a pipeline that keeps nothing on this machine."""
    return {
        "ORPIPELINE_ARCHIVE": f"{bucket}/raw",
        "ORPIPELINE_WAREHOUSE": str(lake.warehouse),
        "ORPIPELINE_LAKE_DATA": f"{bucket}/lake",
        "ORPIPELINE_STATE": postgres_server.url(database),
        "ORPIPELINE_REPORTS": f"{bucket}/reports",
        "ORPIPELINE_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE),
    }


@pytest.fixture
def cluster(
    tmp_path: Path,
    postgres_server: PostgresServer,
    database: str,
    s3_server: S3Server,
    api: LocalApi,
    places: Mapping[str, str],
) -> Iterator[Cluster]:
    dagster = f"{database}_dagster"
    postgres_server.create_database(dagster)
    with Cluster(
        tmp_path / "cluster",
        postgres_server,
        s3_server,
        {**places, "ORPIPELINE_BASE_URL": api.base_url, "OPENROUTER_API_KEY": KEY},
        database=dagster,
        locations=dict.fromkeys(("orpipeline", "worker"), "orpipeline_tests.quiet_location"),
    ) as started:
        yield started


@pytest.mark.slow
@pytest.mark.lake
def test_eight_days_in_four_processes_end_like_the_embedded_run_though_one_is_killed(
    cluster: Cluster, api: LocalApi, places: Mapping[str, str], tmp_path: Path
) -> None:
    newest = newest_completed_day(utc_now())
    days = [newest - timedelta(days=n) for n in reversed(range(DAYS))]
    archive = Archive(places["ORPIPELINE_ARCHIVE"])
    for day in days[:-1]:  # the API serves only the newest day
        archive.put(sample_response(day), fetched_at=_noon_after(day), source="a test", origin="import")

    cluster.wait_until_ready()
    wanted = [day.isoformat() for day in days]
    runs = [
        run
        for location, of_location in (("orpipeline", wanted[::2]), ("worker", wanted[1::2]))
        for run in cluster.launch_days(of_location, location=location)
    ]
    day_of = dict(zip(runs, [*wanted[::2], *wanted[1::2]], strict=True))
    killed = runs[1]
    cluster.kill_run(killed)
    statuses = cluster.wait_for_runs([run for run in runs if run != killed])
    assert set(statuses.values()) == {"SUCCESS"}, {
        day_of[run]: cluster.messages(run)[-3:] for run, status in statuses.items() if status != "SUCCESS"
    }
    again = cluster.launch_days([day_of[killed]])
    assert set(cluster.wait_for_runs(again).values()) == {"SUCCESS"}, cluster.messages(again[0])[-3:]

    _assert_tables_are_those_of_the_embedded_engines(places, days, tmp_path)
    assert cluster.materialized_days("model_leaderboard") == set(wanted)
    _fetch_in_four_processes(cluster.environment, tmp_path)
    sent = [request.at for request in (*api.requests, *api.catalogue_requests)]
    # A request arrives some time after it was counted.
    assert max(sum(start <= at < start + 50 for at in sent) for start in sent) == REQUESTS_PER_MINUTE
    (revision,) = archive.revisions(newest)
    assert archive.read(revision).body == sample_response(newest)


def _assert_tables_are_those_of_the_embedded_engines(places: Mapping[str, str], days: list[date], folder: Path) -> None:
    """Copy the archive's objects into a folder, which has the same layout, and load them into a DuckDB file."""
    store = from_url(places["ORPIPELINE_ARCHIVE"])
    for found in [found for page in obstore.list(store) for found in page]:
        path = folder / "embedded" / "raw" / found["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(obstore.get(store, found["path"]).bytes()))
    embedded = Settings(data_dir=folder / "embedded")
    warehouse = Warehouse(embedded.warehouse)
    assert rebuild(Archive(embedded.archive), warehouse, now=utc_now()).days == days
    lake = Warehouse(places["ORPIPELINE_WAREHOUSE"], lake_data=places["ORPIPELINE_LAKE_DATA"])
    for name in RELATIONS:
        assert lake.read(name).equals(warehouse.read(name)), name


def _fetch_in_four_processes(environment: Mapping[str, str], folder: Path) -> None:
    """Spend more than is left of the minute's budget, from four hosts with data folders of their own."""
    processes = [
        subprocess.Popen(
            [str(ORPIPELINE), "fetch", "--always"],
            env={**environment, "ORPIPELINE_DATA_DIR": str(folder / f"host-{n}")},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    outputs = [process.communicate(timeout=60)[1] for process in processes]
    refused = [text for text in outputs if "budget" in text]
    assert [process.returncode for process in processes].count(1) == len(refused) > 0, outputs


def _noon_after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(12), utc_now().tzinfo)

"""The report and the published copy in an object store: what readers of a folder can rely on is true there, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import obstore
import pandas as pd
import polars as pl
import pytest
from obstore.store import from_url
from polars.testing import assert_frame_equal

from orpipeline.contracts.tables import EXPORTED
from orpipeline.testing import sample_response
from orpipeline_tests.publishing import DESCRIPTION, Place
from orpipeline_tests.servers import S3Server
from orpipeline_tests.store_proxy import StoreProxy
from orpipeline_tests.world import NAMES, World, days_of, failure_of, publish

DAYS = [date(2026, 9, 30), date(2026, 10, 1)]
NEW = date(2026, 10, 2)

pytestmark = pytest.mark.slow  # a server


@pytest.fixture
def proxy(
    s3_server: S3Server,
    bucket: str,  # noqa: ARG001 - sets the variables first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StoreProxy]:
    """All requests to the test's bucket go through this proxy."""
    with StoreProxy(s3_server.url) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


@pytest.fixture
def place(tmp_path: Path, bucket: str) -> Place:
    """A warehouse with two days, whose reports are in a bucket."""
    filled = Place(tmp_path / "data", reports=f"{bucket}/reports")
    filled.load(*DAYS)
    return filled


def test_read_downloads_the_newest_copy(place: Place) -> None:
    for name in ("snapshots", "model_trends"):
        with place.warehouse.reading() as tables:
            assert_frame_equal(place.read(name), tables.read(name))
    place.load(NEW)
    assert place.read("snapshots")["as_of"].to_list() == [*DAYS, NEW]


def test_each_file_is_sent_once_with_snapshots_last_and_nothing_without_a_change(
    place: Place, proxy: StoreProxy
) -> None:
    place.load(NEW)
    sent = [line.rpartition("/")[2] for line in proxy.requests]
    tables = [name for name in sent if name.endswith(".parquet")]
    assert sorted(tables) == sorted(f"{name}.parquet" for name in EXPORTED)
    assert tables[-1] == "snapshots.parquet"
    assert sorted(set(sent) - set(tables)) == sorted({*DESCRIPTION, "warehouse.duckdb"})
    assert len(sent) == len(tables) + len(DESCRIPTION) + 1
    proxy.requests.clear()
    place.execute("FROM openrouter.snapshots")
    assert proxy.requests == []
    place.load(DAYS[0] - timedelta(days=40))  # changes first_seen and days_listed of all later days
    for name in EXPORTED:
        assert_frame_equal(place.read_parquet(name), place.read(name))
    file = place.parquet.address("model_trends.parquet")  # other tools read it with the same variables
    readers = [pl.read_parquet(file), pl.from_pandas(pd.read_parquet(file))]
    assert [len(rows) for rows in readers] == [len(place.read("model_trends"))] * 2


@pytest.mark.parametrize("part", ["warehouse.duckdb", "task_models"])
def test_an_upload_that_fails_is_a_warning_and_the_next_write_repairs_it(
    place: Place, proxy: StoreProxy, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    proxy.reject = partial(_reject_put, part)
    with caplog.at_level(logging.WARNING, "orpipeline"):
        place.load(NEW)
    assert "The tables are written, but not the published copy" in caplog.text
    assert "access denied" in caplog.text
    assert NEW in days_of(place.warehouse)
    proxy.reject = lambda _: None
    publish(place.warehouse)
    assert place.read("snapshots")["as_of"].to_list() == [*DAYS, NEW]
    for name in ("task_models", "model_trends", "snapshots"):
        assert_frame_equal(place.read_parquet(name), place.read(name))


def _reject_put(part: str, request: str) -> int | None:
    return 403 if request.startswith("PUT") and part in request else None


def test_the_report_of_a_run_is_in_the_bucket_and_a_browser_shows_it(
    tmp_path: Path, proxy: StoreProxy, bucket: str
) -> None:
    day = date(2026, 10, 6)
    with World(tmp_path / "data") as world:
        world.settings = world.settings.model_copy(update={"reports": f"{bucket}/reports"})
        world.store(sample_response(day))
        assert world.run(day, selection=["snapshots", "model_leaderboard", "leaderboard_report"]).success
        event = world.instance.get_latest_materialization_event(NAMES.report)
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["page"].value == f"{bucket}/reports/index.html"
        store = from_url(f"{bucket}/reports", client_options={"allow_http": True})
        for name, kind in (("index.html", "text/html; charset=utf-8"), (f"{day}/card.png", "image/png")):
            assert obstore.get(store, name).attributes["Content-Type"] == kind
        proxy.reject = partial(_reject_put, ".html")
        failed = failure_of(world.run(day, selection=["leaderboard_report"]))
        assert "access denied" in str(failed.description)
        assert days_of(world.warehouse) == [day]

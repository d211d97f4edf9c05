"""The report and the published copy in an object store: what readers of a folder can rely on holds there, too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import obstore
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import orpipeline
from orpipeline import NotPublishedError, Settings
from orpipeline.contracts.tables import EXPORTED, TABLES
from orpipeline.stores import StoreError, open_store
from orpipeline.testing import sample_answer
from orpipeline.warehouse.published import is_copy
from orpipeline_tests.publishing import StoredPlace
from orpipeline_tests.servers import S3Server
from orpipeline_tests.store_proxy import StoreProxy
from orpipeline_tests.world import NAMES, World, failure_of

DAYS = [date(2026, 9, 30), date(2026, 10, 1)]
NEW = date(2026, 10, 2)


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
def place(tmp_path: Path, bucket: str) -> StoredPlace:
    """A warehouse whose reports are in a bucket, with days of two months."""
    filled = StoredPlace(tmp_path / "data", f"{bucket}/reports")
    filled.load(*DAYS)
    return filled


def test_read_gets_the_newest_copy_and_downloads_it_once(place: StoredPlace, proxy: StoreProxy) -> None:
    for name in ("snapshots", "model_trends"):
        with place.warehouse.reading() as tables:
            assert_frame_equal(place.read(name), tables.read(name))
    assert [line.split()[0] for line in proxy.requests] == ["HEAD", "GET", "HEAD"]
    (first,) = place.cached()
    place.load(NEW)
    running = first.with_name(".downloading-1-a")  # another process's
    running.touch()
    assert place.read("snapshots")["as_of"].to_list() == [*DAYS, NEW]
    assert len(place.cached()) == 1
    assert place.cached() != [first]
    assert running.exists()


@pytest.mark.slow
def test_many_readers_at_once_and_a_writer_see_whole_copies(place: StoredPlace) -> None:
    seen, errors = set[int](), list[BaseException]()

    def read() -> None:
        try:
            for _ in range(4):
                snapshots, models = place.read("snapshots"), place.read("task_models")
                assert set(snapshots["as_of"]) <= set(models["as_of"])
                seen.add(len(snapshots))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    place.load(NEW)
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen <= {len(DAYS), len(DAYS) + 1}
    assert len(place.read("snapshots")) == len(DAYS) + 1


@pytest.mark.slow
def test_a_restated_older_day_is_current_in_every_file(place: StoredPlace) -> None:
    place.load(DAYS[0] - timedelta(days=40))  # changes first_seen and days_listed of all later days
    place.load(DAYS[0], label="Restated")
    for name in EXPORTED:
        assert_frame_equal(place.read_parquet(name), place.read(name), check_row_order=False)
    folder = place.parquet.address("model_trends")  # other tools read it with the same variables
    readers = [pl.read_parquet(f"{folder}/*.parquet"), pl.from_pandas(pd.read_parquet(folder))]
    assert [len(rows) for rows in readers] == [len(place.read("model_trends"))] * 2
    gone = "DELETE FROM openrouter.{} WHERE as_of < DATE '2026-10-01'"
    place.execute(*(gone.format(name) for name in TABLES))
    place.load(DAYS[-1])
    assert {path.rpartition("/")[2] for path in place.parquet.tags() if "/" in path} == {"2026-10.parquet"}


@pytest.mark.slow
def test_only_what_changed_is_sent(place: StoredPlace, proxy: StoreProxy) -> None:
    place.load(*(DAYS[0] - timedelta(days=30 * months) for months in range(1, 6)))
    lost = "model_trends/2026-06.parquet"
    place.parquet.remove([lost])
    proxy.requests.clear()
    place.load(NEW)
    sent = [line for line in proxy.requests if line.startswith("PUT ")]
    assert sum(line.endswith("/2026-10.parquet") for line in sent) == len(EXPORTED)
    assert sum(line.endswith("/2026-06.parquet") for line in sent) == len(EXPORTED)  # a file was missing
    # Each of the two months has its version; then the copy, and the citation of the newest day.
    assert len(sent) == 2 * len(EXPORTED) + 2 + 2
    assert len(proxy.requests) - len(sent) <= 5
    assert lost in place.parquet.tags()
    proxy.requests.clear()
    place.warehouse.publish()  # nothing changed
    assert [line for line in proxy.requests if not line.startswith(("GET ", "HEAD "))] == []
    assert len(proxy.requests) <= 3


def test_an_upload_that_fails_is_a_warning_and_the_next_write_repairs_it(
    place: StoredPlace, proxy: StoreProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for number, part in enumerate(["warehouse.duckdb", "task_models"], start=1):
        new, caplog_start = DAYS[-1] + timedelta(days=number), len(caplog.records)
        proxy.reject = partial(_reject_put, part)
        with caplog.at_level(logging.WARNING, "orpipeline"):
            place.load(new)
        warning = caplog.records[caplog_start].getMessage()
        assert "The tables are written, but not the published copy" in warning
        assert "access denied" in warning
        assert new in place.warehouse.days()
        proxy.reject = lambda _: None
        place.warehouse.publish()
        assert is_copy(place.warehouse.path, place.published)
        for name in ("task_models", "model_trends", "snapshots"):
            assert_frame_equal(place.read_parquet(name), place.read(name), check_row_order=False)


def _reject_put(part: str, request: str) -> int | None:
    return 403 if request.startswith("PUT") and part in request else None


@pytest.mark.slow
def test_an_upload_does_not_keep_the_warehouse_locked(place: StoredPlace, proxy: StoreProxy) -> None:
    uploading, go_on = threading.Event(), threading.Event()

    def wait(request: str) -> None:
        if request.startswith("PUT") and "warehouse.duckdb" in request:
            uploading.set()
            go_on.wait(30)

    proxy.reject = wait
    writer = threading.Thread(target=place.load, args=[NEW])
    writer.start()
    assert uploading.wait(30)
    with place.warehouse.writing() as tables:
        assert NEW in tables.days()
        go_on.set()
    writer.join()
    assert is_copy(place.warehouse.path, place.published)


def test_without_a_copy_or_a_bucket_the_error_states_it(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(NotPublishedError, match=r"no published copy at s3://test-.*orpipeline run"):
        orpipeline.read("snapshots", settings=Settings(data_dir=tmp_path, reports=bucket))
    with pytest.raises(StoreError, match=r"Cannot list s3://nowhere.*ORPIPELINE_REPORTS.*does not exist"):
        orpipeline.read("snapshots", settings=Settings(data_dir=tmp_path, reports="s3://nowhere"))


@pytest.mark.slow
def test_the_report_of_a_run_is_in_the_bucket_and_a_browser_shows_it(
    tmp_path: Path, proxy: StoreProxy, bucket: str
) -> None:
    day = date(2026, 10, 6)
    with World(tmp_path / "data") as world:
        world.settings = world.settings.model_copy(update={"reports": f"{bucket}/reports"})
        world.store(sample_answer(day))
        assert world.run(day, selection=["snapshots", "model_leaderboard", "leaderboard_report"]).success
        event = world.instance.get_latest_materialization_event(NAMES.report)
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        assert metadata["page"].value == f"{bucket}/reports/leaderboard.html"
        store = open_store(f"{bucket}/reports", setting="a test")
        for name, kind in (("leaderboard.html", "text/html; charset=utf-8"), ("leaderboard-card.png", "image/png")):
            assert obstore.get(store, name).attributes["Content-Type"] == kind
        proxy.reject = partial(_reject_put, ".html")
        failed = failure_of(world.run(day, selection=["leaderboard_report"]))
        assert "access denied" in str(failed.description)
        assert world.warehouse.days() == [day]

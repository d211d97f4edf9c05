# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import dagster as dg
import polars as pl
import pytest

# Dagster computes staleness for its own pages only.
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orpipeline.capture import Fetch
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.names import asset_key
from orpipeline.defs.partitions import daily_partitions
from orpipeline.errors import WarehouseBusyError
from orpipeline.load import Loaded, load_days
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import ASSETS, NAMES, World, checks_of, failure_of, local

pytestmark = pytest.mark.usefixtures("at_noon")
WEEK = [DAY - timedelta(days=n) for n in range(6, -1, -1)]


@dg.asset(
    key_prefix="mine",
    partitions_def=daily_partitions(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"models": dg.AssetIn(asset_key("task_models"))},
    metadata={"partition_expr": "as_of"},
    io_manager_key="openrouter_io_manager",
)
def listed_models(models: pl.DataFrame) -> pl.DataFrame:
    """A user's asset."""
    return models.group_by("as_of").agg(models=pl.col("model_id").n_unique())


MINE = dg.Definitions(assets=[listed_models])


def test_never_makes_no_api_call(online: World, api: LocalApi) -> None:
    failure = failure_of(online.run(DAY, fetch=Fetch.never))
    assert "Run it with fetch `auto`" in str(failure.description)
    assert api.requests == []


def test_an_old_day_is_not_fetched_and_the_failure_tells_what_to_do(online: World, api: LocalApi) -> None:
    failure = failure_of(online.run(date(2026, 9, 1), fetch=Fetch.auto))
    assert "Import that day if you have it" in str(failure.description)
    assert api.requests == []


def test_a_stale_response_is_archived_under_its_own_day(online: World, api: LocalApi) -> None:
    before = DAY - timedelta(days=1)
    api.serve(sample_response(before))
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert "not published yet: the API still serves 2026-10-05" in str(failure.description)
    assert online.archive.days() == [before]
    assert online.materialized("snapshots") == set()


def test_without_a_key_the_failure_names_it_and_no_request_is_sent(world: World, api: LocalApi) -> None:
    failure = failure_of(world.run(DAY, fetch=Fetch.auto))
    assert "OPENROUTER_API_KEY is not set" in str(failure.description)
    assert api.requests == []


def test_a_429_ends_the_run_with_the_time_of_the_next_request(online: World, api: LocalApi) -> None:
    api.serve(Reply(b'{"error": {"code": 429, "message": "slow down"}}', 429, {"Retry-After": "120"}))
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert "12:02:0" in str(failure.description)
    assert "next_attempt" in failure.metadata
    assert len(api.requests) == 1


def test_a_range_is_one_run_and_the_same_bytes_again_make_nothing_downstream_stale(world: World) -> None:
    for day in WEEK:
        world.store(sample_response(day))
    assert world.run(WEEK[0], extra=MINE).success
    assert world.run(*WEEK, extra=MINE).success
    assert world.run(WEEK[2]).success

    assert len(world.tables()["snapshots"]) == 7
    for asset in ASSETS:
        assert world.materialized(asset) == {day.isoformat() for day in WEEK}
    for key in NAMES.daily_assets:
        tags = world.instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=["dagster/data_version"]
        )
        versions = {partition: tag["dagster/data_version"] for partition, tag in tags.items()}
        assert versions == {day.isoformat(): sha256(sample_response(day)).hexdigest() for day in WEEK}
    graph = dg.Definitions.merge(world.defs, MINE).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    for key in (*NAMES.daily_assets, listed_models.key):
        for day in WEEK:
            assert resolver.get_stale_causes(key, day.isoformat()) == [], (key, day)
            assert resolver.get_status(key, day.isoformat()) is StaleStatus.FRESH
    # The user's asset read and wrote each day through the I/O manager, and the copy that others read is current.
    assert world.read("mine.listed_models")["as_of"].sort().to_list() == WEEK


def test_missing_or_rejected_days_do_not_stop_the_others(world: World) -> None:
    missing, rejected = WEEK[2], WEEK[4]
    for day in WEEK:
        if day != missing:
            world.store(
                sample_response(day, change=(lambda data: data.update(window_days=1)) if day == rejected else None)
            )
    failure = failure_of(world.run(*WEEK))

    good = {day.isoformat() for day in WEEK if day not in (missing, rejected)}
    assert world.materialized("raw_task_classifications") == good | {rejected.isoformat()}
    for table in TABLES:
        assert world.materialized(table) == good
        assert {row["as_of"].isoformat() for row in world.tables()[table]} == good
    for part in ("2 of 7 days", missing.isoformat(), rejected.isoformat()):
        assert part in str(failure.description)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(b'{"error": {"code": 429, "message": "slow down"}}', 429, {"Retry-After": "120"}), "RateLimitedError"),
        (Reply(b"<html>Just a moment...</html>"), "UnreadableResponseError"),
    ],
    ids=["429", "html"],
)
def test_a_failed_call_fails_only_the_newest_day_of_a_range(
    online: World, api: LocalApi, reply: Reply, error: str
) -> None:
    hole = DAY - timedelta(days=2)
    days = [DAY - timedelta(days=n) for n in range(4)]
    for day in {*days} - {DAY, hole}:
        online.store(sample_response(day))
    api.serve(reply)
    failure = failure_of(online.run(*days, fetch=Fetch.auto))

    for asset in ASSETS:
        assert online.materialized(asset) == {day.isoformat() for day in days if day not in (DAY, hole)}
    message = str(failure.description)
    assert message.startswith("2 of 4 days failed; the others are loaded. Not archived: 2026-10-04. ")
    assert "Not fetched: 2026-10-06. " in message
    # The sensor reads this from a day's own run.
    assert failure.metadata["error"].value == error
    assert ("next_attempt" in failure.metadata) == (error == "RateLimitedError")


def test_a_failed_call_for_an_archived_day_loads_every_day_and_is_reported(online: World, api: LocalApi) -> None:
    for day in WEEK[-2:]:
        online.store(sample_response(day))
    api.serve(Reply(b"{}", 401))
    failure = failure_of(online.run(*WEEK[-2:], fetch=Fetch.always))
    assert "Not fetched: 2026-10-06" in str(failure.description)
    assert "does not accept the key" in str(failure.description)
    for asset in ASSETS:
        assert online.materialized(asset) == {day.isoformat() for day in WEEK[-2:]}


def test_a_damaged_file_fails_only_its_day(online: World, api: LocalApi) -> None:
    stored = [online.store(sample_response(day)).revision for day in WEEK[-3:]]
    local(stored[0].path).write_bytes(b"rubbish")
    failure = failure_of(online.run(*WEEK[-3:], fetch=Fetch.auto))

    for asset in ASSETS:
        assert online.materialized(asset) == {day.isoformat() for day in WEEK[-2:]}
    assert f"1 of 3 days failed; the others are loaded. Damaged: {WEEK[-3]}. " in str(failure.description)
    assert failure.metadata["error"].value == "DamagedResponseError"
    assert api.requests == []


def test_the_failure_of_a_range_lists_its_days_by_kind(world: World) -> None:
    days = [DAY - timedelta(days=n) for n in range(89, -1, -1)]
    rejected, damaged = days[0], days[1]
    world.store(sample_response(rejected, change=lambda data: data.update(window_days=1)))
    local(world.store(sample_response(damaged)).revision.path).write_bytes(b"rubbish")
    for day in [*days[2:22:2], days[-2]]:
        world.store(sample_response(day))
    failure = failure_of(world.run(*days))

    message = str(failure.description)
    assert message.startswith("79 of 90 days failed; the others are loaded. Rejected: 2026-07-09. ")
    assert "Damaged: 2026-07-10. The archived file" in message
    assert "Not archived: 76 days, 2026-07-12, 2026-07-14, " in message
    # Ten spans are shown: nine single days, and the one from the last of them on.
    assert "2026-07-28, 2026-07-30 to 2026-10-04. The archive has no response for 2026-07-12" in message
    assert "Import that day if you have it from elsewhere" in message
    assert "Not fetched: 2026-10-06. " in message
    table = failure.metadata["failed_days"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [record.data for record in table.records]
    assert {"days": "2026-07-30 to 2026-10-04", "why": "Not archived"} in rows
    assert len(rows) == 13
    assert "findings" in failure.metadata


def test_selecting_one_table_rebuilds_the_whole_day(world: World) -> None:
    world.store(sample_response(DAY))
    assert world.run(DAY, selection=["task_models"]).success
    assert all(world.tables().values())
    for table in TABLES:
        assert world.materialized(table) == {"2026-10-06"}
    assert world.materialized("raw_task_classifications") == set()


def test_selecting_only_the_raw_response_leaves_the_tables_unchanged(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY, change=lambda data: data.update(window_days=30)))
    result = online.run(DAY, fetch=Fetch.auto, selection=["raw_task_classifications"])
    # The response is archived, and its blocking check fails the run.
    assert online.materialized("raw_task_classifications") == {"2026-10-06"}
    assert not result.success
    assert not checks_of(result)["raw_task_classifications", "response_matches_request"].passed
    assert not online.warehouse.exists


def test_the_response_is_archived_and_reported_even_if_the_warehouse_fails(online: World, api: LocalApi) -> None:
    path = online.folder / "warehouse.duckdb"
    path.mkdir(parents=True)
    api.serve(sample_response(DAY))
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert f"The warehouse {path} failed" in str(failure.description)
    assert online.archive.days() == [DAY]
    assert online.materialized("raw_task_classifications") == {"2026-10-06"}
    assert online.materialized("snapshots") == set()


def _lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every later attempt to open the warehouse fail as if it were locked."""

    def locked(*_: object, **__: object) -> None:
        raise WarehouseBusyError("locked by another process")

    monkeypatch.setattr(Warehouse, "connect", locked)


def test_a_warehouse_that_is_locked_after_the_commit_fails_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_and_lock(*arguments: Any, **options: Any) -> Loaded:
        loaded = load_days(*arguments, **options)
        _lock(monkeypatch)
        return loaded

    monkeypatch.setattr("orpipeline.defs.assets.load_days", load_and_lock)
    world.store(sample_response(DAY))
    result = world.run(DAY)
    assert result.success
    assert checks_of(result)["raw_task_classifications", "no_lost_days"].passed
    for asset in ASSETS:
        assert world.materialized(asset) == {"2026-10-06"}

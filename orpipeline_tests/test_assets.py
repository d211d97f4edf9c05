# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

# Dagster computes staleness for its own pages only.
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orpipeline.capture import Fetch
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.names import asset_key
from orpipeline.defs.partitions import daily_partitions
from orpipeline.errors import WarehouseBusyError
from orpipeline.load import Loaded, load_days
from orpipeline.testing import LocalApi, Reply, fixed_clock, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.responses import DAY, tag
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


def test_a_day_goes_from_the_api_into_archive_tables_and_leaderboard(online: World, api: LocalApi) -> None:
    body = sample_response(DAY)
    api.serve(body)
    result = online.run(DAY, fetch=Fetch.auto)

    assert result.success
    assert len(api.requests) == 1
    (revision,) = online.archive.revisions(DAY)
    assert online.archive.read(revision).body == body
    data = json.loads(body)["data"]
    rows = online.tables()
    assert len(rows["snapshots"]) == 1
    assert {row["tag"] for row in rows["task_classifications"]} == {task["tag"] for task in data["classifications"]}
    assert len(rows["task_models"]) == sum(len(task["models"]) for task in data["classifications"])
    assert len(rows["macro_categories"]) == 4
    assert {row["scope"] for row in rows["model_leaderboard"]} == {"all", "code", "data", "agent", "general"}
    for asset in ASSETS:
        assert online.materialized(asset) == {"2026-10-06"}
    assert all(check.passed for check in checks_of(result).values())


def test_the_snapshot_row_traces_every_figure_to_its_bytes(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY))
    online.run(DAY, fetch=Fetch.auto)
    (revision,) = online.archive.revisions(DAY)
    assert online.tables()["snapshots"] == [
        {
            "as_of": DAY,
            "window_days": 7,
            "revision": 1,
            "sha256": sha256(sample_response(DAY)).hexdigest(),
            "bytes": len(sample_response(DAY)),
            "fetched_at": revision.fetched_at,
            "origin": "api",
            "source": f"{api.base_url}/classifications/task?window=7d",
            "classification_count": 29,
            "citation": "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0.",
        }
    ]


def test_auto_calls_the_api_once_and_then_uses_the_archive(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY))
    assert online.run(DAY, fetch=Fetch.auto).success
    assert online.run(DAY, fetch=Fetch.auto).success
    assert len(api.requests) == 1


def test_always_picks_up_a_restated_day_as_the_next_revision(online: World, api: LocalApi) -> None:
    restated = sample_response(DAY, change=lambda data: tag(data, "math").update(display_name="Mathematics"))
    api.serve(sample_response(DAY), sample_response(DAY), restated)
    for revision in (1, 1, 2):
        assert online.run(DAY, fetch=Fetch.always).success
        assert online.tables()["snapshots"][0]["revision"] == revision
    names = {row["tag"]: row["display_name"] for row in online.tables()["task_classifications"]}
    assert names["math"] == "Mathematics"
    assert len(online.tables()["task_classifications"]) == 29


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


def test_a_wrong_key_is_named_but_not_shown(online: World, api: LocalApi) -> None:
    api.serve(Reply(json.dumps({"error": {"code": 401, "message": f"no user {KEY}"}}).encode(), 401))
    result = online.run(DAY, fetch=Fetch.auto)
    failure = failure_of(result)
    assert "does not accept the key" in str(failure.description)
    events = online.instance.all_logs(result.run_id)
    assert events
    assert all(KEY not in str(event) for event in events)


def test_a_429_ends_the_run_with_the_time_of_the_next_request(online: World, api: LocalApi) -> None:
    api.serve(Reply(b'{"error": {"code": 429, "message": "slow down"}}', 429, {"Retry-After": "120"}))
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert "12:02:0" in str(failure.description)
    assert "next_attempt" in failure.metadata
    assert len(api.requests) == 1


def test_html_instead_of_json_is_archived_as_undated(online: World, api: LocalApi) -> None:
    api.serve(b"<html>Just a moment...</html>")
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert "not a JSON object" in str(failure.description)
    (revision,) = online.archive.all()
    assert revision.as_of is None
    assert str(revision.path) in str(failure.description)


def test_a_range_is_one_run_and_materializes_every_day_in_every_asset(world: World) -> None:
    for day in WEEK:
        world.store(sample_response(day))
    result = world.run(*WEEK)
    assert result.success
    for asset in ASSETS:
        assert world.materialized(asset) == {day.isoformat() for day in WEEK}
    assert len(world.tables()["snapshots"]) == 7
    event = world.instance.get_latest_materialization_event(asset_key("task_models"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["models"].value


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


@pytest.mark.slow
def test_dagsters_own_command_loads_a_range_with_a_hole_and_no_key(world: World, tmp_path: Path) -> None:
    now = datetime.now(UTC)  # the command's clock is the machine's
    days = [newest_completed_day(now) - timedelta(days=n) for n in range(3, -1, -1)]
    with fixed_clock(now):
        for day in (days[0], days[2]):
            world.store(sample_response(day))
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("dagster")), "asset", "materialize", "-m", "orpipeline.definitions"),
            *("--select", " or ".join(f'key:"openrouter/{asset}"' for asset in ASSETS)),
            *("--partition-range", f"{days[0]}...{days[-1]}"),
        ],
        env={**os.environ, "DAGSTER_HOME": str(home), "ORPIPELINE_DATA_DIR": str(world.folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for asset in ASSETS:
            made = instance.get_materialized_partitions(dg.AssetKey(["openrouter", asset]))
            assert made == {str(days[0]), str(days[2])}, asset
        (run,) = instance.get_runs()
        (ended,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    message = str(ended.event_log_entry.dagster_event)
    assert f"2 of 4 days failed; the others are loaded. Not archived: {days[1]}. " in message
    assert f"Not fetched: {days[-1]}. OPENROUTER_API_KEY is not set" in message


def test_every_day_has_the_data_version_of_its_own_bytes_in_a_range_and_alone(world: World) -> None:
    for day in WEEK:
        world.store(sample_response(day))
    assert world.run(*WEEK).success
    assert world.run(DAY).success
    for key in NAMES.daily_assets:
        tags = world.instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=["dagster/data_version"]
        )
        versions = {partition: tag["dagster/data_version"] for partition, tag in tags.items()}
        assert versions == {day.isoformat(): sha256(sample_response(day)).hexdigest() for day in WEEK}


def test_loading_a_day_of_a_range_again_with_the_same_bytes_makes_nothing_downstream_stale(world: World) -> None:
    for day in WEEK:
        world.store(sample_response(day))
    assert world.run(*WEEK, extra=MINE).success
    assert world.run(WEEK[2]).success
    graph = dg.Definitions.merge(world.defs, MINE).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    for key in (*NAMES.daily_assets, listed_models.key):
        for day in WEEK:
            assert resolver.get_stale_causes(key, day.isoformat()) == [], (key, day)
            assert resolver.get_status(key, day.isoformat()) is StaleStatus.FRESH


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


def test_a_damaged_archive_file_is_named_and_the_tables_are_unchanged(world: World) -> None:
    revision = world.store(sample_response(DAY)).revision
    world.run(DAY)
    before = world.tables()
    local(revision.path).write_bytes(b"rubbish")
    failure = failure_of(world.run(DAY))
    assert str(revision.path) in str(failure.description)
    assert "damaged" in str(failure.description)
    assert world.tables() == before


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


def test_the_raw_response_alone_needs_no_warehouse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store(sample_response(DAY))
    world.make_tables(DAY)
    _lock(monkeypatch)
    assert world.run(DAY, selection=["raw_task_classifications"]).success
    assert world.materialized("raw_task_classifications") == {"2026-10-06"}


def test_made_up_responses_are_cited_as_demo_data(world: World) -> None:
    world.store(sample_response(DAY), origin="demo")
    world.run(DAY)
    (row,) = world.tables()["snapshots"]
    assert row["origin"] == "demo"
    assert "made up" in row["citation"]
    assert "Source: OpenRouter" not in row["citation"]


def test_a_users_asset_reads_and_writes_tables_through_the_io_manager(world: World) -> None:
    for day in WEEK:
        world.store(sample_response(day))
    assert world.run(WEEK[0], extra=MINE).success
    assert world.run(*WEEK, extra=MINE).success
    with world.warehouse.connect(read_only=True) as connection:
        rows: list[Any] = connection.execute("SELECT as_of FROM mine.listed_models ORDER BY 1").fetchall()
    assert [day for (day,) in rows] == WEEK

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.capture import Fetch
from orpipeline.defs.backoff import Memory
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, World, local, queued_run

pytestmark = [pytest.mark.promise, pytest.mark.usefixtures("clock")]
FINGERPRINT = hashlib.blake2b(KEY.encode(), digest_size=4).hexdigest()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that shows noon until a test moves it."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def reason(result: dg.SensorResult) -> str:
    """Return why a tick was skipped: one short sentence, which the UI shows whole."""
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    message = str(result.skip_reason.skip_message)
    assert len(message) <= 150
    assert "\n" not in message
    return message


def test_without_a_key_it_skips_and_tells_what_to_do(world: World) -> None:
    assert "OPENROUTER_API_KEY is not set" in reason(world.tick())


def test_a_missing_day_is_one_run_however_often_a_tick_is_evaluated(online: World) -> None:
    (request,) = online.tick().run_requests or []
    (again,) = online.tick().run_requests or []
    assert request.partition_key == "2026-10-06"
    assert again.run_key == request.run_key


def test_a_materialized_day_needs_no_run(online: World) -> None:
    online.store(sample_response(DAY))
    assert online.run(DAY).success
    assert "2026-10-06 is materialized; it is fetched once more at 21:40 UTC" in reason(online.tick())


def test_a_materialized_day_whose_archived_response_is_damaged_is_fetched_again(online: World, api: LocalApi) -> None:
    damaged = online.store(sample_response(DAY)).revision
    assert online.run(DAY).success
    local(damaged.path).write_bytes(b"damaged")
    (request,) = online.tick().run_requests or []
    api.serve(sample_response(DAY))
    assert online.execute(request).success
    (revision,) = online.archive.revisions(DAY)
    assert online.archive.read(revision).body == sample_response(DAY)
    assert "2026-10-06 is materialized" in reason(online.tick())


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_it_waits_for_an_active_run(online: World, status: dg.DagsterRunStatus) -> None:
    _start_run(online, status)
    assert "Run 12345678 is already processing 2026-10-06" in reason(online.tick())


def _start_run(world: World, status: dg.DagsterRunStatus) -> str:
    """Add a run with one event that is recorded now, and return its id."""
    run = dg.DagsterRun(
        "daily_snapshot",
        run_id="12345678-0000-4000-8000-000000000000",
        status=status,
        tags={"dagster/partition": "2026-10-06"},
    )
    world.instance.add_run(run)
    world.instance.report_engine_event("Started.", run)
    return run.run_id


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_it_gives_up_on_a_run_that_is_silent_for_half_an_hour(
    online: World, clock: time_machine.Traveller, status: dg.DagsterRunStatus
) -> None:
    run_id = _start_run(online, status)
    clock.move_to(NOON + timedelta(minutes=29))
    online.tick()
    assert _status(online, run_id) is status
    clock.move_to(NOON + timedelta(minutes=31))
    assert online.tick().run_requests
    assert _status(online, run_id) is dg.DagsterRunStatus.FAILURE


def test_a_silent_run_that_also_has_assets_of_yours_is_left_alone_and_does_not_block_the_day(
    online: World, clock: time_machine.Traveller
) -> None:
    run = dg.DagsterRun(
        "__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "2026-10-06"},
        asset_selection=frozenset({*NAMES.daily_assets, dg.AssetKey("training")}),
    )
    online.instance.add_run(run)
    online.instance.report_engine_event("Started.", run)
    assert "is already processing" in reason(online.tick())
    clock.move_to(NOON + timedelta(minutes=31))
    assert online.tick().run_requests
    assert _status(online, run.run_id) is dg.DagsterRunStatus.STARTED


def test_a_queued_run_may_wait_for_any_time(online: World, clock: time_machine.Traveller) -> None:
    online.instance.add_run(queued_run("daily_snapshot", **{"dagster/partition": "2026-10-06"}))
    clock.move_to(NOON + timedelta(hours=5))
    assert "is already processing" in reason(online.tick())


def test_runs_that_end_without_an_outcome_are_retried_at_growing_intervals(
    online: World, clock: time_machine.Traveller
) -> None:
    cursor = online.tick().cursor  # the run that it requests is killed before it records anything
    for attempt, minutes in ((1, 1), (2, 2), (3, 5)):
        words = reason(online.tick(cursor))
        assert words.startswith(f"A killed run x {attempt}, next attempt")
        cursor = online.tick(cursor).cursor
        clock.shift(timedelta(minutes=minutes))
        again = online.tick(cursor)
        assert again.run_requests
        cursor = again.cursor


def test_a_killed_run_from_a_time_when_the_clock_was_ahead_is_given_up(
    online: World, clock: time_machine.Traveller
) -> None:
    clock.move_to(NOON + timedelta(days=400))
    run_id = _start_run(online, dg.DagsterRunStatus.STARTED)
    clock.move_to(NOON)
    online.tick()
    assert _status(online, run_id) is dg.DagsterRunStatus.FAILURE


def _status(world: World, run_id: str) -> dg.DagsterRunStatus:
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_after_a_429_it_shows_the_time_and_starts_no_run_before_it(
    online: World, api: LocalApi, clock: time_machine.Traveller
) -> None:
    api.serve(Reply(b'{"error": {"code": 429}}', 429, {"Retry-After": "600"}))
    assert online.run(DAY, fetch=Fetch.auto, automated=True).success
    assert online.materialized("model_leaderboard") == set()
    cursor = online.tick().cursor
    assert reason(online.tick(cursor)).startswith("429 x 1, next attempt 12:10:00 UTC")
    clock.move_to(NOON + timedelta(seconds=599))
    reason(online.tick(cursor))
    clock.move_to(NOON + timedelta(seconds=601))
    assert online.tick(cursor).run_requests


def test_a_rejected_key_is_retried_hourly_and_at_once_after_it_changes(
    online: World, api: LocalApi, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.serve(Reply(b'{"error": {"code": 401, "message": "no"}}', 401))
    online.run(DAY, fetch=Fetch.auto)
    cursor = online.tick().cursor
    clock.move_to(NOON + timedelta(minutes=59))
    assert "retried hourly, next attempt 13:00:00 UTC" in reason(online.tick(cursor))
    assert cursor is not None
    assert KEY not in cursor
    clock.move_to(NOON + timedelta(minutes=61))
    assert online.tick(cursor).run_requests
    clock.move_to(NOON + timedelta(minutes=1))
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-another")
    assert online.tick(cursor).run_requests


def test_a_rejected_day_waits_for_the_recapture_and_is_then_fetched_anyway(
    online: World, api: LocalApi, clock: time_machine.Traveller
) -> None:
    api.serve(sample_response(DAY, change=lambda data: data.update(window_days=1)))
    online.run(DAY, fetch=Fetch.auto)
    cursor = online.tick().cursor
    clock.move_to(NOON + timedelta(hours=8))
    assert "21:40 UTC" in reason(online.tick(cursor))
    clock.move_to(NOON + timedelta(hours=10))
    (request,) = online.tick(cursor).run_requests or []
    assert request.run_config["ops"]["openrouter_snapshot"]["config"]["fetch"] == "always"


def test_it_waits_for_the_request_budget(online: World) -> None:
    for _ in range(30):
        online.budget.spend()
    assert reason(online.tick()).startswith("Request budget spent, next attempt 12:01:00 UTC")


def test_while_the_request_budget_cannot_be_used_it_skips(online: World) -> None:
    Path(online.budget.place).mkdir(parents=True)
    assert reason(online.tick()).startswith("2026-10-06 waits: the request budget cannot be used")


@pytest.mark.parametrize("garbled", ["{", '{"day": 1}', '{"day": "2026-10-05", "requested_at": "soon"}', "[" * 9999])
def test_an_unreadable_cursor_is_ignored(online: World, garbled: str) -> None:
    result = online.tick(garbled)
    assert result.run_requests
    words, state = str(result.cursor).splitlines()
    assert words.startswith("attempt 1; 12 h 00 min left to fetch 2026-10-06")
    assert json.loads(state)["day"] == "2026-10-06"


def test_the_cursor_of_another_day_does_not_matter(online: World) -> None:
    old = Memory("2026-10-05", requested_at=NOON.timestamp(), key=FINGERPRINT)
    assert online.tick(old.as_cursor("Yesterday.")).run_requests


def test_a_tick_sends_no_request(online: World, api: LocalApi) -> None:
    assert online.tick().run_requests
    assert api.requests == []

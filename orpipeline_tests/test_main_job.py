"""The main job, end to end: a day from the API into archive, tables and leaderboard, and what goes wrong on the way.

One pipeline is built for all tests. The first day is fetched over HTTP, then restated. Another is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import dagster as dg
import pytest

import orpipeline
from orpipeline.capture import Fetch
from orpipeline.testing import LocalApi, Reply, fixed_clock, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import run_command
from orpipeline_tests.responses import DAY, tag
from orpipeline_tests.world import ASSETS, NAMES, NOON, World, checks_of, failure_of

BODY = sample_response(DAY)
RESTATED = sample_response(DAY, change=lambda data: tag(data, "math").update(display_name="Mathematics"))
BEFORE = DAY - timedelta(days=1)
NOT_7_DAYS = sample_response(BEFORE, change=lambda data: data.update(window_days=30))
RATE_LIMITED = Reply(b'{"error": {"code": 429, "message": "slow down"}}', 429, {"Retry-After": "120"})
WRONG_KEY = Reply(json.dumps({"error": {"code": 401, "message": f"no user {KEY}"}}).encode(), 401)


@dataclass
class Job:
    """What happened: the ticks and runs in their order, and how many requests the API had received after each run."""

    world: World
    ticks: list[dg.SensorResult]
    runs: list[dg.ExecuteInProcessResult]
    requests: list[int]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("main-job") / "data"
    with pytest.MonkeyPatch.context() as environment, LocalApi() as api, World(folder, api=api) as world:
        environment.setenv("ORPIPELINE_DATA_DIR", str(folder))
        environment.setenv("OPENROUTER_API_KEY", KEY)
        api.serve(RATE_LIMITED, BODY, BODY, RESTATED, WRONG_KEY)
        done = Job(world, [], [], [])

        def run(result: dg.ExecuteInProcessResult) -> None:
            done.runs.append(result)
            done.requests.append(len(api.requests))

        def tick() -> dg.SensorResult:
            done.ticks.append(world.tick(done.ticks[-1].cursor if done.ticks else None))
            return done.ticks[-1]

        def first_request() -> dg.RunRequest:
            requests = tick().run_requests
            assert requests
            return requests[0]

        with fixed_clock(NOON, ticking=True):
            run(world.execute(first_request()))  # 429
            tick()
        with fixed_clock(NOON + timedelta(minutes=10), ticking=True):
            run(world.execute(first_request()))  # the day
            run(world.run(DAY, fetch=Fetch.auto))  # is in the archive
            run(world.run(DAY, fetch=Fetch.always))  # the same bytes
            world.store(NOT_7_DAYS, origin="import")
            run(world.run(BEFORE))  # rejected
        with fixed_clock(NOON + timedelta(minutes=20), ticking=True):
            run(world.run(DAY, fetch=Fetch.always))  # restated
            run(world.run(DAY, fetch=Fetch.always))  # the key is not accepted any more
        yield done


def test_the_sensor_waits_after_a_429_and_gets_the_day_at_the_next_attempt(job: Job) -> None:
    _, waiting, _ = job.ticks
    assert job.runs[0].success  # automation started it, and the 429 passes by itself
    assert not job.runs[0].get_asset_materialization_events()
    assert not waiting.run_requests
    assert "12:02:0" in str(waiting.skip_reason)
    assert job.runs[1].success
    assert job.requests[:2] == [1, 2]


def test_a_day_is_archived_byte_for_byte_and_fetched_once(job: Job) -> None:
    assert job.requests == [1, 2, 2, 3, 3, 4, 5]
    revisions = job.world.archive.revisions(DAY)
    assert [job.world.archive.read(one).body for one in revisions] == [BODY, RESTATED]


def test_every_asset_is_materialized_and_every_check_passes(job: Job) -> None:
    for asset in ASSETS:
        days = {BEFORE.isoformat()} if asset == NAMES.raw.path[-1] else set()
        assert job.world.materialized(asset) == {DAY.isoformat()} | days
    assert all(check.passed for check in checks_of(job.runs[2]).values())


def test_the_tables_have_the_restated_day_and_trace_it_to_its_bytes(job: Job) -> None:
    data, rows = json.loads(RESTATED)["data"], job.world.tables()
    names = {row["tag"]: row["display_name"] for row in rows["task_classifications"]}
    assert names == {task["tag"]: task["display_name"] for task in data["classifications"]}
    assert names["math"] == "Mathematics"
    assert len(rows["task_models"]) == sum(len(task["models"]) for task in data["classifications"])
    assert len(rows["macro_categories"]) == 4
    assert {row["scope"] for row in rows["model_leaderboard"]} == {"all", "code", "data", "agent", "general"}
    revision = job.world.archive.latest(DAY)
    assert revision is not None
    assert rows["snapshots"] == [
        {
            "as_of": DAY,
            "window_days": 7,
            "revision": 2,
            "sha256": sha256(RESTATED).hexdigest(),
            "bytes": len(RESTATED),
            "fetched_at": revision.fetched_at,
            "origin": "api",
            "source": f"{job.world.api.base_url}/classifications/task?window=7d",
            "classification_count": 29,
            "citation": f"Source: OpenRouter (openrouter.ai/rankings), as of {DAY}. Licensed under CC BY 4.0.",
        }
    ]


def test_a_rejected_day_is_archived_named_and_in_no_table(job: Job) -> None:
    failure = failure_of(job.runs[4])
    for part in ("window_is_7_days", BEFORE.isoformat(), str(job.world.archive.revisions(BEFORE)[0].path)):
        assert part in str(failure.description)
    assert {row["as_of"] for rows in job.world.tables().values() for row in rows} == {DAY}


def test_a_key_that_the_api_does_not_accept_is_named_and_not_shown(job: Job) -> None:
    assert "does not accept the key" in str(failure_of(job.runs[-1]).description)
    events = job.world.instance.all_logs(job.runs[-1].run_id)
    assert events
    assert all(KEY not in str(event) for event in events)


def test_read_and_a_command_show_the_published_copy(job: Job, tmp_path: Path) -> None:
    board = orpipeline.read("model_leaderboard", scope="all", settings=job.world.settings)
    assert board.height == len(
        {m["id"] for task in json.loads(BODY)["data"]["classifications"] for m in task["models"]}
    )
    environment = {"ORPIPELINE_DATA_DIR": str(job.world.folder)}
    done = run_command("leaderboard", "--format", "csv", "--top", "3", folder=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    shown = [line.split(",") for line in done.stdout.splitlines()]
    assert all(model in done.stdout for model in board.sort("usage_rank")["model_id"].head(3))
    assert len(shown) >= 4

"""A month with an API that fails a fifth of the time, on a clock that the test moves: no day is lost."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import dagster as dg
import pytest
import time_machine

from orpipeline.clock import newest_completed_day
from orpipeline.contracts.tables import TABLES
from orpipeline_tests.answers import answer
from orpipeline_tests.scripted_api import Reply, ScriptedApi
from orpipeline_tests.test_client import RESET
from orpipeline_tests.world import ASSETS, World, evaluate

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
FAILING = 0.2
FAILURES = (
    *("429 Retry-After", "429 date", "429 X-RateLimit-Reset", "429 in metadata", "429 under 200"),
    *("500", "502", "503", "reset", "reset"),
)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
TICK = timedelta(seconds=30)
"""The sensor's interval."""
SCHEDULES = {
    "daily_snapshot_schedule": timedelta(minutes=20),
    "recapture_schedule": timedelta(hours=21, minutes=40),
}
"""When the schedules run, after midnight UTC."""


@dataclass
class Unreliable:
    """OpenRouter on the simulated clock: a fifth of its answers are failures, and on some days it publishes late."""

    seed: int
    requests: list[tuple[datetime, str]] = field(default_factory=list)
    """When each request came, and the kind of its answer."""
    closed_until: datetime = START
    """The end of the cool-down that the last 429 announced."""
    too_early: list[datetime] = field(default_factory=list)
    """Requests during a cool-down."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.kinds: list[str] = []
        # After midnight, it serves the day before for up to 15 minutes.
        self.late = {
            (START + n * DAY).date(): timedelta(minutes=self.random.choice([0, 0, 0, 3, 15])) for n in range(DAYS + 1)
        }
        # It restates some days at noon.
        self.restated = {(START + (n - 1) * DAY).date() for n in range(DAYS) if self.random.random() < 0.2}

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        now = datetime.now(UTC)
        if now < self.closed_until:
            self.too_early.append(now)
        kind, reply = self._failure(now) if self.random.random() < FAILING else self._answer(now)
        self.requests.append((now, kind))
        if reply.act is not None:
            reply.act(handler)
            return
        handler.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body)

    def _answer(self, now: datetime) -> tuple[str, Reply]:
        day = newest_completed_day(now)
        if now - datetime.combine(now.date(), time(), UTC) < self.late[now.date()]:
            return "stale", Reply(restated(day - DAY) if day - DAY in self.restated else answer(day - DAY))
        if day in self.restated and now.hour >= 12:
            return "restated", Reply(restated(day))
        return "answer", Reply(answer(day))

    def _failure(self, now: datetime) -> tuple[str, Reply]:
        self.kinds = self.kinds or self.random.sample(FAILURES, len(FAILURES))  # every kind, in random order
        kind = self.kinds.pop()
        if not kind.startswith("429"):
            return kind, RESET if kind == "reset" else Reply(b"<html>failed</html>", int(kind))
        # The client would sleep through a cool-down of up to a minute, in real time.
        seconds = self.random.randint(61, 1800)
        self.closed_until = until = now.replace(microsecond=0) + timedelta(seconds=seconds)
        reset = {"X-RateLimit-Reset": str(round(until.timestamp() * 1000))}
        headers = {
            "429 Retry-After": {"Retry-After": str(seconds)},
            "429 date": {"Retry-After": format_datetime(until, usegmt=True)},
            "429 X-RateLimit-Reset": reset,
        }
        error = {
            "code": 429,
            "message": "Rate limit exceeded",
            "metadata": {} if kind in headers else {"headers": reset},
        }
        body = json.dumps({"error": error}).encode()
        return kind, Reply(body, 200 if kind == "429 under 200" else 429, headers.get(kind, {}))


def restated(day: date) -> bytes:
    return answer(day, lambda data: data["classifications"][0].update(display_name="Restated"))


@dataclass
class Daemon:
    """What Dagster's daemon does: it evaluates the sensor and the schedules, and executes each run key once."""

    world: World
    idle: dg.DagsterInstance
    """The instance that schedules read. They only look for active runs, and none is active here, so it is empty: their
    context needs an instance on disk, and running on that one would be slow."""
    cursor: str | None = None
    keys: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)

    def tick(self, now: datetime) -> datetime:
        """Evaluate the sensor, execute its run, and return the next tick at which something can change."""
        result = self.world.tick(self.cursor)
        self.cursor = result.cursor or self.cursor
        for request in result.run_requests or []:
            self.run("sensor", request)
            return now + TICK
        assert isinstance(result.skip_reason, dg.SkipReason)
        reason = str(result.skip_reason.skip_message)
        if "is materialized" in reason:
            return datetime.combine(now.date() + DAY, time(), UTC)
        stated = re.search(r"(\d\d):(\d\d):(\d\d) UTC", reason)
        assert stated, reason
        hour, minute, second = map(int, stated.groups())
        at = datetime.combine(now.date(), time(hour, minute, second), UTC)
        ticks = -((now - (at if at > now - TICK else at + DAY)) // TICK)
        return now + max(ticks, 1) * TICK

    def evaluate(self, schedule: str, now: datetime) -> None:
        """Evaluate a schedule, and execute its run."""
        request = evaluate(schedule, now, self.idle)
        if isinstance(request, dg.RunRequest):
            self.run(schedule, request)

    def run(self, source: str, request: dg.RunRequest) -> None:
        assert request.run_key
        if request.run_key in self.keys:
            return
        self.keys.add(request.run_key)
        result = self.world.execute(request)
        self.runs[f"{source}, {'success' if result.success else 'failure'}"] += 1


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


def most_within(window: timedelta, moments: Sequence[datetime]) -> int:
    """Return the largest number of moments in any window."""
    return max(sum(1 for at in moments if start <= at <= start + window) for start in moments)


@pytest.mark.slow
def test_no_day_is_lost_in_a_month_with_a_fifth_of_the_requests_failing(
    online: World, api: ScriptedApi, clock: time_machine.Traveller, tmp_path: Path
) -> None:
    begun = perf_counter()
    openrouter = Unreliable(seed=20261001)
    api.answers(Reply(act=openrouter.reply))
    (tmp_path / "idle").mkdir()
    daemon = Daemon(online, dg.DagsterInstance.local_temp(str(tmp_path / "idle")))
    scheduled = [(START + n * DAY + at, name) for n in range(DAYS) for name, at in SCHEDULES.items()]
    loaded_after: dict[str, timedelta] = {}
    next_tick, ticks, end = START + timedelta(seconds=7), 0, START + DAYS * DAY
    while min(next_tick, scheduled[0][0] if scheduled else end) < end:
        if scheduled and scheduled[0][0] <= next_tick:
            now, schedule = scheduled.pop(0)
            clock.move_to(now)
            daemon.evaluate(schedule, now)
            # Its run may have changed the sensor's next tick.
            next_tick = min(next_tick, now + TICK)
        else:
            now, ticks = next_tick, ticks + 1
            clock.move_to(now)
            next_tick = daemon.tick(now)
        for day in daemon.world.materialized("model_leaderboard") - set(loaded_after):
            loaded_after[day] = now - datetime.combine(date.fromisoformat(day) + DAY, time(), UTC)

    moments = [at for at, _ in openrouter.requests]
    kinds = Counter(kind for _, kind in openrouter.requests)
    answered = {"answer", "restated", "stale"}
    failed = sum(count for kind, count in kinds.items() if kind not in answered)
    print(
        f"\n{DAYS} days: {len(moments)} requests, {failed} failed ({failed / len(moments):.0%}), "
        f"{kinds['stale']} stale\n  by kind: {dict(kinds.most_common())}"
        f"\n  runs: {sum(daemon.runs.values())}, {dict(daemon.runs.most_common())}; {ticks} ticks evaluated"
        f"\n  at most {most_within(MINUTE, moments)} requests in 60 s, {most_within(DAY, moments)} in 24 h"
        f"\n  longest time from midnight to the day's tables: {max(loaded_after.values())}"
        f"\n  longest time between two requests: {max(b - a for a, b in pairwise(moments))}"
        f"\n  duration: {perf_counter() - begun:.0f} s"
    )

    days = [(START + (n - 1) * DAY).date() for n in range(DAYS)]
    expected = {day.isoformat() for day in days}
    for asset in ASSETS:
        assert daemon.world.materialized(asset) == expected
    archive = daemon.world.archive
    assert set(days) <= set(archive.days()) <= {*days, days[0] - DAY}  # the stale answer of the first midnight
    tables = daemon.world.tables()
    for name in TABLES:
        assert {row["as_of"] for row in tables[name]} == set(days)
    assert len(tables["snapshots"]) == DAYS
    for row in tables["snapshots"]:
        # A restatement that arrives as a stale answer after the next midnight is archived, but starts no run.
        gone_at = datetime.combine(row["as_of"] + 2 * DAY, time(), UTC)
        bodies = [archive.read(record) for record in archive.revisions(row["as_of"]) if record.fetched_at < gone_at]
        assert bodies[0] == answer(row["as_of"])
        assert bodies[1:] in ([], [restated(row["as_of"])])
        assert row["revision"] == len(bodies)

    assert openrouter.too_early == []
    assert most_within(MINUTE, moments) <= 30
    assert most_within(DAY, moments) <= 500
    assert failed / len(moments) == pytest.approx(FAILING, abs=0.08)
    assert {kind for kind in kinds if kind not in answered} == set(FAILURES)

"""A month with an API that fails a fifth of the time, on a clock that the test moves, and a usual month."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import time_machine

from orpipeline.archive import Content
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.tables import TABLES
from orpipeline.openrouter import client
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline_tests.servers import Webhook
from orpipeline_tests.test_alerts import Alerts
from orpipeline_tests.test_client import RESET
from orpipeline_tests.world import ASSETS, World, days_of, evaluate, outcome_of

pytestmark = pytest.mark.promise

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
FAILING = 0.2
FAILURES = (
    *("429 Retry-After", "429 date", "429 X-RateLimit-Reset", "429 in metadata", "429 under 200"),
    *("503 Retry-After", "500", "502", "503", "reset", "reset"),
)
DAMAGED = b"damaged" * 1000
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
    """OpenRouter on the simulated clock: a fifth of its responses are failures, and on some days it publishes late."""

    seed: int
    requests: list[tuple[datetime, str]] = field(default_factory=list)
    """When each request came, and the kind of its response."""
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
        kind, reply = self._failure(now) if self.random.random() < FAILING else self._response(now)
        self.requests.append((now, kind))
        if reply.act is not None:
            reply.act(handler)
            return
        handler.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply.body)

    def _response(self, now: datetime) -> tuple[str, Reply]:
        day = newest_completed_day(now)
        if now - datetime.combine(now.date(), time(), UTC) < self.late[now.date()]:
            return "stale", Reply(restated(day - DAY) if day - DAY in self.restated else sample_response(day - DAY))
        if day in self.restated and now.hour >= 12:
            return "restated", Reply(restated(day))
        return "response", Reply(sample_response(day))

    def _failure(self, now: datetime) -> tuple[str, Reply]:
        self.kinds = self.kinds or self.random.sample(FAILURES, len(FAILURES))  # every kind, in random order
        kind = self.kinds.pop()
        if not kind.startswith(("429", "503 ")):
            return kind, RESET if kind == "reset" else Reply(b"<html>failed</html>", int(kind))
        # The client would sleep through a cool-down of up to a minute, in real time.
        seconds = self.random.randint(61, 1800)
        self.closed_until = until = now.replace(microsecond=0) + timedelta(seconds=seconds)
        reset = {"X-RateLimit-Reset": str(round(until.timestamp() * 1000))}
        headers = {
            "429 Retry-After": {"Retry-After": str(seconds)},
            "503 Retry-After": {"Retry-After": str(seconds)},
            "429 date": {"Retry-After": format_datetime(until, usegmt=True)},
            "429 X-RateLimit-Reset": reset,
        }
        error = {
            "code": int(kind[:3]),
            "message": "Rate limit exceeded",
            "metadata": {} if kind in headers else {"headers": reset},
        }
        body = json.dumps({"error": error}).encode()
        return kind, Reply(body, 200 if kind == "429 under 200" else int(kind[:3]), headers.get(kind, {}))


def restated(day: date) -> bytes:
    return sample_response(day, change=lambda data: data["classifications"][0].update(display_name="Restated"))


@dataclass
class Daemon:
    """What Dagster's daemon does: it evaluates the sensor and the schedules, and executes each run key once."""

    world: World
    idle: dg.DagsterInstance
    """The instance that schedules read. They only look for active runs, and none is active here, so it is empty: their
    context needs an instance on disk, and running on that one would be slow."""
    broken: bool = False
    """Whether Dagster's state is damaged: then the daemon does nothing."""
    next_tick: datetime = START + timedelta(seconds=7)
    cursor: str | None = None
    keys: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    runs_on: Counter[date] = field(default_factory=Counter)
    loaded_after: dict[str, timedelta] = field(default_factory=dict)
    """How long after its end each day was in the tables."""

    def tick(self, now: datetime) -> datetime:
        """Evaluate the sensor, execute its run, and return the next tick at which something can change."""
        if self.broken:
            return now + DAY
        result = self.world.tick(self.cursor)
        self.cursor = result.cursor or self.cursor
        for request in result.run_requests or []:
            self.run("sensor", request)
        if result.run_requests:
            return now + TICK
        assert isinstance(result.skip_reason, dg.SkipReason)
        reason = str(result.skip_reason.skip_message)
        stated = re.findall(r"(\d\d):(\d\d)(?::(\d\d))? UTC", reason)
        assert stated, reason
        hour, minute, second = (int(part or 0) for part in stated[-1])
        at = datetime.combine(now.date(), time(hour, minute, second), UTC)
        ticks = -((now - (at if at > now - TICK else at + DAY)) // TICK)
        return now + max(ticks, 1) * TICK

    def evaluate(self, schedule: str, now: datetime) -> None:
        """Evaluate a schedule, and execute its run."""
        if self.broken:
            return
        request = evaluate(schedule, now, self.idle)
        if isinstance(request, dg.RunRequest):
            self.run(schedule, request)

    def run(self, source: str, request: dg.RunRequest) -> None:
        assert request.run_key
        if request.run_key in self.keys:
            return
        self.keys.add(request.run_key)
        result = self.world.execute(request)
        day = date.fromisoformat(request.partition_key or "")
        kind = "success" if result.success else f"failure: {outcome_of(self.world, day).error}"
        self.runs[f"{source}, {kind}"] += 1
        self.runs_on[datetime.now(UTC).date()] += 1
        self.note_days(datetime.now(UTC))

    def note_days(self, now: datetime) -> None:
        """Note when each day was loaded."""
        for day in self.world.materialized("model_leaderboard") - set(self.loaded_after):
            self.loaded_after[day] = now - datetime.combine(date.fromisoformat(day) + DAY, time(), UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[time_machine.Traveller]:
    # A run's own waits between its tries would be in real time.
    monkeypatch.setattr(client, "wait_exponential_jitter", lambda **_: lambda _: 0.0)
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


def most_within(window: timedelta, moments: Sequence[datetime]) -> int:
    """Return the largest number of moments in any window."""
    return max(sum(1 for at in moments if start <= at <= start + window) for start in moments)


Event = tuple[datetime, Callable[[datetime], object]]


def live(clock: time_machine.Traveller, daemons: Sequence[Daemon], events: Iterable[Event]) -> None:
    """Move the clock through the month: evaluate each daemon's sensor and schedules, and call the events."""
    scheduled = [(START + n * DAY + at, name) for n in range(DAYS) for name, at in SCHEDULES.items()]
    evaluations = [(at, partial(daemon.evaluate, schedule)) for at, schedule in scheduled for daemon in daemons]
    queue: list[Event] = sorted([*evaluations, *events], key=lambda event: event[0])
    end = START + DAYS * DAY
    while True:
        daemon = min(daemons, key=lambda daemon: daemon.next_tick)
        now = min(daemon.next_tick, queue[0][0] if queue else end)
        if now >= end:
            return
        clock.move_to(now)
        if queue and queue[0][0] == now:
            queue.pop(0)[1](now)
            for other in daemons:  # the event may have changed the sensor's next tick
                other.next_tick = min(other.next_tick, now + TICK)
        else:
            daemon.next_tick = daemon.tick(now)


def assert_no_day_is_lost(world: World) -> None:
    archive = world.archive
    days = archive.days()
    month = {(START + (n - 1) * DAY).date() for n in range(DAYS)}
    assert month <= set(days) <= {*month, min(month) - DAY}  # the stale response of the first midnight
    for asset in ASSETS:
        assert world.materialized(asset) == {day.isoformat() for day in days}
    assert all(isinstance(content, Content) for content in archive.read_all(archive.all()))
    tables = world.tables()
    for name in TABLES:
        assert {row["as_of"] for row in tables[name]} == set(days)
    assert len(tables["snapshots"]) == len(days)
    for row in tables["snapshots"]:
        # A restatement can arrive as a stale response after the next midnight. Only if its run failed is it loaded.
        gone_at = datetime.combine(row["as_of"] + 2 * DAY, time(), UTC)
        revisions = archive.revisions(row["as_of"])
        bodies = [archive.read(one).body for one in revisions if one.fetched_at and one.fetched_at < gone_at]
        assert bodies[0] == sample_response(row["as_of"])
        assert bodies[1:] in ([], [restated(row["as_of"])])
        in_time, newest = (sha256(body).hexdigest() for body in (bodies[-1], archive.read(revisions[-1]).body))
        assert row["sha256"] in (in_time, newest)


def assert_no_request_is_too_early(openrouter: Unreliable) -> None:
    moments = [at for at, _ in openrouter.requests]
    kinds = Counter(kind for _, kind in openrouter.requests)
    good = {"response", "restated", "stale"}
    failed = sum(count for kind, count in kinds.items() if kind not in good)
    print(
        f"\n{DAYS} days: {len(moments)} requests, {failed} failed ({failed / len(moments):.0%}), "
        f"{kinds['stale']} stale\n  by kind: {dict(kinds.most_common())}"
        f"\n  at most {most_within(MINUTE, moments)} requests in 60 s, {most_within(DAY, moments)} in 24 h"
        f"\n  longest time between two requests: {max(b - a for a, b in pairwise(moments))}"
    )
    assert openrouter.too_early == []
    assert most_within(MINUTE, moments) <= 30
    assert most_within(DAY, moments) <= 500
    assert failed / len(moments) == pytest.approx(FAILING, abs=0.08)
    seen = {kind for kind in kinds if kind not in good}
    assert seen <= set(FAILURES)
    assert len(seen) >= len(set(FAILURES)) - 2  # the months are too calm for every kind


@pytest.fixture
def idle(tmp_path: Path) -> dg.DagsterInstance:
    (tmp_path / "idle").mkdir()
    return dg.DagsterInstance.local_temp(str(tmp_path / "idle"))


@pytest.mark.slow
def test_no_day_is_lost_in_a_month_with_a_fifth_of_the_requests_failing(
    online: World, api: LocalApi, clock: time_machine.Traveller, idle: dg.DagsterInstance
) -> None:
    openrouter = Unreliable(seed=20261001)
    api.serve(Reply(act=openrouter.reply))
    daemon = Daemon(online, idle)
    live(clock, [daemon], [])
    print(f"\n{daemon.runs}, longest time from midnight to the day's tables: {max(daemon.loaded_after.values())}")
    assert_no_day_is_lost(online)
    assert_no_request_is_too_early(openrouter)


# A month with what usually happens

RATE_LIMITED, LATE, RESTATED, RECAPTURE_FAILS, SHORT_OUTAGE, EVENING_OUTAGE, REJECTED, LONG_OUTAGE = (
    date(2026, 10, day) for day in (3, 6, 9, 12, 15, 18, 21, 24)
)
"""When, by the date of the fetch."""


def of_the_day(now: datetime) -> Reply:
    """Return what OpenRouter sends at a moment of the usual month."""
    on, at, newest = now.date(), now - datetime.combine(now.date(), time(), UTC), newest_completed_day(now)
    hours = at / timedelta(hours=1)
    if on == RATE_LIMITED and 0 < hours < 1.5:
        return Reply(b'{"error": {"code": 429}}', 429, {"Retry-After": "600"})
    if on == RECAPTURE_FAILS and 21.5 < hours < 22:
        return Reply(b'{"error": {"code": 429}}', 429, {"Retry-After": "1200"})
    if (
        (on == SHORT_OUTAGE and hours < 2.5)
        or (on == EVENING_OUTAGE and 21 < hours < 23)
        or (on == LONG_OUTAGE and hours < 8)
    ):
        return Reply(b"<html>", 503)
    if on == LATE and hours < 1:
        return Reply(sample_response(newest - DAY))
    if on == REJECTED and hours < 18:
        return Reply(sample_response(newest, change=lambda data: data.update(window_days=1)))
    if on in (RESTATED, RECAPTURE_FAILS, EVENING_OUTAGE) and hours > 20:
        return Reply(restated(newest))
    return Reply(sample_response(newest))


@pytest.mark.slow
def test_a_usual_month_is_calm(
    online: World, api: LocalApi, clock: time_machine.Traveller, idle: dg.DagsterInstance, webhook: Webhook
) -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        sent = of_the_day(datetime.now(UTC))
        handler.send_response(sent.status)
        for name, value in {**sent.headers, "Content-Length": str(len(sent.body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(sent.body)

    api.serve(Reply(act=reply))
    daemon, alerts, said = Daemon(online, idle), Alerts(online, webhook.url), Counter[date]()

    def alert(now: datetime) -> None:
        alerts.tick()
        said[now.date()] += len(webhook.texts())

    moments = [timedelta(hours=hour, minutes=1) for hour in (1, 3, 6, 9, 18, 21, 22, 23)]  # its ticks would be slow
    live(clock, [daemon], [(START + n * DAY + moment, alert) for n in range(DAYS) for moment in moments])
    print(f"\n{daemon.runs}\n  by day: {sorted(daemon.runs_on.items())}\n  messages: {said}")
    days = {(START + (n - 1) * DAY).date() for n in range(DAYS)}
    assert set(days_of(online.warehouse)) >= days
    names = online.warehouse.read("task_classifications").filter(display_name="Restated")["as_of"]
    assert set(names) == {day - DAY for day in (RESTATED, RECAPTURE_FAILS, EVENING_OUTAGE)}
    quiet = {(START + n * DAY).date() for n in range(DAYS)} - {
        *(RATE_LIMITED, LATE, RECAPTURE_FAILS, SHORT_OUTAGE, EVENING_OUTAGE, LONG_OUTAGE)
    }
    assert {daemon.runs_on[day] for day in quiet} == {2}
    red = {kind: count for kind, count in daemon.runs.items() if "success" not in kind}
    assert red == {"daily_snapshot_schedule, failure: InvalidSnapshotError": 1}
    assert {day: count for day, count in said.items() if count} == {REJECTED: 2, LONG_OUTAGE: 2}

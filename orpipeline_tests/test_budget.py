"""The request budget with a clock that the test moves, in a real file and in a real Postgres."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline.errors import BudgetSpentError, RateLimitedError, StatusError, StoreError
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.client import Client
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.processes import run_python
from orpipeline_tests.servers import PostgresServer

Place = Path | str
BODY = sample_response("2026-10-06")
NOW = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
NOW_SECOND = NOW.replace(microsecond=0)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


class ScriptedClock:
    """A clock that stops until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "budget.sqlite"


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the places in which a budget can be."""
    if request.param == "file":
        return Path(request.getfixturevalue("path"))
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("database"))


def most_within(window: timedelta, moments: Sequence[datetime]) -> int:
    """Return the largest number of moments in any window, both ends included."""
    return max((sum(1 for at in moments if start <= at <= start + window) for start in moments), default=0)


def spend_or_rejected_until(budget: Budget) -> datetime | None:
    """Spend one request and return None, or return when the next request may be sent."""
    try:
        budget.spend()
    except BudgetSpentError as error:
        return error.retry_at
    return None


def rejected_until(budget: Budget) -> datetime:
    """Return when a budget that is spent, or cools down, allows the next request."""
    room_at = spend_or_rejected_until(budget)
    assert room_at is not None
    return room_at


# The two limits


waits = st.lists(
    st.sampled_from([0, 0, 0.0004, 0.0006, 59.999, 60, 60.0005, 60.001, 86_399.999, 86_400, 86_400.001])
    | st.floats(0, 40)
    | st.floats(0, 50_000),
    max_size=30,
)


@given(waits)
def test_no_sequence_of_waits_gets_more_than_the_limits(sequence: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = ScriptedClock()
        budget = Budget(Path(folder) / "budget.sqlite", per_minute=2, per_day=5, clock=clock)
        spent: list[datetime] = []
        for seconds in sequence:
            clock.wait(seconds)
            room_at = spend_or_rejected_until(budget)
            if room_at is not None:
                assert clock.at < room_at <= clock.at + DAY + SECOND
                # One more request would exceed a limit.
                more = [*spent, clock.at]
                assert most_within(MINUTE, more) > 2 or most_within(DAY, more) > 5
            else:
                spent.append(clock.at)
        assert most_within(MINUTE, spent) <= 2
        assert most_within(DAY, spent) <= 5


@pytest.mark.parametrize(
    ("per_minute", "per_day", "room_after"),
    [(3, 500, MINUTE), (30, 3, DAY), (3, 3, DAY)],
    ids=["minute", "day", "day, the same in a minute"],
)
def test_a_spent_budget_states_when_it_has_room_again(
    place: Place, clock: ScriptedClock, per_minute: int, per_day: int, room_after: timedelta
) -> None:
    budget = Budget(place, per_minute, per_day, clock)
    for _ in range(3):
        budget.spend()
        clock.wait(7)
    room_at = rejected_until(budget)
    assert room_at == NOW + room_after + datetime.resolution
    assert (budget.state().next_request_at, budget.state().used_last_day) == (room_at, 3)
    clock.at = room_at - SECOND
    assert rejected_until(budget) == room_at
    clock.at = room_at
    budget.spend()
    assert rejected_until(budget) > room_at  # only one became free


def test_the_state_shows_what_is_used_and_uses_nothing(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, per_minute=3, clock=clock)
    for used in range(4):
        (state,) = {budget.state() for _ in range(3)}
        assert (state.used_last_minute, state.used_last_day, state.next_request_at is None) == (used, used, used < 3)
        spend_or_rejected_until(budget)
    clock.wait(61)
    state = budget.state()
    assert (state.used_last_minute, state.used_last_day, state.next_request_at) == (0, 3, None)


# Several processes

_SPEND = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.errors import BudgetSpentError
from orpipeline.openrouter.budget import Budget

place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
spent = []

def work():
    for _ in range(6):
        try:
            Budget(place).spend()
        except BudgetSpentError:
            continue
        spent.append(datetime.now(UTC).isoformat())

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*spent)
"""


def test_processes_and_threads_together_never_exceed_it(place: Place) -> None:
    printed: list[str] = []
    # Three processes of four threads that try six times each: 72 for 30.
    processes = [threading.Thread(target=lambda: printed.append(run_python(_SPEND, place))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(printed) == 3
    spent = sorted(datetime.fromisoformat(line) for text in printed for line in text.split())
    assert most_within(MINUTE - SECOND, spent) == 30  # a second less: they note the time just after they have spent
    assert Budget(place).state().used_last_day == len(spent)


# After a 429


def test_the_time_that_the_api_states_ends_the_cool_down(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, per_minute=1, clock=clock)
    stated = NOW_SECOND + timedelta(hours=5)
    budget.spend()
    assert rejected_until(budget) < stated  # the later of cool-down and room counts
    assert budget.cool_down(stated) == rejected_until(budget) == stated
    assert budget.state().next_request_at == stated
    clock.at = stated - SECOND
    assert rejected_until(budget) == stated
    clock.at = stated
    assert budget.state().cooling_after is None
    budget.spend()


@pytest.mark.parametrize("jitter", [1.0, 0.001])
def test_without_a_stated_time_the_longest_wait_doubles_up_to_an_hour(
    place: Place, clock: ScriptedClock, jitter: float
) -> None:
    budget = Budget(place, clock=clock, jitter=lambda: jitter)
    took = []
    for _ in range(8):
        until = budget.cool_down(None)
        took.append((until - clock.at).total_seconds())
        clock.at = until
    longest = [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert took == pytest.approx([seconds * jitter for seconds in longest], abs=0.000_002)


def test_a_good_response_ends_the_row_of_429s(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock, jitter=lambda: 1.0)
    for n, stated in ((1, NOW + SECOND), (2, NOW + 2 * SECOND), (3, None)):  # with a stated time, they count too
        clock.at = budget.cool_down(stated)
        assert budget.state().rate_limited_in_a_row == n
    assert clock.at - NOW == pytest.approx(timedelta(minutes=4), abs=3 * SECOND)
    budget.good_response()
    assert budget.state().rate_limited_in_a_row == 0
    assert budget.cool_down(None) - clock.at < MINUTE + SECOND


def test_a_cool_down_is_never_shortened(place: Place, clock: ScriptedClock) -> None:
    # Two processes sent requests at the same time.
    budget = Budget(place, clock=clock, jitter=lambda: 0.5)
    late = NOW_SECOND + timedelta(minutes=10)
    assert budget.cool_down(late) == budget.cool_down(None) == budget.cool_down(NOW + SECOND) == late
    budget.good_response()  # to a request that was sent before the cool-down
    assert (rejected_until(budget), budget.state().rate_limited_in_a_row) == (late, 3)


# The client with a budget


def client_of(api: LocalApi, budget: Budget, clock: ScriptedClock) -> Client:
    return Client(
        KEY, api.base_url, clock=clock, retry_wait_seconds=0.01, budget=budget, sleep=clock.wait, read_timeout_seconds=5
    )


@pytest.mark.parametrize(("reply", "requests"), [(Reply(BODY), 1), (Reply(status=503), 2)], ids=["200", "503"])
def test_each_try_is_counted_and_a_spent_budget_sends_no_request(
    api: LocalApi, place: Place, clock: ScriptedClock, reply: Reply, requests: int
) -> None:
    api.serve(reply)
    client = client_of(api, Budget(place, per_minute=requests, clock=clock), clock)
    if reply.status == 200:
        client.fetch()
    with pytest.raises(BudgetSpentError):
        client.fetch()
    assert len(api.requests) == requests
    assert clock.at - NOW < 2 * SECOND  # the client does not wait a minute


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "48.4991239"}], ids=str)
def test_the_client_waits_for_a_short_cool_down(
    api: LocalApi, place: Place, clock: ScriptedClock, headers: dict[str, str]
) -> None:
    rate_limited = Reply(status=429, headers=headers)
    api.serve(rate_limited, BODY)
    budget = Budget(place, clock=clock, jitter=lambda: 0.8)
    client_of(api, budget, clock).fetch()
    assert len(api.requests) == 2
    assert timedelta(seconds=48) <= clock.at - NOW <= timedelta(seconds=49.5)
    assert budget.state().rate_limited_in_a_row == 0

    api.serve(rate_limited)
    with pytest.raises(RateLimitedError):
        replace(client_of(api, budget, clock), total_timeout_seconds=1000).fetch()
    assert len(api.requests) == 5
    assert budget.state().rate_limited_in_a_row == 3


@pytest.mark.parametrize("status", [429, 503])
def test_the_client_waits_for_a_stated_time_only_before_its_deadline(
    api: LocalApi, place: Place, clock: ScriptedClock, status: int
) -> None:
    client = client_of(api, Budget(place, clock=clock), clock)
    api.serve(Reply(status=status, headers={"Retry-After": "20"}), BODY)
    client.fetch()
    waited = clock.at - NOW
    assert timedelta(seconds=20) <= waited < timedelta(seconds=21)
    api.serve(Reply(status=status, headers={"Retry-After": "56"}), BODY)
    with pytest.raises(StatusError) as caught:
        client.fetch()
    assert caught.value.retry_at is not None
    assert caught.value.retry_at - clock.at == timedelta(seconds=56)
    assert (len(api.requests), clock.at - NOW) == (3, waited)


def test_no_process_sends_a_request_before_the_time_that_a_503_states(
    api: LocalApi, place: Place, clock: ScriptedClock
) -> None:
    api.serve(Reply(status=503, headers={"Retry-After": "600"}), BODY)
    budget = Budget(place, clock=clock)
    budget.cool_down(NOW)  # after a 429
    clock.wait(0.001)
    with pytest.raises(StatusError):
        client_of(api, budget, clock).fetch()
    state = budget.state()
    assert (state.cooling_after, state.rate_limited_in_a_row) == (503, 1)

    another = client_of(api, Budget(place, clock=clock), clock)
    with pytest.raises(BudgetSpentError, match="a 503, and the cool-down after it ends at 00:30:03"):
        another.fetch()
    assert len(api.requests) == 1
    assert state.next_request_at is not None
    clock.at = state.next_request_at
    assert another.fetch().body == BODY
    assert budget.state().rate_limited_in_a_row == 0


# A clock that is wrong


@pytest.mark.parametrize(("wait", "holds"), [(DAY, True), (DAY + 61 * SECOND, False), (90 * DAY, False)])
def test_requests_and_a_cool_down_of_a_clock_that_was_ahead_do_not_lock_anyone_out(
    place: Place, clock: ScriptedClock, wait: timedelta, holds: bool
) -> None:
    ahead = Budget(place, per_minute=1, per_day=1, clock=lambda: NOW_SECOND + wait - 2 * MINUTE)
    ahead.spend()
    until = ahead.cool_down(NOW_SECOND + wait)
    budget = Budget(place, per_minute=1, per_day=1, clock=clock)
    state = budget.state()
    assert (state.used_last_day, state.next_request_at) == (0, until if holds else None)
    assert spend_or_rejected_until(budget) == state.next_request_at


# The file


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "header": lambda whole: b"rubbish " * 1000,  # noqa: ARG005
    "cut": lambda whole: whole[:5000],
    "pages": lambda whole: whole[:4096] + b"\xa5" * (len(whole) - 4096),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_set_aside(path: Path, clock: ScriptedClock, damage: str) -> None:
    budget = Budget(path, per_minute=2, clock=clock)
    budget.spend()
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match="the damaged file is now"):
        budget.spend()
    budget.spend()
    budget.spend()
    rejected_until(budget)
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-*")] == [damaged]


_FETCH = """
import resource, sys
from pathlib import Path
from orpipeline.errors import StoreError
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.client import Client

if sys.argv[3] == "full disk":
    # A limit of the file size acts like one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Client("a-key", sys.argv[1], budget=Budget(Path(sys.argv[2]))).fetch()
    print("fetched")
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("where", ["full disk", "the file is a folder"])
def test_if_a_request_cannot_be_counted_it_is_not_sent(api: LocalApi, path: Path, where: str) -> None:
    api.serve(BODY)
    if where != "full disk":
        path.mkdir(parents=True)
    output = run_python(_FETCH, api.base_url, path, where)
    assert f"The request budget in {path} cannot be used" in output
    assert "No request was sent" in output
    assert api.requests == []
    if where == "full disk":
        assert run_python(_FETCH, api.base_url, path, "room again") == "fetched\n"


def test_a_good_response_is_returned_even_if_it_cannot_be_recorded(
    api: LocalApi, path: Path, clock: ScriptedClock
) -> None:
    def take_the_folder_away_and_respond(handler: BaseHTTPRequestHandler) -> None:
        path.parent.rename(path.parent.with_name("elsewhere"))
        path.parent.write_text("in the way")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
        handler.wfile.write(head.encode() + BODY)

    api.serve(Reply(act=take_the_folder_away_and_respond))
    assert client_of(api, Budget(path, clock=clock), clock).fetch().body == BODY


def test_nothing_waits_for_ever_for_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpipeline.openrouter.budget._LOCK_WAIT_SECONDS", 0.1)
    budget = Budget(path)
    budget.spend()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        for use in (budget.state, budget.spend):
            with pytest.raises(StoreError, match="locked"):
                use()
    assert budget.state().used_last_day == 1

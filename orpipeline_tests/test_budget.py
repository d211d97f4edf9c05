"""The request budget with a clock that the test moves, in a real file and in a real Postgres."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpipeline.errors import SettingsError
from orpipeline.openrouter.budget import Budget, BudgetError, BudgetSpentError, open_budget
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import RateLimitedError, ServerBusyError
from orpipeline.settings import load_settings
from orpipeline.testing import LocalApi, Reply, sample_answer
from orpipeline.testing.local_api import KEY
from orpipeline_tests.processes import run_python
from orpipeline_tests.servers import PostgresServer

Place = Path | str
NOW = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
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


@pytest.fixture(params=["file", "postgres"])
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


def test_the_default_limits_are_the_apis(place: Place) -> None:
    state = Budget(place).state()
    assert (state.per_minute, state.per_day) == (30, 500)


def test_a_caller_that_never_pauses_gets_exactly_the_limits(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, per_minute=5, per_day=23, clock=clock)
    spent: list[datetime] = []
    while clock.at < NOW + DAY + 2 * MINUTE:
        room_at = spend_or_rejected_until(budget)
        if room_at is None:
            spent.append(clock.at)
        else:
            assert room_at > clock.at
            clock.at = room_at
    assert most_within(MINUTE, spent) == 5
    assert most_within(DAY, spent) == 23
    assert len(spent) > 23  # the next day has begun


waits = st.lists(
    st.sampled_from([0, 0, 0.0004, 0.0006, 59.999, 60, 60.0005, 60.001, 86_399.999, 86_400, 86_400.001])
    | st.floats(0, 40)
    | st.floats(0, 50_000),
    max_size=30,
)


@settings(max_examples=30, deadline=None)
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
                # One more request would exceed a limit, to the millisecond that the file stores.
                near = timedelta(milliseconds=2)
                more = [*spent, clock.at]
                assert most_within(MINUTE + near, more) > 2 or most_within(DAY + near, more) > 5
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
    assert NOW + room_after < room_at < NOW + room_after + timedelta(milliseconds=3)
    assert budget.state().next_request_at == room_at
    clock.at = room_at - SECOND
    assert rejected_until(budget) == room_at
    clock.at = room_at
    budget.spend()
    assert rejected_until(budget) > room_at  # only one became free


def test_a_rejected_request_uses_nothing(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, per_minute=1, clock=clock)
    budget.spend()
    assert len({rejected_until(budget) for _ in range(5)}) == 1
    assert budget.state().used_last_day == 1


def test_a_setting_may_lower_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORPIPELINE_REQUESTS_PER_MINUTE", "2")
    monkeypatch.setenv("ORPIPELINE_REQUESTS_PER_DAY", "7")
    lowered = load_settings()
    budget = open_budget(lowered)
    assert (budget.per_minute, budget.per_day) == (2, 7)
    budget.spend()
    budget.spend()
    rejected_until(budget)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORPIPELINE_REQUESTS_PER_MINUTE", "31"),
        ("ORPIPELINE_REQUESTS_PER_MINUTE", "0"),
        ("ORPIPELINE_REQUESTS_PER_DAY", "501"),
        ("ORPIPELINE_REQUESTS_PER_DAY", "-1"),
    ],
)
def test_no_setting_raises_the_limits(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


# Several processes


_SPEND = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.openrouter.budget import Budget, BudgetSpentError

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


def test_another_process_sees_what_was_spent_and_the_cool_down(place: Place) -> None:
    budget = Budget(place)
    budget.spend()
    until = budget.cool_down(datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1))
    code = (
        "import sys, pathlib; from orpipeline.openrouter.budget import Budget; "
        "place = sys.argv[1] if '://' in sys.argv[1] else pathlib.Path(sys.argv[1]); "
        "s = Budget(place).state(); print(s.used_last_minute, s.cooling_until.isoformat())"
    )
    used, cooling_until = run_python(code, place).split()
    assert used == "1"
    # A server's time is converted to each process's, which takes a moment.
    assert abs(datetime.fromisoformat(cooling_until) - until) < SECOND


def test_a_new_budget_in_the_same_place_continues(place: Place, clock: ScriptedClock) -> None:
    first = Budget(place, per_minute=2, clock=clock, jitter=lambda: 1.0)
    first.spend()
    first.spend()
    assert rejected_until(Budget(place, per_minute=2, clock=clock)) == rejected_until(first)
    first.cool_down(None)
    again = Budget(place, per_minute=2, clock=clock, jitter=lambda: 1.0)
    assert again.state() == first.state()
    assert again.state().rate_limited_in_a_row == 1
    assert again.cool_down(None) == first.state().cooling_until


# After a 429


def test_the_time_that_the_api_states_ends_the_cool_down(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock, jitter=lambda: 1.0)
    stated = NOW.replace(microsecond=0) + timedelta(hours=5)
    assert budget.cool_down(stated) == stated
    assert rejected_until(budget) == stated
    assert budget.state().cooling_until == budget.state().next_request_at == stated
    clock.at = stated - SECOND
    assert rejected_until(budget) == stated
    clock.at = stated
    assert budget.state().cooling_until is None
    budget.spend()


def test_a_request_may_be_sent_exactly_at_the_announced_time(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock)
    for microseconds in (1, 499, 500, 501, 999):
        stated = clock.at.replace(microsecond=0) + timedelta(seconds=9, microseconds=microseconds)
        until = budget.cool_down(stated)
        assert stated <= until < stated + timedelta(milliseconds=1)  # never before the stated time
        assert rejected_until(budget) == until
        clock.at = until
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
    assert took == pytest.approx([seconds * jitter for seconds in longest], abs=0.002)


def test_a_good_answer_ends_the_row(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock, jitter=lambda: 1.0)
    for n in (1, 2, 3):
        clock.at = budget.cool_down(None)
        assert budget.state().rate_limited_in_a_row == n
    budget.good_answer()
    assert budget.state().rate_limited_in_a_row == 0
    assert budget.cool_down(None) - clock.at < MINUTE + SECOND


def test_a_429_with_a_stated_time_counts_in_the_row_too(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock, jitter=lambda: 1.0)
    clock.at = budget.cool_down(clock.at + SECOND)
    clock.at = budget.cool_down(clock.at + SECOND)
    assert budget.cool_down(None) - clock.at == pytest.approx(timedelta(minutes=4), abs=SECOND)


def test_a_cool_down_is_never_shortened(place: Place, clock: ScriptedClock) -> None:
    # Two processes sent requests at the same time.
    budget = Budget(place, clock=clock, jitter=lambda: 0.5)
    late = NOW.replace(microsecond=0) + timedelta(minutes=10)
    assert budget.cool_down(late) == late
    assert budget.cool_down(None) == late
    assert budget.cool_down(NOW + SECOND) == late
    assert rejected_until(budget) == late


def test_a_good_answer_during_a_cool_down_does_not_end_it(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, clock=clock)
    until = budget.cool_down(NOW.replace(microsecond=0) + timedelta(minutes=10))
    budget.good_answer()
    assert rejected_until(budget) == until
    assert budget.state().rate_limited_in_a_row == 1


def test_the_later_of_cool_down_and_room_counts(place: Place, clock: ScriptedClock) -> None:
    budget = Budget(place, per_minute=1, clock=clock)
    budget.spend()
    room_at = rejected_until(budget)
    until = budget.cool_down(NOW + timedelta(minutes=3))
    assert budget.state().next_request_at == until > room_at


# The client with a budget


def client_of(api: LocalApi, budget: Budget, clock: ScriptedClock) -> Client:
    return Client(
        KEY, api.base_url, clock=clock, retry_wait_seconds=0.01, budget=budget, sleep=clock.wait, read_timeout_seconds=5
    )


def test_a_spent_budget_sends_no_request(api: LocalApi, place: Place, clock: ScriptedClock) -> None:
    api.serve(sample_answer("2026-10-06"))
    budget = Budget(place, per_minute=1, clock=clock)
    client = client_of(api, budget, clock)
    client.fetch()
    with pytest.raises(BudgetSpentError):
        client.fetch()
    assert len(api.requests) == 1
    assert clock.at == NOW  # the client does not wait a minute


def test_each_try_is_counted(api: LocalApi, place: Place, clock: ScriptedClock) -> None:
    api.serve(Reply(status=503))
    with pytest.raises(BudgetSpentError):
        client_of(api, Budget(place, per_minute=2, clock=clock), clock).fetch()
    assert len(api.requests) == 2


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "48.4991239"}], ids=str)
def test_the_client_waits_once_for_a_short_cool_down(
    api: LocalApi, place: Place, clock: ScriptedClock, headers: dict[str, str]
) -> None:
    rate_limited = Reply(status=429, headers=headers)
    api.serve(rate_limited, sample_answer("2026-10-06"))
    budget = Budget(place, clock=clock, jitter=lambda: 0.8)
    client_of(api, budget, clock).fetch()
    assert len(api.requests) == 2
    assert timedelta(seconds=48) <= clock.at - NOW <= timedelta(seconds=49.5)
    assert budget.state().rate_limited_in_a_row == 0

    api.serve(rate_limited)
    with pytest.raises(RateLimitedError):
        replace(client_of(api, budget, clock), total_timeout_seconds=1000).fetch()
    assert len(api.requests) == 4
    assert budget.state().rate_limited_in_a_row == 2


@pytest.mark.parametrize("status", [429, 503])
def test_the_client_does_not_wait_for_a_cool_down_that_leaves_too_little_of_its_deadline(
    api: LocalApi, place: Place, clock: ScriptedClock, status: int
) -> None:
    api.serve(Reply(status=status, headers={"Retry-After": "51"}), sample_answer("2026-10-06"))
    with pytest.raises((RateLimitedError, ServerBusyError)) as caught:
        client_of(api, Budget(place, clock=clock), clock).fetch()
    assert caught.value.retry_at is not None
    assert timedelta(seconds=51) <= caught.value.retry_at - NOW < timedelta(seconds=51.001)
    assert (len(api.requests), clock.at) == (1, NOW)


def test_no_process_sends_a_request_before_the_time_that_a_503_states(
    api: LocalApi, place: Place, clock: ScriptedClock
) -> None:
    api.serve(Reply(status=503, headers={"Retry-After": "600"}), sample_answer("2026-10-06"))
    budget = Budget(place, clock=clock)
    budget.cool_down(NOW)  # after a 429
    clock.wait(0.001)
    with pytest.raises(ServerBusyError):
        client_of(api, budget, clock).fetch()
    state = budget.state()
    assert (state.cooling_after, state.rate_limited_in_a_row) == (503, 1)

    another = client_of(api, Budget(place, clock=clock), clock)
    with pytest.raises(BudgetSpentError, match=r"failed \(503\), and the pause that it asks for ends at 00:30:03"):
        another.fetch()
    assert len(api.requests) == 1
    assert state.next_request_at is not None
    clock.at = state.next_request_at
    assert another.fetch().body == sample_answer("2026-10-06")
    assert budget.state().rate_limited_in_a_row == 0


def test_the_client_waits_for_the_time_that_a_503_states_if_it_is_short(
    api: LocalApi, place: Place, clock: ScriptedClock
) -> None:
    api.serve(Reply(status=503, headers={"Retry-After": "20"}), sample_answer("2026-10-06"))
    client_of(api, Budget(place, clock=clock), clock).fetch()
    assert len(api.requests) == 2
    assert timedelta(seconds=20) <= clock.at - NOW < timedelta(seconds=21)


# A clock that is wrong


def test_a_cool_down_of_a_clock_that_was_ahead_is_ignored_with_one_warning(
    place: Place, clock: ScriptedClock, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = ScriptedClock()
    ahead.wait(90 * 86_400)
    Budget(place, clock=ahead).cool_down(ahead.at + timedelta(minutes=5))
    budget = Budget(place, per_minute=1, clock=clock)
    assert budget.peek().next_request_at is None
    budget.spend()
    rejected_until(budget)  # spent, so a transaction that changes nothing else
    assert (budget.state().cooling_until, budget.state().rate_limited_in_a_row) == (None, 1)
    (warning,) = caplog.messages
    assert str(place).rpartition("/")[2] in warning
    assert "on 2027-01-05" in warning


@pytest.mark.parametrize(
    ("recorded", "wait", "holds"),
    [
        (timedelta(0), DAY, True),
        (timedelta(seconds=59), DAY, True),
        (timedelta(seconds=61), MINUTE, False),
        (-MINUTE, DAY + 3 * MINUTE, False),
        (-DAY, 400 * DAY, False),
    ],
)
def test_a_cool_down_holds_only_if_it_is_credible(
    place: Place, clock: ScriptedClock, recorded: timedelta, wait: timedelta, holds: bool
) -> None:
    another = ScriptedClock()
    another.at += recorded
    until = Budget(place, clock=another).cool_down(another.at + wait)
    budget = Budget(place, clock=clock)
    assert budget.peek().cooling_until == budget.state().cooling_until == (until if holds else None)


def test_requests_of_a_clock_that_was_ahead_do_not_lock_anyone_out(place: Place, clock: ScriptedClock) -> None:
    ahead = ScriptedClock()
    ahead.wait(90 * 86_400)
    for _ in range(5):
        Budget(place, per_minute=5, per_day=5, clock=ahead).spend()
    budget = Budget(place, per_minute=5, per_day=5, clock=clock)
    budget.spend()
    assert budget.state().used_last_day == 1


offsets = st.sampled_from([0, 0, 0, 1e9, 3e7, 86_400, 7200, -7200, -86_400, -1e9])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(offsets, st.sampled_from([0, 0, 1, 30, 61, 3600])), max_size=60))
def test_requests_at_the_right_time_keep_the_limits_even_if_the_clock_goes_back_and_forth(
    steps: list[tuple[float, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        right, clock, spent = NOW, ScriptedClock(), []
        budget = Budget(Path(folder) / "budget.sqlite", per_minute=2, per_day=5, clock=clock)
        for offset, seconds in steps:
            right += timedelta(seconds=seconds)
            clock.at = right + timedelta(seconds=offset)
            if spend_or_rejected_until(budget) is None and not offset:
                spent.append(right)
        assert most_within(MINUTE, spent) <= 2
        assert most_within(DAY, spent) <= 5


def test_the_file_stays_small(path: Path, clock: ScriptedClock) -> None:
    budget = Budget(path, clock=clock)
    budget.spend()
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO sent VALUES (?)", [[n] for n in range(20_000)])
        db.commit()
    budget.spend()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sent").fetchone() == (5000,)


# The file


def damage_header(path: Path) -> None:
    path.write_bytes(b"rubbish " * 1000)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage_pages(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))


@pytest.mark.parametrize("damage", [damage_header, damage_cut, damage_pages])
def test_a_damaged_file_is_set_aside(path: Path, clock: ScriptedClock, damage: Callable[[Path], None]) -> None:
    budget = Budget(path, per_minute=2, clock=clock)
    budget.spend()
    damage(path)
    damaged = path.read_bytes()
    budget.spend()
    budget.spend()
    rejected_until(budget)
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-20261007T002003")] == [damaged]


OLDER = {
    "before 0.1": (
        "CREATE TABLE requests (name VARCHAR, item_timestamp INTEGER)",
        "CREATE INDEX idx_requests ON requests (item_timestamp)",
        "CREATE TABLE cool_down (until INTEGER, in_a_row INTEGER NOT NULL)",
        "INSERT INTO requests VALUES ('request', {now})",
        "INSERT INTO cool_down VALUES (NULL, 2)",
    ),
    "0.1": (
        "CREATE TABLE sent (at INTEGER NOT NULL)",
        "CREATE TABLE cool_down (until INTEGER, in_a_row INTEGER NOT NULL)",
        "INSERT INTO sent VALUES ({now})",
        "INSERT INTO cool_down VALUES ({now} + 60000, 2)",
        "PRAGMA user_version = 1",
    ),
}


@pytest.mark.parametrize("version", OLDER)
def test_what_an_older_version_stored_still_counts(path: Path, clock: ScriptedClock, version: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as older:
        for statement in OLDER[version]:
            older.execute(statement.format(now=round(NOW.timestamp() * 1000)))
        older.commit()
    budget = Budget(path, per_minute=2, clock=clock)
    peeked = budget.peek()
    assert (peeked.used_last_day, peeked.rate_limited_in_a_row) == (1, 2)
    assert budget.state() == peeked
    assert (peeked.cooling_after, peeked.next_request_at is None) == (
        (429, False) if version == "0.1" else (None, True)
    )
    budget.good_answer()
    clock.wait(0 if peeked.cooling_until is None else 61)
    budget.spend()
    assert budget.state().used_last_day == 2


def test_an_empty_file_is_a_fresh_budget(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    budget = Budget(path)
    budget.spend()
    assert budget.state().used_last_minute == 1


_FETCH_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from orpipeline.openrouter.budget import Budget, BudgetError
from orpipeline.openrouter.client import Client

if sys.argv[3] == "full":
    # A limit of the file size acts like a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Client("a-key", sys.argv[1], budget=Budget(Path(sys.argv[2]))).fetch()
    print("answered")
except BudgetError as error:
    print(error)
"""


def test_on_a_full_disk_no_request_is_sent(api: LocalApi, path: Path) -> None:
    api.serve(sample_answer("2026-10-06"))
    output = run_python(_FETCH_ON_A_FULL_DISK, api.base_url, path, "full")
    assert str(path) in output
    assert "No request was sent" in output
    assert api.requests == []
    assert run_python(_FETCH_ON_A_FULL_DISK, api.base_url, path, "room again") == "answered\n"


@pytest.mark.parametrize("where", ["the folder is a file", "the file is a folder"])
def test_if_the_file_cannot_be_created_no_request_is_sent(
    api: LocalApi, path: Path, clock: ScriptedClock, where: str
) -> None:
    if where == "the folder is a file":
        path.parent.write_text("in the way")
    else:
        path.mkdir(parents=True)
    api.serve(sample_answer("2026-10-06"))
    with pytest.raises(BudgetError, match="No request was sent") as caught:
        client_of(api, Budget(path, clock=clock), clock).fetch()
    assert str(path) in str(caught.value)
    assert api.requests == []


def test_a_good_answer_is_returned_even_if_it_cannot_be_recorded(
    api: LocalApi, path: Path, clock: ScriptedClock
) -> None:
    body = sample_answer("2026-10-06")

    def take_the_folder_away_and_answer(handler: BaseHTTPRequestHandler) -> None:
        path.parent.rename(path.parent.with_name("elsewhere"))
        path.parent.write_text("in the way")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        handler.wfile.write(head.encode() + body)

    api.serve(Reply(act=take_the_folder_away_and_answer))
    assert client_of(api, Budget(path, clock=clock), clock).fetch().body == body


def test_file_and_folder_are_private_to_their_user(path: Path) -> None:
    Budget(path).spend()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {path.name: 0o600}


def test_the_state_uses_nothing(path: Path, clock: ScriptedClock) -> None:
    budget = Budget(path, per_minute=3, clock=clock)
    seen = [budget.state() for _ in range(10)]
    assert len(set(seen)) == 1
    assert (seen[0].used_last_minute, seen[0].used_last_day, seen[0].next_request_at) == (0, 0, None)
    for used in (1, 2, 3):
        budget.spend()
        assert budget.state().used_last_minute == used
    assert budget.state().next_request_at is not None
    clock.wait(61)
    assert (budget.state().used_last_minute, budget.state().used_last_day) == (0, 3)
    assert budget.state().next_request_at is None


# Reading it without changing anything


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


def test_peek_shows_the_state_and_changes_nothing(path: Path, clock: ScriptedClock) -> None:
    budget = Budget(path, per_minute=2, clock=clock)
    assert (budget.peek().used_last_day, budget.peek().per_minute, budget.peek().next_request_at) == (0, 2, None)
    assert not path.parent.exists()
    budget.spend()
    budget.spend()
    budget.cool_down(NOW + timedelta(minutes=5), 503)
    state, before = budget.state(), contents(path.parent)
    assert budget.peek() == state
    assert contents(path.parent) == before


@pytest.mark.parametrize("damage", [damage_header, damage_cut, damage_pages])
def test_peek_does_not_repair_a_damaged_file(path: Path, clock: ScriptedClock, damage: Callable[[Path], None]) -> None:
    budget = Budget(path, clock=clock)
    budget.spend()
    damage(path)
    before = contents(path.parent)
    with pytest.raises(BudgetError, match="cannot be read") as caught:
        budget.peek()
    assert str(path) in str(caught.value)
    assert contents(path.parent) == before


_PEEK_AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from orpipeline.openrouter.budget import Budget
if os.getuid() == 0:
    os.setuid(65534)  # nobody
print(Budget(Path(sys.argv[1])).peek().used_last_day)
"""


def test_peek_does_not_undo_what_a_killed_process_left_unfinished(path: Path, clock: ScriptedClock) -> None:
    budget = Budget(path, clock=clock)
    budget.spend()
    with closing(sqlite3.connect(path, isolation_level=None)) as killed:
        killed.execute("PRAGMA cache_size = 1")  # so a part of the transaction is in the file already
        killed.execute("BEGIN IMMEDIATE")
        killed.executemany("INSERT INTO sent VALUES (?)", [[n] for n in range(20_000)])
        left = {file: file.read_bytes() for file in path.parent.iterdir()}
    for file, content in left.items():
        file.write_bytes(content)
    before = contents(path.parent)
    with pytest.raises(BudgetError, match="the next fetch repairs it"):
        budget.peek()
    assert contents(path.parent) == before
    budget.spend()
    assert budget.peek().used_last_day == 2


def test_peek_needs_no_right_to_write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a#%20?b" / "budget.sqlite"
        Budget(path).spend()
        for part, mode in ((path, 0o444), (path.parent, 0o555), (Path(folder), 0o555)):
            part.chmod(mode)
        try:
            assert run_python(_PEEK_AS_ANOTHER_USER, path) == "1\n"
        finally:
            for part in (Path(folder), path.parent):
                part.chmod(0o755)


def test_peek_does_not_wait_for_ever_for_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpipeline.openrouter.ledger.LOCK_WAIT_SECONDS", 0.1)
    budget = Budget(path)
    budget.spend()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BudgetError, match="locked"):
            budget.peek()
    assert budget.peek().used_last_day == 1

"""The request budget in Postgres: hosts with wrong clocks, killed processes, and a server that goes away."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orpipeline.errors import BudgetSpentError, NextAttempt, SettingsError, StoreError
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.client import Client
from orpipeline.testing import LocalApi, sample_response
from orpipeline.testing.clock import use_clock
from orpipeline.testing.local_api import KEY
from orpipeline_tests.processes import run_python, started
from orpipeline_tests.servers import PostgresServer, free_port

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
TRANSIENT, PERSON = NextAttempt.TRANSIENT, NextAttempt.NEEDS_PERSON

pytestmark = pytest.mark.slow  # a server


@pytest.fixture
def url(postgres_server: PostgresServer, database: str) -> str:
    return postgres_server.url(database)


# Two hosts

_HOST = """
import sys, threading
from datetime import UTC, datetime, timedelta
from orpipeline.testing.clock import use_clock
from orpipeline.errors import BudgetSpentError
from orpipeline.openrouter.budget import open_budget
from orpipeline.settings import Settings

settings = Settings(data_dir=sys.argv[1], state=sys.argv[2])
minutes = float(sys.argv[3])
sent = []

def work():
    for _ in range(12):
        try:
            open_budget(settings).spend()
        except BudgetSpentError:
            continue
        sent.append(1)

with use_clock(lambda: datetime.now(UTC) + timedelta(minutes=minutes)):
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(sent))
"""


@pytest.mark.parametrize(("earlier", "allowed"), [(0, 30), (495, 5)], ids=["a minute", "a day"])
def test_two_hosts_with_wrong_clocks_together_stay_within_the_limits(
    postgres_server: PostgresServer, database: str, url: str, tmp_path: Path, earlier: int, allowed: int
) -> None:
    # The most that a server's own settings could spoil.
    postgres_server.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")
    if earlier:  # otherwise, both hosts create the tables at the same time
        Budget(url).good_response()
        ago = f"extract(epoch FROM clock_timestamp()) - 20 * 3600 - n FROM generate_series(1, {earlier}) n"
        postgres_server.sql(f"INSERT INTO orpipeline.sent (at) SELECT {ago}", database)
    sent: list[int] = []

    def run_host(name: str, minutes: int) -> None:
        sent.append(int(run_python(_HOST, tmp_path / name, url, minutes)))

    hosts = [threading.Thread(target=run_host, args=host) for host in (("one", -7), ("two", 4))]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert (len(sent), sum(sent)) == (2, allowed)
    assert postgres_server.sql("SELECT count(*) FROM orpipeline.sent", database) == str(earlier + allowed)
    assert not list(tmp_path.rglob("*"))  # nothing is on the hosts' disks


@pytest.mark.parametrize("wrong_by", [-7 * MINUTE, 4 * MINUTE], ids=["behind", "ahead"])
def test_a_cool_down_that_a_host_with_a_wrong_clock_records_ends_at_the_right_time(
    url: str, wrong_by: timedelta
) -> None:
    with use_clock(lambda: datetime.now(UTC) + wrong_by):
        stated = datetime.now(UTC) + wrong_by + 10 * MINUTE
        until = Budget(url).cool_down(stated, status=503)
        assert timedelta(0) <= until - stated < SECOND
        with pytest.raises(BudgetSpentError) as caught:
            Budget(url).spend()
        # That host waits by its own clock.
        assert caught.value.retry_at is not None
        assert abs(caught.value.retry_at - stated) < SECOND
    seen = Budget(url).state().next_request_at
    assert seen is not None
    assert abs(seen - (datetime.now(UTC) + 10 * MINUTE)) < 5 * SECOND


# Processes and servers that go away

_HOLD = """
import sys
from orpipeline.openrouter.budget import Budget
with Budget(sys.argv[1])._transaction() as entries:
    entries.add_request()
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_holds_no_lock_and_has_counted_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orpipeline.openrouter.budget._LOCK_WAIT_SECONDS", 0.3)
    Budget(url).spend()
    with started(_HOLD, url) as holder:
        with pytest.raises(StoreError, match="Another process has locked it; try again") as caught:
            Budget(url).spend()
        assert caught.value.next_attempt is TRANSIENT
        holder.kill()
        holder.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(StoreError):
                Budget(url).spend()
                break
    assert Budget(url).state().used_last_minute == 2


def test_while_the_server_is_away_no_request_is_sent_and_then_it_works_again(
    postgres_server: PostgresServer, url: str, api: LocalApi
) -> None:
    api.serve(sample_response("2026-10-06"))
    client = Client(KEY, api.base_url, budget=Budget(url))
    client.fetch()
    postgres_server.stop()
    try:
        with pytest.raises(StoreError, match="Check that it is running") as caught:
            client.fetch()
        assert len(api.requests) == 1
        assert "\n" not in str(caught.value)
    finally:
        postgres_server.start()
    client.fetch()
    assert Budget(url).state().used_last_minute == 2


# What can be wrong with the database


@pytest.fixture(scope="module")
def server_with_passwords(postgres_server: PostgresServer) -> PostgresServer:
    """The server, which asks the user `guarded` for a password."""
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    rules.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    postgres_server.sql("CREATE ROLE guarded LOGIN PASSWORD 'the-right-one'")
    loaded = postgres_server.sql("SELECT pg_conf_load_time()")
    postgres_server.sql("SELECT pg_reload_conf()")
    while postgres_server.sql("SELECT pg_conf_load_time()") == loaded:
        time.sleep(0.01)
    return postgres_server


@pytest.mark.parametrize(
    ("user", "port", "name", "password", "reason", "next_attempt"),
    [
        ("postgres", None, "nowhere", "", "does not exist", PERSON),
        ("postgres", free_port(), "x", "", "Connection refused", TRANSIENT),
        ("guarded", None, "postgres", "the-wrong-one", "password authentication failed", PERSON),
        ("guarded", None, "postgres", "", "no password supplied", PERSON),
        ("guarded", None, "", "the-right-one", "permission denied", PERSON),
    ],
    ids=["no database", "no server", "wrong password", "no password", "no rights"],
)
def test_what_is_wrong_is_one_line_without_a_password(
    server_with_passwords: PostgresServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    port: int | None,
    name: str,
    password: str,
    reason: str,
    next_attempt: NextAttempt,
) -> None:
    place = f"127.0.0.1:{port or server_with_passwords.port}/{name or database}"
    monkeypatch.setenv("PGPASSWORD", password)
    with pytest.raises(StoreError) as caught:
        Budget(f"postgresql://{user}@{place}").spend()
    message = str(caught.value)
    assert f"Postgres at {place} cannot be used: " in message
    assert reason in message
    assert "Check that it is running, ORPIPELINE_STATE, and the user's password" in message
    assert "\n" not in message
    assert "-one" not in message
    assert caught.value.next_attempt is next_attempt


def test_without_psycopg_it_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None; from orpipeline.errors import StoreError\n"
        "from orpipeline.openrouter.budget import Budget\n"
        "try: Budget('postgresql://127.0.0.1/x').spend()\n"
        "except StoreError as error: print(error)"
    )
    assert "ORPIPELINE_STATE is in Postgres, which needs psycopg: install `orpipeline[postgres]`." in run_python(code)


def test_in_a_test_no_connection_leaves_this_machine() -> None:
    for place in ("postgresql://db.example/x", "postgresql:///x?hostaddr=192.0.2.1", "postgresql:///?service=x"):
        with pytest.raises(SettingsError):
            Budget(place).spend()

"""`orpipeline doctor`: its verdict; on bad days, what can be read and why the rest cannot. It changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.load import load_days
from orpipeline.testing import sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.commands import ORPIPELINE, run_command
from orpipeline_tests.processes import held_open
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON, World, local, publish


@pytest.fixture
def filled(world: World) -> World:
    """A pipeline with a day in the archive and in the tables, and one counted request."""
    world.store(sample_response(DAY))
    world.make_tables(DAY)
    world.budget.spend()
    return world


def doctor(
    world: World, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    ours = {
        "ORPIPELINE_DATA_DIR": str(world.folder),
        "ORPIPELINE_BASE_URL": "https://127.0.0.1:1/api/v1",  # in a test, another machine would be a problem
        "OPENROUTER_API_KEY": KEY,
    }
    return run_command("doctor", *arguments, folder=world.folder.parent, environment={**ours, **(environment or {})})


def verdict(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and the first line."""
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[0]


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the texts of all lines by name, each with its mark before it."""
    found: dict[str, str] = {}
    for line in done.stdout.splitlines()[1:]:
        name = line[2:17].strip()
        found[name] = f"{found.get(name, '')}{line[0]} {line[17:]}"
    return found


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def assert_the_rest_is_shown(shown: dict[str, str], *failed: str) -> None:
    expected = {
        "archive": "1 day, 2026-10-06",
        "warehouse": "1 day, 2026-10-06",
        "requests": "1 of 500 in the last 24 hours",
    }
    for name, value in expected.items():
        assert (value in shown.get(name, "")) == (name not in failed), (name, shown)


def test_a_locked_warehouse_is_named_at_once_and_is_not_a_failure(filled: World) -> None:
    with held_open(local(filled.warehouse.place)) as holder:
        done = doctor(filled)
    code, line = verdict(done)
    assert code == 0
    assert line.startswith("Works, with ")
    assert_the_rest_is_shown(rows(done), "warehouse")
    assert rows(done)["warehouse"].startswith("! ")
    assert f"PID {holder.pid}" in rows(done)["warehouse"]
    assert "(unless the tables have them)" in rows(done)["lost days"]


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(("failed", "problem"), [("warehouse", "tables"), ("requests", "requests")])
def test_a_damaged_part_is_named_and_the_rest_is_shown(filled: World, failed: str, problem: str) -> None:
    if failed == "warehouse":
        local(filled.warehouse.place).write_bytes(b"damaged" * 1000)
    else:
        Path(filled.budget.place).unlink()
        Path(filled.budget.place).mkdir()
    before = files(filled.folder)
    done = doctor(filled)
    assert verdict(done) == (1, f"Not ready: see {problem}.")
    assert_the_rest_is_shown(rows(done), failed)
    assert files(filled.folder) == before


@pytest.mark.usefixtures("at_noon")
def test_a_recorded_day_and_a_key_are_ready(filled: World) -> None:
    done = doctor(filled)
    assert verdict(done) == (0, "Ready.")
    assert rows(done)["key"] == "✓ set"
    assert KEY not in done.stdout


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"OPENROUTER_API_KEY": ""}, "OPENROUTER_API_KEY is not set"),
        ({"ALL_PROXY": "socks://127.0.0.1:1"}, "No request can be sent with the environment's ALL_PROXY=socks://"),
        ({"OPENROUTER_API_KEY": "a key"}, "OPENROUTER_API_KEY contains a space"),
        ({"ORPIPELINE_BASE_URL": "http://example.invalid/api/v1"}, "http://example.invalid/api/v1 is not encrypted"),
        ({"DAGSTER_HOME": "/dev/null/home"}, "cannot write to /dev/null"),
    ],
    ids=["no key", "proxy", "wrong key", "http", "not a folder"],
)
def test_what_prevents_daily_recording_is_not_ready(
    filled: World, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], problem: str
) -> None:
    # As outside of tests, where another machine is not a problem. `doctor` sends no request.
    monkeypatch.setattr("orpipeline.network.test_folder", None)
    monkeypatch.delenv("ORPIPELINE_TESTING")
    done = doctor(filled, environment=environment)
    assert done.returncode == 1
    assert done.stdout.startswith("Not ready: see ")
    assert f"✗ {problem}" in " ".join(rows(done).values())


@pytest.mark.usefixtures("at_noon")
def test_days_to_fetch_load_or_look_at_are_warnings(world: World) -> None:
    for age in (8, 4, 1):  # the lost days in between: three of the last seven, and two earlier ones
        world.store(sample_response(DAY - timedelta(days=age)))
    world.make_tables(DAY - timedelta(days=8), DAY - timedelta(days=4))
    done = doctor(world)
    assert verdict(done) == (0, "Works, with 3 warnings: see newest day, not in tables, lost days.")
    shown = rows(done)
    assert shown["newest day"] == "! 2026-10-06 is not archived yet: use `orpipeline run` before 24:00 UTC"
    assert shown["not in tables"] == "! 1: 2026-10-05: use `orpipeline rebuild`"
    lost = "2026-09-29, 2026-09-30, 2026-10-01, 2026-10-03, 2026-10-04"  # none before the first archived day
    assert shown["lost days"] == f"! 5: {lost} (is the schedule running?)"


def test_an_old_published_copy_and_a_response_that_waits_are_warnings(filled: World) -> None:
    publish(filled.warehouse)
    filled.store(sample_response(DAY - timedelta(days=1)))
    load_days(filled.archive, Warehouse(local(filled.warehouse.place)), [DAY - timedelta(days=1)], now=NOON)
    waiting = filled.settings.spool.with_name("other")
    Archive(waiting).put(sample_response(DAY), fetched_at=NOON, source="a test", origin="demo")
    shown = rows(doctor(filled))
    assert shown["published"].endswith("older than the warehouse: use `orpipeline rebuild`")
    assert f"use `orpipeline import {waiting}`" in shown["spool"]


@pytest.mark.usefixtures("at_noon")
def test_damaged_responses_are_not_ready_with_deep(filled: World) -> None:
    path = Path(filled.archive.revisions(DAY)[0].path)
    path.write_bytes(path.read_bytes()[:-10])
    done = doctor(filled, "--deep")
    assert verdict(done) == (1, "Not ready: see sha256.")
    assert "0 of 1 archived responses match" in rows(done)["sha256"]
    assert path.name in rows(done)["sha256"]


def test_the_demo_needs_no_key_and_nothing_is_created(world: World) -> None:
    (world.folder / "demo").mkdir(parents=True)
    done = doctor(world, "--demo", environment={"OPENROUTER_API_KEY": ""})
    assert done.returncode == 0
    assert "is not archived yet: use `orpipeline demo`" in rows(done)["newest day"]
    assert "0 of 30 in the last minute, 0 of 500" in rows(done)["requests"]
    assert list(world.folder.rglob("*")) == [world.folder / "demo"]


@pytest.mark.slow  # a process
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting a read-only disk needs root")
def test_it_works_on_a_read_only_disk(filled: World, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs none {disk} && cp -r {filled.folder}/. {disk} && mount -o remount,ro {disk} && "
        f"! touch {disk}/x 2>/dev/null && ORPIPELINE_DATA_DIR={disk} exec {ORPIPELINE} doctor --deep"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    if "mount" in done.stderr:
        pytest.skip(f"this machine does not allow it: {done.stderr.strip()}")
    assert done.returncode == 1
    assert f"cannot write to {disk}/warehouse.duckdb" in rows(done)["disk"]
    assert_the_rest_is_shown(rows(done))

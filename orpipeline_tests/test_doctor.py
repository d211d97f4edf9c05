"""`orpipeline doctor`: its verdict; on bad days, what can be read and why the rest cannot. It changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from orpipeline.testing import sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import ORPIPELINE, run_command
from orpipeline_tests.processes import held_open
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import World, local


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
    """Return the exit code and the last line: on standard output if all works, else on standard error."""
    printed = done.stderr.removeprefix("orpipeline: ") if done.returncode else done.stdout
    assert (done.stderr == "") == (done.returncode == 0)
    return done.returncode, printed.splitlines()[-1]


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the rows of the first table by name. Values begin at column 16."""
    return _rows(done.stdout.partition("\n\n")[0])


def survival_rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the rows of the second table by name: what happens to each part if the machine is lost."""
    return _rows(done.stdout.split("\n\n")[1])


def _rows(text: str) -> dict[str, str]:
    return {line[:16].strip(): line[16:] for line in text.splitlines()}


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
    assert f"the warehouse is locked by another process (PID {holder.pid})" in line
    assert_the_rest_is_shown(rows(done), "warehouse")
    assert f"PID {holder.pid}" in rows(done)["warehouse"]
    assert "(unless the tables have them)" in rows(done)["lost days"]


def damage_the_warehouse(world: World) -> None:
    local(world.warehouse.place).write_bytes(b"damaged" * 1000)


def disable_the_budget(world: World) -> None:
    Path(world.budget.place).unlink()
    Path(world.budget.place).mkdir()


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    ("damage", "failed", "expected"),
    [
        (damage_the_warehouse, "warehouse", (1, "Not ready: the warehouse cannot be read (the reason is above).")),
        (
            disable_the_budget,
            "requests",
            (1, "Not ready: the request budget cannot be used (the reason is above)."),
        ),
    ],
    ids=["warehouse", "budget"],
)
def test_a_damaged_part_is_named_and_the_rest_is_shown(
    filled: World, damage: Callable[[World], None], failed: str, expected: tuple[int, str]
) -> None:
    damage(filled)
    before = files(filled.folder)
    done = doctor(filled)
    assert verdict(done) == expected
    assert_the_rest_is_shown(rows(done), failed)
    assert files(filled.folder) == before


@pytest.mark.usefixtures("at_noon")
def test_a_recorded_day_and_a_key_are_ready(filled: World) -> None:
    assert verdict(doctor(filled)) == (0, "Ready.")


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"OPENROUTER_API_KEY": ""}, "OPENROUTER_API_KEY is not set"),
        ({"OPENROUTER_API_KEY": "a key"}, "OPENROUTER_API_KEY contains a space"),
        ({"ORPIPELINE_BASE_URL": "http://example.invalid/api/v1"}, "http://example.invalid/api/v1 is not encrypted"),
        ({"DAGSTER_HOME": "/dev/null/home"}, "cannot write to /dev/null (Dagster's state)"),
    ],
    ids=["no key", "wrong key", "http", "not a folder"],
)
def test_what_prevents_daily_recording_is_not_ready(
    filled: World, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], problem: str
) -> None:
    # As outside of tests, where another machine is not a problem. `doctor` sends no request.
    monkeypatch.setattr("orpipeline.network.test_folder", None)
    monkeypatch.delenv("ORPIPELINE_TESTING")
    code, line = verdict(doctor(filled, environment=environment))
    assert code == 1
    assert line.startswith(f"Not ready: {problem}")


@pytest.mark.usefixtures("at_noon")
def test_days_to_fetch_load_or_look_at_are_warnings(world: World) -> None:
    for age in (8, 4, 1):  # the lost days in between: three of the last seven, and two earlier ones
        world.store(sample_response(DAY - timedelta(days=age)))
    world.make_tables(DAY - timedelta(days=8), DAY - timedelta(days=4))
    assert verdict(doctor(world)) == (
        0,
        "Works, with 3 warnings: 2026-10-06 is not archived yet: use `orpipeline run` before 24:00 UTC; "
        "1 archived day is not in the tables: use `orpipeline rebuild`; "
        "4 of the last 7 days are lost (is the schedule running?).",
    )


@pytest.mark.usefixtures("at_noon")
def test_damaged_responses_are_not_ready_with_deep(filled: World) -> None:
    path = Path(filled.archive.revisions(DAY)[0].path)
    path.write_bytes(path.read_bytes()[:-10])
    code, line = verdict(doctor(filled, "--deep"))
    assert (code, line) == (1, "Not ready: 1 archived response is damaged (named above).")


def test_the_demo_needs_no_key(world: World) -> None:
    (world.folder / "demo").mkdir(parents=True)
    code, line = verdict(doctor(world, "--demo", environment={"OPENROUTER_API_KEY": ""}))
    assert code == 0
    assert "is not archived yet: use `orpipeline demo`" in line


def test_without_a_budget_file_nothing_is_used(world: World) -> None:
    done = doctor(world)
    assert done.returncode == 0
    assert "0 of 30 in the last minute, 0 of 500" in rows(done)["requests"]
    assert "ORPIPELINE_STATE" in rows(done)["budget"]
    assert not world.folder.exists()


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
    code, line = verdict(done)
    assert code == 1
    assert f"cannot write to {disk}/warehouse.duckdb (warehouse)" in line
    assert_the_rest_is_shown(rows(done))

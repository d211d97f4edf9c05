"""`orpipeline doctor` on bad days: it shows what can be read, why the rest cannot, and changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.commands import ORPIPELINE, run_command
from orpipeline_tests.processes import held_open
from orpipeline_tests.world import World


@pytest.fixture
def filled(world: World) -> World:
    """A pipeline with a day in the archive and in the tables, and one counted request."""
    world.store(answer())
    world.make_tables(DAY)
    world.budget.spend()
    return world


def doctor(world: World) -> subprocess.CompletedProcess[str]:
    return run_command("doctor", folder=world.folder.parent, environment={"ORPIPELINE_DATA_DIR": str(world.folder)})


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the printed rows by name. Values begin at column 16."""
    return {line[:16].strip(): line[16:] for line in done.stdout.splitlines()}


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
    with held_open(filled.settings.warehouse) as holder:
        done = doctor(filled)
    assert done.returncode == 0, done.stderr
    assert_the_rest_is_shown(rows(done), "warehouse")
    assert f"PID {holder.pid}" in rows(done)["warehouse"]
    assert "(unless the tables have them)" in rows(done)["lost days"]


def damage_the_warehouse(world: World) -> None:
    world.settings.warehouse.write_bytes(b"damaged" * 1000)


def damage_the_budget(world: World) -> None:
    world.budget.path.write_bytes(b"damaged" * 1000)


@pytest.mark.parametrize(
    ("damage", "failed"),
    [(damage_the_warehouse, ["warehouse"]), (damage_the_budget, ["requests"])],
    ids=["warehouse", "budget"],
)
def test_a_damaged_part_is_named_and_the_rest_is_shown(
    filled: World, damage: Callable[[World], None], failed: list[str]
) -> None:
    damage(filled)
    before = files(filled.folder)
    done = doctor(filled)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "Cannot be read: " in done.stderr
    assert_the_rest_is_shown(rows(done), *failed)
    assert files(filled.folder) == before


def test_without_a_budget_file_nothing_is_used(world: World) -> None:
    done = doctor(world)
    assert done.returncode == 0
    assert "0 of 30 in the last minute, 0 of 500" in rows(done)["requests"]
    assert "ORPIPELINE_STATE" in rows(done)["budget"]
    assert not world.folder.exists()


def test_a_complete_answer_that_a_kill_left_and_a_misdated_one_are_listed(filled: World) -> None:
    root = filled.archive.root
    other = filled.store(answer(DAY - timedelta(days=1))).record.path.parent
    other.rename(root / ".writing-killed")
    shutil.copytree(root / "2026-10-06", root / "2099-01-01")
    shown = rows(doctor(filled))
    assert str(root / ".writing-killed") in shown["unfinished"]
    assert str(root / "2099-01-01" / "r1") in shown["belong to no day"]
    assert "1 day, 2026-10-06" in shown["archive"]


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
    assert done.returncode == 0, done.stderr
    assert_the_rest_is_shown(rows(done))

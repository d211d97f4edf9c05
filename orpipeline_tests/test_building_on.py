"""The tutorial and the example that it results in. `orpipeline_tests.tutorial` follows the page; `.ci/run` runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import orpipeline
from orpipeline.testing import LocalPipeline, sample_response
from orpipeline_tests.tutorial import EXAMPLE, OWN_FILES, PAGE, files

_CACHES = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "target", "logs"}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="these tests are installed without the documentation")


def _example_files() -> dict[str, str]:
    paths = [path for path in EXAMPLE.rglob("*") if path.is_file() and not _CACHES & set(path.parts)]
    return {path.relative_to(EXAMPLE).as_posix(): path.read_text() for path in paths}


def test_the_example_is_what_the_page_builds() -> None:
    example = {path: text for path, text in _example_files().items() if path not in OWN_FILES}
    assert example == files(PAGE.read_text()), "update it: python -m orpipeline_tests.tutorial --write-example"


def _new_day() -> dg.AutomationCondition[dg.AssetKey]:
    """Return the page's condition."""
    names: dict[str, Any] = {}
    exec(files(PAGE.read_text())["market/automation.py"], names)
    condition: dg.AutomationCondition[dg.AssetKey] = names["new_day"]
    return condition


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_automation_conditions_fire_as_the_page_tells(openrouter: LocalPipeline) -> None:
    eager, cron = dg.AutomationCondition.eager(), dg.AutomationCondition.on_cron
    conditions: dict[str, dg.AutomationCondition[Any]] = {
        "new_day": _new_day(),
        "eager": eager,
        "cron_at_midnight": cron("0 0 * * *"),
        "cron_at_one": cron("0 1 * * *"),
        "eager_on_a_view": eager,
        "new_day_on_a_view": _new_day(),
    }
    assets = [_asset(name, condition) for name, condition in conditions.items()]
    defs = dg.Definitions([*assets, *orpipeline.external_specs()], resources=orpipeline.resources())
    cursor = None

    def requested(hour: int, minute: int, day: int = 7) -> set[str]:
        nonlocal cursor
        at = datetime(2026, 10, day, hour, minute, tzinfo=UTC)
        result = dg.evaluate_automation_conditions(defs, openrouter.instance, evaluation_time=at, cursor=cursor)
        cursor = result.cursor
        return {name for name in conditions if result.get_requested_partitions(dg.AssetKey(name)) == {"2026-10-06"}}

    assert requested(23, 59, day=6) == set()
    assert requested(0, 1) == set()
    openrouter.materialize(day="2026-10-06")
    assert requested(0, 21) == {*conditions} - {"cron_at_one"}
    assert requested(1, 1) == set()
    openrouter.materialize(day="2026-10-06", run_config=_fetch("always"))  # the same bytes
    assert requested(21, 41) == {"eager", "eager_on_a_view", "cron_at_one"}
    assert requested(21, 42) == set()
    restated = sample_response("2026-10-06", change=lambda data: data["classifications"][0].update(display_name="New"))
    openrouter.serve(restated)
    openrouter.materialize(day="2026-10-06", run_config=_fetch("always"))
    assert requested(21, 43) == {"new_day", "new_day_on_a_view", "eager", "eager_on_a_view"}


def _fetch(choice: str) -> dict[str, Any]:
    return {"ops": {"openrouter_snapshot": {"config": {"fetch": choice}}}}


def _asset(name: str, condition: dg.AutomationCondition[Any]) -> dg.AssetsDefinition:
    source = "model_trends" if name.endswith("view") else "model_leaderboard"

    @dg.asset(
        name=name,
        partitions_def=orpipeline.daily_partitions(),
        deps=[orpipeline.asset_key(source)],
        automation_condition=condition,
    )
    def asset() -> None: ...

    return asset


@pytest.mark.slow
def test_a_strict_type_checker_passes_on_the_example_and_finds_a_wrong_import(tmp_path: Path) -> None:
    for path, text in files(PAGE.read_text()).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "market" / "wrong.py").write_text(
        "from orpipeline import buld_defs\nfrom orpipeline.testing import LocalPipelin\n"
    )
    shutil.rmtree(tmp_path / "dbt")  # its packages are not installed here
    (tmp_path / "tests" / "test_dbt.py").unlink()
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "market", "analyst", "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, checked.stdout + checked.stderr
    assert 'market/wrong.py:1: error: Module "orpipeline" has no attribute "buld_defs"' in errors[0]
    assert "market/wrong.py:2: error:" in errors[1]
    assert "LocalPipelin" in errors[1]

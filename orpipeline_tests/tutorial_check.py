"""What a reader has at the end of `docs/building-on.md`. Runs in the reader's own environment and folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from runpy import run_path

import dagster as dg
import duckdb
import yaml

import orpipeline

NEWEST = datetime.now(UTC).date() - timedelta(days=1)
FIRST = NEWEST - timedelta(days=20)
TABLES = (
    *("snapshots", "task_classifications", "macro_categories", "task_models"),
    *("model_leaderboard", "author_leaderboard", "leaderboard_coverage"),
)
_WAIT_SECONDS = 90


def check(instance: dg.DagsterInstance) -> None:
    """Check each asset of the page. Raises AssertionError."""
    imported = set(_days(FIRST, NEWEST))
    at_once = set(_days(FIRST, NEWEST - timedelta(days=1)))
    for name in ("raw_task_classifications", *TABLES):
        _expect(instance, f"openrouter/{name}", imported)
    for name in ("code_models", "verbosity", "leaders"):
        _expect(instance, f"market/{name}", at_once)
    _expect(instance, "market/steady", {str(NEWEST - timedelta(days=1))})
    _expect(instance, "market/weekly_authors", {str(_monday())})
    _expect_unpartitioned(instance, "analyst/records")
    _expect_unpartitioned(instance, "days_in_the_lead")

    check_key = dg.AssetCheckKey(dg.AssetKey(["market", "code_models"]), "follows_the_contract")
    (record,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([check_key]).values()
    assert record.evaluation is not None
    assert record.evaluation.passed, record.evaluation
    print(f"check {check_key.name}: passed")

    _wait_for(lambda: _partitions(instance, "market/newcomers") == {str(NEWEST)}, "the run of market/newcomers")
    (run,) = [run for run in instance.get_runs() if _is_of(run, "market/newcomers")]
    assert run.tags["dagster/sensor_name"] == "market_automation", run.tags
    print(f"market/newcomers: {NEWEST}, by the sensor market_automation")


def check_locations() -> None:
    """Check that each code location of the page loads and knows our assets, and that dbt's models depend on ours."""
    assert len(yaml.safe_load(Path("workspace.yaml").read_text())["load_from"]) == 2
    ours = {orpipeline.asset_key(name) for name in TABLES}
    for name in ("market", "analyst"):
        defs = import_module(f"{name}.definitions").defs
        dg.Definitions.validate_loadable(defs)
        assert ours <= {spec.key for spec in defs.resolve_all_asset_specs()}
        print(f"code location {name}: loads")
    (model,) = (spec for spec in run_path("dbt/definitions.py")["defs"].resolve_all_asset_specs() if spec.deps)
    assert [dep.asset_key for dep in model.deps] == [orpipeline.asset_key("model_leaderboard")]
    print("code location dbt: loads, and depends on openrouter/model_leaderboard")


def check_rows() -> None:
    """Check the tables of the page in the published copy, and dbt's own file."""
    for name in ("market.code_models", "market.verbosity", "market.leaders"):
        assert orpipeline.read(name)["as_of"].n_unique() == 20, name
    assert set(orpipeline.read("market.steady")["as_of"]) == {NEWEST - timedelta(days=1)}
    assert set(orpipeline.read("market.weekly_authors")["monday"]) == {_monday()}
    assert len(orpipeline.read("analyst.records")) > 10
    with duckdb.connect(Path(os.environ["ORPIPELINE_DATA_DIR"], "dbt.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT sum(days) FROM days_in_the_lead").fetchall() == [(20,)]


def _expect(instance: dg.DagsterInstance, key: str, partitions: set[str]) -> None:
    found = _partitions(instance, key)
    assert found == partitions, f"{key}: {sorted(found)} instead of {sorted(partitions)}"
    print(f"{key}: {len(found)} {'partition' if len(found) == 1 else 'partitions'}")


def _expect_unpartitioned(instance: dg.DagsterInstance, key: str) -> None:
    assert instance.get_latest_materialization_event(dg.AssetKey(key.split("/"))), f"{key} is not materialized"
    print(f"{key}: materialized")


def _partitions(instance: dg.DagsterInstance, key: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(key.split("/"))))


def _is_of(run: dg.DagsterRun, key: str) -> bool:
    return dg.AssetKey(key.split("/")) in (run.asset_selection or ())


def _days(first: date, last: date) -> Iterable[str]:
    return (str(first + timedelta(days=n)) for n in range((last - first).days + 1))


def _monday() -> date:
    today = NEWEST + timedelta(days=1)
    return today - timedelta(days=14 + today.weekday())


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {_WAIT_SECONDS} s"
        time.sleep(0.5)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as the_instance:
        check(the_instance)
    check_locations()
    check_rows()

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest
import time_machine
import yaml

from orpipeline.contracts.rules import CHECKS, RULES
from orpipeline.contracts.tables import TABLES, VIEWS
from orpipeline.definitions import defs
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.schedules import daily_snapshot_schedule, recapture_schedule
from orpipeline.defs.specs import DAILY_ASSETS, HISTORY_CHECKS, REPORT, table_key
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.world import World, evaluate

PROJECT = Path(__file__).parents[1]


def _command(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(arguments[0])
    return subprocess.run(
        [str(program), *arguments[1:]],
        cwd=PROJECT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["dg", "check", "defs"], "All definitions loaded successfully"),
        (["dg", "list", "defs"], "openrouter/model_leaderboard"),
        (["dagster", "definitions", "validate"], "All code locations passed validation"),
        (["dagster", "definitions", "validate", "-m", "orpipeline.definitions"], "passed validation"),
    ],
)
def test_dagsters_own_commands_accept_the_code_location(command: list[str], said: str) -> None:
    done = _command(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "Warning" in line and "orpipeline" in line]
    assert ours == []


def test_the_assets_are_the_contracts_with_daily_utc_partitions() -> None:
    keys = {spec.key for spec in defs.resolve_all_asset_specs()}
    assert keys == {*DAILY_ASSETS, REPORT}
    for spec in defs.resolve_all_asset_specs():
        assert spec.partitions_def == (None if spec.key == REPORT else daily_partitions)
    assert daily_partitions.get_first_partition_key() == "2026-06-17"
    with time_machine.travel(datetime(2026, 10, 7, 0, 0, 1, tzinfo=UTC)):
        assert daily_partitions.get_last_partition_key() == "2026-10-06"


def test_every_asset_says_what_it_is() -> None:
    for spec in defs.resolve_all_asset_specs():
        assert spec.description
        assert "\n" not in spec.description
        assert spec.group_name in {"source", "daily_tables", "analysis"}
        assert spec.owners
        assert spec.kinds
        assert spec.metadata["dagster/code_references"]


def test_column_schemas_come_from_the_contracts() -> None:
    for name, model in [*TABLES.items(), ("model_trends", VIEWS["model_trends"])]:
        spec = next(spec for spec in defs.resolve_all_asset_specs() if spec.key == table_key(name))
        schema = spec.metadata["dagster/column_schema"]
        assert [column.name for column in schema.columns] == list(model.columns())
        assert all(column.description for column in schema.columns)
        assert spec.metadata["dagster/table_name"] == f"openrouter.{name}"


def test_every_rule_about_an_answer_is_shown_by_exactly_one_asset_check() -> None:
    shown = [rule.name for check in CHECKS.values() for rule in check.rules]
    # The leaderboard is our own arithmetic: where its bounds do not hold, nothing is written at all.
    assert sorted([*shown, "bounds_hold"]) == sorted(RULES)
    assert all(len({rule.severity for rule in check.rules}) == 1 for check in CHECKS.values())
    assets = [asset for asset in (defs.assets or []) if isinstance(asset, dg.AssetsDefinition)]
    specs = {(spec.asset_key.path[-1], spec.name): spec for asset in assets for spec in asset.check_specs}
    rules = {(check.table, check.name) for check in CHECKS.values()}
    assert set(specs) == rules | {(key.asset_key.path[-1], key.name) for key in HISTORY_CHECKS}
    assert all(CHECKS[name].description in (specs[table, name].description or "") for table, name in rules)


def test_the_schedule_asks_for_the_day_that_has_just_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        at = datetime(2026, 10, 7, 0, 20, tzinfo=UTC)
        request = evaluate(daily_snapshot_schedule, at, instance)
        instance.add_run(
            dg.DagsterRun(
                "daily_snapshot",
                run_id="12345678-0000-4000-8000-000000000000",
                status=dg.DagsterRunStatus.STARTED,
                tags={"dagster/partition": "2026-10-06"},
            )
        )
        skipped = evaluate(daily_snapshot_schedule, at, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-10-06"
    assert request.run_key == "daily-2026-10-06"
    # No day is fetched twice at once.
    assert isinstance(skipped, dg.SkipReason)
    assert "Run 12345678 is at work" in str(skipped.skip_message)
    assert daily_snapshot_schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (daily_snapshot_schedule.cron_schedule, daily_snapshot_schedule.execution_timezone) == ("20 0 * * *", "UTC")


def test_the_recapture_asks_in_any_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        at = datetime(2026, 10, 7, 21, 40, tzinfo=UTC)
        request = evaluate(recapture_schedule, at, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-10-06"
    assert request.run_config == {"ops": {"snapshot": {"config": {"fetch": "always"}}}}
    assert (recapture_schedule.cron_schedule, recapture_schedule.execution_timezone) == ("40 21 * * *", "UTC")
    assert recapture_schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_without_a_key_the_schedule_skips_and_says_what_to_do() -> None:
    skipped = evaluate(daily_snapshot_schedule, datetime(2026, 10, 7, 0, 20, tzinfo=UTC))
    assert isinstance(skipped, dg.SkipReason)
    assert "OPENROUTER_API_KEY is not set" in str(skipped.skip_message)


def test_the_key_is_in_no_definition() -> None:
    code = (
        "import orpipeline.definitions as d; from dagster import Definitions; "
        "r = d.defs.resources; print({k: (repr(v), v._resolved_config_dict) for k, v in r.items()})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENROUTER_API_KEY": "sk-or-very-secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "openrouter" in done.stdout
    assert "very-secret" not in done.stdout + done.stderr


def test_the_readmes_asset_of_ones_own_reads_and_writes_tables(world: World, tmp_path: Path) -> None:
    world.keep(answer())
    world.make_tables(DAY)
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "home").mkdir()
    done = _command(
        *("dagster", "asset", "materialize", "--select", "authors", "--partition", DAY.isoformat()),
        *("-f", str(tmp_path / "mine.py")),
        environment={"DAGSTER_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    with world.warehouse.connect(read_only=True) as connection:
        found = connection.sql("SELECT as_of, author, len FROM public.authors").fetchall()
    models = {model["id"] for task in json.loads(answer())["data"]["classifications"] for model in task["models"]}
    assert {day for day, *_ in found} == {DAY}
    assert {author for _, author, _ in found} == {model.split("/")[0] for model in models}


def test_dagster_yaml_keeps_state_in_the_project_and_sends_no_telemetry() -> None:
    config = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert config["storage"]["sqlite"]["base_dir"] == ".dagster"
    assert config["telemetry"]["enabled"] is False
    assert config["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == version("orpipeline")


@pytest.mark.parametrize("module", ["openrouter", "contracts", "archive", "leaderboard", "snapshot", "settings"])
def test_the_core_does_not_know_dagster(module: str) -> None:
    names = {
        "openrouter": "orpipeline.openrouter.client, orpipeline.openrouter.frames",
        "contracts": "orpipeline.contracts.judgement",
    }
    code = f"import sys, {names.get(module, f'orpipeline.{module}')}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

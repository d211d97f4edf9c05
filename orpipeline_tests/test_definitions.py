from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import time_machine

import orpipeline
from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import TABLES, VIEWS
from orpipeline.defs.build import build_defs, stand_alone_defs
from orpipeline.defs.catalogue import CHECK
from orpipeline.defs.checks import CHECKS, HISTORY_CHECKS
from orpipeline.defs.names import VIRTUAL_ASSETS
from orpipeline.defs.partitions import daily_partitions
from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, load_settings
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, QUIET, World, evaluate

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_defs(Settings(data_dir=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("dg check defs", "All definitions loaded successfully"),
        ("dagster definitions validate -m orpipeline.definitions", "passed validation"),
    ],
)
def test_dagsters_own_commands_accept_the_code_location(command: str, expected: str) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=PROJECT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert expected in output
    assert [line for line in output.splitlines() if "Warning" in line and "/orpipeline/" in line] == []


def test_the_assets_are_those_of_the_contract_with_daily_utc_partitions(defs: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    views = {NAMES.asset("model_trends")}
    assert specs.keys() == {*NAMES.daily_assets, *views, *NAMES.catalogue_assets, NAMES.report}
    partitions = daily_partitions()
    assert all(spec.partitions_def == (None if key == NAMES.report else partitions) for key, spec in specs.items())
    assert {key for key, spec in specs.items() if spec.is_virtual} == views
    assert partitions.get_first_partition_key() == "2026-06-17"
    with time_machine.travel(datetime(2026, 10, 7, 0, 0, 1, tzinfo=UTC)):
        assert partitions.get_last_partition_key() == "2026-10-06"
    assert defs.resolve_job_def("daily_snapshot").tags["dagster/max_runtime"] == "1800"


def test_an_asset_added_to_the_stand_alone_code_location_is_materialized_together_with_ours(world: World) -> None:
    @dg.asset(
        partitions_def=orpipeline.daily_partitions(),
        ins={"models": dg.AssetIn(orpipeline.asset_key("task_models"))},
        metadata={"partition_expr": "as_of"},
    )
    def authors(models: pl.DataFrame) -> pl.DataFrame:
        return models.select("as_of", "author").unique()

    world.store(sample_response(DAY))
    # As `orpipeline.definitions` does, which another test may have imported with other settings.
    merged = dg.Definitions.merge(dg.Definitions([authors]), stand_alone_defs(load_settings()))
    result = merged.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=world.instance,
        partition_key=DAY.isoformat(),
        asset_selection=[*NAMES.daily_assets, authors.key],
        run_config=QUIET,
    )
    assert result.success
    assert world.read("public.authors")["as_of"].unique().to_list() == [DAY]


@pytest.mark.usefixtures("at_noon")
def test_days_before_the_first_partition_can_be_imported(world: World, tmp_path: Path) -> None:
    day = DAY - timedelta(days=9)
    (tmp_path / f"{day}.json").write_bytes(sample_response(day))
    settings = world.settings.model_copy(update={"start_date": DAY})
    config = {"ops": {"openrouter_import": {"config": {"paths": [str(tmp_path / f"{day}.json")]}}}, **QUIET}
    job = build_defs(settings).resolve_job_def("import_archive")
    assert job.execute_in_process(instance=world.instance, run_config=config).success
    assert world.materialized("model_leaderboard") == {day.isoformat()}


def test_without_a_key_the_raw_responses_page_begins_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def description() -> str:
        specs = build_defs(Settings(data_dir=tmp_path)).resolve_all_asset_specs()
        return next(spec.description or "" for spec in specs if spec.key == NAMES.raw)

    assert description().startswith("No API key: OPENROUTER_API_KEY was not set when")
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-very-secret")
    assert description().startswith("OpenRouter's response")
    assert "OPENROUTER_API_KEY" in description()
    assert "very-secret" not in description()


def test_every_asset_has_a_plain_description_and_labels(defs: dg.Definitions) -> None:
    for spec in defs.resolve_all_asset_specs():
        assert spec.description
        assert "\n" not in spec.description
        assert spec.group_name == "openrouter"
        assert spec.kinds
        # Whose they are, and how they are labelled, is for the project that embeds them.
        assert not spec.owners
        assert all(tag.startswith("dagster/kind/") for tag in spec.tags)
        assert ("A view is computed when you read it" in spec.description) == spec.is_virtual
        assert spec.metadata["dagster/code_references"]


def test_the_project_that_embeds_it_can_set_group_owners_and_tags(tmp_path: Path) -> None:
    labels = {"group_name": "market", "owners": ["team:growth"], "tags": {"cost_center": "7"}}
    defs = build_defs(Settings(data_dir=tmp_path), **labels)  # type: ignore[arg-type] # a dict of several types
    for spec in defs.resolve_all_asset_specs():
        assert (spec.group_name, list(spec.owners), spec.tags["cost_center"]) == ("market", ["team:growth"], "7")


def test_column_schemas_come_from_the_contracts(defs: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    for name, model in [*TABLES.items(), *((view, VIEWS[view]) for view in VIRTUAL_ASSETS)]:
        metadata = specs[NAMES.asset(name)].metadata
        assert metadata["dagster/table_name"] == f"openrouter.{name}"
        if name == "model_leaderboard":  # its page begins with the day's top 10
            assert "dagster/column_schema" not in metadata
            continue
        columns = metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == list(model.columns())
        assert all(column.description for column in columns)


def test_each_rule_belongs_to_one_asset_check(defs: dg.Definitions) -> None:
    checks = {**CHECKS, CHECK.name: CHECK}
    shown = [rule.name for check in checks.values() for rule in check.rules]
    assert sorted(shown) == sorted(RULES)
    assets = [asset for asset in (defs.assets or []) if isinstance(asset, dg.AssetsDefinition)]
    specs = {(spec.asset_key.path[-1], spec.name): spec for asset in assets for spec in asset.check_specs}
    rules = {(check.table, check.name): check for check in checks.values()}
    assert set(specs) == set(rules) | {(asset, name) for name, (asset, _) in HISTORY_CHECKS.items()}
    for key, check in rules.items():
        assert check.description in (specs[key].description or "")
        assert specs[key].blocking == (check.severity == "ERROR" and check != CHECK)


def test_options_leave_parts_out(tmp_path: Path) -> None:
    defs = build_defs(Settings(data_dir=tmp_path), automation=False, report=False)
    assert not defs.schedules
    assert not defs.sensors
    assert NAMES.report not in {spec.key for spec in defs.resolve_all_asset_specs()}
    assert defs.resolve_job_def("daily_snapshot").asset_layer.selected_asset_keys == {
        *NAMES.daily_assets,
        *NAMES.catalogue_assets,
    }


@pytest.mark.parametrize("prefix", ["a/b", "Second", "openrouter_archive", "daily", "pg_catalog"])
def test_a_key_prefix_that_is_not_a_name_or_makes_another_pipelines_names_is_rejected(
    tmp_path: Path, prefix: str
) -> None:
    with pytest.raises(SettingsError, match=f"key_prefix='{prefix}' is not a valid name"):
        build_defs(Settings(data_dir=tmp_path), key_prefix=prefix)


AT_0020 = datetime(2026, 10, 7, 0, 20, tzinfo=UTC)
AT_2140 = datetime(2026, 10, 7, 21, 40, tzinfo=UTC)


def test_the_schedule_requests_the_day_that_has_just_ended_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        request = evaluate("daily_snapshot_schedule", AT_0020, instance)
        run = dg.DagsterRun(
            "daily_snapshot",
            run_id="12345678-0000-4000-8000-000000000000",
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": "2026-10-06"},
        )
        instance.add_run(run)
        with time_machine.travel(AT_0020):
            instance.report_engine_event("Started.", run)
        skipped = evaluate("daily_snapshot_schedule", AT_0020, instance)
        recapture = evaluate("recapture_schedule", AT_2140, instance)
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == ("2026-10-06", "daily-2026-10-06")
    assert isinstance(skipped, dg.SkipReason)
    assert "Run 12345678 is already processing" in str(skipped.skip_message)
    assert isinstance(recapture, dg.RunRequest)
    assert recapture.partition_key == "2026-10-06"
    assert recapture.run_config == {"ops": {"openrouter_snapshot": {"config": {"fetch": "always"}}}}


def test_a_schedules_tick_that_is_made_up_for_starts_no_run_for_a_day_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, defs: dg.Definitions
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    for name in ("daily_snapshot_schedule", "recapture_schedule"):
        with (
            time_machine.travel(AT_2140 + timedelta(days=1), tick=False),
            dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
            dg.build_schedule_context(instance, AT_2140) as context,
        ):
            skipped = defs.resolve_schedule_def(name)(context)
        assert isinstance(skipped, dg.SkipReason)
        assert "The API no longer serves 2026-10-06" in str(skipped.skip_message)


def test_without_a_key_the_schedule_skips_and_tells_what_to_do() -> None:
    skipped = evaluate("daily_snapshot_schedule", AT_0020)
    assert isinstance(skipped, dg.SkipReason)
    assert "OPENROUTER_API_KEY is not set" in str(skipped.skip_message)


def test_the_key_is_in_no_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-very-secret")
    shown = str(stand_alone_defs(Settings(data_dir=tmp_path)).resources)
    for resource in orpipeline.resources().values():
        config = resource._resolved_config_dict  # type: ignore[attr-defined] # what Dagster can store of a resource
        shown += f"{resource} {config}"
    assert "openrouter" in shown
    assert "very-secret" not in shown


def test_the_readmes_asset_reads_and_writes_tables(world: World) -> None:
    world.store(sample_response(DAY))
    world.make_tables(DAY)
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    project: dict[str, Any] = {}
    exec(code, project)
    job = project["defs"].resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(
        instance=world.instance,
        partition_key=DAY.isoformat(),
        asset_selection=[dg.AssetKey(["market", "authors"])],
        run_config=QUIET,
    ).success
    with world.warehouse.connect(read_only=True) as connection:
        found = connection.sql("SELECT as_of, author, len FROM market.authors").fetchall()
    tasks = json.loads(sample_response(DAY))["data"]["classifications"]
    assert {day for day, *_ in found} == {DAY}
    assert {author for _, author, _ in found} == {m["id"].split("/")[0] for task in tasks for m in task["models"]}


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == version("orpipeline")

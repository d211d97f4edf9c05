"""The pipeline inside other people's projects."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from orpipeline import Settings, asset_key, build_defs, daily_partitions
from orpipeline.archive import Archive
from orpipeline.defs.names import Names
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON, QUIET, days_of, failure_of

pytestmark = [pytest.mark.promise, pytest.mark.usefixtures("at_noon")]


class Files(dg.ConfigurableIOManager):
    """The project's own I/O manager."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        (Path(self.folder) / f"{context.asset_key.path[-1]}.json").write_text(json.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        return json.loads((Path(self.folder) / f"{context.asset_key.path[-1]}.json").read_text())


@dg.asset(partitions_def=daily_partitions(), ins={"models": dg.AssetIn(asset_key("task_models"))})
def authors(models: pl.DataFrame) -> list[str]:
    """An asset that reads our table, and is stored by the project's own I/O manager."""
    return sorted(models["model_id"].str.split("/").list.first().unique())


@dg.asset(partitions_def=daily_partitions(), ins={"trends": dg.AssetIn(asset_key("model_trends"))})
def movers(trends: pl.DataFrame) -> int:
    """An asset that reads our view, which has no materializations."""
    return trends["model_id"].n_unique()


@dg.asset(deps=[authors], required_resource_keys={"warehouse"})
def snapshot(context: dg.AssetExecutionContext) -> str:
    """An asset with the name of a step of ours, and a resource with a key that ours could have."""
    return str(context.resources.warehouse)


@dg.asset(
    key_prefix="openrouter",
    partitions_def=dg.WeeklyPartitionsDefinition("2026-09-06"),
    backfill_policy=dg.BackfillPolicy.multi_run(),
)
def weekly_prices() -> list[str]:
    """An asset under our prefix, with other partitions."""
    return []


def _project(folder: Path, *ours: dg.Definitions) -> dg.Definitions:
    own = dg.Definitions(
        assets=[authors, movers, snapshot, weekly_prices],
        resources={"io_manager": Files(folder=str(folder)), "warehouse": "the project's own warehouse"},
        sensors=[
            dg.AutomationConditionSensorDefinition("own_automation", target=dg.AssetSelection.all()),
        ],
        executor=dg.multiprocess_executor,
    )
    return dg.Definitions.merge(own, *ours)


def test_it_merges_into_a_project_with_its_own_io_manager_warehouse_executor_and_assets(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    Archive(settings.archive).put(sample_response(DAY), fetched_at=NOON, source="a test", origin="import")
    project = _project(tmp_path, build_defs(settings, alerts=True))
    dg.Definitions.validate_loadable(project)

    job = project.resolve_implicit_global_asset_job_def()
    wanted = [*Names().daily_assets, authors.key, movers.key]
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(asset_selection={*wanted}).execute_in_process(
            instance=instance, partition_key=DAY.isoformat(), run_config=QUIET
        )
        assert result.success
        assert instance.get_materialized_partitions(authors.key) == {DAY.isoformat()}
    tasks = json.loads(sample_response(DAY))["data"]["classifications"]
    models = {model["id"] for task in tasks for model in task["models"]}
    assert json.loads((tmp_path / "authors.json").read_text()) == sorted({model.split("/")[0] for model in models})
    assert json.loads((tmp_path / "movers.json").read_text()) == len(models)

    # Our job selects our assets only, and has our executor; the project keeps its own.
    ours = project.resolve_job_def("daily_snapshot")
    assert ours.asset_layer.selected_asset_keys == {*Names().daily_assets, *Names().catalogue_assets, Names().report}
    assert ours.executor_def is dg.in_process_executor
    assert project.executor is dg.multiprocess_executor


def test_a_run_of_our_assets_without_a_partition_fails_and_checks_alone_use_the_newest_archived_day(
    tmp_path: Path,
) -> None:
    @dg.asset
    def note() -> str:
        return "an asset without partitions"

    settings = Settings(data_dir=tmp_path / "data")
    Archive(settings.archive).put(sample_response(DAY), fetched_at=NOON, source="a test", origin="import")
    jobs = [
        dg.define_asset_job("nightly", selection="*"),
        dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks()),
    ]
    resources = {"io_manager": Files(folder=str(tmp_path))}
    own = dg.Definitions(assets=[note], jobs=jobs, resources=resources)
    project = dg.Definitions.merge(own, build_defs(settings, report=False))
    with dg.DagsterInstance.ephemeral() as instance:
        nightly, checks = (
            project.resolve_job_def(job.name).execute_in_process(
                instance=instance, run_config=QUIET, raise_on_error=False
            )
            for job in jobs
        )
    description = failure_of(nightly).description
    assert description
    assert description.startswith("This run has no partition, so there is no day to load.")
    assert days_of(Warehouse(settings.warehouse)) == []
    assert checks.success
    assert all(check.passed for check in checks.get_asset_check_evaluations())
    assert checks.get_asset_check_evaluations()


def test_two_pipelines_share_a_code_location(tmp_path: Path) -> None:
    settings = {prefix: Settings(data_dir=tmp_path / prefix) for prefix in ("openrouter", "second")}
    bodies = {
        "openrouter": sample_response(DAY),
        "second": sample_response(DAY, change=lambda data: data["classifications"][0].update(display_name="Two")),
    }
    for prefix, body in bodies.items():
        Archive(settings[prefix].archive).put(body, fetched_at=NOON, source="a test", origin="import")
    both = dg.Definitions.merge(*(build_defs(settings[prefix], key_prefix=prefix, alerts=True) for prefix in settings))
    dg.Definitions.validate_loadable(both)
    assert {"second", "second_archive", "second_warehouse", "second_io_manager"} <= set(both.resources or {})

    with dg.DagsterInstance.ephemeral() as instance:
        for prefix, job in (("openrouter", "daily_snapshot"), ("second", "second_daily_snapshot")):
            result = both.resolve_job_def(job).execute_in_process(
                instance=instance,
                partition_key=DAY.isoformat(),
                asset_selection=Names(prefix).daily_assets,
                run_config=QUIET,
            )
            assert result.success
    for prefix, body in bodies.items():
        rows = Warehouse(settings[prefix].warehouse, schema=prefix).read("task_classifications")
        names = {task["tag"]: task["display_name"] for task in json.loads(body)["data"]["classifications"]}
        assert dict(rows.select("tag", "display_name").iter_rows()) == names


def test_two_pipelines_share_one_warehouse_file_in_separate_schemas(tmp_path: Path) -> None:
    for prefix in ("openrouter", "second"):
        settings = Settings(data_dir=tmp_path / prefix, warehouse=tmp_path / "shared.duckdb")
        Archive(settings.archive).put(sample_response(DAY), fetched_at=NOON, source="a test", origin="import")
        job = build_defs(settings, key_prefix=prefix).resolve_job_def(Names(prefix).job("daily_snapshot"))
        with dg.DagsterInstance.ephemeral() as instance:
            assert job.execute_in_process(
                instance=instance,
                partition_key=DAY.isoformat(),
                asset_selection=Names(prefix).daily_assets,
                run_config=QUIET,
            ).success
    for prefix in ("openrouter", "second"):
        assert days_of(Warehouse(tmp_path / "shared.duckdb", schema=prefix)) == [DAY]
        assert len(Warehouse(tmp_path / "shared.duckdb", schema=prefix).read("model_trends"))

"""The pipeline's assets in a second code location."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import json
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
import pytest

import orpipeline
from orpipeline.defs.names import VIRTUAL_ASSETS
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, QUIET, World

pytestmark = pytest.mark.usefixtures("at_noon")


def test_an_asset_in_a_second_code_location_loads_a_table_and_a_view(world: World) -> None:
    @dg.asset(
        partitions_def=orpipeline.daily_partitions(world.settings),
        ins={name: dg.AssetIn(orpipeline.asset_key(name)) for name in ("task_models", "model_trends")},
        io_manager_key="openrouter_io_manager",
        metadata={"partition_expr": "as_of"},
    )
    def known_models(task_models: pl.DataFrame, model_trends: pl.DataFrame) -> pl.DataFrame:
        return task_models.select("as_of", "model_id").unique().join(model_trends, on="model_id", how="semi")

    world.store(sample_response(DAY))
    assert world.run(DAY).success

    second = dg.Definitions(
        assets=[known_models, *orpipeline.external_specs(world.settings)],
        resources=orpipeline.resources(world.settings),
    )
    dg.Definitions.validate_loadable(second)
    job = second.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=world.instance, partition_key=DAY.isoformat(), run_config=QUIET).success
    models = {
        model["id"] for task in json.loads(sample_response(DAY))["data"]["classifications"] for model in task["models"]
    }
    with world.warehouse.connect(read_only=True) as connection:
        rows = connection.sql("SELECT as_of, model_id FROM public.known_models").fetchall()
    assert {day for day, _ in rows} == {DAY}
    assert {model for _, model in rows} == models
    # Dagster records which materialization of our table was loaded.
    (record,) = world.instance.fetch_materializations(known_models.key, limit=1).records
    assert record.asset_materialization is not None
    ours = world.instance.get_latest_data_version_record(NAMES.asset("task_models"), partition_key=DAY.isoformat())
    assert ours is not None
    tags = record.asset_materialization.tags or {}
    assert tags["dagster/input_event_pointer/openrouter/task_models"] == str(ours.storage_id)


def test_the_specs_describe_the_assets_as_the_pipeline_does(world: World) -> None:
    labelled: dict[str, Any] = {
        "key_prefix": "second",
        "group_name": "market",
        "owners": ["team:growth"],
        "tags": {"cost_center": "7"},
    }
    settings = world.settings.model_copy(update={"start_date": date(2026, 9, 1)})
    for options in ({}, labelled):
        specs = {spec.key: spec for spec in orpipeline.external_specs(settings, **options)}
        theirs = {spec.key: spec for spec in orpipeline.build_defs(settings, **options).resolve_all_asset_specs()}
        assert specs.keys() == theirs.keys()
        for key, spec in specs.items():
            other = theirs[key]
            assert spec.partitions_def == other.partitions_def
            assert (spec.description == other.description) or key.path[-1] == NAMES.raw.path[-1]
            assert (spec.kinds, spec.owners, spec.tags, spec.group_name) == (
                other.kinds,
                other.owners,
                other.tags,
                other.group_name,
            )
            assert spec.is_virtual == other.is_virtual == (key.path[-1] in VIRTUAL_ASSETS)
            assert {dep.asset_key for dep in spec.deps} == {dep.asset_key for dep in other.deps}
            metadata = dict(spec.metadata)
            assert metadata.pop("dagster/io_manager_key", None) in (
                None,
                f"{options.get('key_prefix', 'openrouter')}_io_manager",
            )
            assert metadata.items() <= dict(other.metadata).items()

"""The pipeline's assets in a second code location."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
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

READER = """
import dagster as dg
import polars as pl

import orpipeline


@dg.asset(
    partitions_def=orpipeline.daily_partitions(),
    ins={name: dg.AssetIn(orpipeline.asset_key(name)) for name in ("task_models", "model_trends")},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
)
def NAME(task_models: pl.DataFrame, model_trends: pl.DataFrame) -> pl.DataFrame:
    return task_models.join(model_trends, on="model_id", suffix="_trend").select("as_of", "model_id").unique()


defs = dg.Definitions(assets=[NAME, *orpipeline.external_specs()], resources=orpipeline.resources())
"""
WORKSPACE = "load_from:\n" + "".join(
    f"  - python_file: {{relative_path: {name}.py, location_name: {name}}}\n"
    for name in ("a_reader", "market", "z_reader")
)
GRAPH = """{
  assetNodes {
    assetKey { path }
    isMaterializable
    jobNames
    description
    metadataEntries { label }
    repository { location { name } }
    dependedByKeys { path }
  }
}"""


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


@pytest.mark.slow  # three code servers
def test_a_workspace_with_both_code_locations_has_each_asset_once(tmp_path: Path) -> None:
    """Whatever the order of the locations' names, which decides between equal specs."""
    (tmp_path / "market.py").write_text("import orpipeline\n\ndefs = orpipeline.build_defs()\n")
    for name in ("a_reader", "z_reader"):
        (tmp_path / f"{name}.py").write_text(READER.replace("NAME", f"{name}_models"))
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    (tmp_path / "home").mkdir()
    program = Path(sys.executable).with_name("dagster-graphql")
    done = subprocess.run(
        [str(program), "-w", "workspace.yaml", "-t", GRAPH, "-o", "graph.json"],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    nodes = json.loads((tmp_path / "graph.json").read_text())["data"]["assetNodes"]
    by_key = {"/".join(node["assetKey"]["path"]): node for node in nodes}
    assert len(by_key) == len(nodes)
    assert "multiple code locations" not in done.stdout + done.stderr
    views = {f"openrouter/{name}" for name in VIRTUAL_ASSETS}
    daily = {key.to_user_string() for key in (*NAMES.daily_assets, NAMES.report)}
    readers = {"a_reader_models", "z_reader_models"}
    assert by_key.keys() == views | daily | readers
    for key, node in by_key.items():
        assert node["isMaterializable"] == (key not in views)
        if key in daily:
            assert node["repository"]["location"]["name"] == "market"
            assert "daily_snapshot" in node["jobNames"]
        assert node["description"] or key in readers
    for name in ("task_models", "model_trends"):
        below = {"/".join(child["path"]) for child in by_key[f"openrouter/{name}"]["dependedByKeys"]}
        assert readers <= below

"""The component in a project that `create-dagster` makes."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orpipeline.archive import Archive
from orpipeline.defs.build import build_defs
from orpipeline.defs.component import OpenRouterMarketShare
from orpipeline.defs.names import Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, load_settings
from orpipeline.testing import sample_response
from orpipeline.warehouse.reading import read
from orpipeline_tests.world import resource_of

BIN = Path(sys.executable).parent
DEFS_YAML = "src/shop/defs/market/defs.yaml"


def _run(project: Path, *command: str, **variables: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(project / "src"), os.environ.get("PYTHONPATH", "")]),
        "DAGSTER_HOME": str(project.parent / "home"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **variables,
    }
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the component in it, as `dg scaffold` writes it: all settings come from the environment."""
    (tmp_path / "home").mkdir()
    folder = tmp_path / "shop"
    folder.mkdir()
    _run(folder, "create-dagster", "project", ".", "--no-uv-sync")
    _run(folder, "dg", "scaffold", "defs", "orpipeline.OpenRouterMarketShare", "market")
    assert yaml.safe_load((folder / DEFS_YAML).read_text()) == {
        "type": "orpipeline.OpenRouterMarketShare",
        "attributes": {},
    }
    return folder


@pytest.mark.slow
def test_a_scaffolded_component_materializes_a_day_and_its_attributes_are_templated(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=project.parent / "data")
    monkeypatch.setenv("ORPIPELINE_DATA_DIR", str(settings.data_dir))
    assert "orpipeline.OpenRouterMarketShare" in _run(project, "dg", "list", "components")
    _run(project, "dg", "check", "defs")

    day = datetime.now(UTC).date() - timedelta(days=1)  # the command's clock is the machine's own
    Archive(settings.archive).put(sample_response(day), fetched_at=datetime.now(UTC), source="a test", origin="import")
    config = {"ops": {"openrouter_snapshot": {"config": {"fetch": "never"}}}}
    _run(
        project,
        *("dg", "launch", "--assets", 'key:"openrouter/*" and not key:"openrouter/leaderboard_report"'),
        *("--partition", day.isoformat(), "--config-json", json.dumps(config)),
    )
    assert read("snapshots")["as_of"].to_list() == [day]  # from the environment's data folder
    with dg.DagsterInstance.from_config(str(project.parent / "home")) as instance:
        for key in Names().daily_assets:
            assert instance.get_materialized_partitions(key) == {day.isoformat()}

    # Attributes are templated.
    (project / DEFS_YAML).write_text(
        "type: orpipeline.OpenRouterMarketShare\n"
        "attributes:\n"
        '  data_dir: "{{ env.MARKET_DATA }}"\n'
        '  archive: "{{ project_root }}/raw"\n'
        "  key_prefix: market\n"
        "  automation: false\n"
    )
    listed = json.loads(_run(project, "dg", "list", "defs", "--json", MARKET_DATA="data/elsewhere"))
    assert "market/model_leaderboard" in {asset["asset_key"] for asset in listed["assets"]}
    assert listed["sensors"] == []


def test_attributes_are_those_of_build_defs_and_the_settings(tmp_path: Path) -> None:
    component = OpenRouterMarketShare(
        data_dir=str(tmp_path), owners=["team:growth"], tags={"cost_center": "7"}, group_name="market", report=False
    )
    defs = component.build_defs(dg.ComponentTree.for_test().load_context)
    assert resource_of(defs, "openrouter_archive").path == str(tmp_path / "raw")
    for spec in defs.resolve_all_asset_specs():
        assert (list(spec.owners), spec.tags["cost_center"], spec.group_name) == (["team:growth"], "7", "market")
    assert Names().report not in {spec.key for spec in defs.resolve_all_asset_specs()}
    options = set(inspect.signature(build_defs).parameters) - {"settings"}
    assert {*options, *Settings.model_fields} <= set(OpenRouterMarketShare.model_fields)


def test_settings_that_are_not_attributes_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
        "ORPIPELINE_STATE": str(tmp_path / "state"),
        "ORPIPELINE_START_DATE": "2026-09-01",
        "ORPIPELINE_REQUESTS_PER_DAY": "50",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert OpenRouterMarketShare().settings(tmp_path) == load_settings()
    ours = OpenRouterMarketShare().build_defs(dg.ComponentTree.for_test().load_context)
    for key in ("openrouter", "openrouter_archive", "openrouter_warehouse"):
        assert resource_of(ours, key) == resource_of(build_defs(), key)
    assert {spec.partitions_def for spec in ours.resolve_all_asset_specs()} == {daily_partitions(), None}

    monkeypatch.setenv("ORPIPELINE_REQUESTS_PER_DAY", "many")  # an attribute replaces the variable
    given = OpenRouterMarketShare(data_dir="own", requests_per_day=7).settings(tmp_path / "shop")
    assert (given.warehouse, given.requests_per_day) == (tmp_path / "shop" / "own" / "warehouse.duckdb", 7)
    assert (given.state, given.start_date.isoformat()) == (tmp_path / "state", "2026-09-01")


def test_a_relative_folder_is_in_the_project_and_an_unknown_url_is_rejected(tmp_path: Path) -> None:
    settings = OpenRouterMarketShare(data_dir="data/market", start_date="2026-09-01").settings(tmp_path)
    assert settings.archive == tmp_path / "data" / "market" / "raw"
    assert settings.start_date.isoformat() == "2026-09-01"
    assert OpenRouterMarketShare(archive="s3://bucket/raw").settings(tmp_path).archive == "s3://bucket/raw"
    with pytest.raises(SettingsError, match="must be a path on this machine or the URL of an object store"):
        OpenRouterMarketShare(archive="ftp://bucket/raw").settings(tmp_path)
    for unset in (None, ""):  # `{{ env.X }}` without the variable must not start a second archive
        with pytest.raises(SettingsError, match="data_dir is empty"):
            OpenRouterMarketShare(data_dir=unset).settings(tmp_path)

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from orpipeline import ArchiveResource, WarehouseIOManager, WarehouseResource, network
from orpipeline import settings as module
from orpipeline.archive import Archive
from orpipeline.cli.start import variables
from orpipeline.cli.terminal import from_first_day
from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, api_key, load_settings
from orpipeline.testing import fixed_clock, sample_response
from orpipeline_tests.processes import run_python
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NOON


def test_the_folders_are_in_the_data_folder_unless_they_are_set(tmp_path: Path) -> None:
    data = tmp_path / "2026:10"  # with a colon, and not a URL
    settings = Settings(data_dir=data, reports=tmp_path / "elsewhere")
    assert (settings.archive, settings.warehouse) == (data / "raw", data / "warehouse.duckdb")
    assert (settings.state, settings.reports) == (data / "state", tmp_path / "elsewhere")


def test_the_environment_is_one_way_to_make_them(tmp_path: Path) -> None:
    variables = {
        "ORPIPELINE_DATA_DIR": str(tmp_path),
        "ORPIPELINE_START_DATE": "2026-08-01",
        "ORPIPELINE_BASE_URL": "http://127.0.0.1:1/api/",
        "ORPIPELINE_REPORTS": "",
    }
    expected = Settings(data_dir=tmp_path, start_date=date(2026, 8, 1), base_url="http://127.0.0.1:1/api")
    assert load_settings(variables) == expected


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ORPIPELINE_DATA_DIR", "s3://bucket/x", "must be a path on this machine, not s3:"),
        ("ORPIPELINE_DATA_DIR", "data", "must be an absolute path, or begin with ~"),
        (
            "ORPIPELINE_ARCHIVE",
            "https://user:hunter2@host/x",
            "or the URL of an object store (s3://, gs://, az://), not https:",
        ),
        ("ORPIPELINE_REPORTS", "s3://bucket//reports", "query, fragment or empty part"),
        ("ORPIPELINE_WAREHOUSE", "md:market", "or `ducklake:postgres:dbname=... host=...`, not md:"),
        ("ORPIPELINE_WAREHOUSE", "ducklake:lake.sqlite", "other catalogs admit one machine only"),
        ("ORPIPELINE_WAREHOUSE", "ducklake:postgres:host=x password=hunter2", "must not contain a password"),
        ("ORPIPELINE_WAREHOUSE", "ducklake:postgres:host=x sslpassword=hunter2", "must not contain a password"),
        ("ORPIPELINE_STATE", "postgresql://me:hunter2@host/db", "must not contain a password"),
        ("ORPIPELINE_BASE_URL", "ftp://host", "must be an http:// or https:// URL"),
        ("ORPIPELINE_REQUESTS_PER_MINUTE", "31", "less than or equal to 30"),
        ("ORPIPELINE_START_DATE", "soon", "date"),
    ],
)
def test_an_invalid_variable_is_named_in_one_line_without_its_value(variable: str, value: str, reason: str) -> None:
    name = variable.removeprefix("ORPIPELINE_").lower()
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    message = str(caught.value)
    assert message.startswith(f"Invalid settings: {name} ({variable})")
    assert reason in message
    assert "\n" not in message
    assert "hunter2" not in message
    with pytest.raises(SettingsError, match=name):
        Settings.model_validate({name: value})


def test_a_misspelled_setting_is_rejected() -> None:
    with pytest.raises(SettingsError, match="datadir"):
        Settings.model_validate({"datadir": "x"})


def test_a_clone_keeps_its_data_beside_pyproject_and_a_wheel_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "test_folder", None)  # as outside tests
    assert Settings().data_dir == Path(__file__).parents[1] / "data"
    monkeypatch.setattr(module, "project_dir", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in Settings().data_dir.parents
    assert Settings().data_dir.name == "orpipeline"


def test_the_code_location_uses_the_same_data_from_every_folder_and_reads_no_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "test_folder", None)
    (tmp_path / ".env").write_text(f"ORPIPELINE_DATA_DIR={tmp_path}\n")
    for name in [name for name in os.environ if name.startswith("ORPIPELINE_")]:
        monkeypatch.delenv(name)
    shown = run_python("from orpipeline.settings import load_settings; print(load_settings().archive)")  # in tmp_path
    assert shown == f"{Settings().archive}\n"


def test_a_resource_rejects_unknown_options_and_paths_that_depend_on_the_current_folder(tmp_path: Path) -> None:
    for path in ("raw", "https://bucket/raw"):
        with pytest.raises(SettingsError, match="path must be"):
            ArchiveResource(path=path).archive()
        with pytest.raises(SettingsError, match="database must be"), WarehouseResource(database=path).get_connection():
            pass
    with pytest.raises(ValidationError, match="lock_wait"):
        WarehouseIOManager(database=str(tmp_path / "x.duckdb"), lock_wait=3)  # type: ignore[call-arg] # the point


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"archive": "s3://bucket/raw", "state": "postgresql://db.example/x", "reports": "s3://bucket/reports"},
        {"warehouse": "ducklake:postgres:dbname=lake host=db.example", "lake_data": "s3://bucket/lake"},
    ],
    ids=["files", "stores", "lake"],
)
def test_the_ui_and_its_code_location_have_the_settings_of_the_command(tmp_path: Path, places: dict[str, str]) -> None:
    settings = Settings(data_dir=tmp_path, **places)  # type: ignore[arg-type] # each value is text
    assert load_settings(variables(settings)) == settings


def test_dev_sets_the_first_archived_day_as_start_date_unless_the_user_set_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_date(settings: Settings) -> str:
        return variables(from_first_day(settings))["ORPIPELINE_START_DATE"]

    settings = Settings(data_dir=tmp_path)
    with fixed_clock(NOON):  # nobody can fetch a day before the newest one
        assert start_date(settings) == DAY.isoformat()
    for day in (DAY, DAY - timedelta(days=7)):
        Archive(settings.archive).put(sample_response(day), fetched_at=None, source="a test", origin="import")
    assert start_date(settings) == "2026-09-29"
    assert start_date(Settings(data_dir=tmp_path, start_date=date(2026, 9, 1))) == "2026-09-01"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # not allowed without AWS_ALLOW_HTTP
    assert start_date(Settings(data_dir=tmp_path, archive="s3://bucket/raw")) == "2026-06-17"


def test_each_archive_has_a_spool_of_its_own(tmp_path: Path) -> None:
    spools = {
        Settings(data_dir=tmp_path, archive=archive).spool for archive in ("s3://one/raw", "s3://two/raw", "/raw")
    }
    assert len(spools) == 3
    assert {spool.parent for spool in spools} == {tmp_path / "spool"}


def test_spaces_and_line_ends_around_a_value_do_not_count(tmp_path: Path) -> None:
    environment = {
        "ORPIPELINE_DATA_DIR": f" {tmp_path}\n",
        "ORPIPELINE_ALERT_WEBHOOK": " https://example.org/hook\n",
        "OPENROUTER_API_KEY": "sk-or-x\n",
    }
    settings = load_settings(environment)
    assert settings.data_dir == tmp_path
    assert settings.alert_webhook is not None
    assert settings.alert_webhook.get_secret_value() == "https://example.org/hook"
    assert api_key(environment) == "sk-or-x"


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become an unknown user")
def test_a_user_without_a_home_folder_needs_a_data_folder() -> None:
    program = """
import os, sys, orpipeline.settings as settings
os.environ.pop("HOME", None)
os.setuid(54321)
settings.project_dir = lambda: None  # as an installed wheel
print(settings.load_settings({"ORPIPELINE_DATA_DIR": "/srv/data"}).archive)
try:
    settings.load_settings({})
except settings.SettingsError as error:
    print(error)
"""
    assert run_python(program).splitlines() == [
        "/srv/data/raw",
        "This user has no home folder. Set ORPIPELINE_DATA_DIR to the folder of all data.",
    ]

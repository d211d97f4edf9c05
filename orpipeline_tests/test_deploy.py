"""The deployment recipes: what they name exists, and what can run on one machine runs."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orpipeline.settings import API_KEY, PREFIX, Settings, load_settings
from orpipeline_tests.cluster import DEPLOY
from orpipeline_tests.commands import run_command

pytestmark = pytest.mark.skipif(not DEPLOY.exists(), reason="these tests are installed without the recipes")
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
PROGRAMS = Path(sys.executable).parent
# Those of other programs, as their own documentation names them.
KNOWN = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
    *("PGPASSWORD", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"),
    *("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_COMPUTE_LOGS_BUCKET"),
    *(f"DAGSTER_POSTGRES_{part}" for part in ("HOST", "PORT", "USER", "PASSWORD", "DB")),
}
# What Dagster's processes need to use dagster.postgres.yaml, and to write events in batches.
NEEDED = {name for name in KNOWN if name.startswith("DAGSTER_POSTGRES_")} | {"DAGSTER_EVENT_BATCH_SIZE"}


def _yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def _env_example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def _compose_environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, service in _yaml("compose.yaml")["services"].items():
        yield name, service.get("environment", {})


def _helm_environment() -> Mapping[str, str]:
    (deployment,) = _yaml("values.yaml")["dagster-user-deployments"]["deployments"]
    environment: Mapping[str, str] = deployment["env"]
    return environment


def test_the_recipes_name_only_variables_that_exist() -> None:
    ours = {API_KEY, *(PREFIX + name.upper() for name in Settings.model_fields)}
    for path in FILES:
        named = set(re.findall(r"\b(?:ORPIPELINE|OPENROUTER|DAGSTER|AWS|POSTGRES|PG)_?[A-Z_]+\b", path.read_text()))
        assert named <= ours | KNOWN, path


def test_the_settings_of_the_recipes_are_valid_and_keep_nothing_but_the_spool_on_the_host() -> None:
    environments = [_env_example(), dict(_compose_environments())["code"], _helm_environment()]
    for environment in environments:
        settings = load_settings(environment)
        places = (settings.archive, settings.warehouse, settings.lake_data, settings.state, settings.reports)
        assert all(isinstance(place, str) for place in places)


def test_no_recipe_contains_a_secret() -> None:
    example = _env_example()
    secrets = ("OPENROUTER_API_KEY", "PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert {name: example[name] for name in (*secrets, "DAGSTER_POSTGRES_PASSWORD")} == dict.fromkeys(
        (*secrets, "DAGSTER_POSTGRES_PASSWORD"), ""
    )
    for _, environment in _compose_environments():
        given = {name: value for name, value in environment.items() if name in secrets or name.endswith("PASSWORD")}
        assert all(re.fullmatch(r"\$\{[A-Z_]+:\?set it in \.env\}", value) for value in given.values())
    assert not {*secrets} & {*_helm_environment()}


def test_every_process_of_dagster_stores_its_state_in_postgres_and_events_in_batches() -> None:
    assert _env_example().keys() >= NEEDED
    programs = ("migrate", "code", "webserver", "daemon")
    services = _yaml("compose.yaml")["services"]
    merged = {name: services[name]["environment"] for name in programs}
    assert all(merged[name].keys() >= NEEDED for name in programs)
    helm = _yaml("values.yaml")
    for environment in (_helm_environment(), helm["dagsterWebserver"]["env"], helm["dagsterDaemon"]["env"]):
        assert environment["DAGSTER_EVENT_BATCH_SIZE"] == "1000"
    assert "DAGSTER_EVENT_BATCH_SIZE=1000" in (DEPLOY / "Dockerfile").read_text()


def test_services_and_units_start_programs_that_exist() -> None:
    started = [
        service["command"][0]
        for service in _yaml("compose.yaml")["services"].values()
        if "build" in service and "command" in service
    ]
    started += [Path(_unit(path)["Service"]["ExecStart"].split()[0]).name for path in UNITS]
    started += re.findall(r'^\s*CMD \["([^"]+)"', (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert len(started) == 3 + 3 + 2
    assert [program for program in started if not (PROGRAMS / program).exists()] == []


def _unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign] # keep upper case
    unit.read(path)
    return unit


def test_cron_runs_commands_that_exist(tmp_path: Path) -> None:
    jobs = [line for line in (DEPLOY / "cron").read_text().splitlines() if line[:1].isdigit()]
    assert len(jobs) == 3
    for job in jobs:
        found = re.fullmatch(r"(?:[\d*]+ ){5}orpipeline set -a; \. /etc/orpipeline/env; exec \S+/orpipeline (.+)", job)
        assert found
        assert run_command(*found[1].split(), "--help", folder=tmp_path).returncode == 0

"""`orpipeline.testing`, used as the tests of a project use it that embeds the pipeline."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import doctest
import gc
import inspect
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
import polars as pl
import pytest

import orpipeline
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.frames import parse
from orpipeline.contracts.tables import RELATIONS
from orpipeline.contracts.validation import validate
from orpipeline.defs.alerts import alert_sensor
from orpipeline.errors import RateLimitedError, SettingsError, StatusError
from orpipeline.openrouter.client import Client
from orpipeline.settings import api_key, load_settings
from orpipeline.testing import (
    LocalApi,
    LocalPipeline,
    Reply,
    Task,
    fixed_clock,
    sample_response,
    sample_tables,
)
from orpipeline.testing.local_api import KEY
from orpipeline_tests.processes import run_python
from orpipeline_tests.responses import DAY, tag

pytest_plugins = ["pytester"]

Tables = Callable[[int], dict[str, pl.DataFrame]]
DAILY = orpipeline.daily_partitions()
OURS = {"models": dg.AssetIn(orpipeline.asset_key("task_models"))}


@dg.asset(partitions_def=DAILY, ins=OURS, io_manager_key="openrouter_io_manager", metadata={"partition_expr": "as_of"})
def authors(models: pl.DataFrame) -> pl.DataFrame:
    return models.group_by("as_of", author=pl.col("model_id").str.split("/").list.first()).len()


@dg.asset_check(asset=authors)
def authors_are_many(authors: pl.DataFrame) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=len(authors) > 10)


# The stand-in of the API


@pytest.mark.usefixtures("at_noon")
def test_the_api_serves_the_newest_completed_day_as_made_up(api: LocalApi) -> None:
    response = Client(KEY, api.base_url).fetch()
    assert response.body == sample_response(DAY)
    assert response.origin == "demo"
    (request,) = api.requests
    assert request.path == "/api/v1/classifications/task?window=7d"
    assert request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/classifications/task?window=7d", "", 401),
        ("/classifications/task?window=30d", KEY, 400),
        ("/credits", KEY, 404),
        ("/classifications/task", KEY, 200),
    ],
)
def test_the_api_rejects_what_openrouter_rejects(api: LocalApi, path: str, key: str, status: int) -> None:
    reply = httpx.get(api.base_url + path, headers={"Authorization": f"Bearer {key}"} if key else {})
    assert reply.status_code == status
    assert status == 200 or reply.json()["error"]["code"] == status


def test_failures_come_before_all_other_replies(api: LocalApi) -> None:
    client = Client(KEY, api.base_url, retry_wait_seconds=0.01, total_timeout_seconds=10)
    api.serve(b'{"one": 1}', Reply(b'{"two": 2}'))
    api.fail_next(429, retry_after=60)
    with pytest.raises(RateLimitedError, match="made-up failure"):
        client.fetch()
    assert [client.fetch().body for _ in range(3)] == [b'{"one": 1}', b'{"two": 2}', b'{"two": 2}']
    api.fail_next(503, times=3)
    with pytest.raises(StatusError, match="503"):
        client.fetch()
    api.serve()
    assert json.loads(client.fetch().body)["data"]["window_days"] == 7


# Responses and tables


def test_a_response_of_your_own_tasks_breaks_no_rule() -> None:
    tasks = [
        Task("code:debugging", 0.4, models={"a/x": 0.6, "b/y:free": (0.3, 0.1)}),
        Task("data:cleaning_up", 0.3, 0.1),
        Task("code:general_impl", 0.2, 0.45),
        Task("math", 0.1, 0.05),
    ]
    body = sample_response("2026-10-06", tasks)
    assert validate(parse([(DAY, body)])).is_empty()
    data = json.loads(body)["data"]
    debugging = tag(data, "code:debugging")
    assert (debugging["category_usage_share"], debugging["category_token_share"]) == (0.667, 0.471)
    assert debugging["models"][1] == {"id": "b/y:free", "tag_usage_share": 0.3, "tag_token_share": 0.1}
    names = [task["display_name"] for task in data["classifications"]]
    assert names == ["Debugging", "Cleaning Up", "Code Generation", "Math"]
    assert [(macro["key"], macro["usage_share"], macro["token_share"]) for macro in data["macro_categories"]] == [
        *(("code", 0.6, 0.85), ("data", 0.3, 0.1), ("general", 0.1, 0.05))
    ]


def test_every_figure_of_a_response_can_be_set() -> None:
    task = Task("x", 2.5, -1.0, "Name", "media", 0.1, 0.2)
    body = sample_response(DAY, [task], change=lambda data: data["macro_categories"][0].update(usage_share="wrong"))
    data = json.loads(body)["data"]
    assert list(data["classifications"][0].values()) == ["x", "Name", "media", 2.5, -1.0, 0.1, 0.2, []]
    assert data["macro_categories"][0] == {"key": "media", "label": "Media", "usage_share": "wrong", "token_share": -1}


def test_the_sample_tables_are_those_of_the_contracts(openrouter_tables: Tables) -> None:
    tables = openrouter_tables(14)
    assert tables.keys() == RELATIONS.keys()
    for name, frame in tables.items():
        assert frame.schema == RELATIONS[name].polars_schema()
        days = sorted(frame["as_of"].unique())
        first = DAY if name == "latest_leaderboard" else DAY - timedelta(days=13)
        assert (days[0], days[-1]) == (first, DAY) or name == "model_prices"
    assert set(tables["snapshots"]["origin"]) == {"demo"}
    tables["snapshots"].drop_in_place("origin")
    assert "origin" in openrouter_tables(14)["snapshots"].columns  # one test's change is not another's


def test_the_fixed_clock_stands_still_or_goes_on() -> None:
    noon = datetime(2026, 10, 7, 12, tzinfo=UTC)
    with fixed_clock(noon):
        assert utc_now() == utc_now() == noon
        with fixed_clock(noon.replace(day=9), ticking=True):
            assert newest_completed_day(utc_now()) == date(2026, 10, 8)
            begun = utc_now()
            time.sleep(0.001)
            assert utc_now() > begun
        assert utc_now() == noon
    assert abs(utc_now() - datetime.now(UTC)) < timedelta(seconds=5)
    with pytest.raises(ValueError, match="no time zone"), fixed_clock(datetime(2026, 10, 7)):  # noqa: DTZ001 - the point
        pass


# The pipeline


def test_an_asset_reads_the_day_that_the_api_serves(openrouter: LocalPipeline) -> None:
    openrouter.serve(sample_response("2026-10-06", [Task("math", models={"a/x": 0.5, "a/y": 0.3, "b/z": 0.1})]))
    result = openrouter.materialize([authors])
    assert result.success
    assert openrouter.read("public.authors").sort("author").rows() == [(DAY, "a", 2), (DAY, "b", 1)]
    assert openrouter.read("task_models")["model_id"].to_list() == ["a/x", "a/y", "b/z"]
    assert len(openrouter.requests) == 1


def test_an_asset_and_its_check_run_with_the_day_and_alone_once_it_is_loaded(openrouter: LocalPipeline) -> None:
    first = openrouter.materialize([authors, authors_are_many], day="2026-10-04")
    assert [check.passed for check in first.get_asset_check_evaluations() if check.asset_key == authors.key] == [True]
    assert openrouter.read("snapshots")["as_of"].to_list() == [date(2026, 10, 4)]
    again = openrouter.materialize([authors], day="2026-10-04")
    assert {event.asset_key for event in again.get_asset_materialization_events()} == {authors.key}
    assert len(openrouter.requests) == 1


def test_a_restated_day_is_fetched_with_run_config(openrouter: LocalPipeline) -> None:
    openrouter.materialize()
    openrouter.serve(sample_response(DAY, [Task("math", models={"a/x": 0.5})]))
    with fixed_clock(utc_now() + timedelta(hours=6)):
        openrouter.materialize([authors], run_config={"ops": {"openrouter_snapshot": {"config": {"fetch": "always"}}}})
    assert openrouter.read("snapshots")["revision"].to_list() == [2]
    assert openrouter.read("public.authors")["author"].to_list() == ["a"]


def test_a_failing_api_fails_the_run_until_its_time_has_come(openrouter: LocalPipeline) -> None:
    openrouter.fail_next(429, retry_after=600)
    with pytest.raises(dg.Failure, match="rejects further requests"):
        openrouter.materialize([authors])
    assert not openrouter.materialize([authors], raise_on_error=False).success
    assert len(openrouter.requests) == 1
    with fixed_clock(utc_now() + timedelta(minutes=11)):
        assert openrouter.materialize([authors]).success


def test_the_fixtures_data_takes_the_place_of_settings_in_the_environment_and_in_code(
    openrouter: LocalPipeline, tmp_path: Path
) -> None:
    real = orpipeline.Settings(data_dir=tmp_path / "real", start_date="2026-10-02", app_title="mine")
    days = orpipeline.daily_partitions(real)

    @dg.asset(
        partitions_def=days, ins=OURS, io_manager_key="openrouter_io_manager", metadata={"partition_expr": "as_of"}
    )
    def mine(models: pl.DataFrame) -> pl.DataFrame:
        read = orpipeline.read("task_models", settings=real)
        assert len(read) == len(models)
        return models.select("as_of", "model_id")

    openrouter.materialize([mine], day=DAY)
    for settings in (real, None):
        rows = orpipeline.read("model_leaderboard", scope="all", settings=settings)
        assert len(rows) == len(sample_tables(1)["model_leaderboard"].filter(scope="all"))
    assert (load_settings().data_dir, api_key()) == (openrouter.settings.data_dir, KEY)
    assert orpipeline.daily_partitions(real) == days
    job = orpipeline.build_defs(real).resolve_job_def("daily_snapshot")
    fetch = {"ops": {"openrouter_snapshot": {"config": {"fetch": "always"}}}}
    raw = [orpipeline.asset_key("raw_task_classifications")]
    assert job.execute_in_process(fetch, partition_key=f"{DAY}", asset_selection=raw).success
    assert openrouter.requests[-1].headers["X-OpenRouter-Title"] == "mine"
    assert not (tmp_path / "real").exists()


def test_several_pipelines_of_a_test_have_their_own_data(openrouter: LocalPipeline, tmp_path: Path) -> None:
    @dg.asset(
        partitions_def=DAILY,
        ins={"models": dg.AssetIn(orpipeline.asset_key("task_models", "market"))},
        io_manager_key="market_io_manager",
        metadata={"partition_expr": "as_of"},
    )
    def mine(models: pl.DataFrame) -> pl.DataFrame:
        return models.select("as_of", "model_id")

    with LocalPipeline(tmp_path, key_prefix="market") as market:
        market.materialize([mine], day=DAY)
        assert len(market.read("public.mine")) == len(market.read("market.task_models"))
    openrouter.load("2026-10-05")
    assert openrouter.read("snapshots")["as_of"].to_list() == [date(2026, 10, 5)]


# The isolation of a project's tests


@pytest.fixture
def developer(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of somebody with a real key and real data. Its tests run in their own process."""
    monkeypatch.delenv("ORPIPELINE_TESTING")
    real = pytester.path / "real"
    for name, value in {
        "OPENROUTER_API_KEY": "sk-or-real",
        "ORPIPELINE_DATA_DIR": str(real),
        "ORPIPELINE_ARCHIVE": str(real / "raw"),
        "ORPIPELINE_START_DATE": "2020-01-01",
        "DAGSTER_HOME": str(real / "dagster"),
    }.items():
        monkeypatch.setenv(name, value)
    variables = f"OPENROUTER_API_KEY=sk-or-real\nORPIPELINE_STATE={real}\nORPIPELINE_START_DATE=2020-01-01"
    pytester.makefile("", **{".env": variables})
    pytester.makeconftest(PLUGIN)
    return pytester


PLUGIN = 'pytest_plugins = ["orpipeline.testing.plugin"]'


@pytest.mark.slow
def test_a_run_or_a_command_of_a_test_that_forgets_the_fixture_fails_with_the_advice(
    developer: pytest.Pytester,
) -> None:
    developer.makepyfile(
        """
        import os, subprocess, sys
        import dagster as dg
        import orpipeline

        def test_run(monkeypatch):
            monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-any")
            job = orpipeline.build_defs().resolve_job_def("daily_snapshot")
            day = orpipeline.daily_partitions().get_last_partition_key()
            with dg.DagsterInstance.ephemeral() as instance:
                job.execute_in_process(instance=instance, partition_key=day)

        def test_command():
            done = subprocess.run(
                [sys.executable, "-c", "from orpipeline.cli.app import main; main()", "fetch"],
                env={**os.environ, "OPENROUTER_API_KEY": "sk-or-any"}, capture_output=True, text=True,
            )
            assert done.returncode == 1
            assert "fixture `openrouter`" in done.stderr
        """
    )
    done = developer.runpytest_subprocess()
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines("*Use the fixture `openrouter`*")
    assert not (developer.path / "real").exists()


REACHES = """
import os
from unittest import mock
import orpipeline
import pytest
from orpipeline.errors import SettingsError
from orpipeline.network import require_allowed
from orpipeline.settings import load_settings

def test_defaults_are_not_real(monkeypatch):
    monkeypatch.delenv("ORPIPELINE_DATA_DIR")
    assert "pytest" in str(orpipeline.Settings().data_dir)
    with mock.patch.dict(os.environ, {}, clear=True):
        assert "pytest" in str(load_settings().data_dir)
        with pytest.raises(SettingsError):
            require_allowed("openrouter.ai")
"""


@pytest.mark.slow
def test_defaults_do_not_lead_to_real_data(developer: pytest.Pytester) -> None:
    developer.makepyfile(REACHES)
    developer.runpytest_subprocess().assert_outcomes(passed=1)


# The audit hook sees each look-up and connection of the process, whichever library it comes from.
SEES = """
import os, sys, pytest, orpipeline
from pathlib import Path
from dotenv import load_dotenv
from orpipeline.openrouter.client import Client
from orpipeline.errors import SettingsError
from orpipeline.settings import api_key, load_settings

AT_COLLECTION = load_settings()
seen = set()
used = []
sys.addaudithook(lambda event, _: used.append(event) if event.startswith(("socket.connect", "socket.getaddr")) else 0)

def is_isolated(settings):
    return "real" not in str(settings) and settings.start_date.year == 2026 and not settings.data_dir.exists()

def test_nothing_real_is_visible():
    load_dotenv(Path.cwd() / ".env")
    assert is_isolated(AT_COLLECTION)
    assert is_isolated(load_settings())
    assert not api_key() and not os.environ.get("DAGSTER_HOME")
    seen.add(load_settings().data_dir)

def test_each_test_has_its_own_folder(monkeypatch):
    monkeypatch.undo()
    seen.add(load_settings().data_dir)
    assert len(seen | {AT_COLLECTION.data_dir}) == 3
    load_settings().archive.mkdir(parents=True)
    Path("folder").write_text(str(load_settings().data_dir))

def test_no_request_leaves_the_machine():
    with pytest.raises(SettingsError, match="fixture `openrouter`"):
        Client("sk-or-any").fetch()
    assert used == []

def test_the_fixture_overrides_what_a_conftest_sets(openrouter):
    assert "real" not in str(load_settings())
"""


@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("-n", "1"), marks=pytest.mark.slow)], ids=["one process", "xdist"]
)
def test_the_developers_settings_data_and_network_are_out_of_reach(
    developer: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    sets = f"import os; os.environ['ORPIPELINE_WAREHOUSE'] = '{developer.path}/real/warehouse.duckdb'"
    developer.makeconftest(f"{PLUGIN}\ndef pytest_runtest_setup(item):\n    if 'conftest' in item.name: {sets}")
    developer.makepyfile(SEES)
    developer.runpytest_subprocess(*arguments).assert_outcomes(passed=4)
    assert not (developer.path / "real").exists()
    assert not Path((developer.path / "folder").read_text()).exists()  # removed at the end


def test_the_plugin_keeps_what_you_name_and_is_opt_in(developer: pytest.Pytester) -> None:
    developer.makepyfile(
        """
        import os
        def test_key(): assert os.environ["OPENROUTER_API_KEY"] == "sk-or-real"
        def test_folder(): assert "real" in os.environ["ORPIPELINE_DATA_DIR"]
        def test_network(): assert "ORPIPELINE_TESTING" not in os.environ
        """
    )
    developer.makeconftest("")  # installing orpipeline changes nobody's tests
    developer.runpytest_subprocess().assert_outcomes(passed=3)
    developer.makeconftest(PLUGIN)
    developer.makeini("[pytest]\norpipeline_keep = OPENROUTER_API_KEY")
    ours = "{name: value for name, value in os.environ.items() if 'ROUTER' in name or 'ORPIPE' in name}"
    done = developer.run(sys.executable, "-c", f"import os, pytest; old = {ours}; pytest.main(); assert old == {ours}")
    done.assert_outcomes(passed=1, failed=2)
    assert done.ret == 0  # the environment is as before


def test_an_alert_of_a_test_reaches_no_network(tmp_path: Path) -> None:
    settings = orpipeline.Settings(data_dir=tmp_path, alert_webhook="https://hooks.example.org/secret")

    sensor = alert_sensor(orpipeline.defs.names.Names(), settings.alert_webhook)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        fixed_clock(datetime(2026, 10, 7, 12, tzinfo=UTC)),  # the day is missing, which is an incident
        dg.build_sensor_context(instance=instance) as context,
        pytest.raises(SettingsError, match=r"hooks\.example\.org"),
    ):
        sensor(context)


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("orpipeline.testing, orpipeline.testing.plugin", ["dagster", "polars", "httpx", "pydantic"]),
        ("orpipeline.testing.local_api", ["pytest", "dagster", "polars"]),
    ],
)
def test_an_import_costs_only_what_it_needs(imported: str, unwanted: list[str]) -> None:
    assert run_python(f"import sys, {imported}; print([name for name in {unwanted} if name in sys.modules])") == "[]\n"


@pytest.mark.parametrize("name", dir(orpipeline.testing))
def test_the_example_of_each_public_name_runs(name: str, tmp_path: Path) -> None:
    docstring = inspect.cleandoc(getattr(orpipeline.testing, name).__doc__ or "")
    example = doctest.DocTestParser().get_doctest(docstring, {"tmp_path": tmp_path}, name, None, None)
    assert f"from orpipeline.testing import {name}" in docstring or f", {name}" in docstring
    output: list[str] = []
    assert not doctest.DocTestRunner().run(example, out=output.append).failed, "".join(output)


def test_a_pipeline_within_another_instance_leaves_nothing_of_it_to_later_tests(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with LocalPipeline(tmp_path / "data") as pipeline, dg.DagsterInstance.local_temp(str(tmp_path / "home")):
        assert pipeline.instance
    gc.collect()
    dg.Definitions().get_repository_def()  # it would ask the ended instance for its storage

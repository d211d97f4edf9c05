"""The metadata of materializations in the Dagster UI, and the report as an asset."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from orpipeline.defs.metadata import macros_metadata
from orpipeline.testing import Task, fixed_clock, sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, QUIET, World, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")


def _days(world: World, *before: int) -> None:
    """Archive and run the days that are this many before the newest."""
    for day in (DAY - timedelta(days=n) for n in before):
        world.store(sample_response(day))
        assert world.run(day).success


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three days, for tests that read only. The newest has a day 7 days before it, and the day before has none."""
    with fixed_clock(NOON, ticking=True), World(tmp_path_factory.mktemp("pages") / "data") as world:
        _days(world, 7, 1, 0)
        yield world


def test_a_leaderboards_page_begins_with_the_reports_names_and_possible_ranks(pages: World) -> None:
    shown = pages.metadata(NAMES.asset("model_leaderboard"), DAY)
    assert next(iter(shown)) == "top_10"
    first, *_, last = [record.data for record in shown["top_10"].records]
    assert (first["rank"], first["model"]) == ("1", "borealis-4-20251118")
    assert re.fullmatch(r"\d+\W+\d+", last["rank"])


def test_no_value_of_a_leaderboards_page_widens_it(pages: World) -> None:
    for key, value in pages.metadata(NAMES.asset("model_leaderboard"), DAY).items():
        if isinstance(value, dg.TextMetadataValue):
            assert max(map(len, value.value.split())) <= 30, key
        if isinstance(value, dg.TableMetadataValue):
            assert len(value.records[0].data) <= 4, key
            assert sum(len(heading) for heading in value.records[0].data) <= 36, key  # headings do not wrap
            cells = [str(cell) for record in value.records for cell in record.data.values()]
            assert max(len(part) for cell in cells for part in re.split(r"[ -]", cell)) <= 16, key


def test_the_largest_changes_are_those_of_models_that_both_days_list(world: World) -> None:
    listed = {"demo-a/stays": 0.4}
    days = {7: listed, 0: {**listed, "demo-b/comes": 0.2}}
    for before, models in days.items():
        world.store(sample_response(DAY - timedelta(days=before), [Task("code:debugging", models=models)]))
    for before in days:
        assert world.run(DAY - timedelta(days=before)).success
    changes = world.metadata(NAMES.asset("model_trends"), DAY)["largest_changes"].records
    assert [(row.data["model"], row.data["since 29 Sep"]) for row in changes] == [("stays", "0.0\N{NO-BREAK SPACE}pp")]


def test_without_the_day_7_days_before_no_change_is_shown(pages: World) -> None:
    assert list(pages.metadata(NAMES.asset("model_trends"), DAY - timedelta(days=1))) == ["citation"]


def test_a_macro_category_has_a_number_to_plot_unless_its_name_is_odd(pages: World) -> None:
    shown = pages.metadata(NAMES.asset("macro_categories"), DAY)
    for row in pages.warehouse.read("macro_categories", since=DAY).iter_rows(named=True):
        assert shown[f"usage_share_{row['key']}"].value == row["usage_share"]
    rows = pl.DataFrame({"key": ["a b|c"], "label": ["x"], "usage_share": [1.0], "token_share": [1.0]})
    assert list(macros_metadata(rows)) == ["groups"]


def test_every_day_shows_its_citation_and_the_raw_response_its_whole_hash(pages: World) -> None:
    for asset in (*NAMES.daily_assets, NAMES.asset("model_trends")):
        assert pages.metadata(asset, DAY)["citation"].value.startswith("Source: OpenRouter")
    (stored,) = pages.warehouse.read("snapshots", since=DAY)["sha256"]
    assert pages.metadata(NAMES.raw, DAY)["sha256"].value == stored
    assert pages.metadata(NAMES.asset("snapshots"), DAY)["validation_warnings"].value == 0


# The report


def _report(world: World, day: str | None = None, request: dg.RunRequest | None = None) -> dg.ExecuteInProcessResult:
    """Materialize the report; for a request of the sensor, with the tags that Dagster adds."""
    tags = {"dagster/sensor_name": "report_sensor", "dagster/run_key": request.run_key or ""} if request else {}
    config = {"ops": {"openrouter_leaderboard_report": {"config": {"day": day}}}} if day else {}
    return world.defs.resolve_job_def("daily_snapshot").execute_in_process(
        instance=world.instance,
        asset_selection=[NAMES.report],
        run_config={**config, **QUIET},
        raise_on_error=False,
        tags=tags,
    )


def test_the_report_shows_the_newest_day_or_another_one_under_its_own_name(pages: World) -> None:
    reports = pages.folder / "reports"
    assert _report(pages, "2026-10-05").success
    assert "as of 2026-10-05" in (reports / "2026-10-05" / "index.html").read_text()
    assert not (reports / "index.html").exists()
    assert _report(pages).success
    event = pages.instance.get_latest_materialization_event(NAMES.report)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert shown["as_of"].value == DAY.isoformat()
    page, picture = Path(str(shown["page"].value)), Path(str(shown["picture"].value))
    assert page == reports / "index.html"
    assert "as of 2026-10-06" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("day", "reason"), [("2026-01-01", "no rows of 2026-01-01"), ("soon", "YYYY-MM-DD")])
def test_a_day_without_rows_fails_clearly(pages: World, day: str, reason: str) -> None:
    assert reason in (failure_of(_report(pages, day)).description or "")


def test_without_any_day_the_report_fails_clearly(world: World) -> None:
    assert "nothing to report" in (failure_of(_report(world)).description or "")


def _tick(world: World) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(instance=world.instance) as context:
        result = world.defs.resolve_sensor_def("report_sensor")(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_the_report_sensor_updates_the_report_once_after_the_tables_changed(world: World) -> None:
    assert isinstance(_tick(world), dg.SkipReason)
    _days(world, 0)
    first, again = _tick(world), _tick(world)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.asset_selection == [NAMES.report]
    assert first.run_key == again.run_key
    assert _report(world).success
    assert isinstance(_tick(world), dg.SkipReason)


def test_the_report_sensor_waits_while_a_run_changes_the_tables(world: World) -> None:
    _days(world, 0)
    with fixed_clock(datetime.now(UTC)):  # the run begins by Dagster's clock, which is the machine's
        world.instance.add_run(dg.DagsterRun("import_archive", status=dg.DagsterRunStatus.STARTED))
        skipped = _tick(world)
    assert isinstance(skipped, dg.SkipReason)
    assert "still changing" in str(skipped.skip_message)


def test_a_failed_report_is_tried_again_at_growing_distances(world: World, tmp_path: Path) -> None:
    _days(world, 0)
    blocked = tmp_path / "data" / "reports"
    shutil.rmtree(blocked)
    blocked.touch()
    request, keys = _tick(world), set()
    for minutes in (2, 4):
        assert isinstance(request, dg.RunRequest)
        keys.add(request.run_key)
        with fixed_clock(ended := datetime.now(UTC)):
            assert not _report(world, request=request).success
            waiting = _tick(world)
        assert isinstance(waiting, dg.SkipReason)
        assert "failed" in str(waiting.skip_message)
        with fixed_clock(ended + timedelta(minutes=minutes - 1)):
            assert isinstance(_tick(world), dg.SkipReason)
        with fixed_clock(ended + timedelta(minutes=minutes + 1)):
            request = _tick(world)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key not in keys
    assert len(keys) == 2
    blocked.unlink()
    assert _report(world, request=request).success
    assert isinstance(_tick(world), dg.SkipReason)

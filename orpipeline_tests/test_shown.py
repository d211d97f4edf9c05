"""The metadata of materializations in the Dagster UI, and the report as an asset."""

from __future__ import annotations

import base64
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from orpipeline.defs.metadata import SPARKLINE_DAYS, macros_metadata
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.world import NAMES, QUIET, World, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")


def _metadata(world: World, asset: dg.AssetKey, day: date = DAY) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[day.isoformat()])
    (record,) = world.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


def _days(world: World, *before: int) -> None:
    """Archive and run the days that are this many before the newest."""
    days = [DAY - timedelta(days=n) for n in before]
    for day in days:
        world.store(answer(day))
    for day in sorted(days):
        assert world.run(day).success


def test_a_leaderboards_page_shows_the_top_10_and_figures_to_plot(world: World) -> None:
    _days(world, 0)
    shown = _metadata(world, NAMES.asset("model_leaderboard"))
    board = world.warehouse.read("model_leaderboard").filter(scope="all").sort("usage_rank", "model_id")
    records = [record.data for record in shown["top_10"].records]
    assert [record["model"] for record in records] == board["model_id"].to_list()[:10]
    first, last = board.row(0, named=True), board.row(9, named=True)
    assert last["usage_rank_best"] < last["usage_rank_worst"]
    possible = f"{last['usage_rank_best']}\N{EN DASH}{last['usage_rank_worst']}"
    assert records[9]["rank"] == f"{last['usage_rank']} ({possible})"
    assert records[9]["requests"] == f"{last['usage_share']:.1%}\N{EN DASH}{last['usage_share_upper']:.1%}".replace(
        "%", "", 1
    )
    assert shown["top_model_usage_share"].value == first["usage_share"]
    assert shown["models"].value == len(board)
    assert shown["top_5_usage_share"].value == pytest.approx(board["usage_share"].head(5).sum())


def test_the_sparkline_is_short_enough_to_appear_inline_and_has_gaps(world: World) -> None:
    _days(world, 4, 3, 1, 0)
    markdown = _metadata(world, NAMES.asset("model_leaderboard"))[f"top_model_last_{SPARKLINE_DAYS}_days"].value
    assert len(markdown) < 1000
    svg = base64.b64decode(markdown.split("base64,")[1].removesuffix(")")).decode()
    assert svg.count("M") == 2  # two days, one missing, two days


def test_a_leaderboards_page_shows_the_largest_changes_over_7_days(world: World) -> None:
    _days(world, 7, 0)
    shown = _metadata(world, NAMES.asset("model_leaderboard"))
    trends = world.warehouse.read("model_trends", since=DAY).filter(scope="all").drop_nulls("usage_share_change_7d")
    largest = trends.sort(pl.col("usage_share_change_7d").abs(), descending=True).row(0, named=True)
    assert shown["movers_of_7_days"].records[0].data["model"] == largest["model_id"]
    assert shown["largest_change_7d"].value == largest["usage_share_change_7d"]
    assert "movers_of_7_days" not in _metadata(world, NAMES.asset("model_leaderboard"), DAY - timedelta(days=7))


def test_each_macro_category_has_a_number_to_plot(world: World) -> None:
    _days(world, 0)
    shown = _metadata(world, NAMES.asset("macro_categories"))
    for row in world.warehouse.read("macro_categories").iter_rows(named=True):
        assert shown[f"usage_share_{row['key']}"].value == row["usage_share"]
        assert shown[f"token_share_{row['key']}"].value == row["token_share"]


def test_a_macro_category_with_an_odd_name_appears_in_the_table_only() -> None:
    rows = pl.DataFrame({"key": ["a b|c"], "label": ["x"], "usage_share": [1.0], "token_share": [1.0]})
    assert list(macros_metadata(rows)) == ["groups"]


def test_every_day_shows_its_counts_citation_hash_and_durations(world: World) -> None:
    _days(world, 1, 0)
    for asset in NAMES.daily_assets:
        shown = _metadata(world, asset)
        assert shown["citation"].value.startswith("Source: OpenRouter")
        assert len(shown["sha256"].value) == 64
    for asset in NAMES.daily_assets[1:]:
        shown = _metadata(world, asset)
        table = world.warehouse.read(asset.path[-1])
        assert shown["dagster/row_count"].value == len(table)
        assert shown["dagster/partition_row_count"].value == table.filter(as_of=DAY).height
    shown = _metadata(world, NAMES.asset("snapshots"))
    assert shown["validation_warnings"].value == 0
    for part in ("fetch", "lock", "validation", "write"):
        assert 0 <= shown[f"{part}_seconds"].value < 60


# The report


def _report(world: World, day: str | None = None) -> dg.ExecuteInProcessResult:
    config = {"ops": {"openrouter_leaderboard_report": {"config": {"day": day}}}} if day else {}
    return world.defs.resolve_job_def("daily_snapshot").execute_in_process(
        instance=world.instance,
        asset_selection=[NAMES.report],
        run_config={**config, **QUIET},
        raise_on_error=False,
    )


def test_the_report_shows_the_newest_day_and_its_own_place(world: World, tmp_path: Path) -> None:
    _days(world, 1, 0)
    assert _report(world).success
    event = world.instance.get_latest_materialization_event(NAMES.report)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert shown["as_of"].value == DAY.isoformat()
    page, picture = Path(str(shown["page"].value)), Path(str(shown["picture"].value))
    assert page == tmp_path / "data" / "reports" / "leaderboard.html"
    assert "as of 2026-10-06" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The leaderboard at a glance, as on its own page.
    of_board = _metadata(world, NAMES.asset("model_leaderboard"))
    for name in ("top_10", f"top_model_last_{SPARKLINE_DAYS}_days", "top_model_usage_share", "models"):
        assert shown[name] == of_board[name]
    assert isinstance(shown["report_seconds"].value, float)


def test_the_report_of_another_day_has_the_day_in_its_name(world: World, tmp_path: Path) -> None:
    _days(world, 1, 0)
    assert _report(world, "2026-10-05").success
    assert "as of 2026-10-05" in (tmp_path / "data" / "reports" / "leaderboard-2026-10-05.html").read_text()
    assert not (tmp_path / "data" / "reports" / "leaderboard.html").exists()


@pytest.mark.parametrize(("day", "reason"), [("2026-01-01", "no rows of 2026-01-01"), ("soon", "YYYY-MM-DD")])
def test_a_day_without_rows_fails_clearly(world: World, day: str, reason: str) -> None:
    _days(world, 0)
    assert reason in (failure_of(_report(world, day)).description or "")


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
    world.instance.add_run(dg.DagsterRun("import_archive", status=dg.DagsterRunStatus.STARTED))
    skipped = _tick(world)
    assert isinstance(skipped, dg.SkipReason)
    assert "still changing" in str(skipped.skip_message)

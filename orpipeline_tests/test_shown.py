"""What the Dagster UI shows: a day's figures, against the second calculation, and the report as an asset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from orpipeline.defs.metadata import macros_metadata
from orpipeline.testing import fixed_clock, sample_response
from orpipeline_tests import independent
from orpipeline_tests.independent import percent
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, QUIET, World, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")

WEEK_BEFORE = DAY - timedelta(days=7)
Row = dict[str, Any]


def _without_largest(data: dict[str, Any]) -> None:
    """Leave out a large model of every list, which the newest day has."""
    for task in data["classifications"]:
        task["models"] = [model for model in task["models"] if "/heron-5" not in model["id"]]


def _of_all(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["scope"] == "all"]


def _records(shown: Row, key: str) -> list[Row]:
    """Return a table's rows; ranges without the characters that keep them in one line."""
    joiner = "\N{WORD JOINER}"
    return [
        {name: value.replace(joiner, "") if isinstance(value, str) else value for name, value in record.data.items()}
        for record in shown[key].records
    ]


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low}\N{EN DASH}{high}"


def _bounds(row: Row) -> str:
    shares = _range(percent(row["usage_share"]), percent(row["usage_share_upper"]))
    return shares.replace("%\N{EN DASH}", "\N{EN DASH}")


def _points(change: float) -> str:
    text = f"{100 * change:+.1f}".replace("-", "\N{MINUS SIGN}")
    return ("0.0" if text[1:] == "0.0" else text) + "\N{NO-BREAK SPACE}pp"


BODIES = {
    DAY - timedelta(days=8): sample_response(DAY - timedelta(days=8)),
    WEEK_BEFORE: sample_response(WEEK_BEFORE, change=_without_largest),
    DAY: sample_response(DAY),
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three days, for tests that read only. The newest has a day 7 days before it, and the others have none."""
    with fixed_clock(NOON, ticking=True), World(tmp_path_factory.mktemp("figures") / "data") as world:
        for day, body in BODIES.items():
            world.store(body)
            assert world.run(day).success
        yield world


def test_every_figure_of_the_leaderboard_equals_the_second_calculation(figures: World) -> None:
    boards = {day: _of_all(independent.leaderboard(json.loads(body))) for day, body in BODIES.items()}
    board, authors = boards[DAY], _of_all(independent.authors(json.loads(BODIES[DAY])))

    shown = figures.metadata(NAMES.asset("model_leaderboard"), DAY)
    assert next(iter(shown)) == "top_10"
    assert shown["models"].value == len(board)
    assert shown["top_5"].value == pytest.approx(sum(row["usage_share"] for row in board[:5]), abs=1e-11)
    shares = {day: {row["model_id"]: row["usage_share"] for row in of_day} for day, of_day in boards.items()}
    changes = {m: share - shares[WEEK_BEFORE][m] for m, share in shares[DAY].items() if m in shares[WEEK_BEFORE]}
    top = _records(shown, "top_10")
    assert [(record["rank"], record["requests"]) for record in top] == [
        (
            _range(str(row["usage_rank_best"]), str(row["usage_rank_worst"])),
            _bounds(row),
        )
        for row in board[:10]
    ]
    assert all(record["model"].split(":")[0] in row["model_id"] for record, row in zip(top, board, strict=False))

    shown = figures.metadata(NAMES.asset("model_trends"), DAY)
    largest = sorted(changes, key=lambda m: (-round(abs(changes[m]), 12), m))[:10]
    moved = _records(shown, "largest_changes") if changes else []
    assert [(row["requests"], row["since 29 Sep"]) for row in moved] == [
        (percent(shares[DAY][m]), _points(changes[m])) for m in largest
    ]
    assert all(row["model"].split(":")[0] in model_id for row, model_id in zip(moved, largest, strict=True))

    shown = figures.metadata(NAMES.asset("author_leaderboard"), DAY)
    assert [(row["author"], row["requests"], row["models"]) for row in _records(shown, "top_10")] == [
        (row["author"], _bounds(row), row["model_count"]) for row in authors[:10]
    ]
    assert shown["authors"].value == len(authors)

    shown = figures.metadata(NAMES.asset("leaderboard_coverage"), DAY)
    (now,) = _of_all(independent.coverage(json.loads(BODIES[DAY])))
    assert _records(shown, "coverage") == [
        {
            "of": name,
            "attributed": percent(now[f"{kind}_attributed"]),
            "unlisted": f"at most {percent(now[f'unlisted_{kind}_upper'])}",
            "above it": f"{now[f'{kind}_models_above_unlisted']} models",
        }
        for kind, name in (("usage", "requests"), ("token", "tokens"))
    ]
    for key in ("usage_attributed", "token_attributed"):
        assert shown[key].value == pytest.approx(now[key], abs=1e-11)


def test_every_figure_of_the_other_tables_is_the_published_one(figures: World) -> None:
    data = json.loads(BODIES[DAY])["data"]
    tasks = data["classifications"]
    largest = sorted(tasks, key=lambda task: (-task["usage_share"], task["tag"]))
    shown = figures.metadata(NAMES.asset("task_classifications"), DAY)
    assert [(row["task"], row["requests"], row["tokens"]) for row in _records(shown, "task_mix")] == [
        (task["display_name"], percent(task["usage_share"]), percent(task["token_share"])) for task in largest[:10]
    ]
    assert shown["tags"].value == len(tasks)
    shown = figures.metadata(NAMES.asset("macro_categories"), DAY)
    macros = sorted(data["macro_categories"], key=lambda macro: -macro["usage_share"])
    assert [(row["group"], row["requests"], row["tokens"]) for row in _records(shown, "groups")] == [
        (macro["label"], percent(macro["usage_share"]), percent(macro["token_share"])) for macro in macros
    ]
    for macro in macros:
        assert shown[f"usage_share_{macro['key']}"].value == macro["usage_share"]
    shown = figures.metadata(NAMES.asset("task_models"), DAY)
    assert shown["models"].value == len({model["id"] for task in tasks for model in task["models"]})


def test_no_value_of_a_leaderboards_page_widens_it(figures: World) -> None:
    for key, value in figures.metadata(NAMES.asset("model_leaderboard"), DAY).items():
        if isinstance(value, dg.TextMetadataValue):
            assert max(map(len, value.value.split())) <= 30, key
        if isinstance(value, dg.TableMetadataValue):
            assert len(value.records[0].data) <= 4, key
            assert sum(len(heading) for heading in value.records[0].data) <= 36, key  # headings do not wrap
            cells = [str(cell) for record in value.records for cell in record.data.values()]
            assert max(len(part) for cell in cells for part in re.split(r"[ -]", cell)) <= 16, key


def test_without_the_day_7_days_before_no_change_is_shown(figures: World) -> None:
    assert list(figures.metadata(NAMES.asset("model_trends"), WEEK_BEFORE)) == ["citation"]


def test_a_macro_category_with_an_odd_name_has_no_number_to_plot() -> None:
    rows = pl.DataFrame({"key": ["a b|c"], "label": ["x"], "usage_share": [1.0], "token_share": [1.0]})
    assert list(macros_metadata(rows)) == ["groups"]


def test_every_day_shows_its_citation_and_the_raw_response_its_whole_hash(figures: World) -> None:
    for asset in (*NAMES.daily_assets, NAMES.asset("model_trends")):
        assert figures.metadata(asset, DAY)["citation"].value.startswith("Source: OpenRouter")
    (stored,) = figures.warehouse.read("snapshots", since=DAY)["sha256"]
    assert figures.metadata(NAMES.raw, DAY)["sha256"].value == stored
    assert figures.metadata(NAMES.asset("snapshots"), DAY)["validation_warnings"].value == 0


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


def test_the_report_shows_the_newest_day_or_another_one_under_its_own_name(figures: World) -> None:
    reports = figures.folder / "reports"
    assert _report(figures, "2026-09-29").success
    assert "as of 2026-09-29" in (reports / "2026-09-29" / "index.html").read_text()
    assert not (reports / "index.html").exists()
    assert _report(figures).success
    event = figures.instance.get_latest_materialization_event(NAMES.report)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert shown["as_of"].value == DAY.isoformat()
    page, picture = Path(str(shown["page"].value)), Path(str(shown["picture"].value))
    assert page == reports / "index.html"
    assert "as of 2026-10-06" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("day", "reason"), [("2026-01-01", "no rows of 2026-01-01"), ("soon", "YYYY-MM-DD")])
def test_a_day_without_rows_fails_clearly(figures: World, day: str, reason: str) -> None:
    assert reason in (failure_of(_report(figures, day)).description or "")


def test_without_any_day_the_report_fails_clearly(world: World) -> None:
    assert "nothing to report" in (failure_of(_report(world)).description or "")


def _run_newest(world: World) -> None:
    world.store(sample_response(DAY))
    assert world.run(DAY).success


def _tick(world: World) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(instance=world.instance) as context:
        result = world.defs.resolve_sensor_def("report_sensor")(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_the_report_sensor_updates_the_report_once_after_the_tables_changed(world: World) -> None:
    assert isinstance(_tick(world), dg.SkipReason)
    _run_newest(world)
    first, again = _tick(world), _tick(world)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.asset_selection == [NAMES.report]
    assert first.run_key == again.run_key
    assert _report(world).success
    assert isinstance(_tick(world), dg.SkipReason)


def test_the_report_sensor_waits_while_a_run_changes_the_tables(world: World) -> None:
    _run_newest(world)
    with fixed_clock(datetime.now(UTC)):  # the run begins by Dagster's clock, which is the machine's
        world.instance.add_run(dg.DagsterRun("import_archive", status=dg.DagsterRunStatus.STARTED))
        skipped = _tick(world)
    assert isinstance(skipped, dg.SkipReason)
    assert "still changing" in str(skipped.skip_message)


def test_a_failed_report_is_tried_again_at_growing_distances(world: World, tmp_path: Path) -> None:
    _run_newest(world)
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

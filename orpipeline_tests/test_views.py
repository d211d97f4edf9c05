"""The views, against values calculated by hand. Each response has one tag, so its models' shares are of all traffic."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from orpipeline.archive import Archive
from orpipeline.contracts.tables import VIEWS
from orpipeline.load import load_days
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.engines import ON_BOTH_ENGINES, EnginePlace
from orpipeline_tests.world import local

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def _day(number: int) -> date:
    return date(2026, 10, number)


class History:
    """An archive and a warehouse that get days in any order."""

    def __init__(self, folder: Path, warehouse: Warehouse) -> None:
        self.archive, self.warehouse = Archive(folder / "raw"), warehouse

    def add(self, days: Mapping[int, Mapping[str, float]]) -> None:
        for number, models in days.items():
            body = sample_response(_day(number), [Task("code:debugging", models=models)])
            self.archive.put(body, fetched_at=NOW, source="a test", origin="import")
        loaded = load_days(self.archive, self.warehouse, [_day(number) for number in days], now=NOW)
        assert not loaded.validated.errors

    def trend(self, model: str, number: int, scope: str = "all") -> dict[str, Any]:
        rows = self.warehouse.read("model_trends", since=_day(number), until=_day(number))
        (row,) = rows.filter(model_id=model, scope=scope).to_dicts()
        return {name: row[name] for name in row if name not in ("as_of", "window_days", "scope", "model_id")}


@pytest.fixture
def history(tmp_path: Path, engine: EnginePlace) -> History:
    return History(tmp_path / "data", engine.open())


@ON_BOTH_ENGINES
def test_a_trend_compares_a_day_with_those_1_and_7_days_before(history: History) -> None:
    history.add({1: {"a/x": 0.5, "b/y": 0.3}, 7: {"b/y": 0.45, "a/x": 0.4}, 8: {"a/x": 0.6, "b/y": 0.1}})
    assert history.trend("a/x", 8) == {
        "usage_rank": 1,
        "usage_share": 0.6,
        "usage_rank_1d": 2,
        "usage_rank_7d": 1,
        "usage_share_change_1d": 0.2,  # 0.6 - 0.4
        "usage_share_change_7d": 0.1,  # 0.6 - 0.5
        "first_seen": _day(1),
        "days_listed": 3,
        # The tag's share is from 0.9995 to 1.0005, and the model's shares of it are within 0.0005.
        "usage_share_change_7d_low": 0.09845,  # 0.9995 x 0.5995 - 1.0005 x 0.5005
        "usage_share_change_7d_high": 0.10155,  # 1.0005 x 0.6005 - 0.9995 x 0.4995
        "token_share_change_7d_low": 0.09845,
        "token_share_change_7d_high": 0.10155,
    }
    assert history.trend("b/y", 8, "code")["usage_share_change_1d"] == -0.35  # 0.1 - 0.45


@ON_BOTH_ENGINES
def test_a_model_that_no_list_named_7_days_before_had_at_most_what_an_unlisted_one_could(history: History) -> None:
    history.add({1: {"a/x": 0.5, "c/z": 0.25}, 8: {"a/x": 0.6, "b/y": 0.3}})
    trend = history.trend("b/y", 8)
    # Then: at most 1.0005 x min(0.25 + 0.0005, 1 - (0.4995 + 0.2495)) of requests, and 1.0005 x 0.251 of tokens.
    assert trend["usage_share_change_7d"] is None
    assert trend["usage_share_change_7d_low"] == 0.048725  # 0.9995 x 0.2995 - 1.0005 x 0.2505
    assert trend["token_share_change_7d_low"] == 0.04822475  # 0.9995 x 0.2995 - 1.0005 x 0.251
    assert trend["usage_share_change_7d_high"] == 0.30065025  # 1.0005 x 0.3005


@ON_BOTH_ENGINES
def test_a_missing_day_gives_no_change_and_no_other_days_figure(history: History) -> None:
    history.add({1: {"a/x": 0.5}, 3: {"a/x": 0.6}, 9: {"a/x": 0.7}})
    for number, days_listed in ((1, 1), (3, 2), (9, 3)):  # each is without the day before and the day 7 days before
        trend = history.trend("a/x", number)
        assert {trend[name] for name in trend if "_1d" in name or "_7d" in name} == {None}
        assert trend["days_listed"] == days_listed


def test_a_model_that_returns_keeps_its_first_day_and_has_no_change_from_a_day_without_it(history: History) -> None:
    history.add({1: {"a/x": 0.5, "b/y": 0.2}, 2: {"a/x": 0.5}, 3: {"a/x": 0.5, "b/y": 0.4}, 4: {"b/y": 0.5}})
    back = history.trend("b/y", 3)
    assert (back["first_seen"], back["days_listed"]) == (_day(1), 2)
    assert (back["usage_rank_1d"], back["usage_share_change_1d"]) == (None, None)
    again = history.trend("b/y", 4)
    assert (again["usage_rank"], again["usage_rank_1d"], again["usage_share_change_1d"]) == (1, 2, 0.1)
    assert history.trend("a/x", 3)["usage_share_change_1d"] == 0.0


@ON_BOTH_ENGINES
def test_an_older_day_that_is_imported_later_is_in_the_trends_at_once(history: History) -> None:
    history.add({8: {"a/x": 0.6}})
    assert history.trend("a/x", 8)["usage_share_change_7d"] is None
    history.add({1: {"a/x": 0.2}, 7: {"a/x": 0.65}})
    trend = history.trend("a/x", 8)
    assert (trend["usage_share_change_7d"], trend["usage_share_change_1d"]) == (0.4, -0.05)
    assert (trend["first_seen"], trend["days_listed"]) == (_day(1), 3)


@ON_BOTH_ENGINES
def test_views_have_their_contracts_columns_and_the_latest_leaderboard_is_the_newest_day_in_all_traffic(
    history: History,
) -> None:
    history.add({2: {"a/x": 0.6, "nobody": 0.1}})
    history.add({1: {"c/z": 0.9}})
    for view, contract in VIEWS.items():
        rows = history.warehouse.read(view)
        contract.validate(rows)
        assert dict(rows.schema) == contract.polars_schema()
    latest = history.warehouse.read("latest_leaderboard").sort("usage_rank")
    assert latest.select("as_of", "scope", "model_id").rows() == [(_day(2), "all", "a/x"), (_day(2), "all", "nobody")]


def test_views_work_in_a_renamed_file_that_is_attached_under_another_name(tmp_path: Path) -> None:
    history = History(tmp_path, Warehouse(tmp_path / "openrouter.duckdb"))
    history.add({1: {"a/x": 0.5}})
    moved = local(history.warehouse.place).rename(tmp_path / "moved.duckdb")
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{moved}' AS elsewhere (READ_ONLY)")
        for view in VIEWS.keys() - {"model_prices"}:  # without a catalogue, it has no row
            (count,) = connection.execute(f"SELECT count(*) FROM elsewhere.openrouter.{view}").fetchall()
            assert count[0] > 0

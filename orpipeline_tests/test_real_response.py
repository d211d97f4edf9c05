"""The real response that comes with the project's sources: every stored figure against a calculation by hand.

Possible ranks, coverage and authors are compared in `test_figures`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from orpipeline.archive import Archive
from orpipeline.contracts.tables import TABLES
from orpipeline.load import load_days
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests import independent
from orpipeline_tests.independent import REAL, needs_real
from orpipeline_tests.responses import DAY

pytestmark = [pytest.mark.promise, needs_real]
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """The response's `data`, with fractions: the calculation by hand rounds nothing."""
    data: dict[str, Any] = json.loads(REAL.read_bytes(), parse_float=Fraction)["data"]
    return data


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Every table's rows, loaded from the archive into the warehouse."""
    folder = tmp_path_factory.mktemp("real")
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    noon = datetime(2026, 10, 7, 12, tzinfo=UTC)
    archive.put(REAL.read_bytes(), fetched_at=noon, source="a test", origin="api")
    assert not load_days(archive, warehouse, [DAY], now=noon).validated.findings.to_dicts()
    return {name: warehouse.read(name).to_dicts() for name in TABLES}


def test_the_tables_have_every_row_of_the_response(rows: Rows) -> None:
    counts = {name: len(found) for name, found in rows.items() if "leaderboard" not in name}
    assert counts == {"snapshots": 1, "task_classifications": 29, "macro_categories": 4, "task_models": 290}


def test_every_figure_is_stored_as_published(rows: Rows, published: dict[str, Any]) -> None:
    by_tag = {row["tag"]: row for row in rows["task_classifications"]}
    by_model = {(row["tag"], row["model_id"]): row for row in rows["task_models"]}
    for task in published["classifications"]:
        models = task.pop("models")
        assert {name: by_tag[task["tag"]][name] for name in task} == {
            name: float(value) if isinstance(value, Fraction) else value for name, value in task.items()
        }
        for position, model in enumerate(models, start=1):
            row = by_model[task["tag"], model["id"]]
            assert row["position"] == position
            assert row["tag_usage_share"] == float(model["tag_usage_share"])
            assert row["tag_token_share"] == float(model["tag_token_share"])
        task["models"] = models
    by_key = {row["key"]: row for row in rows["macro_categories"]}
    for macro in published["macro_categories"]:
        row = by_key[macro["key"]]
        assert (row["label"], row["usage_share"], row["token_share"]) == (
            macro["label"],
            float(macro["usage_share"]),
            float(macro["token_share"]),
        )


@pytest.mark.parametrize("scope", ["all", "code", "data", "agent", "general"])
def test_the_leaderboard_equals_the_calculation_by_hand(rows: Rows, scope: str) -> None:
    stored, by_hand = (
        {row["model_id"]: row for row in of if row["scope"] == scope}
        for of in (rows["model_leaderboard"], independent.leaderboard(json.loads(REAL.read_bytes())))
    )
    assert stored == by_hand


def test_the_leaderboard_of_all_traffic_has_43_models_and_these_neighbours(rows: Rows) -> None:
    board = sorted((row["usage_rank"], row["model_id"]) for row in rows["model_leaderboard"] if row["scope"] == "all")
    assert len(board) == 43
    assert board[1:4] == [
        (2, "stealth/space-bunny-alpha"),
        (3, "deepseek/deepseek-v4.1-flash-20260910"),
        (4, "z-ai/glm-5.3-flash-20260826"),
    ]

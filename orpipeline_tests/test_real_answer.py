"""The real answer that comes with the project's sources: every stored figure against a calculation by hand.

Possible ranks, coverage and authors are compared in `test_figures`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from orpipeline.archive.archive import Archive
from orpipeline.contracts.tables import TABLES
from orpipeline.snapshot import load_days
from orpipeline.warehouse.database import Warehouse
from orpipeline_tests.answers import DAY
from orpipeline_tests.independent import REAL, needs_real

pytestmark = [pytest.mark.promise, needs_real]
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """The answer's `data`, with fractions: the calculation by hand rounds nothing."""
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


def test_the_tables_have_every_row_of_the_answer(rows: Rows) -> None:
    counts = {name: len(found) for name, found in rows.items()}
    del counts["model_leaderboard"]
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


def _by_hand(tasks: list[dict[str, Any]], weight: str, share: str) -> dict[str, tuple[Fraction, Fraction]]:
    """Return each model's attributed share and upper bound: in exact fractions."""
    attributed: dict[str, Fraction] = defaultdict(Fraction)
    for task in tasks:
        for model in task["models"]:
            attributed[model["id"]] += Fraction(task[weight]) * Fraction(model[share])
    bounds = {}
    for name, lower in attributed.items():
        upper = lower
        for task in tasks:
            shares = [Fraction(model[share]) for model in task["models"]]
            if name not in {model["id"] for model in task["models"]}:
                left = 1 - sum(shares)
                rest = min(min(shares), left) if share == "tag_usage_share" else left
                upper += Fraction(task[weight]) * max(rest, Fraction(0))
        bounds[name] = (lower, upper)
    return bounds


@pytest.mark.parametrize("scope", ["all", "code", "data", "agent", "general"])
def test_the_leaderboard_equals_the_calculation_by_hand(rows: Rows, published: dict[str, Any], scope: str) -> None:
    tasks = [task for task in published["classifications"] if scope in ("all", task["macro_category"])]
    prefix = "" if scope == "all" else "category_"
    usage = _by_hand(tasks, f"{prefix}usage_share", "tag_usage_share")
    tokens = _by_hand(tasks, f"{prefix}token_share", "tag_token_share")
    board = {row["model_id"]: row for row in rows["model_leaderboard"] if row["scope"] == scope}
    assert set(board) == set(usage)
    for name, row in board.items():
        (lower, upper), (token_lower, token_upper) = usage[name], tokens[name]
        assert row["usage_share"] == float(lower)
        assert row["usage_share_upper"] == float(upper)
        assert row["token_share"] == float(token_lower)
        assert row["token_share_upper"] == float(token_upper)
        assert row["usage_rank"] == 1 + sum(other[0] > lower for other in usage.values())
        assert row["token_rank"] == 1 + sum(other[0] > token_lower for other in tokens.values())
        listing = [task for task in tasks if name in {model["id"] for model in task["models"]}]
        assert row["task_count"] == len(listing)
        gains = {
            task["tag"]: Fraction(task[f"{prefix}usage_share"])
            * next(model["tag_usage_share"] for model in task["models"] if model["id"] == name)
            for task in listing
        }
        assert gains[row["top_task"]] == max(gains.values())


def test_the_leaderboard_of_all_traffic_has_43_models_and_these_neighbours(rows: Rows) -> None:
    board = sorted((row["usage_rank"], row["model_id"]) for row in rows["model_leaderboard"] if row["scope"] == "all")
    assert len(board) == 43
    assert board[1:4] == [
        (2, "stealth/space-bunny-alpha"),
        (3, "deepseek/deepseek-v4.1-flash-20260910"),
        (4, "z-ai/glm-5.3-flash-20260826"),
    ]

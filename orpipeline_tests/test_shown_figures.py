"""Every figure that the Dagster UI shows about a day, against the second calculation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from orpipeline.testing import fixed_clock, sample_response
from orpipeline_tests import independent
from orpipeline_tests.independent import percent
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, World

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
    with fixed_clock(NOON, ticking=True), World(tmp_path_factory.mktemp("figures") / "data") as world:
        for day, body in BODIES.items():
            world.store(body)
            assert world.run(day).success
        yield world


def test_every_figure_of_the_leaderboard_equals_the_second_calculation(figures: World) -> None:
    boards = {day: _of_all(independent.leaderboard(json.loads(body))) for day, body in BODIES.items()}
    board, authors = boards[DAY], _of_all(independent.authors(json.loads(BODIES[DAY])))

    shown = figures.metadata(NAMES.asset("model_leaderboard"), DAY)
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

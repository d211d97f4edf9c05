"""Every figure that the Dagster UI shows about a day, against the second calculation."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from orpipeline.testing import sample_response
from orpipeline_tests import independent
from orpipeline_tests.independent import REAL, percent
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, World

WEEK_BEFORE = DAY - timedelta(days=7)
Row = dict[str, Any]

pytestmark = pytest.mark.usefixtures("at_noon")


@pytest.fixture(params=["made up", "real"])
def newest(request: pytest.FixtureRequest) -> bytes:
    """The newest day's response."""
    if request.param == "real" and not REAL.exists():
        pytest.skip("the real response is not here: ../shared/real")
    return REAL.read_bytes() if request.param == "real" else sample_response(DAY)


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


def _points(change: float) -> str:
    text = f"{100 * change:+.1f}".replace("-", "\N{MINUS SIGN}")
    return ("0.0" if text[1:] == "0.0" else text) + "\N{NO-BREAK SPACE}pp"


def _assert_ranked(records: list[Row], rows: list[Row], name: str) -> None:
    """Check the ranks and shares of a table with the first ten rows, and the place of its divider."""
    (place,) = (n for n, record in enumerate(records) if record["rank"] == "\N{EN DASH}")
    # A group ends where every row before is certainly ahead of every row after.
    ends = [n for n in range(len(rows) + 1) if all(row["usage_rank_worst"] <= n for row in rows[:n])]
    start, end = max(pairwise(ends), key=lambda group: group[1] - group[0])
    assert (place, records[place][name]) == (start, f"order of next {end - start} unknown")
    del records[place]
    assert [(record["rank"], record["requests"]) for record in records] == [
        (
            _range(str(row["usage_rank_best"]), str(row["usage_rank_worst"])),
            _range(percent(row["usage_share"]), percent(row["usage_share_upper"])).replace(
                "%\N{EN DASH}", "\N{EN DASH}"
            ),
        )
        for row in rows[:10]
    ]


def test_every_figure_of_the_leaderboard_equals_the_second_calculation(world: World, newest: bytes) -> None:
    bodies = {
        DAY - timedelta(days=8): sample_response(DAY - timedelta(days=8)),
        WEEK_BEFORE: sample_response(WEEK_BEFORE, change=_without_largest),
        DAY: newest,
    }
    for body in bodies.values():
        world.store(body)
    for day in bodies:
        assert world.run(day).success
    shown = world.metadata(NAMES.asset("model_leaderboard"), DAY)
    boards = {day: _of_all(independent.leaderboard(json.loads(body))) for day, body in bodies.items()}
    coverage = {day: _of_all(independent.coverage(json.loads(body)))[0] for day, body in bodies.items()}
    board, authors = boards[DAY], _of_all(independent.authors(json.loads(newest)))

    _assert_ranked(_records(shown, "top_10"), board, "model")
    top_authors = _records(shown, "top_10_authors")
    _assert_ranked(top_authors, authors, "author")
    assert [(row["author"], row["models"]) for row in top_authors if row["rank"] != "\N{EN DASH}"] == [
        (row["author"], row["model_count"]) for row in authors[:10]
    ]

    now, before = coverage[DAY], coverage[WEEK_BEFORE]
    assert _records(shown, "coverage") == [
        {
            "of": name,
            "attributed": percent(now[f"{kind}_attributed"]),
            "unlisted": f"at most {percent(now[f'unlisted_{kind}_upper'])}",
            "above it": f"{now[f'{kind}_models_above_unlisted']} models",
        }
        for kind, name in (("usage", "requests"), ("token", "tokens"))
    ]
    for key in ("usage_attributed", "token_attributed", "unlisted_usage_upper", "unlisted_token_upper"):
        assert shown[key].value == pytest.approx(now[key], abs=1e-11)
    assert shown["models"].value == now["model_count"]
    assert shown["top_model_usage_share"].value == pytest.approx(board[0]["usage_share"], abs=1e-11)
    assert shown["top_5_usage_share"].value == pytest.approx(sum(row["usage_share"] for row in board[:5]), abs=1e-11)

    shares = {day: {row["model_id"]: row["usage_share"] for row in of_day} for day, of_day in boards.items()}
    earlier = set().union(*(shares[day] for day in bodies if day < DAY))
    words = {m: "back" if m in earlier else "new" for m in shares[DAY].keys() - shares[WEEK_BEFORE].keys()}
    changes = {m: share - shares[WEEK_BEFORE][m] for m, share in shares[DAY].items() if m in shares[WEEK_BEFORE]}
    top = [record["since 29 Sep"] for record in _records(shown, "top_10") if record["rank"] != "\N{EN DASH}"]
    ids = [row["model_id"] for row in board[:10]]
    assert top == [words.get(m) or _points(changes[m]) for m in ids]
    names = [row["model"] for row in _records(shown, "top_10") if row["rank"] != "\N{EN DASH}"]
    assert all(name.split(":")[0] in model_id for name, model_id in zip(names, ids, strict=True))
    assert shown["newly_listed_models"].value == len(shares[DAY].keys() - earlier)

    # On a day that does not list it, a model has at most the bound of unlisted models.
    changes |= {m: shares[DAY][m] - before["unlisted_usage_upper"] for m in words}
    gone = shares[WEEK_BEFORE].keys() - shares[DAY].keys()
    changes |= {m: now["unlisted_usage_upper"] - shares[WEEK_BEFORE][m] for m in gone}
    certain = {
        m: c for m, c in changes.items() if abs(c) > 1e-9 and (m not in words or c > 0) and (m not in gone or c < 0)
    }
    largest = [
        m for m in sorted(certain, key=lambda m: (-round(abs(certain[m]), 12), m))[:10] if abs(certain[m]) > 5e-4
    ]
    expected = [
        (
            "\N{EN DASH}" if m in gone else percent(shares[DAY][m]),
            f"{'gone' if m in gone else words[m]}, at least {_points(certain[m])}"
            if m in gone or m in words
            else _points(certain[m]),
        )
        for m in largest
    ]
    assert [(row["requests"], row["since 29 Sep"]) for row in _records(shown, "movers_of_7_days")] == expected
    assert shown["largest_change_7d"].value == pytest.approx(certain[largest[0]], abs=1e-11)
    names = [row["model"] for row in _records(shown, "movers_of_7_days")]
    assert all(name.split(":")[0] in model_id for name, model_id in zip(names, largest, strict=True))
    assert any("at least" in change for _, change in expected)


def test_every_figure_of_the_other_tables_is_the_published_one(world: World, newest: bytes) -> None:
    world.store(newest)
    assert world.run(DAY).success
    data = json.loads(newest)["data"]
    tasks = data["classifications"]
    largest = sorted(tasks, key=lambda task: (-task["usage_share"], task["tag"]))
    shown = world.metadata(NAMES.asset("task_classifications"), DAY)
    assert [(row["task"], row["requests"], row["tokens"]) for row in _records(shown, "task_mix")] == [
        (task["display_name"], percent(task["usage_share"]), percent(task["token_share"])) for task in largest[:10]
    ]
    assert (shown["tags"].value, shown["largest_task_usage_share"].value) == (len(tasks), largest[0]["usage_share"])
    shown = world.metadata(NAMES.asset("macro_categories"), DAY)
    macros = sorted(data["macro_categories"], key=lambda macro: -macro["usage_share"])
    assert [(row["group"], row["requests"], row["tokens"]) for row in _records(shown, "groups")] == [
        (macro["label"], percent(macro["usage_share"]), percent(macro["token_share"])) for macro in macros
    ]
    for macro in macros:
        for kind in ("usage", "token"):
            assert shown[f"{kind}_share_{macro['key']}"].value == macro[f"{kind}_share"]
    shown = world.metadata(NAMES.asset("task_models"), DAY)
    listed = [sum(model["tag_usage_share"] for model in task["models"]) for task in tasks]
    assert shown["mean_listed_usage_share"].value == pytest.approx(sum(listed) / len(listed), abs=1e-4)
    assert shown["models"].value == len({model["id"] for task in tasks for model in task["models"]})

"""Every figure of the report's page against the second calculation, for made-up days and for the real response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from orpipeline.report.data import read_report_data
from orpipeline.report.page import render_page
from orpipeline.testing import sample_response
from orpipeline_tests import independent
from orpipeline_tests.independent import REAL, needs_real, percent, ranks
from orpipeline_tests.report_data import NEWEST, Report, rows_of, series_of, warehouse_of

WEEK_BEFORE = NEWEST - timedelta(days=7)
Figures = list[dict[str, Any]]


class Shown:
    """A page of some responses, the newest last, and these responses as the API returns them."""

    def __init__(self, folder: Path, bodies: dict[date, bytes], origin: str) -> None:
        self.responses = {day: json.loads(body) for day, body in bodies.items()}
        self.page = render_page(read_report_data(warehouse_of(folder, bodies, origin=origin)))
        self.report = Report(self.page)
        self.text = " ".join(self.report.text.split())

    @property
    def newest(self) -> Any:
        """The newest response."""
        return self.responses[max(self.responses)]


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=needs_real)])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    if request.param == "real":
        return Shown(tmp_path_factory.mktemp("real"), {NEWEST: REAL.read_bytes()}, "api")
    days = [NEWEST - timedelta(days=back) for back in (60, 9, 7, 6, 1, 0)]
    return Shown(tmp_path_factory.mktemp("made_up"), {day: sample_response(day) for day in days}, "demo")


def _ordered(rows: Figures, scope: str, measure: str, key: str) -> Figures:
    return sorted((row for row in rows if row["scope"] == scope), key=lambda row: (-row[f"{measure}_share"], row[key]))


def _chart(page: str, name: str, **choice: str) -> Figures:
    columns = rows_of(page)[name]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [row for row in rows if row["kind"] != "divider" and all(row[key] == value for key, value in choice.items())]


def _changes(shown: Shown) -> dict[tuple[str, str], float]:
    """Return the change of each scope's models that both days list."""
    if WEEK_BEFORE not in shown.responses:
        return {}
    now, then = (
        {(row["scope"], row["model_id"]): row["usage_share"] for row in independent.leaderboard(shown.responses[day])}
        for day in (NEWEST, WEEK_BEFORE)
    )
    return {key: now[key] - then[key] for key in now if key in then}


@pytest.mark.parametrize("measure", ["usage", "token"])
def test_the_rankings_equal_the_second_calculation(shown: Shown, measure: str) -> None:
    changes = _changes(shown)
    coverage = {row["scope"]: row for row in independent.coverage(shown.newest)}
    figures = (("models", "model_id", 20, independent.leaderboard), ("authors", "author", 14, independent.authors))
    for chart, key, most, calculated in figures:
        rows = calculated(shown.newest)
        for scope in coverage:
            drawn = _chart(shown.page, chart, scope=scope, measure=measure)
            expected = _ordered(rows, scope, measure, key)[:most]
            assert [row["id"] for row in drawn] == [row[key] for row in expected]
            for row, of_row in zip(drawn, expected, strict=True):
                assert row["share"] == pytest.approx(of_row[f"{measure}_share"], abs=1e-9)
                assert row["upper"] == pytest.approx(of_row[f"{measure}_share_upper"], abs=1e-9)
                assert row["ranks"] == ranks(of_row, measure)
                assert row["share_text"] == percent(of_row[f"{measure}_share"])
                if chart == "models":
                    assert row["cap"] == pytest.approx(coverage[scope][f"unlisted_{measure}_upper"], abs=1e-9)
                    change = changes.get((scope, row["id"])) if measure == "usage" else None
                    assert row["change"] == (None if change is None else pytest.approx(change, abs=1e-9))


def test_the_tables_of_models_and_authors_equal_the_second_calculation(shown: Shown) -> None:
    names = ("usage_share", "usage_share_upper", "token_share", "token_share_upper")
    tables = (("board", "model_id", independent.leaderboard), ("authors", "author", independent.authors))
    for name, key, calculated in tables:
        rows = calculated(shown.newest)
        for scope in {row["scope"] for row in rows}:
            table = shown.report.table(name, scope=scope)
            expected = _ordered(rows, scope, "usage", key)
            assert [cells[2] for cells in table.body] == [row[key] for row in expected]
            for cells, of_row, row in zip(table.body, table.figures[1:], expected, strict=True):
                assert cells[:2] == [ranks(row, "usage"), ranks(row, "token")]
                figures = [*of_row[2:4], *of_row[-2:]]
                assert figures == [pytest.approx(row[share], abs=1e-9) for share in names]


def test_the_headline_and_the_coverage_equal_the_second_calculation(shown: Shown) -> None:
    (cover,) = (row for row in independent.coverage(shown.newest) if row["scope"] == "all")
    board = _ordered(independent.leaderboard(shown.newest), "all", "usage", "model_id")
    authors = _ordered(independent.authors(shown.newest), "all", "usage", "author")
    first, tokens = board[0], max(board, key=lambda row: row["token_share"])
    assert f"with {percent(first['usage_share'])} of classified requests, 30 Sep to 6 Oct 2026" in shown.text
    assert f"most to {authors[0]['author']}: at least {percent(authors[0]['usage_share'])}, with" in shown.text
    assert f"{percent(authors[0]['usage_share'])}, with {authors[0]['model_count']} models" in shown.text
    if tokens["model_id"] != first["model_id"] and tokens["token_rank_worst"] > 1:
        others = tokens["token_rank_worst"] - 1
        assert (
            f"is first with {percent(tokens['token_share'])}, but {others} other listed models could have more"
            in shown.text
        )
    attributed = [percent(cover[f"{kind}_attributed"]) for kind in ("usage", "token")]
    assert f"attribute {attributed[0]} of requests and {attributed[1]} of tokens to {len(board)} models" in shown.text
    above = [cover[f"{kind}_models_above_unlisted"] for kind in ("usage", "token")]
    caps = [percent(cover[f"unlisted_{kind}_upper"]) for kind in ("usage", "token")]
    assert f"at most {caps[0]} of requests and {caps[1]} of tokens; {above[0]} and {above[1]} models are" in shown.text
    certain = sum(row["usage_rank_best"] == row["usage_rank_worst"] for row in board)
    assert (f"{certain} of {len(board)} ranks are certain among the listed models" in shown.text) == (
        0 < certain < len(board)
    )


@needs_real
def test_the_real_responses_headline_figures(tmp_path: Path) -> None:
    text = Shown(tmp_path, {NEWEST: REAL.read_bytes()}, "api").text
    assert "with 10.9% of classified requests, 30 Sep to 6 Oct 2026" in text
    assert "most to deepseek: at least 17.3%, with 5 models" in text
    assert "is first with 22.5%, but 33 other listed models could have more" in text
    assert "attribute 63.0% of requests and 69.7% of tokens to 43 models" in text
    assert "at most 2.5% of requests and 30.4% of tokens; 9 and 0 models are above that" in text


def test_the_tasks_and_the_mix_are_the_responses_own_figures(shown: Shown) -> None:
    tags = shown.newest["data"]["classifications"]
    mix = {row["name"]: row for row in _chart(shown.page, "mix", kind="task")}
    for tag in tags:
        assert (mix[tag["display_name"]]["usage"], mix[tag["display_name"]]["token"]) == (
            tag["usage_share"],
            tag["token_share"],
        )
        for measure in ("usage", "token"):
            shares = {model["id"]: model[f"tag_{measure}_share"] for model in tag["models"]}
            *drawn, rest = _chart(shown.page, "task_models", task=tag["tag"], measure=measure)
            assert {row["id"]: row["share"] for row in drawn} == shares
            assert [row["ranks"].removesuffix("+") for row in drawn] == _task_ranks([row["share"] for row in drawn])
            # Unlisted models have at most the smallest share of requests, but all tokens that the list leaves.
            left = 1 - sum(share - 0.0005 for share in shares.values())
            ahead = [measure == "token" and row["share"] - 0.0005 <= left + 1e-9 for row in drawn]
            assert [row["ranks"].endswith("+") for row in drawn] == ahead
            assert rest["share"] == pytest.approx(max(0, 1 - sum(shares.values())), abs=1e-6)
            sums: dict[str, float] = {}
            for model, share in shares.items():
                author = model.partition("/")[0]
                sums[author] = sums.get(author, 0) + share
            authors = _chart(shown.page, "task_authors", task=tag["tag"], measure=measure)
            assert {row["id"]: row["share"] for row in authors} == {
                author: pytest.approx(share, abs=1e-6) for author, share in sums.items()
            }


def _task_ranks(shares: Sequence[float]) -> list[str]:
    possible = []
    for share in shares:
        best, worst = 1 + sum(one > share for one in shares), sum(one >= share for one in shares)
        possible.append(str(best) if best == worst else f"{best}\N{EN DASH}{worst}")
    return possible


def test_the_history_and_the_moves_equal_the_second_calculation(shown: Shown) -> None:
    if len(shown.responses) == 1:
        assert series_of(shown.page) is None
        return
    past = series_of(shown.page)
    for measure in ("usage", "token"):
        for kind, key, calculated in (
            ("models", "model_id", independent.leaderboard),
            ("authors", "author", independent.authors),
        ):
            drawn = {
                (past["days"][series[measure][0] + place], series["id"]): share
                for series in past[kind]["series"]
                for place, share in enumerate(series[measure][1:])
                if share is not None
            }
            assert drawn == {
                (str(day), row[key]): round(1_000_000 * row[f"{measure}_share"])
                for day, response in shown.responses.items()
                for row in calculated(response)
                if row["scope"] == "all"
            }
    moves = {row["id"]: (row["kind"], row["change"]) for row in _chart(shown.page, "movers")}
    assert moves == {model: (kind, pytest.approx(change, abs=1e-9)) for change, model, kind in _moves(shown)[:10]}


def _moves(shown: Shown) -> list[tuple[float, str, str]]:
    """Return the changes since the week before; of a model that only one day lists, the smallest possible change."""
    now, then = (
        {
            row["model_id"]: row["usage_share"]
            for row in independent.leaderboard(shown.responses[day])
            if row["scope"] == "all"
        }
        for day in (NEWEST, WEEK_BEFORE)
    )
    caps = {
        day: next(row for row in independent.coverage(shown.responses[day]) if row["scope"] == "all")[
            "unlisted_usage_upper"
        ]
        for day in (NEWEST, WEEK_BEFORE)
    }
    earlier = {
        row["model_id"]
        for day, response in shown.responses.items()
        if day < WEEK_BEFORE
        for row in independent.leaderboard(response)
    }
    moves = []
    for model in now.keys() | then.keys():
        if model in now and model in then:
            moves.append((now[model] - then[model], model, "listed"))
        elif model in now:
            moves.append((max(0.0, now[model] - caps[WEEK_BEFORE]), model, "back" if model in earlier else "new"))
        else:
            moves.append((min(0.0, caps[NEWEST] - then[model]), model, "gone"))
    return sorted((move for move in moves if abs(move[0]) > 1e-12), key=lambda move: (-abs(move[0]), move[1]))

"""Every figure of the report's page against the second calculation, for made-up days and for the real response."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import pytest

from orpipeline.testing import sample_response
from orpipeline_tests import independent
from orpipeline_tests.independent import REAL, needs_real, percent, ranks
from orpipeline_tests.report_data import NEWEST, Page, page_of, report_of, warehouse_of

WEEK_BEFORE = NEWEST - timedelta(days=7)
MEASURES = ("usage", "token")
Row = dict[str, Any]


def _bent(data: dict[str, Any]) -> None:
    """Move requests and tokens from each list's first model to its third, and leave one of the first models out."""
    for task in data["classifications"]:
        task["models"] = [model for model in task["models"] if "/ember" not in model["id"]]
        first, third = task["models"][0], task["models"][2]
        for kind in MEASURES:
            share = f"tag_{kind}_share"
            moved = round(min(0.04, first[share] / 2), 3)
            first[share], third[share] = round(first[share] - moved, 3), round(third[share] + moved, 3)
        task["models"].sort(key=lambda model: -model["tag_usage_share"])


class Shown:
    """A page of some responses, the newest last, and these responses as the API returns them."""

    def __init__(self, folder: Path, bodies: dict[date, bytes], origin: str) -> None:
        self.responses = {day: json.loads(body) for day, body in bodies.items()}
        self.newest = self.responses[NEWEST]
        self.page = Page(page_of(report_of(warehouse_of(folder, bodies, origin=origin))))
        self.coverage = {row["scope"]: row for row in independent.coverage(self.newest)}
        macros = ("code", "data", "agent", "general")
        self.views = [(scope, kind, f"{n}-{kind}") for n, scope in enumerate(("all", *macros)) for kind in MEASURES]
        assert set(self.coverage) == {"all", *macros}

    def board(self, scope: str, measure: str, day: date = NEWEST) -> list[Row]:
        """Return a scope's models of a day, the largest share first."""
        rows = [row for row in independent.leaderboard(self.responses[day]) if row["scope"] == scope]
        return sorted(rows, key=lambda row: (-row[f"{measure}_share"], row["model_id"]))

    def changes(self, scope: str, measure: str) -> dict[str, tuple[float, float]]:
        """Return the smallest and the largest possible change of each model that one of the two days lists."""
        if WEEK_BEFORE not in self.responses:
            return {}
        ends: list[dict[str, tuple[float, float]]] = []
        for day in (NEWEST, WEEK_BEFORE):
            rows = self.board(scope, measure, day)
            ends.append({r["model_id"]: (r[f"{measure}_share_low"], r[f"{measure}_share_up"]) for r in rows})
        lines = [
            row[f"unlisted_{measure}_up"]
            for day in (NEWEST, WEEK_BEFORE)
            for row in independent.coverage(self.responses[day])
            if row["scope"] == scope
        ]
        now, then = ends
        pairs = {m: (now.get(m, (0.0, lines[0])), then.get(m, (0.0, lines[1]))) for m in now.keys() | then.keys()}
        return {model: (low - up_then, up - low_then) for model, ((low, up), (low_then, up_then)) in pairs.items()}


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=needs_real)])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    if request.param == "real":
        return Shown(tmp_path_factory.mktemp("real"), {NEWEST: REAL.read_bytes()}, "api")
    bodies = {day: sample_response(day) for day in (NEWEST - timedelta(days=back) for back in (130, 60, 9, 6, 1, 0))}
    bodies[WEEK_BEFORE] = sample_response(WEEK_BEFORE, change=_bent)
    return Shown(tmp_path_factory.mktemp("made_up"), bodies, "demo")


def _name(model_id: str) -> str:
    return model_id.split("/")[1]


def _model(model_id: str) -> str:
    return f"{_name(model_id)} {model_id.split('/')[0]}"


def _points(low: float, high: float) -> str:
    """Return a possible change rounded outwards to 0.1 points, or to the first digit that is not 0."""
    texts = []
    for end, rounding in ((low, ROUND_FLOOR), (high, ROUND_CEILING)):
        exact = Decimal(f"{100 * end:.6f}")
        digits = max(1, -exact.adjusted()) if exact else 1
        shown = next(
            found
            for places in range(1, digits + 1)
            if (found := exact.quantize(Decimal(1).scaleb(-places), rounding)) or places == digits
        )
        mark = "+" if shown > 0 else "\N{MINUS SIGN}" if shown < 0 else ""
        texts.append(f"{mark}{abs(shown)}")
    return " to ".join(texts)


def test_the_rankings_equal_the_second_calculation(shown: Shown) -> None:
    for scope, measure, view in shown.views:
        table, expected = shown.page.table("ranking", view), shown.board(scope, measure)
        changes, line = shown.changes(scope, measure), shown.coverage[scope][f"unlisted_{measure}_upper"]
        rows = [(cells, bar) for cells, bar in zip(table.rows, table.bars, strict=True) if bar]
        widest = max([line, *(row[f"{measure}_share_upper"] for row in expected)])
        assert percent(line) in table.caption
        for (cells, bar), row in zip(rows, expected, strict=True):
            share, upper = row[f"{measure}_share"], row[f"{measure}_share_upper"]
            assert cells[:5] == [ranks(row, measure), _model(row["model_id"]), "", percent(share), percent(upper)]
            assert bar == {end: pytest.approx(100 * of / widest, abs=0.051) for end, of in (("s", share), ("u", upper))}
            assert [cell.split(" new")[0].split(" back")[0] for cell in cells[5:]] == (
                [_points(*changes[row["model_id"]])] if changes else []
            )


def test_the_certain_changes_are_those_whose_bounds_have_one_sign(shown: Shown) -> None:
    found = 0
    for scope, measure, view in shown.views:
        changes = shown.changes(scope, measure)
        least = {m: low if low > 1e-12 else high for m, (low, high) in changes.items() if low > 1e-12 or high < -1e-12}
        tables = [table for table in shown.page.tables if (table.kind, table.view) == ("changes", view)]
        assert len(tables) == (1 if least else 0)
        shares = {row["model_id"]: percent(row[f"{measure}_share"]) for row in shown.board(scope, measure)}
        expected = sorted(least, key=lambda model: (-abs(round(least[model], 12)), model))
        rows = tables[0].body if tables else []
        for cells, model in zip(rows, expected, strict=True):
            verb, points = cells[1].removesuffix(" points").split(" at least ")
            assert verb == ("gained" if least[model] > 0 else "lost")
            assert 0 < float(points) <= 100 * abs(least[model]) + 1e-9
            assert float(points) > 100 * abs(least[model]) - 0.1
            assert [cells[0], cells[2]] == [_model(model), _points(*changes[model])]
            assert cells[3].strip() == shares.get(model, "not listed")
        found += len(expected)
        unsure = len(changes) - len(expected)
        if changes and expected:
            assert f"{unsure:,} more change{'' if unsure == 1 else 's'} may be noise" in shown.page.everything
    assert (found > 20) == bool(WEEK_BEFORE in shown.responses)


def test_the_leaders_of_scopes_and_tasks_equal_the_second_calculation(shown: Shown) -> None:
    answers = shown.page.table("answers").body
    for cells, (scope, measure, _) in zip((row for row in answers for _ in MEASURES), shown.views, strict=True):
        first, *others = shown.board(scope, measure)
        rivals = sum(row[f"{measure}_rank_best"] == 1 for row in others)
        is_above = first[f"{measure}_share_low"] > shown.coverage[scope][f"unlisted_{measure}_up"]
        known = f"{rivals + 1} could be first" if rivals else "certain" if is_above else "certain among listed models"
        start = 1 + 3 * MEASURES.index(measure)
        wanted = [_model(first["model_id"]), percent(first[f"{measure}_share"]), known]
        assert [cell.strip() for cell in cells[start : start + 3]] == wanted
    table = shown.page.table("tasks")
    rows, items = [cells for cells in table.body if len(cells) > 1], iter(table.items)
    tasks = sorted(shown.newest["data"]["classifications"], key=lambda task: (-task["usage_share"], task["tag"]))
    labels = {macro["key"]: macro["label"] for macro in shown.newest["data"]["macro_categories"]}
    for cells, task in zip(rows, tasks, strict=True):
        assert cells[0] == f"{task['display_name']} {labels[task['macro_category']]}"
        assert cells[1:3] == [percent(task["usage_share"]), percent(task["token_share"])]
        for at, measure in ((3, "usage"), (8, "token")):
            shares = {model["id"]: model[f"tag_{measure}_share"] for model in task["models"]}
            first, second = sorted(shares, key=lambda model: -shares[model])[:2]
            wanted = [_model(first), percent(shares[first]), _name(second), percent(shares[second])]
            assert cells[at : at + 4] == wanted
            left = 1 - sum(max(0, share - 0.0005) for share in shares.values())
            ties = sum(share == shares[first] for share in shares.values())
            is_open = measure == "token" and left >= shares[first] - 0.0005 - 1e-9
            known = f"{ties} could be first" if ties > 1 else "certain among listed" if is_open else "certain"
            assert cells[at + 4].strip() == known
        for model in task["models"]:
            name, usage, token = next(items)
            assert name.endswith(_model(model["id"]))
            assert [usage, token] == [percent(model["tag_usage_share"]), percent(model["tag_token_share"])]
        left_usage, left_token = (1 - sum(m[f"tag_{kind}_share"] for m in task["models"]) for kind in MEASURES)
        rest = [percent(max(0, round(left, 6))) for left in (left_usage, left_token)]
        assert next(items) == ["Not listed", *rest]


def test_the_authors_and_the_history_equal_the_second_calculation(shown: Shown) -> None:
    for scope, measure, view in shown.views:
        rows = [row for row in independent.authors(shown.newest) if row["scope"] == scope]
        expected = sorted(rows, key=lambda row: (-row[f"{measure}_share"], row["author"]))
        for cells, row in zip(shown.page.table("authors", view).body, expected, strict=True):
            rank = row[f"{measure}_rank_best"] if ranks(row, measure).isdigit() else None
            assert cells[0] == row["author"] + (f" rank {rank}, certain" if rank else "")
            assert [cells[2], int(cells[3])] == [percent(row[f"{measure}_share"]), row["model_count"]]
    past = shown.page.data["history"]
    assert (past is None) == (len(shown.responses) == 1)
    if past is None:
        return
    days = [date.fromisoformat(past["start"]) + timedelta(days=day) for day in past["days"]]
    assert {day for place, day in enumerate(days) if place not in past["gaps"]} == set(shown.responses)
    for scope, measure, view in shown.views:
        drawn = {
            (days[first + place], past["models"][model][0]): int(units)
            for model, first, text in past["views"][view]["lines"]
            for place, units in enumerate(text.split(","))
            if units
        }
        assert drawn == {
            (day, row["model_id"]): math.floor(past["unit"] * row[f"{measure}_share"] + 1e-6)
            for day in shown.responses
            for row in shown.board(scope, measure, day)
        }


@needs_real
def test_the_real_responses_sentences(tmp_path: Path) -> None:
    text = Shown(tmp_path, {NEWEST: REAL.read_bytes()}, "api").page.text
    assert (
        "On OpenRouter, jev-1.13-20260917 (typesafe) handled at least 10.9% of classified requests, "
        "30 Sep to 6 Oct 2026. First place is certain. The lists attribute 63.0% of classified requests to 43 models. "
        "A model on no list has at most 2.5%."
    ) in text
    assert "By requests, space-bunny-alpha leads 11 of 29 tasks (all for certain)" in text

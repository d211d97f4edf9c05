"""Every figure of the leaderboard, its coverage and the authors, against the calculation in `independent`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline.archive import Archive
from orpipeline.load import load_days
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests import hostile, independent
from orpipeline_tests.independent import REAL, needs_real
from orpipeline_tests.responses import DAY, Bend, tag

pytestmark = pytest.mark.promise

FIGURES = {
    "task_classifications": independent.task_classifications,
    "task_models": independent.task_models,
    "model_leaderboard": independent.leaderboard,
    "author_leaderboard": independent.authors,
    "leaderboard_coverage": independent.coverage,
}
Rows = list[dict[str, Any]]


def stored(folder: Path, bodies: Sequence[bytes]) -> dict[str, Rows]:
    """Return the rows of each table, after loading all responses from an archive at once."""
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    now = datetime(2026, 11, 1, tzinfo=UTC)
    for body in bodies:
        archive.put(body, fetched_at=now, source="a test", origin="import")
    loaded = load_days(archive, warehouse, archive.days(), now=now)
    assert not loaded.validated.errors
    return {
        name: warehouse.read(name).drop("display_name", "macro_category", strict=False).to_dicts() for name in FIGURES
    }


def assert_equal_to_the_independent_calculation(folder: Path, bodies: Sequence[bytes]) -> dict[str, Rows]:
    found = stored(folder, bodies)
    for name, calculate in FIGURES.items():
        expected = [row for body in bodies for row in calculate(json.loads(body))]
        assert _in_order(found[name]) == _in_order(expected)
    return found


def _in_order(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: [str(row.get(c)) for c in ("as_of", "scope", "tag", "model_id", "author")])


def _without_models(*names: str) -> Bend:
    def bend(data: dict[str, Any]) -> None:
        for name in names:
            tag(data, name)["models"] = []

    return bend


def _no_models_at_all(data: dict[str, Any]) -> None:
    for task in data["classifications"]:
        task["models"] = []


def _named(names: Sequence[str]) -> Bend:
    """Rename the models of a list, each to one of the names."""

    def bend(data: dict[str, Any]) -> None:
        of_list = [task["models"] for task in data["classifications"]]
        for place, models in enumerate(of_list):
            for n, model in enumerate(models):
                model["id"] = names[(place + n) % len(names)]
            models[len(names) :] = []

    return bend


AUTHORS = ["nobody", "/unnamed", "a:b/c", "a:b/c:free", "x/y/z:free", "x/", "x/y/z", "y/:free", "y/z:", "z/é"]


BENDS = [
    None,
    _without_models("math"),
    _without_models("data:extraction", "data:transformation"),
    _no_models_at_all,
    _named(hostile.VALID),
    _named(AUTHORS),
]


def test_tables_equal_an_independent_calculation(tmp_path: Path) -> None:
    """Each day's response differs in another way from the made-up one."""
    bodies = [sample_response(DAY + timedelta(days=n), change=bend) for n, bend in enumerate(BENDS)]
    assert_equal_to_the_independent_calculation(tmp_path, bodies)


def test_a_scope_without_models_has_a_row_of_coverage_and_no_author(tmp_path: Path) -> None:
    found = stored(tmp_path, [sample_response(DAY, change=_without_models("data:extraction", "data:transformation"))])
    (row,) = [row for row in found["leaderboard_coverage"] if row["scope"] == "data"]
    assert (row["model_count"], row["usage_attributed"], row["usage_models_above_unlisted"]) == (0, 0.0, 0)
    assert row["unlisted_usage_upper"] == pytest.approx(1, abs=0.002)  # the category shares' sum
    assert not [row for row in found["author_leaderboard"] if row["scope"] == "data"]


def test_what_a_model_without_an_author_has_could_be_any_authors(tmp_path: Path) -> None:
    found = stored(
        tmp_path, [sample_response(DAY, [Task("code:debugging", models={"a/x": 0.55, "nobody": 0.3, "b/y": 0.1})])]
    )
    bounds = {
        row["author"]: (row["usage_share"], row["usage_share_upper"], row["usage_rank_best"], row["usage_rank_worst"])
        for row in found["author_leaderboard"]
        if row["scope"] == "all"
    }
    assert bounds == {"a": (0.55, 0.9, 1, 1), "b": (0.1, 0.45, 2, 2)}


def test_lists_that_rounding_makes_too_large_leave_nothing_and_keep_ranks_in_their_ranges(tmp_path: Path) -> None:
    # By the published sums, `a` is before `b`. By the largest share that `b` leaves, `a` would certainly be second.
    models = {**{f"a/{n}": 0.05 for n in range(8)}, "a/8": 0.051, "a/9": 0.051, "b/x": 0.501}
    found = assert_equal_to_the_independent_calculation(
        tmp_path, [sample_response(DAY, [Task("code:debugging", models=models)])]
    )
    first, second = [row for row in found["author_leaderboard"] if row["scope"] == "all"]
    assert (first["author"], first["usage_rank"], first["usage_share_upper"]) == ("a", 1, 0.502)
    assert (first["usage_rank_best"], first["usage_rank_worst"]) == (1, 2)
    assert (second["usage_rank_best"], second["usage_rank_worst"]) == (1, 2)


@st.composite
def published_responses(draw: st.DrawFn) -> dict[str, Any]:
    """Responses of any size that follow the contracts, because true shares are rounded."""

    def fractions(count: int) -> list[float]:
        drawn = draw(st.lists(st.integers(0, 30), min_size=count, max_size=count))
        drawn[0] += 1  # a sum of 0 has no fractions
        return [value / sum(drawn) for value in drawn]

    tags = draw(st.lists(st.sampled_from(["math", "talk", "code:a", "code:b", "agent:a"]), min_size=1, unique=True))
    ids = ["a/one", "a/two:free", "b/one", "b/two", "c/one", "nobody"]
    weights = {kind: dict(zip(tags, fractions(len(tags)), strict=True)) for kind in independent.KINDS}
    macros: dict[str, list[str]] = {}
    for name in tags:
        macros.setdefault(name.split(":")[0] if ":" in name else "general", []).append(name)
    totals = {
        key: {kind: sum(weights[kind][name] for name in of_key) for kind in weights} for key, of_key in macros.items()
    }

    def task(key: str, name: str) -> dict[str, Any]:
        shares = {kind: fractions(len(ids)) for kind in independent.KINDS}
        top = sorted(range(len(ids)), key=lambda n: -shares["usage"][n])[: draw(st.integers(0, len(ids)))]
        own = {kind: weights[kind][name] for kind in weights}
        return {
            "tag": name,
            "display_name": name,
            "macro_category": key,
            **{f"{kind}_share": round(own[kind], 3) for kind in own},
            **{f"category_{kind}_share": round(own[kind] / (totals[key][kind] or 1), 3) for kind in own},
            "models": [
                {"id": ids[n], **{f"tag_{kind}_share": round(shares[kind][n], 3) for kind in shares}} for n in top
            ],
        }

    return {
        "classifications": [task(key, name) for key, of_key in macros.items() for name in of_key],
        "macro_categories": [
            {"key": key, "label": key, **{f"{kind}_share": round(total, 3) for kind, total in totals[key].items()}}
            for key in macros
        ],
    }


@given(st.lists(published_responses(), min_size=5, max_size=8))
def test_tables_equal_an_independent_calculation_for_any_responses(found: list[dict[str, Any]]) -> None:
    dated = [
        json.dumps({"data": {"as_of": str(date(2026, 10, 1 + n)), "window_days": 7, **data}}).encode()
        for n, data in enumerate(found)
    ]
    with TemporaryDirectory() as folder:
        assert_equal_to_the_independent_calculation(Path(folder), dated)


@needs_real
def test_the_real_response_covers_63_percent_of_requests_and_70_percent_of_tokens(tmp_path: Path) -> None:
    found = assert_equal_to_the_independent_calculation(tmp_path, [REAL.read_bytes()])
    models, authors, (coverage,) = (
        [row for row in found[name] if row["scope"] == "all"]
        for name in ("model_leaderboard", "author_leaderboard", "leaderboard_coverage")
    )
    shown = {name: f"{value:.1%}" for name, value in coverage.items() if isinstance(value, float)}
    assert shown == {
        "usage_attributed": "63.0%",
        "token_attributed": "69.7%",
        "unlisted_usage_upper": "2.5%",
        "unlisted_token_upper": "30.4%",
        "unlisted_usage_up": "2.6%",
        "unlisted_token_up": "31.4%",
    }
    assert (coverage["model_count"], coverage["usage_models_above_unlisted"]) == (43, 9)
    first = min(models, key=lambda row: row["usage_rank"])
    assert (f"{first['usage_share']:.1%}", first["usage_rank_best"], first["usage_rank_worst"]) == ("10.9%", 1, 1)
    by_tokens = min(models, key=lambda row: row["token_rank"])
    # 32 other models have a larger upper bound; with the rounding, one more could have more tokens.
    assert sum(row["token_share_upper"] > by_tokens["token_share"] for row in models) - 1 == 32
    assert (by_tokens["token_rank_best"], by_tokens["token_rank_worst"]) == (1, 34)
    author = min(authors, key=lambda row: row["usage_rank"])
    assert (author["author"], f"{author['usage_share']:.1%}", author["model_count"]) == ("deepseek", "17.3%", 5)

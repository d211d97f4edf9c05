"""Shares, bounds and ranks, calculated by hand, and for hidden figures that the published lists leave open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpipeline.contracts.frames import parse
from orpipeline.leaderboard import leaderboards, rank
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY

MODELS = ["a/one", "a/two", "b/three", "b/four:free", "c/five", "lonely"]
SLACK = 1e-9  # what adding doubles may change
Published = tuple[pl.DataFrame, pl.DataFrame]


def published(tags: list[tuple[Any, ...]], models: list[tuple[Any, ...]]) -> Published:
    """Return the frames of tags (name, macro-category, four shares) and of their models (tag, id, two shares)."""
    shares = ["usage_share", "token_share", "category_usage_share", "category_token_share"]
    key = [pl.lit(DAY).alias("as_of"), pl.lit(7, dtype=pl.Int32).alias("window_days")]
    text, number = pl.String, pl.Float64
    model_schema = {"tag": text, "model_id": text, "tag_usage_share": number, "tag_token_share": number}
    return (
        pl.DataFrame(tags, schema=["tag", "macro_category", *shares], orient="row").with_columns(key),
        pl.DataFrame(models, schema=model_schema, orient="row").with_columns(key),
    )


def of_all(*of: Any) -> pl.DataFrame:
    """Return the leaderboard of all traffic."""
    return rank(*published(*of)).filter(scope="all")


# Hidden figures


@dataclass(frozen=True)
class Hidden:
    """The figures that are not published: every model's share of every tag, of requests and of tokens."""

    weights: dict[str, tuple[float, float]]  # by tag
    shares: dict[str, tuple[dict[str, float], dict[str, float]]]  # by tag
    listed: dict[str, list[str]]  # by tag: its top models by requests

    def true_share(self, model: str, k: int) -> float:
        return sum(self.weights[t][k] * self.shares[t][k][model] for t in self.weights)

    def published(self) -> Published:
        return published(
            [(t, "general", *weights, *weights) for t, weights in self.weights.items()],
            [(t, m, *(of[m] for of in self.shares[t])) for t, listed in self.listed.items() for m in listed],
        )


@st.composite
def hidden_figures(draw: st.DrawFn) -> Hidden:
    def fractions(names: list[str]) -> dict[str, float]:
        drawn = [draw(st.integers(0, 20)) for _ in names]
        drawn[0] += 1  # a sum of 0 has no fractions
        return {name: value / sum(drawn) for name, value in zip(names, drawn, strict=True)}

    tags = [f"t{n}" for n in range(draw(st.integers(1, 4)))]
    usage, tokens = fractions(tags), fractions(tags)
    shares = {t: (fractions(MODELS), fractions(MODELS)) for t in tags}
    listed = {t: sorted(MODELS, key=lambda m: -shares[t][0][m])[: draw(st.integers(0, 6))] for t in tags}
    return Hidden({t: (usage[t], tokens[t]) for t in tags}, shares, listed)


@given(hidden_figures())
def test_shares_bounds_and_ranks_hold_for_any_hidden_completion_of_the_lists(hidden: Hidden) -> None:
    tables = leaderboards(*hidden.published())
    board = tables["model_leaderboard"].filter(scope="all")
    coverage = tables["leaderboard_coverage"].row(0, named=True)
    for k, kind in enumerate(("usage", "token")):
        true = {m: round(hidden.true_share(m, k), 9) for m in MODELS}
        shares = board[f"{kind}_share"].to_list()
        assert board[f"{kind}_rank"].to_list() == [1 + sum(other > share for other in shares) for share in shares]
        for row in board.iter_rows(named=True):
            model = row["model_id"]
            assert row[f"{kind}_share"] - SLACK <= true[model] <= row[f"{kind}_share_upper"] + SLACK
            assert row[f"{kind}_share_low"] <= true[model] <= row[f"{kind}_share_up"]
            above = sum(true[other] > true[model] + SLACK for other in board["model_id"])  # among listed models
            assert row[f"{kind}_rank_best"] <= 1 + above <= row[f"{kind}_rank_worst"]
        unlisted = max((true[m] for m in MODELS if m not in set(board["model_id"])), default=0.0)
        assert unlisted <= coverage[f"unlisted_{kind}_upper"] + SLACK
        listed = sum(
            hidden.weights[t][k] * hidden.shares[t][k][m] for t, listed in hidden.listed.items() for m in listed
        )
        assert coverage[f"{kind}_attributed"] == pytest.approx(listed, abs=1e-9)


# By hand


def test_a_leaderboard_calculated_by_hand() -> None:
    tables = leaderboards(
        *published(
            [
                ("code:a", "code", 0.4, 0.6, 0.8, 0.75),
                ("code:b", "code", 0.1, 0.2, 0.2, 0.25),
                ("talk", "general", 0.5, 0.2, 1.0, 1.0),
            ],
            [
                ("code:a", "x/big", 0.5, 0.6),
                ("code:a", "y/mid:free", 0.3, 0.3),
                ("code:b", "y/mid:free", 0.9, 0.8),
                ("talk", "x/big", 0.2, 0.1),
                ("talk", "lonely", 0.1, 0.3),
            ],
        )
    )
    board = tables["model_leaderboard"]
    everything = {row["model_id"]: row for row in board.filter(scope="all").iter_rows(named=True)}
    # r: code:a min(0.3, 0.2) = 0.2 and 0.1; code:b min(0.9, 0.1) = 0.1 and 0.2; talk min(0.1, 0.7) = 0.1 and 0.6.
    assert everything["x/big"] == {
        "as_of": DAY,
        "window_days": 7,
        "scope": "all",
        "model_id": "x/big",
        "author": "x",
        "model": "big",
        "variant": None,
        "usage_rank": 1,
        "token_rank": 1,
        "usage_share": 0.3,  # 0.4 x 0.5 + 0.5 x 0.2
        "token_share": 0.38,  # 0.6 x 0.6 + 0.2 x 0.1
        "usage_share_upper": 0.31,  # + 0.1 x 0.1 under code:b
        "token_share_upper": 0.42,  # + 0.2 x 0.2
        "usage_share_low": 0.2992005,  # 0.3995 x 0.4995 + 0.4995 x 0.1995
        "token_share_low": 0.3792505,  # 0.5995 x 0.5995 + 0.1995 x 0.0995
        "usage_share_up": 0.31090075,  # 0.4005 x 0.5005 + 0.5005 x 0.2005 + 0.1005 x min(0.9005, 1 - 0.8995)
        "token_share_up": 0.42095075,  # 0.6005 x 0.6005 + 0.2005 x 0.1005 + 0.2005 x (1 - 0.7995)
        "usage_rank_best": 1,
        "usage_rank_worst": 1,  # y/mid:free has at most 0.2612
        "token_rank_best": 1,
        "token_rank_worst": 2,  # y/mid:free has at most 0.4615
        "task_count": 2,
        "top_task": "code:a",
    }
    middle, lonely = everything["y/mid:free"], everything["lonely"]
    assert (middle["author"], middle["model"], middle["variant"]) == ("y", "mid", "free")
    assert (middle["usage_share"], middle["usage_share_upper"]) == (0.21, 0.26)  # + 0.5 x 0.1 under talk
    assert (middle["token_share"], middle["token_share_upper"]) == (0.34, 0.46)
    assert (lonely["author"], lonely["model"]) == (None, "lonely")
    assert (lonely["usage_share"], lonely["usage_share_upper"]) == (0.05, 0.14)  # + 0.4 x 0.2 + 0.1 x 0.1
    assert (lonely["usage_rank_best"], lonely["usage_rank"], lonely["usage_rank_worst"]) == (3, 3, 3)

    code = {row["model_id"]: row for row in board.filter(scope="code").iter_rows(named=True)}
    assert set(code) == {"x/big", "y/mid:free"}
    assert (code["y/mid:free"]["usage_share"], code["y/mid:free"]["usage_rank"]) == (0.42, 1)  # 0.24 + 0.18
    assert (code["x/big"]["usage_share"], code["x/big"]["usage_share_upper"]) == (0.4, 0.42)
    assert (code["x/big"]["usage_rank_best"], code["x/big"]["usage_rank_worst"]) == (1, 2)

    coverage = tables["leaderboard_coverage"].row(by_predicate=pl.col("scope") == "all", named=True)
    # 0.3 + 0.21 + 0.05; 0.4 x 0.2 + 0.1 x 0.1 + 0.5 x 0.1
    assert (coverage["model_count"], coverage["usage_attributed"], coverage["unlisted_usage_upper"]) == (3, 0.56, 0.14)
    authors = tables["author_leaderboard"].filter(scope="all")
    assert authors.select("author", "usage_share", "top_model").rows() == [
        ("x", 0.3, "x/big"),
        ("y", 0.21, "y/mid:free"),
    ]


HALVES = [("a", "general", 0.5, 0.5, 0.5, 0.5), ("b", "general", 0.5, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize(
    ("first", "second", "ranges"), [(0.5, 0.499, [(1, 2), (1, 2)]), (0.502, 0.498, [(1, 1), (2, 2)])]
)
def test_models_that_rounding_could_reorder_have_a_common_range_of_ranks(
    first: float, second: float, ranges: list[tuple[int, int]]
) -> None:
    # Complete lists leave nothing open, so only the rounding does.
    board = of_all(HALVES, [(t, model, s, s) for t in "ab" for model, s in (("x/m", first), ("x/n", second))])
    for kind in ("usage", "token"):
        assert board.select(f"{kind}_rank_best", f"{kind}_rank_worst").rows() == ranges


def test_equal_sums_share_the_smaller_rank_whatever_the_order_of_summation() -> None:
    # 0.1 + 0.2 and 0.3 are not the same double.
    shares = [("a", "x/sum", 0.1), ("b", "x/sum", 0.2), ("a", "x/whole", 0.3), ("a", "x/less", 0.2)]
    board = of_all([(t, "general", 1.0, 1.0, 1.0, 1.0) for t in "ab"], [(t, m, s, s) for t, m, s in shares])
    assert dict(board.select("model_id", "usage_rank").rows()) == {"x/sum": 1, "x/whole": 1, "x/less": 3}


def test_models_with_equal_shares_of_a_task_have_a_common_range_of_ranks_within_it() -> None:
    models = [("a", "x/m", 0.5, 0.2), ("a", "x/n", 0.2, 0.2), ("a", "x/o", 0.2, 0.6)]
    rows = leaderboards(*published(HALVES, models))["task_models"]
    assert rows.select("usage_rank", "usage_rank_best", "usage_rank_worst").rows() == [(1, 1, 1), (2, 2, 3), (2, 2, 3)]
    assert rows.select("token_rank", "token_rank_best", "token_rank_worst").rows() == [(2, 2, 3), (2, 2, 3), (1, 1, 1)]


def test_a_days_rows_depend_on_that_day_alone() -> None:
    days = [DAY, DAY + timedelta(days=1)]
    both, alone = (parse((day, sample_response(day)) for day in wanted) for wanted in (days, days[:1]))
    expected = leaderboards(alone.task_classifications, alone.task_models)
    for name, rows in leaderboards(both.task_classifications, both.task_models).items():
        assert rows.filter(as_of=DAY).equals(expected[name])

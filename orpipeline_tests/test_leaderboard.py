from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpipeline.contracts.findings import InvalidSnapshotError
from orpipeline.contracts.judgement import check_scopes
from orpipeline.leaderboard import lows, rank
from orpipeline.openrouter.frames import parse
from orpipeline.testing import sample_answer
from orpipeline_tests.answers import DAY

MODELS = ["a/one", "a/two", "b/three", "b/four:free", "c/five", "lonely"]
SLACK = 1e-9  # what adding doubles may change


@dataclass(frozen=True)
class Hidden:
    """The figures that are not published: every model's share of every tag."""

    weights: dict[str, tuple[float, float]]  # by tag: its share of requests, of tokens
    usage: dict[str, dict[str, float]]
    tokens: dict[str, dict[str, float]]
    listed: dict[str, list[str]]  # by tag: its top models by requests

    def true_share(self, model: str, kind: str) -> float:
        shares = self.usage if kind == "usage" else self.tokens
        return sum(self.weights[t][kind == "tokens"] * shares[t][model] for t in self.weights)

    def published(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        key: dict[str, Any] = {"as_of": DAY, "window_days": 7}
        tags = [
            {
                **key,
                "tag": t,
                "macro_category": "general",
                **dict(zip(("usage_share", "token_share"), self.weights[t], strict=True)),
                **dict(zip(("category_usage_share", "category_token_share"), self.weights[t], strict=True)),
            }
            for t in self.weights
        ]
        models = [
            {
                **key,
                "tag": t,
                "model_id": m,
                "tag_usage_share": self.usage[t][m],
                "tag_token_share": self.tokens[t][m],
            }
            for t, listed in self.listed.items()
            for m in listed
        ]
        schema = {"as_of": pl.Date, "window_days": pl.Int32, "tag": pl.String, "model_id": pl.String}
        shares = {"tag_usage_share": pl.Float64, "tag_token_share": pl.Float64}
        return (
            pl.DataFrame(tags, schema_overrides={"window_days": pl.Int32}),
            pl.DataFrame(models, schema={**schema, **shares}),
        )


@st.composite
def hidden_figures(draw: st.DrawFn) -> Hidden:
    weight = st.integers(0, 20)

    def fractions(names: list[str]) -> dict[str, float]:
        drawn = [draw(weight) for _ in names]
        drawn[0] += 1  # a sum of 0 has no fractions
        return {name: value / sum(drawn) for name, value in zip(names, drawn, strict=True)}

    tags = [f"t{n}" for n in range(draw(st.integers(1, 4)))]
    usage_weights, token_weights = fractions(tags), fractions(tags)
    usage = {t: fractions(MODELS) for t in tags}
    listed = {t: sorted(MODELS, key=lambda m: -usage[t][m])[: draw(st.integers(0, 6))] for t in tags}
    return Hidden(
        {t: (usage_weights[t], token_weights[t]) for t in tags}, usage, {t: fractions(MODELS) for t in tags}, listed
    )


@settings(max_examples=100, deadline=None)
@given(hidden_figures())
def test_bounds_and_ranks_hold_for_any_hidden_completion_of_the_lists(hidden: Hidden) -> None:
    board = rank(*hidden.published()).filter(scope="all")
    true_shares = {m: round(hidden.true_share(m, "usage"), 9) for m in MODELS}
    for row in board.iter_rows(named=True):
        model = row["model_id"]
        for kind in ("usage", "token"):
            true = hidden.true_share(model, "usage" if kind == "usage" else "tokens")
            assert row[f"{kind}_share"] - SLACK <= true <= row[f"{kind}_share_upper"] + SLACK
        # Ranks are among the listed models.
        above = sum(true_shares[other] > true_shares[model] + SLACK for other in board["model_id"])
        assert row["usage_rank_best"] <= 1 + above <= row["usage_rank_worst"]


@settings(max_examples=40, deadline=None)
@given(hidden_figures())
def test_attributed_shares_sum_to_the_listed_shares(hidden: Hidden) -> None:
    board = rank(*hidden.published()).filter(scope="all")
    listed_share = sum(hidden.weights[t][0] * hidden.usage[t][m] for t, listed in hidden.listed.items() for m in listed)
    assert board["usage_share"].sum() == pytest.approx(listed_share, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(hidden_figures())
def test_ranks_are_a_competition_ranking(hidden: Hidden) -> None:
    board = rank(*hidden.published())
    for kind in ("usage", "token"):
        for scope in ("all", "general"):
            rows = board.filter(scope=scope)
            shares = rows[f"{kind}_share"].to_list()
            assert rows[f"{kind}_rank"].to_list() == [1 + sum(other > share for other in shares) for share in shares]


def _published(tags: list[tuple[Any, ...]], models: list[tuple[Any, ...]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    tag_columns = [
        "tag",
        "macro_category",
        "usage_share",
        "token_share",
        "category_usage_share",
        "category_token_share",
    ]
    key = [pl.lit(DAY).alias("as_of"), pl.lit(7, dtype=pl.Int32).alias("window_days")]
    model_schema = {
        "tag": pl.String,
        "model_id": pl.String,
        "tag_usage_share": pl.Float64,
        "tag_token_share": pl.Float64,
    }
    return (
        pl.DataFrame(tags, schema=tag_columns, orient="row").with_columns(key),
        pl.DataFrame(models, schema=model_schema, orient="row").with_columns(key),
    )


def test_a_leaderboard_calculated_by_hand() -> None:
    board = rank(
        *_published(
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
        "usage_rank_best": 1,
        "usage_rank_worst": 1,  # at least 0.3995 x 0.4995 + 0.4995 x 0.1995 = 0.2992; y/mid:free at most 0.2612
        "token_rank_best": 1,
        "token_rank_worst": 2,  # at least 0.5995 x 0.5995 + 0.1995 x 0.0995 = 0.3793; y/mid:free at most 0.4615
        "task_count": 2,
        "top_task": "code:a",
    }
    middle = everything["y/mid:free"]
    assert (middle["author"], middle["model"], middle["variant"]) == ("y", "mid", "free")
    assert (middle["usage_share"], middle["usage_share_upper"]) == (0.21, 0.26)  # + 0.5 x 0.1 under talk
    assert (middle["token_share"], middle["token_share_upper"]) == (0.34, 0.46)
    lonely = everything["lonely"]
    assert (lonely["author"], lonely["model"]) == (None, "lonely")
    assert (lonely["usage_share"], lonely["usage_share_upper"]) == (0.05, 0.14)  # + 0.4 x 0.2 + 0.1 x 0.1
    assert (lonely["usage_rank_best"], lonely["usage_rank"], lonely["usage_rank_worst"]) == (3, 3, 3)

    code = {row["model_id"]: row for row in board.filter(scope="code").iter_rows(named=True)}
    assert set(code) == {"x/big", "y/mid:free"}
    assert (code["y/mid:free"]["usage_share"], code["y/mid:free"]["usage_rank"]) == (0.42, 1)  # 0.24 + 0.18
    assert (code["x/big"]["usage_share"], code["x/big"]["usage_share_upper"]) == (0.4, 0.42)
    assert (code["x/big"]["usage_rank_best"], code["x/big"]["usage_rank_worst"]) == (1, 2)


def test_a_tag_without_models_bounds_nothing() -> None:
    board = rank(
        *_published(
            [("a", "general", 0.6, 0.6, 0.6, 0.6), ("b", "general", 0.4, 0.4, 0.4, 0.4)], [("a", "x/m", 1.0, 1.0)]
        )
    )
    row = board.filter(scope="all").row(0, named=True)
    assert (row["usage_share"], row["usage_share_upper"]) == (0.6, 1.0)
    assert (row["token_share"], row["token_share_upper"]) == (0.6, 1.0)


def test_models_that_rounding_could_reorder_have_a_common_range_of_ranks() -> None:
    # Complete lists leave nothing open, so only the rounding does.
    tags = [("a", "general", 0.5, 0.5, 0.5, 0.5), ("b", "general", 0.5, 0.5, 0.5, 0.5)]
    close = [(tag, model, share, share) for tag in "ab" for model, share in (("x/m", 0.5), ("x/n", 0.499))]
    clear = [(tag, model, share, share) for tag in "ab" for model, share in (("x/m", 0.502), ("x/n", 0.498))]
    for models, ranges in ((close, [(1, 2), (1, 2)]), (clear, [(1, 1), (2, 2)])):
        board = rank(*_published(tags, models)).filter(scope="all")
        for kind in ("usage", "token"):
            assert list(zip(board[f"{kind}_rank_best"], board[f"{kind}_rank_worst"], strict=True)) == ranges


def test_the_smallest_share_of_a_model_takes_each_published_share_half_a_step_lower() -> None:
    tags = [("a", "general", 0.4, 0.6, 0.4, 0.6), ("b", "general", 0.5, 0.2, 0.5, 0.2)]
    found = lows(*_published(tags, [("a", "x/m", 0.5, 0.6), ("b", "x/m", 0.2, 0.1)])).filter(scope="all")
    # 0.3995 x 0.4995 + 0.4995 x 0.1995, and 0.5995 x 0.5995 + 0.1995 x 0.0995
    assert found.select("model_id", "usage_low", "token_low").rows() == [("x/m", 0.2992005, 0.3792505)]


def test_a_published_share_of_0_bounds_nothing_from_below() -> None:
    board = rank(*_published([("a", "general", 0.0, 1.0, 0.0, 1.0)], [("a", "x/m", 1.0, 0.0), ("a", "x/n", 0.0, 0.0)]))
    rows = board.filter(scope="all").select(
        "usage_rank_best", "usage_rank_worst", "token_rank_best", "token_rank_worst"
    )
    assert rows.unique().rows() == [(1, 2, 1, 2)]


def test_lists_that_sum_to_more_than_one_add_nothing_to_a_bound() -> None:
    # Rounding can make a complete list sum to 1.001; the rest is then 0, and not negative.
    board = rank(
        *_published(
            [("a", "general", 0.5, 0.5, 0.5, 0.5), ("b", "general", 0.5, 0.5, 0.5, 0.5)],
            [("a", "x/m", 0.501, 0.501), ("a", "x/n", 0.5, 0.5), ("b", "x/o", 1.0, 1.0)],
        )
    )
    row = board.filter(scope="all", model_id="x/o").row(0, named=True)
    assert row["usage_share_upper"] == row["usage_share"] == 0.5


def test_equal_sums_share_the_smaller_rank_whatever_the_order_of_summation() -> None:
    # 0.1 + 0.2 and 0.3 are not the same double.
    board = rank(
        *_published(
            [("a", "general", 1.0, 1.0, 1.0, 1.0), ("b", "general", 1.0, 1.0, 1.0, 1.0)],
            [("a", "x/sum", 0.1, 0.1), ("b", "x/sum", 0.2, 0.2), ("a", "x/whole", 0.3, 0.3), ("a", "x/less", 0.2, 0.2)],
        )
    ).filter(scope="all")
    assert dict(zip(board["model_id"], board["usage_rank"], strict=True)) == {"x/sum": 1, "x/whole": 1, "x/less": 3}


@settings(max_examples=100, deadline=None)
@given(hidden_figures())
def test_rounding_true_figures_never_exceeds_a_scopes_limit(hidden: Hidden) -> None:
    tags, models = (frame.with_columns(pl.col(pl.Float64).round(3)) for frame in hidden.published())
    check_scopes({"task_classifications": tags, "task_models": models, "model_leaderboard": rank(tags, models)})


def test_a_sum_that_rounding_lifts_above_one_is_within_the_limit_and_a_larger_one_is_not() -> None:
    # 28 tags with 0.03451 of the traffic and one with 0.03372; under each, 9 models with 0.1006 and one with 0.0946.
    weights, shares = [0.035] * 28 + [0.034], [0.101] * 9 + [0.095]
    tags, models = _published(
        [(f"t{n}", "general", *[weight] * 4) for n, weight in enumerate(weights)],
        [(f"t{t}", f"x/{m}", share, share) for t in range(29) for m, share in enumerate(shares)],
    )
    frames = {"task_classifications": tags, "task_models": models, "model_leaderboard": rank(tags, models)}
    assert frames["model_leaderboard"].filter(scope="all")["usage_share"].sum() == pytest.approx(1.014 * 1.004)
    check_scopes(frames)
    # The limit is (1 + 29 x 0.0005) x (1 + 10 x 0.0005) = 1.01957.
    board = frames["model_leaderboard"].with_columns(pl.col("token_share") * 1.0016)
    with pytest.raises(
        InvalidSnapshotError, match=r"token_share, row 2026-10-06 / all: summed=1\.01968, limit=1\.01957"
    ):
        check_scopes({**frames, "model_leaderboard": board})


def test_a_days_rows_depend_on_that_day_alone() -> None:
    other = DAY.replace(day=7)
    both = parse([(DAY, sample_answer(DAY)), (other, sample_answer(other))])
    alone = parse([(DAY, sample_answer(DAY))])
    together = rank(both.task_classifications, both.task_models).filter(as_of=DAY)
    assert together.equals(rank(alone.task_classifications, alone.task_models))


def test_no_answers_give_an_empty_leaderboard_with_its_columns() -> None:
    empty = parse([])
    board = rank(empty.task_classifications, empty.task_models)
    assert board.is_empty()
    assert "usage_rank_worst" in board.columns

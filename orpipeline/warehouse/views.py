"""The views: figures that compare days, and summaries of a day, are computed when you read them.

So importing an older day updates them. A filter on `as_of` reaches the tables' scans in all views but `model_trends`,
which compares days: reading a day reads only that day's rows.

The intervals that allow for rounding (low, up, r' and h) are those of `orpipeline.leaderboard`.

The queries name tables without a schema: DuckDB looks for them in the view's own schema, whatever the file's name is.
"""

from __future__ import annotations

from orpipeline.contracts.rules import ALL, HALF_STEP
from orpipeline.leaderboard import DECIMALS

# A frame by date, not by row: a missing day gives NULL, not the figure of another day.
_DAYS_BEFORE = (
    "PARTITION BY scope, model_id, window_days ORDER BY as_of "
    "RANGE BETWEEN INTERVAL {days} DAY PRECEDING AND INTERVAL {days} DAY PRECEDING"
)

_H = HALF_STEP
_SCOPE = "as_of, window_days, scope"

# The summaries use subqueries instead of WITH. DuckDB may materialize a WITH query; then the filter on `as_of` does not
# reach the tables. Files in an older format than DuckDB's own lose NOT MATERIALIZED, and lambdas.

# One row per scope and tag: the tag's weights in the scope.
_TAGS = f"""(
    SELECT as_of, window_days, '{ALL}' AS scope, tag, usage_share AS usage_weight, token_share AS token_weight
    FROM task_classifications
    UNION ALL
    SELECT as_of, window_days, macro_category, tag, category_usage_share, category_token_share
    FROM task_classifications
)"""  # noqa: S608 - our own constants

# One row per scope, tag and listed model.
_MODELS = f"(FROM {_TAGS} JOIN task_models USING (as_of, window_days, tag))"


def _low(share: str) -> str:
    return f"greatest({share} - {_H}, 0)"


def _coverage() -> str:
    left = f"""(
        SELECT
            as_of,
            window_days,
            tag,
            least(min(tag_usage_share), 1 - sum(tag_usage_share)) AS usage_left,
            1 - sum(tag_token_share) AS token_left,
            least(min(tag_usage_share) + {_H}, 1 - sum(tag_usage_share - {_H})) AS usage_left_up,
            1 - sum(tag_token_share - {_H}) AS token_left_up
        FROM task_models
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    # A tag that lists no model leaves all of it.
    rest = "sum({weight} * greatest(coalesce({left}, 1), 0))"
    unlisted = f"""(
        SELECT
            {_SCOPE},
            {rest.format(weight="usage_weight", left="usage_left")} AS usage_upper,
            {rest.format(weight="token_weight", left="token_left")} AS token_upper,
            {rest.format(weight=f"(usage_weight + {_H})", left="usage_left_up")} AS usage_up,
            {rest.format(weight=f"(token_weight + {_H})", left="token_left_up")} AS token_up
        FROM {_TAGS} LEFT JOIN {left} USING (as_of, window_days, tag)
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    models = f"""(
        SELECT
            {_SCOPE},
            model_id,
            sum(usage_weight * tag_usage_share) AS usage_share,
            sum(token_weight * tag_token_share) AS token_share,
            sum({_low("usage_weight")} * {_low("tag_usage_share")}) AS usage_low,
            sum({_low("token_weight")} * {_low("tag_token_share")}) AS token_low
        FROM {_MODELS}
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    above = "count(*) FILTER (round({0}_low, {1}) > round({0}_up, {1}))::INTEGER"
    return f"""
        SELECT
            {_SCOPE},
            count(model_id)::INTEGER AS model_count,
            round(coalesce(sum(usage_share), 0), {DECIMALS}) AS usage_attributed,
            round(coalesce(sum(token_share), 0), {DECIMALS}) AS token_attributed,
            round(any_value(usage_upper), {DECIMALS}) AS unlisted_usage_upper,
            round(any_value(token_upper), {DECIMALS}) AS unlisted_token_upper,
            {above.format("usage", DECIMALS)} AS usage_models_above_unlisted,
            {above.format("token", DECIMALS)} AS token_models_above_unlisted
        FROM {unlisted} LEFT JOIN {models} USING ({_SCOPE})
        GROUP BY ALL
    """  # noqa: S608 - our own constants


def _author_leaderboard() -> str:
    authors = f"""(
        SELECT
            {_SCOPE},
            author,
            round(sum(usage_share), {DECIMALS}) AS usage_share,
            round(sum(token_share), {DECIMALS}) AS token_share,
            count(*)::INTEGER AS model_count,
            first(model_id ORDER BY usage_share DESC, model_id) AS top_model
        FROM model_leaderboard
        WHERE author <> ''
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    # One row per scope, tag and author: the sums of its models' shares.
    author_tags = f"""(
        SELECT
            {_SCOPE},
            tag,
            author,
            sum(tag_usage_share) AS usage_own,
            sum(tag_token_share) AS token_own,
            sum({_low("tag_usage_share")}) AS usage_own_low,
            sum({_low("tag_token_share")}) AS token_own_low
        FROM {_MODELS} JOIN model_leaderboard USING ({_SCOPE}, model_id)
        WHERE author <> ''
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    # One row per scope and tag: what its authors leave; all of it if it lists none.
    tags = f"""(
        SELECT
            {_SCOPE},
            tag,
            any_value(usage_weight) AS usage_weight,
            any_value(token_weight) AS token_weight,
            1 - coalesce(sum(usage_own), 0) AS usage_left,
            1 - coalesce(sum(token_own), 0) AS token_left,
            1 - coalesce(sum(usage_own_low), 0) AS usage_left_up,
            1 - coalesce(sum(token_own_low), 0) AS token_left_up
        FROM {_TAGS} LEFT JOIN {author_tags} USING ({_SCOPE}, tag)
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    rests = f"""(
        SELECT
            {_SCOPE},
            sum(usage_weight * greatest(usage_left, 0)) AS usage_rest,
            sum(token_weight * greatest(token_left, 0)) AS token_rest,
            sum((usage_weight + {_H}) * greatest(usage_left_up, 0)) AS usage_rest_up,
            sum((token_weight + {_H}) * greatest(token_left_up, 0)) AS token_rest_up
        FROM {tags}
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    # An author's up is the scope's rest and, under its own tags, `more`: max(own, 1 - others) instead of the rest.
    more = "(greatest({0}_own, {0}_left_up + {0}_own_low) - greatest({0}_left_up, 0))"
    bounds = f"""(
        SELECT
            {_SCOPE},
            author,
            sum({_low("usage_weight")} * usage_own_low) AS usage_low,
            sum({_low("token_weight")} * token_own_low) AS token_low,
            sum((usage_weight + {_H}) * {more.format("usage")}) AS usage_more,
            sum((token_weight + {_H}) * {more.format("token")}) AS token_more
        FROM {author_tags} JOIN {tags} USING ({_SCOPE}, tag)
        GROUP BY ALL
    )"""  # noqa: S608 - our own constants
    bounded = f"""(
        SELECT
            authors.*,
            round(usage_share + usage_rest, {DECIMALS}) AS usage_share_upper,
            round(token_share + token_rest, {DECIMALS}) AS token_share_upper,
            round(usage_low, {DECIMALS}) AS usage_low,
            round(token_low, {DECIMALS}) AS token_low,
            round(usage_rest_up + usage_more, {DECIMALS}) AS usage_up,
            round(token_rest_up + token_more, {DECIMALS}) AS token_up
        FROM {authors} AS authors JOIN {rests} USING ({_SCOPE}) JOIN {bounds} USING ({_SCOPE}, author)
    )"""  # noqa: S608 - our own constants
    compared = ("author", "usage_low", "usage_up", "token_low", "token_up")
    other = f"struct_pack({', '.join(f'{name} := {name}' for name in compared)})"
    # One row per author and author of the same scope, itself included.
    pairs = f"""(
        SELECT
            *,
            rank() OVER (scope_authors ORDER BY usage_share DESC) AS usage_rank,
            rank() OVER (scope_authors ORDER BY token_share DESC) AS token_rank,
            unnest(list({other}) OVER scope_authors) AS other
        FROM {bounded} AS bounded
        WINDOW scope_authors AS (PARTITION BY {_SCOPE})
    )"""  # noqa: S608 - our own constants
    best = "(1 + count(*) FILTER (other.{0}_low > {0}_up))::INTEGER AS {0}_rank_best"
    worst = "(1 + count(*) FILTER (other.{0}_up > {0}_low AND other.author <> author))::INTEGER AS {0}_rank_worst"
    return f"""
        SELECT
            {_SCOPE},
            author,
            usage_share,
            token_share,
            usage_rank::INTEGER AS usage_rank,
            token_rank::INTEGER AS token_rank,
            model_count,
            top_model,
            usage_share_upper,
            token_share_upper,
            {best.format("usage")},
            {worst.format("usage")},
            {best.format("token")},
            {worst.format("token")}
        FROM {pairs}
        GROUP BY ALL
    """  # noqa: S608 - our own constants


VIEW_QUERIES = {
    "author_leaderboard": _author_leaderboard(),
    "leaderboard_coverage": _coverage(),
    "model_trends": f"""
        SELECT
            as_of,
            window_days,
            scope,
            model_id,
            usage_rank,
            usage_share,
            any_value(usage_rank) OVER one_day_before AS usage_rank_1d,
            any_value(usage_rank) OVER seven_days_before AS usage_rank_7d,
            round(usage_share - any_value(usage_share) OVER one_day_before, {DECIMALS}) AS usage_share_change_1d,
            round(usage_share - any_value(usage_share) OVER seven_days_before, {DECIMALS}) AS usage_share_change_7d,
            min(as_of) OVER up_to_this_day AS first_seen,
            (count(*) OVER up_to_this_day)::INTEGER AS days_listed
        FROM model_leaderboard
        WINDOW
            one_day_before AS ({_DAYS_BEFORE.format(days=1)}),
            seven_days_before AS ({_DAYS_BEFORE.format(days=7)}),
            up_to_this_day AS (PARTITION BY scope, model_id, window_days ORDER BY as_of)
    """,  # noqa: S608 - our own constants
    "latest_leaderboard": f"""
        SELECT *
        FROM model_leaderboard
        WHERE scope = '{ALL}' AND as_of = (SELECT max(as_of) FROM model_leaderboard)
    """,  # noqa: S608 - our own constant
}
"""Each view's query, by name."""

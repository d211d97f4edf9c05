"""The views: figures that compare days are computed when you read them, so importing an older day updates them.

The queries name tables without a schema: DuckDB looks for them in the view's own schema, whatever the file's name is.
"""

from __future__ import annotations

from orpipeline.contracts.rules import ALL
from orpipeline.leaderboard import DECIMALS

# A frame by date, not by row: a missing day gives NULL, not the figure of another day.
_DAYS_BEFORE = (
    "PARTITION BY scope, model_id, window_days ORDER BY as_of "
    "RANGE BETWEEN INTERVAL {days} DAY PRECEDING AND INTERVAL {days} DAY PRECEDING"
)

VIEW_QUERIES = {
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

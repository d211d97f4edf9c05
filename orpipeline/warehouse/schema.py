"""What orpipeline creates in a DuckDB schema, from the contracts: tables, views, their comments, and a hash of it all.

Figures that compare days are views, computed when you read them: so importing an older day updates them. Everything
that depends on one day alone is a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache

from orpipeline.catalogue.tables import VIEW_QUERIES
from orpipeline.contracts.rules import ALL
from orpipeline.contracts.table import DUCKDB_TYPES
from orpipeline.contracts.tables import RELATIONS, VIEWS
from orpipeline.leaderboard import DECIMALS

DEFAULT_SCHEMA = "openrouter"
REGISTER = "orpipeline_tables"
"""The table with the names of all that orpipeline created, and the hash of the declarations that it came from."""
CODE_VERSION = "4"
"""Increase it when the same bytes give other rows in the same columns: the tables are then loaded again."""

# A frame by date, not by row: a missing day gives NULL, not the figure of another day.
_DAYS_BEFORE = (
    "PARTITION BY scope, model_id, window_days ORDER BY as_of "
    "RANGE BETWEEN INTERVAL {days} DAY PRECEDING AND INTERVAL {days} DAY PRECEDING"
)


def _possible_change(measure: str) -> str:
    """Return the columns of a share's possible change. A model that no list named then had what an unlisted one can."""
    share = f"{measure}_share"
    return f"""
        round({share}_low - coalesce(any_value({share}_up) OVER seven_days_before, unlisted_{measure}_up), {DECIMALS})
            AS {share}_change_7d_low,
        round({share}_up - coalesce(any_value({share}_low) OVER seven_days_before,
            CASE WHEN unlisted_{measure}_up IS NOT NULL THEN 0 END), {DECIMALS})
            AS {share}_change_7d_high"""


# The queries name tables without a schema: DuckDB looks for them in the view's own schema, whatever the file's name is.
_VIEW_QUERIES = {
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
            (count(*) OVER up_to_this_day)::INTEGER AS days_listed,
            {_possible_change("usage")},
            {_possible_change("token")}
        FROM model_leaderboard LEFT JOIN (
            SELECT as_of + 7 AS as_of, window_days, scope, unlisted_usage_up, unlisted_token_up
            FROM leaderboard_coverage
        ) AS seven_days_before USING (as_of, window_days, scope)
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
    **VIEW_QUERIES,
}


@cache
def declared_hash() -> str:
    """Return a hash of the declared tables and views, and of the version of their figures."""
    statements = [statement for name in RELATIONS for statement in create(name, name, keys=True)]
    return hashlib.sha256("\n".join([CODE_VERSION, *statements]).encode()).hexdigest()


def create(name: str, full_name: str, *, keys: bool) -> Iterator[str]:
    """Yield the statements that create a table with its types and, with `keys`, its primary key, or a view.

    DuckLake has no keys, and no comments on a view's columns.
    """
    model, is_view = RELATIONS[name], name in VIEWS
    if is_view:
        yield f"CREATE OR REPLACE VIEW {full_name} AS {_VIEW_QUERIES[name]}"
    else:
        columns = [
            f"{quoted(column)} {DUCKDB_TYPES[details.dtype.type]}{'' if details.nullable else ' NOT NULL'}"
            for column, details in model.columns().items()
        ]
        columns += [f"PRIMARY KEY ({quoted_names(model.primary_key())})"] if keys else []
        yield f"CREATE TABLE {full_name} ({', '.join(columns)})"
    yield f"COMMENT ON {kind(name)} {full_name} IS {literal(model.summary())}"
    if keys or not is_view:
        for column, details in model.columns().items():
            yield f"COMMENT ON COLUMN {full_name}.{quoted(column)} IS {literal(details.description)}"


def kind(name: str) -> str:
    """Return `VIEW` or `TABLE`."""
    return "VIEW" if name in VIEWS else "TABLE"


def quoted(name: str) -> str:
    """Return a name quoted for SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def quoted_names(names: Iterable[str]) -> str:
    """Return names quoted for SQL, as a list."""
    return ", ".join(map(quoted, names))


def literal(text: str) -> str:
    """Return text quoted for SQL as a string."""
    return "'" + text.replace("'", "''") + "'"

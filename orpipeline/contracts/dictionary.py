"""The data dictionary in Markdown, generated from the contracts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from orpipeline.contracts.rules import RULES
from orpipeline.contracts.table import DUCKDB_TYPES
from orpipeline.contracts.tables import RELATIONS, VIEWS, ModelLeaderboard

_INTRODUCTION = """# Data dictionary

All tables and views are in the DuckDB schema `openrouter`. Each is also a Parquet file (`task_models.parquet`), except
for `latest_leaderboard`. Types have DuckDB's names. Shares are fractions of 1, rounded to 3 decimals by OpenRouter,
unless a column's description states otherwise. Days are in UTC. The columns marked *key* are the primary key.

Two columns are in every table and not repeated below. They are part of the key:

- `as_of`, DATE: the snapshot's day, which is the last day of its window, and the partition;
- `window_days`, INTEGER: the number of days that the figures cover. The catalogue's tables do not have it.
"""
_IN_EVERY_TABLE = ("as_of", "window_days")


def data_dictionary() -> str:
    """Return every table and view with its columns (type, key, NULL, meaning), and the rules for a day."""
    return "\n".join([_INTRODUCTION, *_relations(), *_rules()])


def _relations() -> Iterator[str]:
    shared, explained = ModelLeaderboard.columns(), dict[tuple[str, str], str]()
    for name, model in RELATIONS.items():
        yield f"## {'View' if name in VIEWS else 'Table'} `{name}`\n\n{model.summary()}\n"
        columns = {column: details for column, details in model.columns().items() if column not in _IN_EVERY_TABLE}
        if name in VIEWS and shared.keys() <= model.columns().keys():
            columns = {column: details for column, details in columns.items() if column not in shared}
            yield f"It has the columns of `model_leaderboard`{', and:' if columns else '.'}\n"
        if columns:
            yield from _rows(name, columns, model.primary_key(), explained)
            yield ""


def _rows(
    table: str, columns: Mapping[str, Any], key: Collection[str], explained: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Yield a line for each column. Columns that differ only by requests and tokens share it.

    `explained` has the table that explains a column with this name and description; new ones are added.
    """
    shown = set()
    for name, details in columns.items():
        twin = name.replace("usage", "token")
        names, meaning = f"`{name}`", details.description
        if twin != name and twin in columns and _of_tokens(meaning) == _of_tokens(columns[twin].description):
            names, meaning = f"{names}, `{twin}`", meaning.replace("requests", "requests (or tokens)")
            shown.add(twin)
        if name not in shown:
            mark = ", *key*" if name in key else " or NULL" if details.nullable else ""
            first = explained.setdefault((names, meaning), table)
            shown_meaning = meaning if first == table else f"As in `{first}`."
            yield f"- {names} {DUCKDB_TYPES[details.dtype.type]}{mark}: {shown_meaning}"


def _of_tokens(meaning: str) -> str:
    return meaning.replace("requests", "tokens").replace("usage", "token")


def _rules() -> Iterator[str]:
    yield "## Rules\n"
    yield "A day that breaks an ERROR rule is rejected. A day that breaks a WARN rule is accepted with a warning.\n"
    for rule in RULES.values():
        yield f"- `{rule.name}` ({rule.severity}): {rule.description}"
    yield ""

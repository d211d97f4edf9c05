"""The data dictionary in Markdown, generated from the contracts."""

from __future__ import annotations

from collections.abc import Iterator

from orpipeline.contracts.rules import RULES
from orpipeline.contracts.table import DUCKDB_TYPES, Table
from orpipeline.contracts.tables import RELATIONS, VIEWS

_INTRODUCTION = """# Data dictionary

All tables and views are in the DuckDB schema `openrouter`. Each is also a Parquet file (`task_models.parquet`), except
for `latest_leaderboard`. Types have DuckDB's names. Shares are fractions of 1, rounded to 3 decimals by OpenRouter,
unless a column's description states otherwise. Days are in UTC. Columns marked *key* are the primary key.
"""


def data_dictionary() -> str:
    """Return every table and view with its columns (type, key, NULL, meaning), and the rules for a day."""
    return "\n".join([_INTRODUCTION, *_relations(), *_rules()])


def _relations() -> Iterator[str]:
    for name, model in RELATIONS.items():
        yield f"## {'View' if name in VIEWS else 'Table'} `{name}`\n\n{model.summary()}\n"
        yield "| column | type | | meaning |\n| --- | --- | --- | --- |"
        yield from _columns(model)
        yield ""


def _columns(model: type[Table]) -> Iterator[str]:
    key = model.primary_key()
    for name, details in model.columns().items():
        mark = "*key*" if name in key else "may be NULL" if details.nullable else ""
        yield f"| `{name}` | {DUCKDB_TYPES[details.dtype.type]} | {mark} | {_cell(details.description)} |"


def _rules() -> Iterator[str]:
    yield "## Rules\n"
    yield "A day that breaks an ERROR rule is rejected. A day that breaks a WARN rule is accepted with a warning.\n"
    yield "| rule | severity | requirement |\n| --- | --- | --- |"
    for rule in RULES.values():
        yield f"| `{rule.name}` | {rule.severity} | {_cell(rule.description)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

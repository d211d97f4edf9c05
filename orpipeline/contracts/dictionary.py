"""The data dictionary in Markdown, generated from the contracts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import DUCKDB_TYPES, EXPORTED, RELATIONS, VIEWS, DayTable

_INTRODUCTION = """# Data dictionary

{where} Shares are fractions of 1, rounded to 3 decimals by OpenRouter, unless
a column's description states otherwise. Days are in UTC. Columns marked *key* are the primary key.
"""

_IN_DUCKDB = "All tables are in the DuckDB schema `openrouter`."
_EXPORTED = """Each table and view is one Parquet file (`task_models.parquet`). Types have DuckDB's names."""


def data_dictionary(*, exported: bool = False) -> str:
    """Return every table and view with its columns (type, key, NULL, meaning), and the rules for a day.

    With `exported`, describe them as Parquet files; `latest_leaderboard` has none.
    """
    introduction = _INTRODUCTION.format(where=_EXPORTED if exported else _IN_DUCKDB)
    return "\n".join([introduction, *_relations(EXPORTED if exported else RELATIONS), *_rules()])


def _relations(relations: Mapping[str, type[DayTable]]) -> Iterator[str]:
    for name, model in relations.items():
        yield f"## {'View' if name in VIEWS else 'Table'} `{name}`\n\n{model.summary()}\n"
        yield "| column | type | | meaning |\n| --- | --- | --- | --- |"
        yield from _columns(model)
        yield ""


def _columns(model: type[DayTable]) -> Iterator[str]:
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

"""The data dictionary, from the contracts: what every column is, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orpipeline.contracts.rules import RULES
from orpipeline.contracts.tables import RELATIONS, TABLES, VIEWS, DayTable
from orpipeline.warehouse.tables import DEFAULT_SCHEMA, DUCKDB_TYPES

_INTRODUCTION = """# Data dictionary

{where} Shares are fractions of 1 as OpenRouter publishes them, rounded to 3
decimals, unless a column says otherwise. A day is one in UTC. Columns marked *key* are the primary key.
"""

_IN_DUCKDB = f"All tables are in the DuckDB schema `{DEFAULT_SCHEMA}`."
_EXPORTED = """Each table is a folder of Parquet files, one a day. The column `as_of` is in the folders' names
(`as_of=2026-10-06`), not in the files; types are named as in DuckDB."""


def data_dictionary(*, exported: bool = False) -> str:
    """Return the tables and views with their columns (type, key, NULL, meaning) and the rules that a day holds to.

    With `exported`, what an export has of them: the tables, as Parquet files.
    """
    introduction = _INTRODUCTION.format(where=_EXPORTED if exported else _IN_DUCKDB)
    return "\n".join([introduction, *_relations(TABLES if exported else RELATIONS), *_rules()])


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
    yield "## Rules\n\nA day that breaks an ERROR rule is refused; breaking a WARN rule is reported, and let through.\n"
    yield "| rule | severity | what must hold |\n| --- | --- | --- |"
    for rule in RULES.values():
        yield f"| `{rule.name}` | {rule.severity} | {_cell(rule.description)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

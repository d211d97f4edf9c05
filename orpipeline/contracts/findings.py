"""A finding: one place in a response or a table that breaks one rule. Frames of findings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any

import polars as pl

from orpipeline.contracts.rules import Rule
from orpipeline.errors import InvalidSnapshotError
from orpipeline.text import plain

_LONGEST = 200  # characters
_SHOWN_ROWS = 3
FINDINGS_SCHEMA = {
    "as_of": pl.Date,
    "severity": pl.String,
    "rule": pl.String,
    "table": pl.String,
    "column": pl.String,
    "row": pl.String,
    "found": pl.String,
}
"""One row per finding. `severity` is `ERROR` (the day is rejected) or `WARN`; `row` identifies the row by its key
(`tag`, `tag / model_id`, ...); `found` is the value there, as JSON or as `name=value`. Control and invisible
characters are escapes such as `\\u200b`, and long names are cut."""


def finding_frame(rule: Rule, table: str, places: Iterable[tuple[date | None, str, str, str]]) -> pl.DataFrame:
    """Return one finding per place: its day, column, row and what was found there."""
    rows = [
        (day, rule.severity, rule.name, table, _brief(column), _brief(row), plain(found))
        for day, column, row, found in places
    ]
    return pl.DataFrame(rows, schema=FINDINGS_SCHEMA, orient="row")


def broken(
    rule: Rule, table: str, rows: pl.DataFrame, column: str | pl.Expr, key: Sequence[str], values: Sequence[str]
) -> pl.DataFrame:
    """Return one finding per row: in `column` (or the column that it names), with the row's key and some values."""
    places = rows.with_columns(column=pl.lit(column) if isinstance(column, str) else column)
    return finding_frame(
        rule,
        table,
        (
            (row["as_of"], row["column"], " / ".join(str(row[name]) for name in key), shown_values(row, values))
            for row in places.iter_rows(named=True)
        ),
    )


def rejected_days(findings: pl.DataFrame) -> set[date]:
    """Return the days with at least one finding of severity ERROR."""
    return set(findings.filter(severity="ERROR")["as_of"])


def rejection(day: date, findings: pl.DataFrame, raw: str, tables: str = "are unchanged") -> InvalidSnapshotError:
    """Return the error for a rejected day.

    `raw` is the path of its archived bytes; `tables` is what its tables do now, such as `use revision 1`.
    """
    message = (
        f"Rejected the response for {day}; its tables {tables}. {broken_rules(day, findings)} "
        f"The response's bytes are archived in {raw}."
    )
    return InvalidSnapshotError(message, findings.filter(severity="ERROR", as_of=day))


def broken_rules(day: date, findings: pl.DataFrame) -> str:
    """Return two sentences: the rules that reject a day, and the first rows that break them."""
    errors = findings.filter(severity="ERROR", as_of=day)
    by_rule = errors["rule"].unique(maintain_order=True).to_list()
    first = "; ".join(
        f"{row['table']}.{row['column']} [{row['row']}]: {row['found']} breaks {row['rule']}"
        for row in errors.head(_SHOWN_ROWS).iter_rows(named=True)
    )
    more = f"; and {len(errors) - _SHOWN_ROWS} more" if len(errors) > _SHOWN_ROWS else ""
    return f"Rules broken: {', '.join(by_rule)}. {first}{more}."


def shown(value: object) -> str:
    """Return a value as JSON, without the noise that adding doubles leaves in a sum; a long text is cut."""
    rounded = float(f"{value:.6g}") if isinstance(value, float) else value
    return _brief(json.dumps(rounded, ensure_ascii=False, default=str))


def shown_values(row: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return the values of some columns of a row, as `name=value, name=value`."""
    return ", ".join(f"{name}={shown(row[name])}" for name in columns)


def shown_names(names: Iterable[str]) -> str:
    """Return names as JSON, separated by commas; a long list is cut."""
    return _brief(", ".join(map(shown, islice(names, _LONGEST))))


def _brief(text: str) -> str:
    visible = plain(text[: _LONGEST + 1])
    return visible if len(visible) <= _LONGEST else f"{visible[: _LONGEST - 3]}..."

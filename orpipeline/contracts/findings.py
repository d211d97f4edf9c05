"""A finding: one place in an answer or a table that breaks one rule. Frames of findings, and the error that has one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import islice
from typing import Any

import polars as pl

from orpipeline.contracts.rules import Rule
from orpipeline.errors import NextAttempt, OrpipelineError
from orpipeline.text import plain

_LONGEST = 200  # characters: a name that is longer is not canonical
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


class InvalidSnapshotError(OrpipelineError):
    """An answer breaks a rule of severity ERROR, so its day's tables are unchanged.

    `findings` has every broken rule and row, with the columns of `FINDINGS_SCHEMA`.
    """

    next_attempt = NextAttempt.NEEDS_OPENROUTER

    def __init__(self, message: str, findings: pl.DataFrame) -> None:
        super().__init__(message)
        self.findings = findings


def finding_frame(rule: Rule, table: str, places: Iterable[tuple[date | None, str, str, str]]) -> pl.DataFrame:
    """Return one finding per place: its day, column, row and what was found there."""
    rows = [
        (day, rule.severity, rule.name, table, _brief(column), _brief(row), plain(found))
        for day, column, row, found in places
    ]
    return pl.DataFrame(rows, schema=FINDINGS_SCHEMA, orient="row")


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

"""Validate answers: every rule at once, all findings in one frame, and the days that the findings reject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from pandera.errors import SchemaErrors

from orpipeline.contracts import across, rules
from orpipeline.contracts.findings import (
    FINDINGS_SCHEMA,
    InvalidSnapshotError,
    finding_frame,
    shown,
    shown_names,
    shown_values,
)
from orpipeline.contracts.tables import TABLES, RowRule
from orpipeline.openrouter.frames import Frames

_SHOWN_ROWS = 3


@dataclass(frozen=True)
class Seen:
    """The names in the tables so far: `tags` (`as_of`, `tag`) and `macro_categories` (`as_of`, `key`)."""

    tags: pl.DataFrame
    macro_categories: pl.DataFrame


def validate(frames: Frames, seen: Seen | None = None) -> pl.DataFrame:
    """Return every finding on `frames`, errors first, with the columns of `FINDINGS_SCHEMA`.

    With `seen`, new and missing tags and new macro-categories are findings too, of severity WARN.
    """
    found = [_defects(frames), _repeated_keys(frames), _unknown_fields(frames)]
    for table in ("task_classifications", "macro_categories", "task_models"):
        found.append(_row_findings(table, getattr(frames, table), frames.originals))
    found += across.findings(frames)
    if seen is not None:
        found += _novelties(frames, seen)
    return pl.concat(found).sort("severity", "as_of", maintain_order=True)


def rejected_days(findings: pl.DataFrame) -> set[date]:
    """Return the days with at least one finding of severity ERROR."""
    return set(findings.filter(severity="ERROR")["as_of"])


def rejection(day: date, findings: pl.DataFrame, raw: str, tables: str = "are unchanged") -> InvalidSnapshotError:
    """Return the error for a rejected day.

    `raw` is the path of its archived bytes; `tables` is what its tables do now, such as `use revision 1`.
    """
    message = (
        f"Rejected the answer for {day}; its tables {tables}. {broken_rules(day, findings)} "
        f"The answer's bytes are archived in {raw}."
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


def check_table(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the columns of table `name` in their order, after validating it with the table's model.

    Raises InvalidSnapshotError with the rows that break a rule or, if columns or types differ, with those.
    """
    model = TABLES[name]
    try:
        return model.validate(frame, lazy=True).select(list(model.columns()))
    except SchemaErrors as error:
        findings = _schema_findings(name, error)
        if dict(frame.schema) == model.polars_schema():
            rejecting = _row_findings(name, frame, {}).filter(severity="ERROR")
            findings = findings if rejecting.is_empty() else rejecting
    raise _not_written(findings)


def check_scopes(frames: Mapping[str, pl.DataFrame]) -> None:
    """Check that no scope's shares sum to more than 1 in the leaderboard among `frames`, which are rows by table name.

    Does nothing if one of the frames `model_leaderboard`, `task_classifications` and `task_models` is missing: the
    limit of a sum depends on all three (see `orpipeline.contracts.across.scope_sums`). Raises InvalidSnapshotError with
    the days, scopes and sums.
    """
    board, tags, models = map(frames.get, ("model_leaderboard", "task_classifications", "task_models"))
    if board is not None and tags is not None and models is not None:
        findings = across.scope_sums(board, tags, models)
        if not findings.is_empty():
            raise _not_written(findings)


def _not_written(findings: pl.DataFrame) -> InvalidSnapshotError:
    first = findings.row(0, named=True)
    return InvalidSnapshotError(
        f"The rows for table {first['table']} break {first['rule']}, first in column {first['column']}, row "
        f"{first['row']}: {first['found']}. Nothing was written.",
        findings,
    )


def _schema_findings(name: str, error: SchemaErrors) -> pl.DataFrame:
    """Return what pandera reports: missing or extra columns, other types, and forbidden NULLs."""
    cases = error.failure_cases.select("column", "index", "check", "failure_case").iter_rows()
    return finding_frame(
        rules.REQUIRED_FIELDS,
        name,
        ((None, str(column), str(index), f"{case} ({check})") for column, index, check, case in cases),
    )


def _row_findings(name: str, frame: pl.DataFrame, originals: Mapping[tuple[str, str, int], str]) -> pl.DataFrame:
    """Return the findings of the rules on single rows and keys of a table, for the columns that `frame` has.

    `originals` has the JSON text of each value that did not fit its column, by table, column and row number.
    """
    model = TABLES[name]
    declared = [rule for rule in model.row_rules() if rule.column in frame.columns]
    broken = frame.select(rule.broken.alias(str(n)) for n, rule in enumerate(declared))
    indexed = frame.with_row_index("index")
    found = [pl.DataFrame(schema=FINDINGS_SCHEMA)]
    for n, rule in enumerate(declared):
        if broken[str(n)].any():
            rows = indexed.filter(broken[str(n)]).iter_rows(named=True)
            found.append(finding_frame(rule.rule, name, (_place(name, rule, row, originals) for row in rows)))
    return pl.concat(found)


def _place(
    name: str, broken: RowRule, row: Mapping[str, Any], originals: Mapping[tuple[str, str, int], str]
) -> tuple[date, str, str, str]:
    """Return each place where a row breaks a rule, with the value there."""
    key = TABLES[name].primary_key()
    named = [str(row[column]) for column in key if column not in ("as_of", "window_days")] or [str(row["as_of"])]
    if broken.shows_row:
        found = shown_values(row, [column for column in row if column not in ("index", *key)])
    else:
        found = originals.get((name, broken.column, row["index"]), shown(row[broken.column]))
    return row["as_of"], broken.column, " / ".join(named), found


def _defects(frames: Frames) -> pl.DataFrame:
    return finding_frame(
        rules.REQUIRED_FIELDS,
        "raw_task_classifications",
        ((defect.as_of, defect.path, str(defect.as_of), defect.found) for defect in frames.defects),
    )


def _repeated_keys(frames: Frames) -> pl.DataFrame:
    return finding_frame(
        rules.JSON_KEYS,
        "raw_task_classifications",
        ((day, "(answer)", str(day), shown_names(sorted(keys))) for day, keys in frames.repeated_keys.items()),
    )


def _unknown_fields(frames: Frames) -> pl.DataFrame:
    return finding_frame(
        rules.NO_UNKNOWN_FIELDS,
        "raw_task_classifications",
        (
            (day, path, str(day), "an undocumented field")
            for day, paths in frames.unknown_fields.items()
            for path in sorted(paths)
        ),
    )


def _novelties(frames: Frames, seen: Seen) -> Iterator[pl.DataFrame]:
    """Yield warnings of names that no earlier day has, and of tags that are missing since the day before."""
    tags = frames.task_classifications.select("as_of", name="tag").drop_nulls()
    macros = frames.macro_categories.select("as_of", name="key").drop_nulls()
    seen_tags, seen_macros = seen.tags.rename({"tag": "name"}), seen.macro_categories.rename({"key": "name"})
    new, gone = "new: no earlier day has it", "gone: the day before has it"
    for rule, table, column, names, found in (
        (rules.SAME_TAGS, "task_classifications", "tag", _first_seen(tags, seen_tags), new),
        (rules.SAME_TAGS, "task_classifications", "tag", _gone(tags, seen_tags), gone),
        (rules.KNOWN_MACROS, "macro_categories", "key", _first_seen(macros, seen_macros), new),
    ):
        yield finding_frame(rule, table, ((day, column, name, found) for day, name in names.iter_rows()))


def _first_seen(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Return the days and names that no earlier day has. On the first day of all, no name counts as new."""
    known = pl.concat([before, now]).group_by("name").agg(first=pl.col("as_of").min())
    return (
        now.join(known, on="name", maintain_order="left")
        .filter(pl.col("as_of") == pl.col("first"))
        .join(known.select(as_of=pl.col("first").min()), on="as_of", how="anti", maintain_order="left")
        .select("as_of", "name")
    )


def _gone(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Return the days, and the names that the day before has and the day itself does not."""
    history = pl.concat([before, now]).unique(maintain_order=True)
    days = now.select("as_of").unique(maintain_order=True)
    return (
        history.with_columns(pl.col("as_of").dt.offset_by("1d"))
        .join(days, on="as_of", how="semi", maintain_order="left")
        .join(now, on=["as_of", "name"], how="anti", maintain_order="left")
        .select("as_of", "name")
    )

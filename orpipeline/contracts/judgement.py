"""Judging frames against every rule at once, and handing on only the days that hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from orpipeline.contracts import across, rules
from orpipeline.contracts.rules import RULES, Rule
from orpipeline.contracts.tables import TABLES, DayTable
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.frames import Frames

FINDINGS_SCHEMA = {
    "as_of": pl.Date,
    "severity": pl.String,
    "rule": pl.String,
    "table": pl.String,
    "column": pl.String,
    "row": pl.String,
    "found": pl.String,
}
"""A finding is one place that breaks one rule. `severity` is `ERROR` (the day is refused) or `WARN`; `row` names
the row by its key (`tag`, `tag / model_id`, ...); `found` is what stands there, as JSON or as `name=value`."""

_SHOWN_ROWS = 3


class InvalidSnapshotError(OrpipelineError):
    """An answer breaks rules that make a figure wrong; its day's tables keep what they had.

    `findings` is a frame as `FINDINGS_SCHEMA` has it, with every broken rule and row.
    """

    def __init__(self, message: str, findings: pl.DataFrame) -> None:
        super().__init__(message)
        self.findings = findings


@dataclass(frozen=True)
class Seen:
    """What the tables had before: `tags` and `macro_categories`, frames with `as_of` and the name."""

    tags: pl.DataFrame
    macro_categories: pl.DataFrame


def validate(frames: Frames, seen: Seen | None = None) -> pl.DataFrame:
    """Return every finding on `frames`, errors first: a frame as `FINDINGS_SCHEMA` has it.

    With `seen`, also warns of tags and macro-categories that are new or gone.
    """
    found = [_defects(frames), _unknown_fields(frames)]
    for name in ("task_classifications", "macro_categories", "task_models"):
        frame: pl.DataFrame = getattr(frames, name)
        found.append(_broken(name, TABLES[name], _ranked_with_zeros(frame, TABLES[name]), frames.originals))
    for table, model, frame in across.judged_frames(frames):
        originals = frames.originals if model is across.Answers else {}
        found.append(_broken(table, model, frame, originals, frame_name="answers"))
    found += [_unsorted(frames), _anonymous_models(frames)]
    if seen is not None:
        found.append(_novelties(frames, seen))
    return pl.concat(found).sort("severity", "as_of", maintain_order=True)


def rejected_days(findings: pl.DataFrame) -> set[date]:
    """Return the days that at least one rule of severity ERROR refuses."""
    return set(findings.filter(severity="ERROR")["as_of"])


def rejection(day: date, findings: pl.DataFrame, raw: str, tables: str = "are unchanged") -> InvalidSnapshotError:
    """Return the error for a rejected day: `raw` is the path of its archived bytes, `tables` completes `its tables`."""
    message = (
        f"Rejected the answer for {day}; its tables {tables}. {broken_rules(day, findings)} "
        f"The answer's bytes are archived in {raw}."
    )
    return InvalidSnapshotError(message, findings.filter(severity="ERROR", as_of=day))


def broken_rules(day: date, findings: pl.DataFrame) -> str:
    """Return the rules that refuse a day, and the first rows that break them, as two sentences."""
    errors = findings.filter(severity="ERROR", as_of=day)
    by_rule = errors["rule"].unique(maintain_order=True).to_list()
    first = "; ".join(
        f"{row['table']}.{row['column']} [{row['row']}]: {row['found']} breaks {row['rule']}"
        for row in errors.head(_SHOWN_ROWS).iter_rows(named=True)
    )
    more = f"; and {len(errors) - _SHOWN_ROWS} more" if len(errors) > _SHOWN_ROWS else ""
    return f"Rules broken: {', '.join(by_rule)}. {first}{more}."


def check_table(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the columns of table `name` in its order, held against its model.

    Raises InvalidSnapshotError, for a frame made by our own code too: nothing goes into a table unchecked.
    """
    model = TABLES[name]
    ordered = frame.select(list(model.columns()))
    findings = _broken(name, model, ordered, {})
    if len(findings):
        row = findings.row(0, named=True)
        raise InvalidSnapshotError(
            f"Table {name} breaks {row['rule']} in column {row['column']}, row {row['row']}: {row['found']}. "
            "Nothing was written.",
            findings,
        )
    return ordered


def _ranked_with_zeros(frame: pl.DataFrame, model: type[DayTable]) -> pl.DataFrame:
    """Fill in the columns that are computed only for answers that hold (the ranks)."""
    absent = [name for name in model.columns() if name not in frame.columns]
    return frame.with_columns(pl.lit(0, dtype=pl.Int32).alias(name) for name in absent)


def _finding_frame(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=FINDINGS_SCHEMA, orient="row")


def _broken(
    table: str,
    model: type[pa.DataFrameModel],
    frame: pl.DataFrame,
    originals: Mapping[tuple[str, str, int], str],
    frame_name: str | None = None,
) -> pl.DataFrame:
    """Return the findings of a pandera model on a frame, all of them (lazily), each cell and rule once."""
    try:
        model.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return _finding_frame([])
    rows: dict[tuple[str, str, int], tuple[Any, ...]] = {}
    for case in cases.iter_rows(named=True):
        index, column, check = case["index"], case["column"], case["check"]
        if index is None:
            raise AssertionError(f"{model.__name__}: {check} failed as a whole: {case['failure_case']}")
        if check == "not_nullable" and column == "window_days":
            continue  # said once, by `window_is_as_asked`
        row = frame.row(index, named=True)
        whole_row = case["schema_context"] != "Column"
        rule = RULES.get(check) or (rules.SHARES if "share" in column else rules.REQUIRED_FIELDS)
        if whole_row:
            found = _shown_row(row)
            if model is across.Answers:
                column = _ANSWER_COLUMNS[rule.name]
                found = originals.get((frame_name or table, column, index), _shown(row[column]))
            else:
                column = _judged_column(row)
        else:
            found = originals.get((frame_name or table, column, index), _shown(row[column]))
        rows.setdefault(
            (rule.name, column, index),
            (row["as_of"], rule.severity, rule.name, table, column, _row_name(row), found),
        )
    return _finding_frame(list(rows.values()))


_ANSWER_COLUMNS = {
    rules.AS_OF.name: "stated_as_of",
    rules.WINDOW.name: "window_days",
    rules.NOT_EMPTY.name: "classification_count",
}
_ROW_KEYS = ("scope", "tag", "model_id", "key")


def _judged_column(row: Mapping[str, Any]) -> str:
    """Return the column that a rule over a whole row speaks of."""
    if "share" in row:
        return str(row["share"])
    return next(name for name in ("macro_category", "model_id", "tag", "key", "models") if name in row)


def _row_name(row: Mapping[str, Any]) -> str:
    named = [str(row[key]) for key in _ROW_KEYS if key in row]
    if not named and "macro_category" in row:
        named = [str(row["macro_category"])]
    return " / ".join(named) or str(row["as_of"])


def _shown_row(row: Mapping[str, Any]) -> str:
    hidden = {"as_of", "window_days", "share", *_ROW_KEYS}
    return ", ".join(f"{name}={_shown(value)}" for name, value in row.items() if name not in hidden)


def _shown(value: object) -> str:
    """Return a value as the answer would write it, sums without the noise of adding doubles."""
    return json.dumps(float(f"{value:.6g}")) if isinstance(value, float) else str(value)


def _defects(frames: Frames) -> pl.DataFrame:
    rule = rules.REQUIRED_FIELDS
    return _finding_frame(
        [(d.as_of, rule.severity, rule.name, rule.tables[0], d.path, str(d.as_of), d.found) for d in frames.defects]
    )


def _unknown_fields(frames: Frames) -> pl.DataFrame:
    rule = rules.NO_UNKNOWN_FIELDS
    return _finding_frame(
        [
            (day, rule.severity, rule.name, rule.tables[0], path, str(day), "a field that is not documented")
            for day, paths in frames.unknown_fields.items()
            for path in sorted(paths)
        ]
    )


def _warnings(rule: Rule, rows: pl.DataFrame, table: str, column: str, found: str) -> pl.DataFrame:
    """Return one finding for each of `rows`, which have `as_of` and `row`."""
    return rows.select(
        pl.col("as_of"),
        severity=pl.lit(rule.severity),
        rule=pl.lit(rule.name),
        table=pl.lit(table),
        column=pl.lit(column),
        row=pl.col("row").cast(pl.String),
        found=pl.lit(found),
    )


def _unsorted(frames: Frames) -> pl.DataFrame:
    tags = frames.task_classifications.filter(
        pl.col("usage_share") > pl.col("usage_share").shift(1).over("as_of")
    ).select("as_of", row="tag")
    models = frames.task_models.filter(
        pl.col("tag_usage_share") > pl.col("tag_usage_share").shift(1).over("as_of", "tag")
    ).select("as_of", row=pl.format("{} / {}", "tag", "model_id"))
    above = "larger than the one listed before it"
    return pl.concat(
        [
            _warnings(rules.ORDER, tags, "task_classifications", "usage_share", above),
            _warnings(rules.ORDER, models, "task_models", "tag_usage_share", above),
        ]
    )


def _anonymous_models(frames: Frames) -> pl.DataFrame:
    rows = frames.task_models.filter(~pl.col("model_id").str.contains("^[^/]+/.")).select(
        "as_of", row=pl.format("{} / {}", "tag", "model_id")
    )
    return _warnings(rules.MODEL_AUTHORS, rows, "task_models", "model_id", "no author before a `/`")


def _novelties(frames: Frames, seen: Seen) -> pl.DataFrame:
    tags = frames.task_classifications.select("as_of", name="tag").drop_nulls()
    macros = frames.macro_categories.select("as_of", name="key").drop_nulls()
    before_tags = seen.tags.rename({"tag": "name"})
    before_macros = seen.macro_categories.rename({"key": "name"})
    return pl.concat(
        [
            _warnings(
                rules.SAME_TAGS,
                _first_seen(tags, before_tags),
                "task_classifications",
                "tag",
                "no earlier day had it",
            ),
            _warnings(
                rules.SAME_TAGS,
                _gone(tags, before_tags),
                "task_classifications",
                "tag",
                "the day before had it",
            ),
            _warnings(
                rules.KNOWN_MACROS,
                _first_seen(macros, before_macros),
                "macro_categories",
                "key",
                "no earlier day had it",
            ),
        ]
    )


def _first_seen(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Return the names with no earlier day, but for those of the very first day, when all are new."""
    known = pl.concat([before, now]).group_by("name").agg(first=pl.col("as_of").min())
    return (
        now.join(known, on="name", maintain_order="left")
        .filter(pl.col("as_of") == pl.col("first"))
        .join(known.select(as_of=pl.col("first").min()), on="as_of", how="anti", maintain_order="left")
        .select("as_of", row="name")
    )


def _gone(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Return the names that the day before each day had and the day itself has not."""
    history = pl.concat([before, now]).unique(maintain_order=True)
    days = now.select("as_of").unique(maintain_order=True)
    return (
        history.with_columns(pl.col("as_of").dt.offset_by("1d"))
        .join(days, on="as_of", how="semi", maintain_order="left")
        .join(now, on=["as_of", "name"], how="anti", maintain_order="left")
        .select("as_of", row="name")
    )

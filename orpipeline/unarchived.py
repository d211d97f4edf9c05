"""Days that only the tables have: their rows as if they were parsed answers, for tables of another layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from orpipeline.archive.records import Record
from orpipeline.contracts.judgement import broken_rules, rejected_days, validate
from orpipeline.contracts.tables import TABLES
from orpipeline.openrouter.frames import Frames, parse
from orpipeline.warehouse.old_rows import OldRows


@dataclass(frozen=True)
class TableDays:
    """Days as old tables have them.

    `records` and `frames` are as for archived answers, but no file has the bytes. `unusable` gives the reason for each
    other day.
    """

    records: Mapping[date, Record]
    frames: Frames
    unusable: Mapping[date, str]


def read_table_days(old: OldRows, days: Sequence[date]) -> TableDays:
    """Read the rows of some days from old tables, and check them against the contracts."""
    empty = parse([])
    snapshots = old.read("snapshots", days)
    tasks = old.read("task_classifications", days)
    macros = old.read("macro_categories", days)
    models = old.read("task_models", days)
    missing = [
        f"{name} has no column {column}"
        for name, frame, columns in (
            ("snapshots", snapshots, TABLES["snapshots"].columns()),
            ("task_classifications", tasks, empty.task_classifications.columns),
            ("macro_categories", macros, empty.macro_categories.columns),
            ("task_models", models, empty.task_models.columns),
        )
        for column in columns
        if column not in frame.columns
    ]
    if missing:
        return TableDays({}, empty, dict.fromkeys(days, missing[0]))
    frames = replace(
        empty,
        answers=snapshots.select("as_of", "window_days", "classification_count", stated_as_of="as_of").select(
            empty.answers.columns
        ),
        # In the order of an answer.
        task_classifications=tasks.sort("as_of", "usage_share", "tag", descending=[False, True, False]).select(
            empty.task_classifications.columns
        ),
        macro_categories=macros.select(empty.macro_categories.columns),
        task_models=models.sort("as_of", "tag", "position").select(empty.task_models.columns),
    )
    findings = validate(frames)
    unusable = {day: broken_rules(day, findings) for day in sorted(rejected_days(findings))}
    unusable |= _incomplete(days, snapshots, tasks)
    rows = snapshots.filter(~pl.col("as_of").is_in(list(unusable))).iter_rows(named=True)
    return TableDays({row["as_of"]: _record(row) for row in rows}, frames, unusable)


def _incomplete(days: Sequence[date], snapshots: pl.DataFrame, tasks: pl.DataFrame) -> dict[date, str]:
    """Return why days are unusable that the contracts for answers let pass."""
    sources = snapshots.partition_by("as_of", as_dict=True)
    tags = dict(tasks.group_by("as_of").len().iter_rows())
    reasons: dict[date, str] = {}
    for day in days:
        of_day = sources.get((day,))
        if of_day is None or len(of_day) > 1 or any(of_day.null_count().row(0)):
            reasons[day] = f"snapshots does not have one complete row for {day}"
        elif of_day["classification_count"][0] != tags.get(day):
            reasons[day] = f"task_classifications does not have all tags of {day}"
    return reasons


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        as_of=row["as_of"],
        revision=row["revision"],
        sha256=row["sha256"],
        size=row["bytes"],
        fetched_at=row["fetched_at"],
        origin=row["origin"],
        source=row["source"],
        path=Path(),  # no file has the bytes
    )

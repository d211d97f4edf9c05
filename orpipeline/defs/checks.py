"""The asset checks: on the rules of an answer, and on the history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.archive.archive import Archive
from orpipeline.contracts.rules import CHECKS, Check
from orpipeline.defs.metadata import findings_table, table
from orpipeline.defs.names import Names
from orpipeline.history import lost_days, restatements
from orpipeline.snapshot import Validated

LOST_DAYS = "no_lost_days"
RESTATEMENT = "restatement"
HISTORY_CHECKS = {
    LOST_DAYS: (
        "raw_task_classifications",
        "No day since the first one is missing from both archive and tables. A lost day can only be imported.",
    ),
    RESTATEMENT: (
        "task_classifications",
        "How far a restated day moved from its previous revision: the largest change, and its tag.",
    ),
}
"""Checks that look beyond the run's own answers, by name: their asset, and their description."""


def check_specs(names: Names) -> list[dg.AssetCheckSpec]:
    """Return the checks on the rules and those on the history. Checks on rules that reject a day are blocking."""
    rules = [
        dg.AssetCheckSpec(
            check.name,
            asset=names.asset(check.table),
            description=_description(check),
            blocking=check.severity == "ERROR",
        )
        for check in CHECKS.values()
    ]
    history = [
        dg.AssetCheckSpec(name, asset=names.asset(asset), description=description)
        for name, (asset, description) in HISTORY_CHECKS.items()
    ]
    return rules + history


def rule_results(selected: Iterable[dg.AssetCheckKey], validated: Validated) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of each selected check on the rules, with the rows that break them as a table."""
    if not validated.newest:
        return  # without an answer, no check may pass
    days = [day.isoformat() for day in validated.newest]
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"
    for key in sorted(selected, key=str):
        if key.name in HISTORY_CHECKS:
            continue
        check = CHECKS[key.name]
        broken = validated.findings.filter(pl.col("rule").is_in([rule.name for rule in check.rules]))
        metadata: dict[str, Any] = {"days": span, "failing_rows": len(broken)}
        if len(broken):
            metadata["first_failing_rows"] = findings_table(broken)
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=not len(broken),
            severity=dg.AssetCheckSeverity[check.severity],
            metadata=metadata,
        )


def history_results(
    selected: Iterable[dg.AssetCheckKey],
    validated: Validated,
    archive: Archive,
    table_days: Sequence[date] | None,
    newest: date,
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the selected checks on the history.

    `table_days` are the days in the tables; if they are unknown (None), lost days are not checked.
    """
    by_name = {key.name: key for key in selected}
    if LOST_DAYS in by_name and table_days is not None:
        yield _lost_days_result(by_name[LOST_DAYS], lost_days(archive, table_days, newest))
    if RESTATEMENT in by_name and validated.chosen:
        yield _restatement_result(by_name[RESTATEMENT], archive, validated)


def _lost_days_result(key: dg.AssetCheckKey, lost: Sequence[date]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=not lost,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"lost_days": len(lost), "newest_lost": ", ".join(map(str, lost[-20:])) or "none"},
    )


def _restatement_result(key: dg.AssetCheckKey, archive: Archive, validated: Validated) -> dg.AssetCheckResult:
    moved, unreadable = restatements(archive, validated)
    metadata: dict[str, Any] = {
        "restated_days": len(moved),
        "largest_change": max((abs(r.largest_change) for r in moved), default=0.0),
    }
    if unreadable:
        metadata["not_compared"] = table({"why": str(error)} for error in unreadable[:20])
    if moved:
        metadata["changes"] = table(
            {"day": f"{r.day} r{r.revision}", "tag": r.tag, "share": r.share, "change": f"{r.largest_change:+.3f}"}
            for r in moved[-20:]
        )
    return dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, passed=True, metadata=metadata)


def _description(check: Check) -> str:
    effect = "Rejects the day." if check.severity == "ERROR" else "Warns only; the day is loaded."
    return f"{check.description} {effect}"

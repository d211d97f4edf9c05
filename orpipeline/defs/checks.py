"""The asset checks: on the rules of a response, and on the history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.archive import Archive
from orpipeline.contracts import rules
from orpipeline.contracts.frames import parse
from orpipeline.contracts.rules import Rule, Severity
from orpipeline.defs.metadata import findings_table, table
from orpipeline.defs.names import Names
from orpipeline.errors import StoreError
from orpipeline.leaderboard import DECIMALS
from orpipeline.load import Validated, lost_days


@dataclass(frozen=True)
class Check:
    """One asset check, on the table (or the raw asset) `table`, for rules that belong together.

    There are fewer checks than rules because each check adds three events per run to Dagster's event log, which takes
    longer than the validation. The rows of a failing check name the rule.
    """

    name: str
    table: str
    description: str
    rules: tuple[Rule, ...]

    @property
    def severity(self) -> Severity:
        """The severity, which all of its rules share."""
        return self.rules[0].severity


def _of(table: str, *of: Rule) -> Check:
    """Return a check with the name of its first rule and the descriptions of all."""
    return Check(of[0].name, table, " ".join(rule.description for rule in of), of)


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "response_matches_request",
            "raw_task_classifications",
            "`as_of` is the partition's day, `window_days` is 7, there is a plausible number of classifications, "
            "every documented field is present with its type, and no JSON object has the same key twice.",
            (rules.AS_OF, rules.WINDOW, rules.NOT_EMPTY, rules.SIZE, rules.REQUIRED_FIELDS, rules.JSON_KEYS),
        ),
        Check(
            "nothing_unexpected",
            "raw_task_classifications",
            "No undocumented field, no new tag or macro-category, and no tag missing since the day before; lists are "
            "sorted by usage, model ids name an author, and no name is unusual.",
            (
                rules.NO_UNKNOWN_FIELDS,
                rules.SAME_TAGS,
                rules.KNOWN_MACROS,
                rules.ORDER,
                rules.MODEL_AUTHORS,
                rules.USUAL_NAMES,
            ),
        ),
        _of("task_classifications", rules.SHARES),
        _of("task_classifications", rules.NO_OTHER, rules.NOT_ALL),
        _of("task_classifications", rules.UNIQUE, rules.NAMED, rules.DISTINCT),
        _of("task_classifications", rules.TOTALS, rules.CATEGORY_TOTALS),
        _of("task_classifications", rules.CATEGORY_SHARES),
        _of("task_classifications", rules.MACRO_PREFIX, rules.MACRO_LISTED),
        _of("macro_categories", rules.MACRO_SUMS),
        _of("task_models", rules.MODEL_SUMS),
    )
}
"""The asset checks, by name. Every rule for a response is in exactly one. `bounds_hold` is a rule for our own
leaderboards: breaking it stops the write."""

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
"""Checks that look beyond the run's own responses, by name: their asset, and their description."""


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
        return  # without a response, no check may pass
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
    """Return how far each chosen revision after a day's first one moved from the one fetched before it."""
    days = [day for day, one in validated.chosen.items() if one.number > 1]
    previous = {day: of_day[validated.chosen[day].number - 2] for day, of_day in archive.revisions_of(days).items()}
    changes, unreadable = [], []
    for day, content in zip(previous, archive.read_all(previous.values()), strict=True):
        if isinstance(content, StoreError):
            unreadable.append({"why": str(content)})
            continue
        old = parse([(day, content.body)]).task_classifications
        new = validated.frames.task_classifications.filter(as_of=day)
        tag, share, change = _largest_change(old, new)
        changes.append((f"{day} r{validated.chosen[day].number}", tag, share, change))
    metadata: dict[str, Any] = {
        "restated_days": len(changes),
        "largest_change": max((abs(change) for *_, change in changes), default=0.0),
    }
    if unreadable:
        metadata["not_compared"] = table(unreadable[:20])
    if changes:
        metadata["changes"] = table(
            {"day": day, "tag": tag, "share": share, "change": f"{change:+.3f}"}
            for day, tag, share, change in changes[-20:]
        )
    return dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, passed=True, metadata=metadata)


def _largest_change(old: pl.DataFrame, new: pl.DataFrame) -> tuple[str, str, float]:
    """Return the tag and the share that moved most, and by how much. A new or missing tag moved by its whole share."""
    shares = ["usage_share", "token_share"]
    moved = (
        pl.concat([old.select("tag", pl.col(shares) * -1), new.select("tag", *shares)])
        .group_by("tag")
        .agg(pl.col(shares).sum())
        .unpivot(on=shares, index="tag", variable_name="share", value_name="change")
        .with_columns(pl.col("change").round(DECIMALS))
        .sort(pl.col("change").abs(), "tag", "share", descending=[True, False, False])
    )
    return moved.row(0)


def _description(check: Check) -> str:
    effect = "Rejects the day." if check.severity == "ERROR" else "Warns only; the day is loaded."
    return f"{check.description} {effect}"

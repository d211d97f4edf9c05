"""The asset checks: on the rules of a response, and on the history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from orpipeline.archive import Archive
from orpipeline.clock import day_spans
from orpipeline.contracts import rules
from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.contracts.frames import parse
from orpipeline.contracts.rules import Rule, Severity
from orpipeline.defs.metadata import findings_table, table
from orpipeline.defs.names import Names
from orpipeline.errors import StoreError
from orpipeline.leaderboard import DECIMALS
from orpipeline.load import Loaded, Validated, lost_days

_NO_FINDINGS = pl.DataFrame(schema=FINDINGS_SCHEMA)


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

    def spec(self, names: Names, *, blocking: bool | None = None) -> dg.AssetCheckSpec:
        """Return Dagster's spec. By default, a check on rules that reject a day is blocking."""
        effect = "Rejects the day." if self.severity == "ERROR" else "Warns only; the day is loaded."
        return dg.AssetCheckSpec(
            self.name,
            asset=names.asset(self.table),
            description=f"{self.description} {effect}",
            blocking=self.severity == "ERROR" if blocking is None else blocking,
        )


BOUNDS = Check(
    "bounds_hold", "model_leaderboard", f"{rules.BOUNDS.description} Checked before the write.", (rules.BOUNDS,)
)
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
        Check(
            "keys_are_valid",
            "task_classifications",
            "Tags, macro-categories and model ids are unique, not empty, and neither `other` nor `all`; every tag is "
            "in the listed macro-category that its prefix requires.",
            (
                rules.NO_OTHER,
                rules.NOT_ALL,
                rules.UNIQUE,
                rules.NAMED,
                rules.DISTINCT,
                rules.MACRO_PREFIX,
                rules.MACRO_LISTED,
            ),
        ),
        Check(
            "shares_agree",
            "task_classifications",
            "Every share is a fraction of 1, and the shares of tags, macro-categories and models agree with each other "
            "within the published rounding.",
            (
                rules.SHARES,
                rules.TOTALS,
                rules.CATEGORY_TOTALS,
                rules.CATEGORY_SHARES,
                rules.MACRO_SUMS,
                rules.MODEL_SUMS,
            ),
        ),
        BOUNDS,
    )
}
"""The asset checks on rules, by name. Every rule is in exactly one."""

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
    rules = [check.spec(names) for check in CHECKS.values()]
    history = [
        dg.AssetCheckSpec(name, asset=names.asset(asset), description=description)
        for name, (asset, description) in HISTORY_CHECKS.items()
    ]
    return rules + history


def rule_results(selected: Iterable[dg.AssetCheckKey], validated: Validated) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of each selected check on a response, with the rows that break its rules as a table."""
    if validated.newest:  # without a response, no check may pass
        for key in sorted(selected, key=str):
            if key.name in CHECKS and key.name != BOUNDS.name:
                yield _result(key, validated.newest, validated.findings)


def bounds_results(
    selected: Iterable[dg.AssetCheckKey], days: Collection[date], findings: pl.DataFrame = _NO_FINDINGS
) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of the check on our leaderboards, if it is selected. The write has judged the rows of `days`."""
    for key in selected:
        if key.name == BOUNDS.name and days:
            yield _result(key, days, findings)


def _result(key: dg.AssetCheckKey, days: Collection[date], findings: pl.DataFrame) -> dg.AssetCheckResult:
    check = CHECKS[key.name]
    broken = findings.filter(pl.col("rule").is_in([rule.name for rule in check.rules]))
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=broken.is_empty(),
        severity=dg.AssetCheckSeverity[check.severity],
        metadata={
            "days": ", ".join(day_spans(days)),
            **({} if broken.is_empty() else {"first_failing_rows": findings_table(broken)}),
        },
    )


def imported_evaluations(
    names: Names, archive: Archive, loaded: Loaded, newest: date
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the evaluations after an import: of the history and, if the newest day is new, of the rules for it.

    An asset shows the last evaluation of its checks, so an import of earlier days does not replace the newest day's.
    """
    specs = {spec.name: spec for spec in check_specs(names)}
    keys = [spec.key for spec in specs.values()]
    days = [*(loaded.days or [])[-1:]]
    of_newest = replace(
        loaded.validated,
        newest={day: one for day, one in loaded.validated.newest.items() if day in days},
        chosen={day: one for day, one in loaded.validated.chosen.items() if day in days},
        findings=loaded.validated.findings.filter(pl.col("as_of").is_in(days)),
    )
    for result in (
        *rule_results(keys, of_newest),
        *bounds_results(keys, of_newest.chosen),
        *history_results(keys, of_newest, archive, loaded.days, newest),
    ):
        spec = specs[str(result.check_name)]
        yield dg.AssetCheckEvaluation(
            asset_key=spec.asset_key,
            check_name=spec.name,
            passed=result.passed,
            severity=result.severity,
            metadata=result.metadata,
            blocking=spec.blocking,
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
        lost = lost_days(archive, table_days, newest)
        yield dg.AssetCheckResult(
            asset_key=by_name[LOST_DAYS].asset_key,
            check_name=LOST_DAYS,
            passed=not lost,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"lost_days": len(lost), "newest_lost": ", ".join(map(str, lost[-20:])) or "none"},
        )
    if RESTATEMENT in by_name and validated.chosen:
        yield _restatement_result(by_name[RESTATEMENT], archive, validated)


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

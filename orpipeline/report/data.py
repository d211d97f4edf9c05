"""The data of a day's report, read from the warehouse through one connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.contracts.rules import ALL
from orpipeline.errors import OrpipelineError
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.tables import Tables

TOP_MODELS = 8
"""The number of models, by requests and by tokens, whose history is read."""
COMPARED_DAYS = 7
"""Changes compare with the day this many days before, as in `model_trends`."""


class NoReportError(OrpipelineError):
    """The tables do not have the day to report."""


@dataclass(frozen=True)
class ReportData:
    """The tables' rows of one day, and its history. Shares are fractions of 1.

    `snapshot`: the day's row of `snapshots`. `tasks`, `macros`, `task_models`: the day's rows of
    `task_classifications`, `macro_categories` and `task_models`. `leaderboard`: the day's rows of `model_leaderboard`
    in every scope, with the columns of `model_trends`. `days`: every day in the tables, up to this one.
    `model_history`: `as_of`, `model_id`, `usage_share` and `token_share` in scope `all`, for the day's top `TOP_MODELS`
    models. `macro_history`: `macro_categories` up to this day. `departed`: the last leaderboard row, in scope `all`, of
    each model listed in the `COMPARED_DAYS` days before but not on this day. `lost_days`: missing days that the API no
    longer serves. `warnings`: findings with the columns of `FINDINGS_SCHEMA`.
    """

    as_of: date
    snapshot: dict[str, Any]
    tasks: pl.DataFrame
    macros: pl.DataFrame
    task_models: pl.DataFrame
    leaderboard: pl.DataFrame
    days: Sequence[date]
    model_history: pl.DataFrame
    macro_history: pl.DataFrame
    departed: pl.DataFrame
    lost_days: Sequence[date]
    warnings: pl.DataFrame

    @property
    def is_demo(self) -> bool:
        """Whether this is made-up data of the demo."""
        return bool(self.snapshot["origin"] == "demo")

    @property
    def compared_day(self) -> date:
        """The day that changes compare with."""
        return self.as_of - timedelta(days=COMPARED_DAYS)


def read_report_data(
    warehouse: Warehouse,
    day: date | None = None,
    *,
    lost_days: Sequence[date] = (),
    warnings: pl.DataFrame | None = None,
) -> ReportData:
    """Read the data of the report of `day`, by default the newest day in the tables.

    Raises NoReportError if the tables have no rows of that day, and the warehouse's errors.
    """
    if not warehouse.exists:
        raise NoReportError(f"The warehouse {warehouse.path} has no tables yet, so there is nothing to report.")
    with warehouse.reading() as tables:
        reader, days = _Reader(tables), tables.days()
        as_of = day or max(days, default=None)
        if as_of is None or as_of not in days:
            raise NoReportError(_nothing_of(as_of, days))
        snapshot = reader.rows("snapshots", "as_of = $day", day=as_of).row(0, named=True)
        reader.window_days = snapshot["window_days"]
        of_day = {name: reader.rows(name, "as_of = $day", day=as_of) for name in _OF_DAY}
        if of_day["task_classifications"].is_empty():
            raise NoReportError(f"The table task_classifications has no rows of {as_of}. Materialize that day first.")
        return ReportData(
            as_of=as_of,
            snapshot=snapshot,
            tasks=of_day["task_classifications"],
            macros=of_day["macro_categories"],
            task_models=of_day["task_models"].sort("tag", "position"),
            leaderboard=_with_trends(of_day["model_leaderboard"], of_day["model_trends"]),
            days=[known for known in days if known <= as_of],
            model_history=reader.model_history(as_of, of_day["model_leaderboard"]),
            macro_history=reader.rows("macro_categories", "as_of <= $day", day=as_of).sort("as_of", "key"),
            departed=reader.departed(as_of),
            lost_days=sorted(lost_days),
            warnings=pl.DataFrame(schema=FINDINGS_SCHEMA) if warnings is None else warnings,
        )


_OF_DAY = ("task_classifications", "macro_categories", "task_models", "model_leaderboard", "model_trends")


class _Reader:
    """Reads the tables through one connection. Once `window_days` is set, it reads rows of that window only."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.window_days: int | None = None

    def rows(self, table: str, condition: str, **values: object) -> pl.DataFrame:
        """Return a table's rows that meet an SQL condition with named parameters, in a fixed order."""
        window = "" if self.window_days is None else f" AND window_days = {self.window_days:d}"
        return self._tables.select(table, condition + window, values)

    def model_history(self, day: date, leaderboard: pl.DataFrame) -> pl.DataFrame:
        """Return the shares by day of the day's top models by requests and by tokens."""
        of_all = leaderboard.filter(scope=ALL)
        top = {model for share in ("usage_share", "token_share") for model in _top(of_all, share)}
        condition = "scope = $scope AND as_of <= $day AND model_id IN (SELECT unnest($models::VARCHAR[]))"
        rows = self.rows("model_leaderboard", condition, scope=ALL, day=day, models=sorted(top))
        return rows.select("as_of", "model_id", "usage_share", "token_share").sort("as_of", "model_id")

    def departed(self, day: date) -> pl.DataFrame:
        """Return the last row of each model that was listed in the days before but not on this day."""
        condition = "scope = $scope AND as_of BETWEEN $since AND $day"
        rows = self.rows("model_leaderboard", condition, scope=ALL, since=day - timedelta(days=COMPARED_DAYS), day=day)
        last = rows.sort("as_of").group_by("model_id").last()
        return last.filter(pl.col("as_of") < day).sort("usage_share", "model_id", descending=[True, False])


def _top(leaderboard: pl.DataFrame, share: str) -> list[str]:
    ordered = leaderboard.sort(share, "model_id", descending=[True, False])
    return ordered["model_id"].head(TOP_MODELS).to_list()


def _with_trends(leaderboard: pl.DataFrame, trends: pl.DataFrame) -> pl.DataFrame:
    """Return the leaderboard, best rank first, with the columns that `model_trends` adds."""
    key = ["as_of", "window_days", "scope", "model_id"]
    return leaderboard.join(
        trends.drop("usage_rank", "usage_share"), on=key, how="left", validate="1:1", maintain_order="left"
    ).sort("scope", "usage_rank", "model_id")


def _nothing_of(day: date | None, days: Sequence[date]) -> str:
    if not days:
        return "The tables have no days yet, so there is nothing to report. Run or import a day first."
    known = f"They have {len(days)} of the days {days[0]} to {days[-1]}."
    return f"The tables have no rows of {day}, so there is nothing to report. {known}"

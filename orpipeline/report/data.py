"""The data of a day's report, read from the tables through one connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from orpipeline.contracts.rules import COMPARED_DAYS
from orpipeline.errors import MissingDaysError, NotPublishedError, WarehouseError
from orpipeline.load import model_names
from orpipeline.report.wording import shown_name
from orpipeline.warehouse.tables import Tables

DAILY_POINTS = 120
"""How many days before the newest one the history draws day by day. Earlier, it has one point a week."""
_WEEK = 7


@dataclass(frozen=True)
class ReportData:
    """The tables' rows of one day, and its history. Shares are fractions of 1.

    `snapshot`: the day's row of `snapshots`. `tasks`, `macros`, `task_models`, `authors`: the day's rows of
    `task_classifications`, `macro_categories`, `task_models` and `author_leaderboard`. `coverage`: the day's row of
    `leaderboard_coverage` for each scope. `models`: the day's rows of `model_leaderboard` in every scope, with the
    columns of `model_trends`. `gone`: the rows of `model_leaderboard` of `COMPARED_DAYS` days before whose model the
    scope's lists no longer name. `days`: every day in the tables up to this one. `drawn`: the days of the history's
    points, also those that are missing; `history` and `macro_history`: their rows in `model_leaderboard` and
    `macro_categories`. `names`: the readable name of model ids that have one.
    """

    as_of: date
    snapshot: Mapping[str, Any]
    tasks: pl.DataFrame
    macros: pl.DataFrame
    task_models: pl.DataFrame
    authors: pl.DataFrame
    coverage: Mapping[str, Mapping[str, Any]]
    models: pl.DataFrame
    gone: pl.DataFrame
    days: Sequence[date]
    drawn: Sequence[date]
    history: pl.DataFrame
    macro_history: pl.DataFrame
    names: Mapping[str, str]

    @property
    def is_demo(self) -> bool:
        """Whether this is made-up data of the demo."""
        return bool(self.snapshot["origin"] == "demo")

    @property
    def compared_day(self) -> date:
        """The day that changes compare with."""
        return self.as_of - timedelta(days=COMPARED_DAYS)

    @property
    def has_changes(self) -> bool:
        """Whether the tables have the day that changes compare with."""
        return self.compared_day in self.days

    def name(self, model_id: str) -> str:
        """Return how the report shows a model: the same on all days."""
        return shown_name(model_id, self.names)


def read_report_data(tables: Tables, day: date | None = None, *, with_history: bool = True) -> ReportData:
    """Read the data of the report of `day`, by default the newest day in the tables.

    Without the history, `history` and `macro_history` have the rows of the day only. Raises WarehouseError if the
    tables have no rows of that day.
    """
    known = tables.days()
    as_of = day or max(known, default=None)
    if as_of is None or as_of not in known:
        raise _nothing_of(as_of, known)
    days = [one for one in known if one <= as_of]
    drawn = drawn_days(days, as_of) if with_history else [as_of]
    snapshot = tables.read("snapshots", since=as_of, until=as_of).row(0, named=True)
    before = as_of - timedelta(days=COMPARED_DAYS)

    def rows(table: str, *of_days: date) -> pl.DataFrame:
        """Return a table's rows of some days and of the snapshot's window."""
        condition = "window_days = $window AND as_of IN (SELECT unnest($days::DATE[]))"
        return tables.select(table, condition, {"window": snapshot["window_days"], "days": list(of_days)})

    key = ["as_of", "window_days", "scope", "model_id"]
    models = rows("model_leaderboard", as_of)
    trends = rows("model_trends", as_of).drop("usage_rank", "usage_share")
    history = rows("model_leaderboard", *drawn)
    return ReportData(
        as_of=as_of,
        snapshot=snapshot,
        tasks=rows("task_classifications", as_of).sort("usage_share", "tag", descending=[True, False]),
        macros=rows("macro_categories", as_of),
        task_models=rows("task_models", as_of).sort("tag", "position"),
        authors=rows("author_leaderboard", as_of),
        coverage={row["scope"]: row for row in rows("leaderboard_coverage", as_of).iter_rows(named=True)},
        models=models.join(trends, on=key, how="left", validate="1:1", maintain_order="left"),
        gone=rows("model_leaderboard", before).join(models, on=["scope", "model_id"], how="anti"),
        days=days,
        drawn=drawn,
        history=history.select("as_of", "scope", "model_id", "author", "usage_share", "token_share"),
        macro_history=rows("macro_categories", *drawn),
        names=model_names(tables, as_of),
    )


def drawn_days(days: Sequence[date], as_of: date) -> list[date]:
    """Return the days of the history's points, oldest first.

    The last `DAILY_POINTS` days are drawn day by day, missing ones as gaps. Before, each week has one point: its newest
    day that the tables have, or a gap if they have none.
    """
    span, known, drawn = (as_of - days[0]).days, set(days), list[date]()
    for back in range(min(span + 1, DAILY_POINTS)):
        drawn.append(as_of - timedelta(days=back))
    for back in range(DAILY_POINTS, span + 1, _WEEK):
        week = [as_of - timedelta(days=back + n) for n in range(_WEEK)]
        drawn.append(next((day for day in week if day in known), week[0]))
    return drawn[::-1]


def _nothing_of(day: date | None, days: Sequence[date]) -> WarehouseError:
    """Return the error for a day that cannot be reported, from the days that the tables have."""
    if day is None or not days:
        return NotPublishedError("The tables have no days yet: there is nothing to report. Run or import a day first.")
    known = f"They have {len(days)} of the days {days[0]} to {days[-1]}."
    return MissingDaysError(f"The tables have no rows of {day}: there is nothing to report. {known}", days=[day])

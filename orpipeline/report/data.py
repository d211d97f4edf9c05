"""The data of a day's report, read from the warehouse through one connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import polars as pl

from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.contracts.rules import ALL, COMPARED_DAYS
from orpipeline.errors import MissingDaysError, NotPublishedError, WarehouseError
from orpipeline.report.certainty import Move, smallest_moves
from orpipeline.report.periods import DrawnDay, drawn_days
from orpipeline.report.wording import short_names
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class ReportData:
    """The tables' rows of one day, and its history. Shares are fractions of 1.

    `snapshot`: the day's row of `snapshots`. `tasks`, `macros`, `task_models`, `authors`: the day's rows of
    `task_classifications`, `macro_categories`, `task_models` and `author_leaderboard`. `coverage`: the day's row of
    `leaderboard_coverage` for each scope. `leaderboard`: the day's rows of `model_leaderboard` in every scope, with the
    columns of `model_trends`. `days`: every day in the tables, up to this one. `drawn`: the days that the charts of the
    history draw, and `history`, `macro_history`: the rows of these days in `model_leaderboard` (scope `all`) and in
    `macro_categories`. `before`: the most that an unlisted model could have `COMPARED_DAYS` days before, as a share of
    requests; None if that day is missing. `departed`: the last row in `model_leaderboard`, scope `all`, of each model
    listed in the `COMPARED_DAYS` days before but not on this day. `lost_days`: missing days that the API no longer
    serves. `warnings`: findings with the columns of `FINDINGS_SCHEMA`.
    """

    as_of: date
    snapshot: dict[str, Any]
    tasks: pl.DataFrame
    macros: pl.DataFrame
    task_models: pl.DataFrame
    authors: pl.DataFrame
    coverage: dict[str, dict[str, Any]]
    leaderboard: pl.DataFrame
    days: Sequence[date]
    drawn: Sequence[DrawnDay]
    history: pl.DataFrame
    macro_history: pl.DataFrame
    before: float | None
    departed: pl.DataFrame
    lost_days: Sequence[date]
    warnings: pl.DataFrame

    @property
    def is_demo(self) -> bool:
        """Whether this is made-up data of the demo."""
        return bool(self.snapshot["origin"] == "demo")

    @cached_property
    def names(self) -> dict[str, str]:
        """The short name of each model that the report mentions."""
        frames = (self.leaderboard, self.task_models, self.departed, self.history)
        return short_names(sorted({model for frame in frames for model in frame["model_id"]}))

    @cached_property
    def task_lists(self) -> dict[str, pl.DataFrame]:
        """The rows of `task_models` of each tag."""
        lists = self.task_models.partition_by("tag", as_dict=True, maintain_order=True)
        return {str(tag): listed for (tag,), listed in lists.items()}

    @cached_property
    def moves(self) -> list[Move]:
        """The changes of scope `all` over `COMPARED_DAYS` days, the largest first; none if that day is missing."""
        if self.before is None:
            return []
        return smallest_moves(
            self.leaderboard.filter(scope=ALL),
            self.departed.filter(as_of=self.compared_day),
            before=self.compared_day,
            unlisted=self.coverage[ALL]["unlisted_usage_upper"],
            unlisted_before=self.before,
        )

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

    Raises WarehouseError if the tables have no rows of that day.
    """
    with warehouse.reading() as tables:
        reader, known = _Reader(tables), tables.days()
        as_of = day or max(known, default=None)
        if as_of is None or as_of not in known:
            raise nothing_of(as_of, known)
        snapshot = reader.rows("snapshots", "as_of = $day", day=as_of).row(0, named=True)
        reader.window_days = snapshot["window_days"]
        of_day = {name: reader.rows(name, "as_of = $day", day=as_of) for name in _OF_DAY}
        days = [one for one in known if one <= as_of]
        drawn = drawn_days(days, as_of)
        return ReportData(
            as_of=as_of,
            snapshot=snapshot,
            tasks=of_day["task_classifications"],
            macros=of_day["macro_categories"],
            task_models=of_day["task_models"].sort("tag", "position"),
            authors=of_day["author_leaderboard"].sort("scope", "usage_rank", "author"),
            coverage={row["scope"]: row for row in of_day["leaderboard_coverage"].iter_rows(named=True)},
            leaderboard=_with_trends(of_day["model_leaderboard"], of_day["model_trends"]),
            days=days,
            drawn=drawn,
            history=reader.history(drawn),
            macro_history=reader.on("macro_categories", drawn).sort("as_of", "key"),
            before=reader.unlisted_upper(as_of - timedelta(days=COMPARED_DAYS)),
            departed=reader.departed(as_of),
            lost_days=sorted(lost_days),
            warnings=pl.DataFrame(schema=FINDINGS_SCHEMA) if warnings is None else warnings,
        )


_OF_DAY = (
    "task_classifications",
    "macro_categories",
    "task_models",
    "model_leaderboard",
    "model_trends",
    "author_leaderboard",
    "leaderboard_coverage",
)


class _Reader:
    """Reads the tables through one connection. Once `window_days` is set, it reads rows of that window only."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.window_days: int | None = None

    def rows(self, table: str, condition: str, **values: object) -> pl.DataFrame:
        """Return a table's rows that meet an SQL condition with named parameters, in a fixed order."""
        window = "" if self.window_days is None else f" AND window_days = {self.window_days:d}"
        return self._tables.select(table, condition + window, values)

    def on(self, table: str, drawn: Sequence[DrawnDay], condition: str = "true", **values: object) -> pl.DataFrame:
        """Return a table's rows of the drawn days that are not gaps."""
        days = [one.day for one in drawn if one.is_known]
        return self.rows(table, f"{condition} AND as_of IN (SELECT unnest($days::DATE[]))", days=days, **values)

    def history(self, drawn: Sequence[DrawnDay]) -> pl.DataFrame:
        """Return the shares of every model on the drawn days."""
        rows = self.on("model_leaderboard", drawn, "scope = $scope", scope=ALL)
        return rows.select("as_of", "model_id", "author", "usage_share", "token_share").sort("as_of", "model_id")

    def unlisted_upper(self, day: date) -> float | None:
        """Return the most that a model on no list could have of a day's requests; None if the day is missing."""
        row = self.rows("leaderboard_coverage", "as_of = $day AND scope = $scope", day=day, scope=ALL)
        return None if row.is_empty() else float(row["unlisted_usage_upper"][0])

    def departed(self, day: date) -> pl.DataFrame:
        """Return the last row of each model that was listed in the days before but not on this day."""
        condition = "scope = $scope AND as_of BETWEEN $since AND $day"
        rows = self.rows("model_leaderboard", condition, scope=ALL, since=day - timedelta(days=COMPARED_DAYS), day=day)
        last = rows.sort("as_of").group_by("model_id").last()
        return last.filter(pl.col("as_of") < day).sort("usage_share", "model_id", descending=[True, False])


def _with_trends(leaderboard: pl.DataFrame, trends: pl.DataFrame) -> pl.DataFrame:
    """Return the leaderboard, best rank first, with the columns that `model_trends` adds."""
    key = ["as_of", "window_days", "scope", "model_id"]
    return leaderboard.join(
        trends.drop("usage_rank", "usage_share"), on=key, how="left", validate="1:1", maintain_order="left"
    ).sort("scope", "usage_rank", "model_id")


def nothing_of(day: date | None, days: Sequence[date]) -> WarehouseError:
    """Return the error for a day that cannot be reported, from the days that the tables have."""
    if day is None or not days:
        return NotPublishedError("The tables have no days yet: there is nothing to report. Run or import a day first.")
    known = f"They have {len(days)} of the days {days[0]} to {days[-1]}."
    return MissingDaysError(f"The tables have no rows of {day}: there is nothing to report. {known}", days=[day])

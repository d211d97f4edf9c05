"""Comparisons across archived days: which are lost, and how far restated days moved. Does not depend on Dagster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import polars as pl

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError, Record
from orpipeline.days import missing_days
from orpipeline.leaderboard import DECIMALS
from orpipeline.openrouter.frames import parse
from orpipeline.snapshot import Validated, older_revisions


@dataclass(frozen=True)
class Restatement:
    """How far a day's revision moved from the previous one.

    `largest_change` is a difference of shares, as fractions of 1; `tag` and `share` name the figure that moved most.
    """

    day: date
    revision: int
    largest_change: float
    tag: str
    share: str


def restatements(archive: Archive, validated: Validated) -> tuple[list[Restatement], list[ArchiveError]]:
    """Return how far each chosen revision after a day's first one moved from the one fetched before it.

    The second list has the errors of previous revisions that cannot be read; their days are not compared.
    """
    unreadable: list[ArchiveError] = []
    previous: dict[date, Record] = {}
    for day, of_day in archive.days_of(validated.chosen.keys()).items():
        if isinstance(of_day, ArchiveError):
            unreadable.append(of_day)
        elif older := older_revisions(of_day.revisions, validated.chosen[day]):
            previous[day] = older[-1]
    found = []
    for day, body in zip(previous, archive.read_all(previous.values()), strict=True):
        if isinstance(body, ArchiveError):
            unreadable.append(body)
            continue
        old = parse([(day, body)]).task_classifications
        new = validated.frames.task_classifications.filter(as_of=day)
        found.append(_restatement(day, validated.chosen[day].revision, old, new))
    return found, unreadable


def lost_days(archive: Archive, table_days: Iterable[date], newest: date) -> list[date]:
    """Return the days between the first known day and `newest` that are in neither the archive nor the tables."""
    known = {*archive.days(), *table_days}
    return [day for day in missing_days({*known, newest}) if day < newest] if known else []


def _restatement(day: date, revision: int, old: pl.DataFrame, new: pl.DataFrame) -> Restatement:
    shares = ["usage_share", "token_share"]
    # A tag in only one of the two revisions has moved by its whole share.
    moved = (
        pl.concat([old.select("tag", *shares).with_columns(pl.col(shares) * -1), new.select("tag", *shares)])
        .group_by("tag")
        .agg(pl.col(shares).sum())
        .unpivot(on=shares, index="tag", variable_name="share", value_name="change")
        .with_columns(pl.col("change").round(DECIMALS))
        .sort(pl.col("change").abs(), "tag", "share", descending=[True, False, False])
        .row(0, named=True)
    )
    return Restatement(day, revision, moved["change"], moved["tag"], moved["share"])

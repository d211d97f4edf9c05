"""A day's snapshot from the API to the tables: capture the answer, judge it, replace the day's rows.

Every part works on many days at once, and none of them knows Dagster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

import polars as pl

from orpipeline.archive import Archive, Kept, Record
from orpipeline.citation import citation
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.tables import TABLES
from orpipeline.contracts.validation import judge, refusal, refused_days
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import rank
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import UnreadableAnswerError
from orpipeline.openrouter.payload import Frames, parse
from orpipeline.warehouse.database import Warehouse


class Fetch(Enum):
    """Whether the API is asked. The members' names are what the run config takes."""

    auto = "auto"
    """Only for the newest completed UTC day, and only where the archive lacks it."""
    always = "always"
    """Ask in any case, and keep the answer under its own `as_of`."""
    never = "never"
    """Use the archive alone."""


class DayNotAvailableError(OrpipelineError):
    """A day's answer is not in the archive, and the API does not serve it (yet, or any more)."""


@dataclass(frozen=True)
class Judged:
    """What the archive holds of the days that were asked for, and whether it may go into the tables.

    `records`: the newest revision of each day that is archived. `findings`: as
    `orpipeline.contracts.validation.FINDINGS_SCHEMA` has it. `errors`: why a day cannot go into the tables
    (missing, damaged, refused). `frames`: what the other days say.
    """

    records: Mapping[date, Record]
    frames: Frames
    findings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]

    @property
    def good_days(self) -> list[date]:
        """The days that may go into the tables, oldest first."""
        return sorted(day for day in self.records if day not in self.errors)


def capture(client: Client, archive: Archive, days: Sequence[date], fetch: Fetch, now: datetime) -> Kept | None:
    """Ask the API where `fetch` says so, and keep the answer before anything else is done with it.

    Returns what was kept, or None where the API was not asked. Raises the client's errors (an answer that
    is no JSON is kept aside first), ArchiveError where the disk does not take the answer, and
    DayNotAvailableError where the answer states no day.
    """
    newest = newest_completed_day(now)
    wanted = newest in days and archive.latest(newest) is None
    if fetch is Fetch.never or (fetch is Fetch.auto and not wanted):
        return None
    try:
        answer = client.fetch()
    except UnreadableAnswerError as error:
        kept = archive.put(error.body, fetched_at=now, source=client.url, origin="api")
        raise UnreadableAnswerError(f"{error} It is kept in {kept.record.path}.", body=error.body) from None
    kept = archive.put(answer.body, fetched_at=answer.fetched_at, source=answer.url, origin=answer.origin)
    if kept.record.as_of is None:
        raise DayNotAvailableError(
            f"The API's answer states no day (`data.as_of`), so it belongs to no partition. It is kept in "
            f"{kept.record.path}. Try again later."
        )
    return kept


def judge_days(
    archive: Archive,
    warehouse: Warehouse,
    days: Iterable[date],
    *,
    now: datetime,
    answered: date | None = None,
) -> Judged:
    """Read the newest archived revision of each day and hold all of them against the contracts.

    `answered` is the `as_of` that the API has just answered with, if it was asked: it tells a day that is
    not published yet from one that is lost. Raises nothing for what is wrong with a day; `errors` says it.
    """
    records: dict[date, Record] = {}
    bodies: list[tuple[date, bytes]] = []
    errors: dict[date, OrpipelineError] = {}
    for day in sorted(set(days)):
        try:
            record = archive.latest(day)
            if record is None:
                errors[day] = _not_available(day, newest_completed_day(now), answered)
                continue
            bodies.append((day, archive.read(record)))
            records[day] = record
        except OrpipelineError as error:
            errors[day] = error
    frames = parse(bodies)
    findings = judge(frames, warehouse.seen([day for day, _ in bodies]))
    for day in refused_days(findings):
        errors[day] = refusal(day, findings, str(records[day].path))
    return Judged(records, frames, findings, errors)


def load(warehouse: Warehouse, judged: Judged) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Replace the good days' rows in all tables, in one transaction.

    Returns the frames that were written, and how many rows each table now has. Days with errors keep the
    rows that they had.
    """
    good = judged.good_days
    tables = daily_tables(judged.frames, [judged.records[day] for day in good])
    tables["model_leaderboard"] = rank(tables["task_classifications"], tables["task_models"])
    return tables, warehouse.replace_days(good, tables)


def daily_tables(frames: Frames, records: Sequence[Record]) -> dict[str, pl.DataFrame]:
    """Return the four daily tables of the records' days, from frames that may hold other days too."""
    sources = pl.DataFrame([_source(record) for record in records], schema=_SOURCE_SCHEMA, orient="row")
    days = sources.select("as_of")
    of_days = {
        name: frame.join(days, on="as_of", how="semi", maintain_order="left")
        for name, frame in (
            ("task_classifications", frames.task_classifications),
            ("macro_categories", frames.macro_categories),
            ("task_models", frames.task_models),
        )
    }
    of_days["task_classifications"] = of_days["task_classifications"].with_columns(
        usage_rank=_rank_in_day("usage_share"), token_rank=_rank_in_day("token_share")
    )
    answers = frames.answers.drop("stated_as_of")
    return {"snapshots": sources.join(answers, on="as_of", how="inner"), **of_days}


_SOURCE_SCHEMA = {
    name: dtype
    for name, dtype in TABLES["snapshots"].polars_schema().items()
    if name not in ("window_days", "classification_count")  # these the answer itself says
}


def _source(record: Record) -> tuple[object, ...]:
    values = {
        "as_of": record.as_of,
        "revision": record.revision,
        "sha256": record.sha256,
        "bytes": record.size,
        "fetched_at": record.fetched_at,
        "origin": record.origin,
        "source": record.source,
        "citation": citation(record.as_of, record.origin) if record.as_of else None,
    }
    return tuple(values[name] for name in _SOURCE_SCHEMA)


def _rank_in_day(share: str) -> pl.Expr:
    return pl.col(share).rank("min", descending=True).over("as_of", "window_days").cast(pl.Int32)


def _not_available(day: date, newest: date, answered: date | None) -> DayNotAvailableError:
    if day > newest:
        return DayNotAvailableError(f"{day} is not over yet in UTC; the newest day that can be had is {newest}.")
    if day == newest:
        if answered is not None and answered < day:
            return DayNotAvailableError(
                f"{day} is not published yet: the API still answers with {answered}, which is kept in the archive. "
                "Try again in some minutes."
            )
        return DayNotAvailableError(
            f"The archive has no answer for {day}, and the API was not asked. Run it with fetch `auto`."
        )
    return DayNotAvailableError(
        f"The archive has no answer for {day}, and the API serves {newest} only. If somebody else kept that day, "
        "import it; otherwise it is lost."
    )

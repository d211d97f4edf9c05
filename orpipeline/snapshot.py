"""Loading a day, from the API to the tables: fetch and archive the answer, validate it, replace the day's rows.

Each step works on many days at once. Does not depend on Dagster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum

import polars as pl

from orpipeline.archive.folder import Archive
from orpipeline.archive.records import ArchiveError, Record
from orpipeline.citation import citation
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.judgement import rejected_days, rejection, validate
from orpipeline.contracts.tables import TABLES
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import rank
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import UnreadableAnswerError
from orpipeline.openrouter.frames import Frames, parse
from orpipeline.stopwatch import Stopwatch
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.tables import Tables


class Fetch(Enum):
    """When to call the API. The run config takes the members' names."""

    auto = "auto"
    """Only for the newest completed UTC day, and only if it is missing from the archive."""
    always = "always"
    """In any case; the answer is archived under its own `as_of`."""
    never = "never"
    """Not at all: use the archive alone."""


class DayNotAvailableError(OrpipelineError):
    """A day's answer is not archived, and the API does not serve it yet, or no longer serves it."""


@dataclass(frozen=True)
class Validated:
    """What the archive has for some days, and which of it belongs in the tables.

    `newest`: the newest revision of each archived day, if its bytes are intact. `chosen`: the revision for the tables:
    the newest valid one, or the requested one. `frames`: the contents of the chosen revisions. `findings`: of the
    newest revisions, with the columns of `orpipeline.contracts.findings.FINDINGS_SCHEMA`. `warnings`: the findings of
    severity WARN, of the chosen revisions. `errors`: why a day's newest answer is not in the tables (not archived,
    damaged, or rejected).
    """

    newest: Mapping[date, Record]
    chosen: Mapping[date, Record]
    frames: Frames
    findings: pl.DataFrame
    warnings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]

    @property
    def raw(self) -> Mapping[date, Record]:
        """Each day's raw answer: the newest revision or, if that is damaged, the chosen one."""
        return dict(sorted({**self.chosen, **self.newest}.items()))


@dataclass(frozen=True)
class Loaded:
    """What a load wrote and read, in one transaction.

    `frames`: the rows of each table, by name. `row_counts`: each table's number of rows. `days`: the days in the
    tables. `trends`: the rows of `model_trends` for the loaded days and the requested number of days before. Without
    any archived answer, the warehouse is not opened: `days` is None, and the others are empty.
    """

    validated: Validated
    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    row_counts: Mapping[str, int] = field(default_factory=dict)
    days: Sequence[date] | None = None
    trends: pl.DataFrame = field(default_factory=pl.DataFrame)


def capture(client: Client, archive: Archive, days: Sequence[date], fetch: Fetch, now: datetime) -> Record | None:
    """Call the API if `fetch` requires it, and archive the answer before any other step.

    Returns the answer's record, or None if the API was not called. Raises the client's errors (an answer that is not
    JSON is archived as undated first), ArchiveError if the answer cannot be written, and DayNotAvailableError if the
    answer names no day.
    """
    newest_day = newest_completed_day(now)
    is_missing = newest_day in days and not _is_archived(archive, newest_day)
    if fetch is Fetch.never or (fetch is Fetch.auto and not is_missing):
        return None
    try:
        answer = client.fetch()
    except UnreadableAnswerError as error:
        record = archive.put(error.body, fetched_at=now, source=client.url, origin="api").record
        raise UnreadableAnswerError(f"{error} It is archived as {record.path}.", body=error.body) from None
    record = archive.put(answer.body, fetched_at=answer.fetched_at, source=answer.url, origin=answer.origin).record
    if record.as_of is None:
        raise DayNotAvailableError(
            f"The API's answer names no day (`data.as_of`), so it belongs to no partition. It is archived as "
            f"{record.path}. Try again later."
        )
    return record


def _is_archived(archive: Archive, day: date) -> bool:
    """Return whether the archive has an answer for the day that was fetched after the day ended."""
    ended_at = datetime.combine(day + timedelta(days=1), time.min, UTC)
    try:
        return any(record.fetched_at >= ended_at for record in archive.revisions(day))
    except ArchiveError:
        return True  # another answer would not make the day usable; `validate_days` reports this error


def load_days(
    archive: Archive,
    warehouse: Warehouse,
    days: Sequence[date],
    *,
    now: datetime,
    answered: date | None = None,
    revision: int | None = None,
    trend_days: int = 0,
    stopwatch: Stopwatch | None = None,
) -> Loaded:
    """Lock the warehouse, validate the days' archived answers, and replace their rows in one transaction.

    The lock comes first: this function sees everything that other processes archived and wrote before, so an older
    revision never replaces a newer one. The arguments are those of `validate_days`. Other days keep their rows. If no
    answer is archived, the warehouse is not opened. `trend_days` is how many days of `model_trends` to read before the
    loaded ones. `stopwatch` measures `lock`, `validation` and `write`. If the warehouse fails, its error is raised and
    nothing is written.
    """
    watch = stopwatch or Stopwatch()
    if not any(archive.has(day) for day in days):
        return Loaded(validate_days(archive, days, now=now, answered=answered, revision=revision))
    with ExitStack() as transaction:
        with watch.measure("lock"):
            tables = transaction.enter_context(warehouse.writing())
        with watch.measure("validation"):
            validated = validate_days(archive, days, tables, now=now, answered=answered, revision=revision)
        with watch.measure("write"):
            loaded = write_days(tables, validated, trend_days=trend_days)
            transaction.close()
    return loaded


def write_days(tables: Tables, validated: Validated, *, trend_days: int = 0) -> Loaded:
    """Replace the rows of the chosen revisions' days, with their leaderboard, through an open transaction.

    `trend_days` is how many days of `model_trends` to read before the first written one.
    """
    frames = daily_tables(validated.frames, list(validated.chosen.values()))
    frames["model_leaderboard"] = rank(frames["task_classifications"], frames["task_models"])
    days = sorted(validated.chosen)
    row_counts = tables.replace_days(days, frames)
    trends = pl.DataFrame()
    if trend_days and days:
        trends = tables.read("model_trends", since=days[0] - timedelta(days=trend_days), until=days[-1])
    return Loaded(validated, frames, row_counts, tables.days(), trends)


def validate_days(
    archive: Archive,
    days: Iterable[date],
    tables: Tables | None = None,
    *,
    now: datetime,
    answered: date | None = None,
    revision: int | None = None,
) -> Validated:
    """Read each day's newest archived revision (or number `revision`) and check it against the contracts.

    A day whose newest answer is rejected or damaged falls back to its newest valid revision. With `tables`, findings
    also name tags and macro-categories that are new or missing. `answered` is the `as_of` of the API's answer, if it
    was just called: it distinguishes a day that is not published yet from a lost one. `now` is in UTC. An error of a
    day is not raised; it is in `errors`.
    """
    archived: dict[date, list[Record]] = {}
    wanted: dict[date, Record] = {}
    bodies: dict[date, bytes] = {}
    errors: dict[date, OrpipelineError] = {}
    for day in sorted(set(days)):
        try:
            archived[day] = archive.revisions(day)
            if not archived[day] and not revision:
                errors[day] = _not_available(day, newest_completed_day(now), answered)
                continue
            wanted[day] = _revision(archived[day], day, revision) if revision else archived[day][-1]
            bodies[day] = archive.read(wanted[day])
        except OrpipelineError as error:
            errors[day] = error
    newest = {day: wanted[day] for day in bodies}
    frames = parse(bodies.items())
    seen = tables.seen(list(bodies)) if tables and bodies else None
    findings = loaded_findings = validate(frames, seen)
    rejected = rejected_days(findings)
    chosen = {day: record for day, record in newest.items() if day not in rejected}
    unusable = [day for day in wanted if day not in chosen]
    for day in unusable:
        older = None if revision else _newest_valid(archive, older_revisions(archived[day], wanted[day]))
        if older is not None:
            chosen[day], bodies[day] = older, archive.read(older)
        if day in rejected:
            stored = f"use revision {older.revision}, the newest valid one" if older else "are unchanged"
            errors[day] = rejection(day, findings, str(newest[day].path), stored)
    if unusable:
        frames = parse((day, bodies[day]) for day in sorted(chosen))
        loaded_findings = validate(frames, seen)
    return Validated(newest, chosen, frames, findings, loaded_findings.filter(severity="WARN"), errors)


def _revision(revisions: Sequence[Record], day: date, revision: int) -> Record:
    for record in revisions:
        if record.revision == revision:
            return record
    there = ", ".join(str(record.revision) for record in revisions) or "none"
    raise DayNotAvailableError(f"The archive has no revision {revision} of {day}; it has: {there}.")


def older_revisions(revisions: Sequence[Record], record: Record) -> list[Record]:
    """Return a day's revisions that are older than `record`, oldest first."""
    return [r for r in revisions if r.age < record.age]


def _newest_valid(archive: Archive, revisions: Sequence[Record]) -> Record | None:
    for record in reversed(revisions):
        with suppress(ArchiveError):
            if record.as_of and not rejected_days(validate(parse([(record.as_of, archive.read(record))]))):
                return record
    return None


def daily_tables(frames: Frames, records: Sequence[Record]) -> dict[str, pl.DataFrame]:
    """Return the rows of the four daily tables, by name, for the records' days; `frames` may have other days too."""
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
    if name not in ("window_days", "classification_count")  # these come from the answer itself
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


def _not_available(day: date, newest_day: date, answered: date | None) -> DayNotAvailableError:
    """Return the error for a day without an archived answer."""
    if day > newest_day:
        return DayNotAvailableError(f"{day} has not ended yet in UTC; the newest available day is {newest_day}.")
    if answered is not None and answered > day:
        return DayNotAvailableError(
            f"The API already serves {answered} (archived), and {day} can no longer be fetched. "
            "Import that day if you have it from elsewhere; otherwise it is lost."
        )
    if day == newest_day:
        if answered is not None and answered < day:
            return DayNotAvailableError(
                f"{day} is not published yet: the API still serves {answered} (archived). Try again in a few minutes."
            )
        return DayNotAvailableError(f"The archive has no answer for {day}. Run it with fetch `auto` to call the API.")
    return DayNotAvailableError(
        f"The archive has no answer for {day}, and the API serves only {newest_day}. "
        "Import that day if you have it from elsewhere; otherwise it is lost."
    )

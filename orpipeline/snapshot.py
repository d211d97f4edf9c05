"""A day's snapshot from the API to the tables: capture the answer, judge it, replace the day's rows.

Every part works on many days at once, and none of them knows Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import partial

import polars as pl

from orpipeline.archive.folder import Archive, ArchiveError, Kept, Record
from orpipeline.citation import citation
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.judgement import judge, refusal, refused_days
from orpipeline.contracts.tables import TABLES
from orpipeline.days import missing_days
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import DECIMALS, rank
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import UnreadableAnswerError
from orpipeline.openrouter.frames import Frames, parse
from orpipeline.warehouse.database import OutdatedRowsError, Warehouse


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
    """What the archive holds of the days that were asked for, and what of it goes into the tables.

    `newest`: the newest revision of each day that is archived. `chosen`: the revision that goes into the tables, the
    newest that holds to the contracts (or the one that was asked for). `frames`: what the chosen ones say. `findings`:
    on the newest ones, as `orpipeline.contracts.judgement.FINDINGS_SCHEMA` has it. `errors`: why a day's newest
    answer does not go into the tables (missing, damaged, refused). `is_current`: says whether the archive still has the
    chosen days' revisions and no others. `again`: judges the same days anew.
    """

    newest: Mapping[date, Record]
    chosen: Mapping[date, Record]
    frames: Frames
    findings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]
    is_current: Callable[[], bool]
    again: Callable[[], Judged]

    @property
    def raw(self) -> Mapping[date, Record]:
        """What stands for each day's raw answer: the newest revision or, where that is damaged, the chosen one."""
        return dict(sorted({**self.chosen, **self.newest}.items()))


@dataclass(frozen=True)
class Restatement:
    """How far a day's revision moved from the one before it.

    `largest_change` is a difference of shares, in fractions of 1; `tag` and `share` say which figure moved so far.
    """

    day: date
    revision: int
    largest_change: float
    tag: str
    share: str


def capture(client: Client, archive: Archive, days: Sequence[date], fetch: Fetch, now: datetime) -> Kept | None:
    """Ask the API where `fetch` says so, and keep the answer before anything else is done with it.

    Returns what was kept, or None where the API was not asked. Raises the client's errors (an answer that
    is no JSON is kept aside first), ArchiveError where the disk does not take the answer, and
    DayNotAvailableError where the answer states no day.
    """
    newest = newest_completed_day(now)
    wanted = newest in days and not _is_archived(archive, newest)
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


def _is_archived(archive: Archive, day: date) -> bool:
    """Say whether the archive has an answer for the day that came once the day was over."""
    over_at = datetime.combine(day + timedelta(days=1), time.min, UTC)
    try:
        return any(record.fetched_at >= over_at for record in archive.revisions(day))
    except ArchiveError:
        return True  # another answer would not make the day usable; `judge_days` makes this its error


def judge_days(
    archive: Archive,
    warehouse: Warehouse,
    days: Iterable[date],
    *,
    now: datetime,
    answered: date | None = None,
    revision: int | None = None,
) -> Judged:
    """Read the newest archived revision of each day (or `revision`) and hold all of them against the contracts.

    A day whose newest answer is refused or damaged falls back to its newest revision that holds. `answered` is the
    `as_of` that the API has just answered with, if it was asked: it tells a day that is not published yet from one
    that is lost. Raises nothing for what is wrong with a day; `errors` says it.
    """
    asked = sorted(set(days))
    archived: dict[date, list[Record]] = {}
    wanted: dict[date, Record] = {}
    bodies: dict[date, bytes] = {}
    errors: dict[date, OrpipelineError] = {}
    for day in asked:
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
    findings = judge(frames, warehouse.seen(list(bodies)))
    refused = refused_days(findings)
    chosen = {day: record for day, record in newest.items() if day not in refused}
    unusable = [day for day in wanted if day not in chosen]
    for day in unusable:
        older = None if revision else _newest_that_holds(archive, _older(archived[day], wanted[day]))
        if older is not None:
            chosen[day], bodies[day] = older, archive.read(older)
        if day in refused:
            kept = f"revision {older.revision}, the newest that holds" if older else "what they had"
            errors[day] = refusal(day, findings, str(newest[day].path), kept)
    if unusable:
        frames = parse((day, bodies[day]) for day in sorted(chosen))
    # A revision that was asked for by its number stays what it is, whatever comes into the archive.
    watched = {} if revision else {day: archived[day] for day in chosen}
    return Judged(
        newest,
        chosen,
        frames,
        findings,
        errors,
        is_current=partial(_has_just, archive, watched),
        again=partial(judge_days, archive, warehouse, asked, now=now, answered=answered, revision=revision),
    )


def load(warehouse: Warehouse, judged: Judged) -> tuple[Judged, dict[str, pl.DataFrame], dict[str, int]]:
    """Replace the chosen days' rows in all tables, in one transaction.

    Where the archive has got other revisions of these days since they were judged, they are judged again first. Returns
    what the rows were made from in the end, the frames that were written, and how many rows each table now has. Other
    days keep the rows that they had.
    """
    while True:
        tables = daily_tables(judged.frames, list(judged.chosen.values()))
        tables["model_leaderboard"] = rank(tables["task_classifications"], tables["task_models"])
        try:
            # Asked once the file is ours alone, this is enough: every process archives a revision before it loads it.
            # One that is in the tables is seen here, so older rows never go over it; one that is archived after this
            # question is loaded after our commit, over our rows.
            row_counts = warehouse.replace_days(list(judged.chosen), tables, still_right=judged.is_current)
        except OutdatedRowsError:
            judged = judged.again()
        else:
            return judged, tables, row_counts


def restatements(archive: Archive, judged: Judged) -> tuple[list[Restatement], list[ArchiveError]]:
    """Return how far each chosen revision beyond a day's first moved from the one fetched before it.

    Where that one is damaged or cannot be read, its error is among the second list, and the day is not compared.
    """
    found, unreadable = [], []
    for day, record in judged.chosen.items():
        try:
            before = _older(archive.revisions(day), record)
            old = parse([(day, archive.read(before[-1]))]).task_classifications if before else None
        except ArchiveError as error:
            unreadable.append(error)
            continue
        if old is not None:
            new = judged.frames.task_classifications.filter(as_of=day)
            found.append(_restatement(day, record.revision, old, new))
    return found, unreadable


def lost_days(archive: Archive, warehouse: Warehouse, newest: date) -> list[date]:
    """Return the days since the first that is known, before `newest`, that neither archive nor tables have."""
    known = {*archive.days(), *warehouse.days()}
    return [day for day in missing_days({*known, newest}) if day < newest] if known else []


def _restatement(day: date, revision: int, old: pl.DataFrame, new: pl.DataFrame) -> Restatement:
    shares = ["usage_share", "token_share"]
    # A tag that one of the two lacks moved by all of its share.
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


def _has_just(archive: Archive, revisions: Mapping[date, list[Record]]) -> bool:
    """Say whether the archive has just these revisions of these days. (Some 60 microseconds a day.)"""
    try:
        return all(archive.revisions(day) == known for day, known in revisions.items())
    except ArchiveError:
        return False  # judged again, it is that day's error


def _revision(revisions: Sequence[Record], day: date, revision: int) -> Record:
    for record in revisions:
        if record.revision == revision:
            return record
    there = ", ".join(str(record.revision) for record in revisions) or "none"
    raise DayNotAvailableError(f"The archive has no revision {revision} of {day}; it has: {there}.")


def _older(revisions: Sequence[Record], record: Record) -> list[Record]:
    """Return those of a day's revisions that are older than one of them, oldest first."""
    return [r for r in revisions if r.age < record.age]


def _newest_that_holds(archive: Archive, revisions: Sequence[Record]) -> Record | None:
    for record in reversed(revisions):
        with suppress(ArchiveError):
            if record.as_of and not refused_days(judge(parse([(record.as_of, archive.read(record))]))):
                return record
    return None


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
    if answered is not None and answered > day:
        return DayNotAvailableError(
            f"The API answers with {answered} already, which is kept in the archive, so {day} cannot be had any more. "
            "If somebody else kept that day, import it; otherwise it is lost."
        )
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

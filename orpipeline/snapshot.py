"""A day's snapshot from the API to the tables: capture the answer, judge it, replace the day's rows.

Every part works on many days at once, and none of them knows Dagster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum

import polars as pl

from orpipeline.archive import Archive, CorruptAnswerError, Kept, Record
from orpipeline.citation import citation
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.tables import TABLES
from orpipeline.contracts.validation import judge, refusal, refused_days
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import DECIMALS, rank
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
    """What the archive holds of the days that were asked for, and what of it goes into the tables.

    `newest`: the newest revision of each day that is archived. `chosen`: the revision that goes into the tables, the
    newest that holds to the contracts (or the one that was asked for). `frames`: what the chosen ones say. `findings`:
    on the newest ones, as `orpipeline.contracts.validation.FINDINGS_SCHEMA` has it. `errors`: why a day's newest
    answer does not go into the tables (missing, damaged, refused).
    """

    newest: Mapping[date, Record]
    chosen: Mapping[date, Record]
    frames: Frames
    findings: pl.DataFrame
    errors: Mapping[date, OrpipelineError]


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
    return any(record.fetched_at >= over_at for record in archive.revisions(day))


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
    wanted: dict[date, Record] = {}
    bodies: dict[date, bytes] = {}
    errors: dict[date, OrpipelineError] = {}
    for day in sorted(set(days)):
        try:
            record = _revision(archive, day, revision) if revision else archive.latest(day)
            if record is None:
                errors[day] = _not_available(day, newest_completed_day(now), answered)
            else:
                wanted[day] = record
                bodies[day] = archive.read(record)
        except OrpipelineError as error:
            errors[day] = error
    newest = {day: wanted[day] for day in bodies}
    frames = parse(bodies.items())
    findings = judge(frames, warehouse.seen(list(bodies)))
    refused = refused_days(findings)
    chosen = {day: record for day, record in newest.items() if day not in refused}
    unusable = [day for day in wanted if day not in chosen]
    for day in unusable:
        older = None if revision else _newest_that_holds(archive, wanted[day])
        if older is not None:
            chosen[day], bodies[day] = older, archive.read(older)
        if day in refused:
            kept = f"revision {older.revision}, the newest that holds" if older else "what they had"
            errors[day] = refusal(day, findings, str(newest[day].path), kept)
    if unusable:
        frames = parse((day, bodies[day]) for day in sorted(chosen))
    return Judged(newest, chosen, frames, findings, errors)


def load(warehouse: Warehouse, judged: Judged) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Replace the chosen days' rows in all tables, in one transaction.

    Returns the frames that were written, and how many rows each table now has. Other days keep the rows that they
    had.
    """
    tables = daily_tables(judged.frames, list(judged.chosen.values()))
    tables["model_leaderboard"] = rank(tables["task_classifications"], tables["task_models"])
    return tables, warehouse.replace_days(list(judged.chosen), tables)


def restatements(archive: Archive, judged: Judged) -> list[Restatement]:
    """Return how far each chosen revision beyond a day's first moved from the one fetched before it."""
    found = []
    for day, record in judged.chosen.items():
        before = _fetched_before(archive, record)
        if before:
            old = parse([(day, archive.read(before[-1]))]).task_classifications
            new = judged.frames.task_classifications.filter(as_of=day)
            found.append(_restatement(day, record.revision, old, new))
    return found


def missing_days(known: Iterable[date]) -> list[date]:
    """Return the days between the first and the last of `known` that are not among them."""
    days = set(known)
    first = min(days, default=date.max)
    return [
        day for n in range((max(days, default=first) - first).days) if (day := first + timedelta(days=n)) not in days
    ]


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


def _revision(archive: Archive, day: date, revision: int) -> Record:
    revisions = archive.revisions(day)
    for record in revisions:
        if record.revision == revision:
            return record
    there = ", ".join(str(record.revision) for record in revisions) or "none"
    raise DayNotAvailableError(f"The archive has no revision {revision} of {day}; it has: {there}.")


def _fetched_before(archive: Archive, record: Record) -> list[Record]:
    """Return the day's revisions that are older than one of them, oldest first."""
    return [r for r in archive.revisions(record.as_of) if r.age < record.age] if record.as_of else []


def _newest_that_holds(archive: Archive, newest: Record) -> Record | None:
    for record in reversed(_fetched_before(archive, newest)):
        with suppress(CorruptAnswerError):
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

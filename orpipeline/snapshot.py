"""Loading days, from the archive to the tables: choose each day's revision, validate it, replace the day's rows.

Each step works on many days at once. Does not depend on Dagster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import polars as pl

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchivedDay, ArchiveError, Record
from orpipeline.capture import DayNotAvailableError
from orpipeline.citation import citation
from orpipeline.clock import newest_completed_day
from orpipeline.contracts.judgement import rejected_days, rejection, validate
from orpipeline.contracts.tables import TABLES
from orpipeline.days import day_spans
from orpipeline.errors import OrpipelineError
from orpipeline.leaderboard import rank
from orpipeline.openrouter.frames import Frames, parse
from orpipeline.stopwatch import Stopwatch
from orpipeline.unarchived import read_table_days
from orpipeline.warehouse.database import Warehouse
from orpipeline.warehouse.errors import OutdatedLayoutError
from orpipeline.warehouse.old_rows import OldRows
from orpipeline.warehouse.tables import Rows, Tables

_log = logging.getLogger(__name__)

SHOWN_VIEWS = ("model_trends", "author_leaderboard", "leaderboard_coverage")
"""The views whose rows a load returns."""
DAYS_AT_ONCE = 400
"""How many days to parse, validate and write together: about a year, in about 200 MB of memory and some seconds."""


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
    tables. `views`: the rows of `SHOWN_VIEWS`, by name, for the loaded days and the requested number of days before;
    empty if none were requested. Without any archived answer, the warehouse is not opened: `days` is None, and the
    others are empty.
    """

    validated: Validated
    frames: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    row_counts: Mapping[str, int] = field(default_factory=dict)
    days: Sequence[date] | None = None
    views: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def load_days(
    archive: Archive,
    warehouse: Warehouse,
    days: Sequence[date],
    *,
    now: datetime,
    answered: date | None = None,
    revision: int | None = None,
    view_days: int = 0,
    stopwatch: Stopwatch | None = None,
) -> Loaded:
    """Lock the warehouse, validate the days' archived answers, and replace their rows in one transaction.

    The lock comes first: this function sees everything that other processes archived and wrote before, so an older
    revision never replaces a newer one. The arguments are those of `validate_days`. Other days keep their rows. If no
    answer is archived, the warehouse is not opened. `view_days` is how many days of `SHOWN_VIEWS` to read before the
    loaded ones; with 0, no view is read. `stopwatch` measures `lock`, `validation` and `write`. If the warehouse fails,
    its error is raised and nothing is written.

    If the tables are older or were changed by hand, all of them are rebuilt first, in the same transaction, and a log
    line states why. With more than `DAYS_AT_ONCE` archived days this takes too long, and OutdatedLayoutError is raised.
    """
    watch = stopwatch or Stopwatch()
    if not archive.has_any(days):
        return Loaded(validate_days(archive, days, now=now, answered=answered, revision=revision))
    with ExitStack() as transaction:
        with watch.measure("lock"):
            tables = transaction.enter_context(warehouse.writing())
        _update_layout(archive, tables, now)
        with watch.measure("validation"):
            validated = validate_days(archive, days, tables, now=now, answered=answered, revision=revision)
        with watch.measure("write"):
            loaded = write_days(tables, validated, view_days=view_days)
            transaction.close()
    return loaded


def write_days(tables: Tables, validated: Validated, *, view_days: int = 0) -> Loaded:
    """Replace the rows of the chosen revisions' days, with their leaderboard, through an open transaction.

    `view_days` is that of `load_days`.
    """
    frames = _all_tables(validated.frames, validated.chosen)
    days = sorted(validated.chosen)
    row_counts = tables.replace_days(days, frames)
    views = {}
    if view_days and days:
        since = days[0] - timedelta(days=view_days)
        views = {name: tables.read(name, since=since, until=days[-1]) for name in SHOWN_VIEWS}
        tables.known = Rows(since, days[-1], views)
    return Loaded(validated, frames, row_counts, tables.days(), views)


@dataclass(frozen=True)
class Recreated:
    """Some days whose rows are now in tables that replaced older ones.

    `days`: all of them. `loaded`: those that came from the archive. `carried`: those whose rows came from the `old`
    tables, because the archive does not have them, or has no intact and valid answer for them. `left_out`: archived
    days that the tables no longer have, with the reason: today's contracts reject them, or the API could not have had
    them when they were fetched.
    """

    days: Sequence[date]
    loaded: Loaded
    carried: Sequence[date]
    left_out: Mapping[date, OrpipelineError]
    old: OldRows


def recreate_tables(archive: Archive, tables: Tables, *, now: datetime) -> Iterator[Recreated]:
    """Replace all tables and views by those that are declared, through an open transaction; yield each batch of days.

    Every archived day is loaded. Days that only the tables have are carried over. Raises OutdatedLayoutError at the end
    if that is impossible for a day: roll back then.
    """
    old = tables.recreate()
    archived, stored = set(archive.days()), old.days()
    misdated = {r.as_of: _misdated(r) for r in archive.misdated() if r.as_of and r.as_of in stored - archived}
    lost: dict[date, str] = {}
    for days in batches(archived | stored):
        validated = validate_days(archive, archived.intersection(days), now=now)
        loaded = write_days(tables, validated)
        kept = read_table_days(old, sorted(stored.intersection(days) - validated.chosen.keys() - misdated.keys()))
        if kept.records:
            tables.replace_days(kept.records, _all_tables(kept.frames, kept.records))
        # The archive keeps the answer of a rejected day.
        left_out: dict[date, OrpipelineError] = {
            day: rejection(day, validated.findings, str(validated.newest[day].path), "no longer have that day")
            for day in kept.unusable
            if day in validated.newest
        }
        left_out |= {day: misdated[day] for day in misdated.keys() & set(days)}
        lost |= {day: reason for day, reason in kept.unusable.items() if day not in validated.newest}
        yield Recreated(days, loaded, sorted(kept.records), left_out, old)
    if lost:
        raise OutdatedLayoutError(
            f"The tables in {tables.layout.place()} must be rebuilt, but the archive has no intact answer for "
            f"{', '.join(day_spans(lost))}, and the tables' own rows of {min(lost)} cannot be used: {lost[min(lost)]}.",
            "Nothing was changed. Import these days if you have their answers; otherwise move the file away and run "
            "`orpipeline rebuild`, which restores all other days.",
        )


def batches(days: Iterable[date]) -> Iterator[list[date]]:
    """Yield the days in order, `DAYS_AT_ONCE` at a time."""
    ordered = sorted(set(days))
    for start in range(0, len(ordered), DAYS_AT_ONCE):
        yield ordered[start : start + DAYS_AT_ONCE]


def _update_layout(archive: Archive, tables: Tables, now: datetime) -> None:
    """Recreate the tables if they are not as declared and it takes seconds."""
    outdated = tables.layout.outdated()
    if outdated is None:
        return
    if len(archive.days()) > DAYS_AT_ONCE:
        raise outdated
    days: dict[str, list[date]] = {"from the archive": [], "from the old tables": [], "no longer, rejected": []}
    for part in recreate_tables(archive, tables, now=now):
        for kind, of_part in zip(days, (part.loaded.validated.chosen, part.carried, part.left_out), strict=True):
            days[kind] += of_part
    counts = [f"{len(of_kind)} {kind} ({', '.join(day_spans(of_kind))})" for kind, of_kind in days.items() if of_kind]
    _log.warning("%s They are rebuilt; days: %s.", outdated.reason, "; ".join(counts))


def _misdated(record: Record) -> OrpipelineError:
    return DayNotAvailableError(
        f"The API could not have had {record.as_of} at {record.fetched_at:%Y-%m-%d %H:%M:%S} UTC, when the answer was "
        f"fetched, so the tables no longer have that day. The answer's bytes are archived in {record.path}."
    )


def _all_tables(frames: Frames, records: Mapping[date, Record]) -> dict[str, pl.DataFrame]:
    """Return the rows of all tables, by name, for the records' days."""
    tables = daily_tables(frames, list(records.values()))
    return {**tables, "model_leaderboard": rank(tables["task_classifications"], tables["task_models"])}


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
    archived: dict[date, ArchivedDay] = {}
    wanted: dict[date, Record] = {}
    bodies: dict[date, bytes] = {}
    errors: dict[date, OrpipelineError] = {}
    for day, found in sorted(archive.days_of(set(days)).items()):
        try:
            if isinstance(found, ArchiveError):
                raise found
            archived[day] = found
            if not revision and (damage := found.damaged_after(found.newest)):
                errors[day] = damage  # an older revision is loaded
            if revision:
                wanted[day] = _revision(found, day, revision)
            elif found.newest:
                wanted[day] = found.newest
            else:
                errors.setdefault(day, _not_available(day, newest_completed_day(now), answered))
        except OrpipelineError as error:
            errors[day] = error
    for day, body in zip(wanted, archive.read_all(wanted.values()), strict=True):
        if isinstance(body, ArchiveError):
            errors[day] = body
        else:
            bodies[day] = body
    newest = {day: wanted[day] for day in bodies}
    frames = parse(bodies.items())
    seen = tables.seen(list(bodies)) if tables and bodies else None
    findings = loaded_findings = validate(frames, seen)
    rejected = rejected_days(findings)
    chosen = {day: record for day, record in newest.items() if day not in rejected}
    unusable = [day for day in wanted if day not in chosen]
    for day in unusable:
        valid = None if revision else _newest_valid(archive, older_revisions(archived[day].revisions, wanted[day]))
        older = valid and valid[0]
        if valid is not None:
            chosen[day], bodies[day] = valid
        if day in rejected:
            stored = f"use revision {older.revision}, the newest valid one" if older else "are unchanged"
            errors[day] = rejection(day, findings, str(newest[day].path), stored)
    if unusable:
        frames = parse((day, bodies[day]) for day in sorted(chosen))
        loaded_findings = validate(frames, seen)
    return Validated(newest, chosen, frames, findings, loaded_findings.filter(severity="WARN"), errors)


def _revision(found: ArchivedDay, day: date, revision: int) -> Record:
    for record in found.revisions:
        if record.revision == revision:
            return record
    if revision in found.damaged:
        raise found.damaged[revision]
    there = ", ".join(str(record.revision) for record in found.revisions) or "none"
    raise DayNotAvailableError(f"The archive has no revision {revision} of {day}; it has: {there}.")


def older_revisions(revisions: Sequence[Record], record: Record) -> list[Record]:
    """Return a day's revisions that are older than `record`, oldest first."""
    return [r for r in revisions if r.age < record.age]


def _newest_valid(archive: Archive, revisions: Sequence[Record]) -> tuple[Record, bytes] | None:
    for record in reversed(revisions):
        with suppress(ArchiveError):
            body = archive.read(record)
            if record.as_of and not rejected_days(validate(parse([(record.as_of, body)]))):
                return record, body
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

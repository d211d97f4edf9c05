"""Importing answers that others archived into the archive.

Imports use bounded memory, however many answers there are. An interrupted import leaves no half-written answer, and the
next import continues it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import LONGEST_DELAY, ArchiveError, FetchTime, Stored, could_be_served
from orpipeline.contracts.judgement import broken_rules, rejected_days, validate
from orpipeline.days import missing_days
from orpipeline.errors import OrpipelineError
from orpipeline.importing.answers import FoundAnswer, Rejected
from orpipeline.importing.discover import AnswerFile
from orpipeline.importing.formats import read_answers
from orpipeline.openrouter.answer import read_as_of
from orpipeline.openrouter.frames import parse

# Parsed and validated together: about a year, in about 100 MB of memory. Each JSON object can become a row.
_ANSWERS_AT_ONCE = 400
_BYTES_AT_ONCE = 6_000_000
_OBJECTS_AT_ONCE = 130_000
_ANSWERS_OF_A_DAY_AT_ONCE = 50  # they are validated one after another
_MAX_REJECTED = 200  # of one file
_SHOWN = 3

_Put = Callable[..., Stored]


class PartlyImportedError(OrpipelineError):
    """Some files or answers were rejected; all others were imported. `rejected` has each one's reason."""

    def __init__(self, message: str, rejected: Sequence[Rejected]) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclass
class Imported:
    """The outcome of an import. A day is listed once for each of its answers."""

    new: list[date] = field(default_factory=list)
    """Days that the archive did not have before."""
    same: list[date] = field(default_factory=list)
    """Days whose answer the archive already had."""
    restated: list[date] = field(default_factory=list)
    """Days that the archive had with other content; the import added a revision."""
    rejected: list[Rejected] = field(default_factory=list)
    """Files, or parts of them, that were not imported."""

    @property
    def days(self) -> set[date]:
        """The days of all valid answers."""
        return {*self.new, *self.same, *self.restated}

    def raise_for_rejected(self, *, dry_run: bool = False) -> None:
        """Raise PartlyImportedError if anything was rejected."""
        if self.rejected:
            count, same = len(self.new) + len(self.restated), len(self.same)
            others = f"{'Would import' if dry_run else 'Imported'}: {count}; already archived: {same}."
            shown = "; ".join(f"{one.source}: {one.reason}" for one in self.rejected[:_SHOWN])
            more = f"; and {len(self.rejected) - _SHOWN} more" if len(self.rejected) > _SHOWN else ""
            raise PartlyImportedError(f"Rejected: {len(self.rejected)}. {others} {shown}{more}", self.rejected)


@dataclass(frozen=True)
class _Dated:
    """A found answer with its day and, if known, its fetch time."""

    day: date
    fetched_at: datetime | None
    fetch_time: FetchTime
    found: FoundAnswer


def import_files(
    archive: Archive,
    files: Iterable[AnswerFile],
    *,
    first: date,
    newest: date,
    dry_run: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Archive each valid answer in the files under its own `as_of`.

    Answers outside `first` to `newest` are rejected, and so are those that break the contracts. `on_progress` is called
    with the number of bytes that were processed since the last call. `dry_run` writes nothing and returns what an
    import would do. Raises ArchiveError if an answer cannot be written; answers archived before stay.
    """
    imported = Imported()
    answers = _read_files(files, imported, on_progress)
    with _dry_run_put(archive) if dry_run else nullcontext(archive.put) as put:
        dated = (d for found in answers if (d := _dated(found, first, newest, imported)) is not None)
        while batch := _next_batch(dated):
            for answers_of_days in _at_most_one_for_each_day(batch):
                _store(_valid(answers_of_days, imported), put, imported, archive.writers)
    return imported


def still_missing(archive: Archive, imported: Imported) -> list[date]:
    """Return the days between the first and last imported day that are still missing from the archive."""
    return sorted(set(missing_days(imported.days)) - set(archive.days()))


def _read_files(
    files: Iterable[AnswerFile], imported: Imported, on_progress: Callable[[int], None]
) -> Iterator[FoundAnswer]:
    for file in files:
        rejected_before = len(imported.rejected)
        with closing(read_answers(file, on_progress)) as items:
            for item in items:
                if isinstance(item, Rejected):
                    imported.rejected.append(item)
                else:
                    yield item
                if len(imported.rejected) - rejected_before >= _MAX_REJECTED:
                    reason = f"the rest of it is not read: {_MAX_REJECTED:,} of its parts were rejected"
                    imported.rejected.append(Rejected(file.name, reason))
                    break


def _next_batch(answers: Iterator[_Dated]) -> list[_Dated]:
    batch: list[_Dated] = []
    size = objects = 0
    of_days: Counter[date] = Counter()
    for answer in answers:
        batch.append(answer)
        size += len(answer.found.body)
        objects += answer.found.body.count(b"{")
        of_days[answer.day] += 1
        is_full = len(batch) >= _ANSWERS_AT_ONCE or of_days[answer.day] >= _ANSWERS_OF_A_DAY_AT_ONCE
        if is_full or size >= _BYTES_AT_ONCE or objects >= _OBJECTS_AT_ONCE:
            break
    return batch


def _dated(found: FoundAnswer, first: date, newest: date, imported: Imported) -> _Dated | None:
    """Return the answer with its day, or None if it is rejected because of its day."""
    day = read_as_of(found.body)
    if day is None:
        reason = "it has no valid day in `data.as_of`"
    elif day > newest:
        reason = f"{day} is not over yet in UTC"
    elif day < first:
        reason = f"{day} is before the first partition, {first}; set ORPIPELINE_START_DATE to an earlier day"
    else:
        fetched_at, fetch_time = _fetch_time(found, day, newest)
        oldest = LONGEST_DELAY if fetch_time is FetchTime.RECORDED else None
        if fetched_at is None or could_be_served(day, fetched_at, oldest=oldest):
            return _Dated(day, fetched_at, fetch_time, found)
        reason = f"the API could not have had {day} at {fetched_at:%Y-%m-%d %H:%M:%S} UTC, its fetch time"
    imported.rejected.append(Rejected(found.source, reason))
    return None


def _fetch_time(found: FoundAnswer, day: date, newest: date) -> tuple[datetime | None, FetchTime]:
    """Return when an answer was fetched, or None if that is unknown, and how certain that is.

    That is the time in the record of another archive, or the time that the file states. Otherwise it is the time when
    the file was written, if that is on the day after `day`, the only one on which the API serves it. Only a record is
    evidence. A time in the future counts as unknown: with it, the answer would always stay the newest revision.
    """
    if found.fetched_at is not None:
        tomorrow = datetime.combine(newest + timedelta(days=2), time.min, UTC)
        certain = FetchTime.RECORDED if found.fetch_time_recorded else FetchTime.STATED
        return (found.fetched_at, certain) if found.fetched_at < tomorrow else (None, FetchTime.UNKNOWN)
    served_from = datetime.combine(day + timedelta(days=1), time.min, UTC)
    modified_at = found.modified_at
    if modified_at and served_from <= modified_at < served_from + timedelta(days=1):
        return modified_at, FetchTime.STATED
    return None, FetchTime.UNKNOWN


def _at_most_one_for_each_day(answers: Sequence[_Dated]) -> Iterator[list[_Dated]]:
    """Yield the answers in lists with at most one for each day: first each day's oldest, then its second, and so on."""
    by_day: dict[date, list[_Dated]] = {}
    for answer in answers:
        by_day.setdefault(answer.day, []).append(answer)
    for of_day in by_day.values():
        of_day.sort(key=lambda answer: answer.fetched_at or datetime.min.replace(tzinfo=UTC))
    for n in range(max(map(len, by_day.values()), default=0)):
        yield [of_day[n] for of_day in by_day.values() if n < len(of_day)]


def _valid(answers: Sequence[_Dated], imported: Imported) -> list[_Dated]:
    """Return the answers that meet the contracts, and add the others to the rejected ones."""
    findings = validate(parse((answer.day, answer.found.body) for answer in answers))
    invalid = rejected_days(findings)
    imported.rejected += [
        Rejected(answer.found.source, broken_rules(answer.day, findings)) for answer in answers if answer.day in invalid
    ]
    return [answer for answer in answers if answer.day not in invalid]


def _store(answers: Sequence[_Dated], put: _Put, imported: Imported, writers: int) -> None:
    """Archive answers of different days, with this number of threads."""

    def store(answer: _Dated) -> Stored:
        return put(
            answer.found.body,
            fetched_at=answer.fetched_at,
            fetch_time=answer.fetch_time,
            source=answer.found.source,
            origin="demo" if answer.found.demo else "import",
            same_content=True,
        )

    # Different days are in different folders, so threads can write them at once.
    with ThreadPoolExecutor(writers) as threads:
        for answer, stored in zip(answers, threads.map(store, answers), strict=True):
            if not stored.new:
                imported.same.append(answer.day)
            else:
                (imported.new if stored.record.revision == 1 else imported.restated).append(answer.day)


@contextmanager
def _dry_run_put(archive: Archive) -> Iterator[_Put]:
    """Provide a `put` that writes to a temporary copy of those days of the archive that it is called for."""
    with tempfile.TemporaryDirectory(prefix="orpipeline_dry_run_") as name:
        folder = Path(name)
        copy = Archive(folder)

        def put(body: bytes, **about: Any) -> Stored:
            day = read_as_of(body)
            try:
                if day is not None and not (folder / str(day)).exists():
                    archive.copy_day(day, folder / str(day))
            except (shutil.Error, OSError) as error:
                raise ArchiveError(
                    f"The dry run cannot copy {day} of {archive.root} to {folder}: {error}. Nothing was changed. Free "
                    "disk space or fix the folder's permissions, or import without --dry-run."
                ) from error
            return copy.put(body, **about)

        yield put

"""The append-only archive of the API's answers: which answer becomes which revision, and what becomes of damaged ones.

Where the answers are kept is a `Storage`: a folder, or an object store. Both have the same layout.

Revision numbers give the order in which answers were archived. The newest revision is the one fetched last, which can
have a smaller number: you can import an older answer later.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orpipeline.archive.folder import FolderStorage
from orpipeline.archive.records import (
    ArchivedDay,
    ArchiveError,
    CorruptAnswerError,
    FetchTime,
    Record,
    Stored,
)
from orpipeline.archive.storage import UNDATED, Entry, Place, Storage, in_order
from orpipeline.clock import Clock, utc_now
from orpipeline.openrouter.answer import parse_json, read_as_of

_log = logging.getLogger(__name__)

_ABANDONED_AFTER = timedelta(hours=1)  # writing an answer takes far less, so its process was killed


class Archive:
    """The raw archive at a place: a folder, or the URL of an object store.

    `clock` gives the time of an import whose fetch time is unknown. Besides ArchiveError, an archive in an object store
    raises StoreError if the store cannot be used.
    """

    def __init__(self, place: Place, *, clock: Clock = utc_now) -> None:
        self._storage = _storage(place)
        self._clock = clock

    @property
    def root(self) -> Place:
        """The archive's folder or URL."""
        return self._storage.root

    @property
    def writers(self) -> int:
        """How many threads may call `put` for different days at once."""
        return self._storage.writers

    def put(
        self,
        body: bytes,
        *,
        fetched_at: datetime | None,
        source: str,
        origin: str,
        fetch_time: FetchTime = FetchTime.RECORDED,
        same_content: bool = False,
    ) -> Stored:
        """Archive an answer's bytes under its `data.as_of`, as the day's next revision.

        An answer that the archive already has intact is not stored again. It is compared with the revision that was the
        newest at `fetched_at` and with those fetched since: figures that change and change back become three revisions.
        With `fetched_at=None` (unknown) it is compared with all of the day's revisions. `fetch_time` is how certain
        `fetched_at` is; an answer that orpipeline fetched is compared only with others that it fetched. With
        `same_content`, as for imports, the same JSON in other bytes counts as the same answer.

        A damaged revision with the same bytes is restored under its old record. Then the day's damaged revisions are
        set aside in the day's folder as `damaged-r1-...`, and never deleted.

        An answer without a readable `data.as_of`, or with one that the API could not have had at `fetched_at`, is
        stored as `put_undated` does. Raises ArchiveError if the answer cannot be written.
        """
        about = self._about(body, fetched_at, fetch_time, source, origin)
        if about.as_of is None or about.is_misdated:
            return self._put_undated(body, about)
        stored, restored = None, False
        while stored is None:
            # If another process adds a revision after this call, it takes this number. The write below then fails, and
            # the next round compares with that revision, too.
            number, entries = self._storage.next_revision(about.as_of)
            day = _archived_day(entries())
            restored |= self._restore(day.revisions, body, about.sha256)
            is_recorded = about.fetch_time is FetchTime.RECORDED
            comparable = [r for r in day.revisions if not is_recorded or r.fetch_time is FetchTime.RECORDED]
            candidates = _newest_at_or_since(comparable, fetched_at)
            same = self._same(candidates, body, about.sha256, same_content=same_content)
            if same is not None and day.damaged_after(same) is None:
                stored = Stored(same, new=restored)
            else:
                path = self._storage.answer_file(about.as_of.isoformat(), f"r{number}")
                record = self._storage.fit(replace(about, revision=number, path=path))
                stored = Stored(record, new=True) if self._storage.write(record, body) else None
        if day.revisions or day.damaged:
            self._set_damaged_aside(about.as_of)
        return stored

    def put_undated(self, body: bytes, *, fetched_at: datetime, source: str, origin: str) -> Stored:
        """Archive an answer that belongs to no day, whatever its `data.as_of` is: once, in `undated`, as revision 0.

        Raises ArchiveError if it cannot be written.
        """
        return self._put_undated(body, self._about(body, fetched_at, FetchTime.RECORDED, source, origin))

    def put_again(self, body: bytes, record: Record) -> Stored:
        """Archive an answer as it is recorded elsewhere, with its fetch time, source and origin."""
        if record.as_of is None:
            return self._put_undated(body, record)
        known = record.fetch_time is not FetchTime.UNKNOWN
        return self.put(
            body,
            fetched_at=record.fetched_at if known else None,
            source=record.source,
            origin=record.origin,
            fetch_time=record.fetch_time,
        )

    def adopt(self) -> list[Record]:
        """Archive the complete answers of writers that were interrupted, and return new ones.

        In a folder, leftovers that are older than an hour are then removed if they are archived or incomplete. Those
        that cannot be read or archived now stay, and a warning names them.
        """
        adopted = []
        for place in self._storage.leftovers():
            try:
                completed = self._storage.complete(place)
                found = None if completed else self._storage.leftover(place)
                stored = self.put_again(*found) if found else None
                adopted += [completed] if completed else [stored.record] if stored and stored.new else []
            except ArchiveError as error:
                _log.warning("The unfinished answer in %s stays there for now. %s", place, error)
                continue
            self._storage.remove_leftover(place, before=self._clock() - _ABANDONED_AFTER)
        for record in adopted:
            _log.warning("Archived the answer that an earlier process had fetched: %s", record.path)
        return adopted

    def leftovers(self) -> list[Place]:
        """Return the places of unfinished writes that `adopt` would archive, or that cannot be read."""
        return [place for place in self._storage.leftovers() if self._is_wanted(place)]

    def days(self) -> list[date]:
        """Return the archived days, oldest first."""
        return list(self._storage.days())

    def first_day(self) -> date | None:
        """Return the first archived day, or None if the archive is empty."""
        return next(self._storage.days(), None)

    def has(self, day: date) -> bool:
        """Return whether the archive has any revision of a day, intact or damaged."""
        return self._storage.has_any([day])

    def has_any(self, days: Collection[date]) -> bool:
        """Return whether the archive has any revision of any of these days."""
        return self._storage.has_any(days)

    def day(self, day: date) -> ArchivedDay:
        """Return all that the archive has for a day: its revisions, and what is damaged or misdated."""
        found = self.days_of([day])[day]
        if isinstance(found, ArchiveError):
            raise found
        return found

    def days_of(self, days: Collection[date] | None = None) -> dict[date, ArchivedDay | ArchiveError]:
        """Return all that the archive has for these days, or for all days, or why a day cannot be listed."""
        entries = self._storage.entries(days)
        return {
            day: of_day if isinstance(of_day, ArchiveError) else _archived_day(of_day)
            for day, of_day in entries.items()
        }

    def revisions(self, day: date) -> list[Record]:
        """Return a day's readable records, the newest last; empty for a missing day."""
        return self.day(day).revisions

    def latest(self, day: date) -> Record | None:
        """Return the record of a day's newest revision, or None for a missing day."""
        return self.day(day).newest

    def is_current(self, day: date) -> bool:
        """Return whether a day's newest revision is intact."""
        found = self.day(day)
        newest = found.newest
        return newest is not None and found.damaged_after(newest) is None and self._intact(newest) is not None

    def misdated(self) -> list[Record]:
        """Return the answers below a day that the API could not have had at their fetch time; they belong to no day.

        `put` stores such answers in `undated`; version 0.1 did not.
        """
        return [
            record
            for of_day in self.days_of().values()
            if isinstance(of_day, ArchivedDay)
            for record in of_day.misdated
        ]

    def folders(self) -> list[Place]:
        """Return the folder or URL of each answer, undated answers last."""
        return self._storage.places()

    def record(self, folder: Place) -> Record:
        """Return the record in one of `folders`. Raises ArchiveError if it cannot be read."""
        return self._storage.record(folder)

    def records(self) -> list[Record]:
        """Return the readable records of all answers, undated answers last."""
        found = in_order(self._record_or_error, self.folders(), self._storage.readers)
        return [record for record in found if isinstance(record, Record)]

    def read(self, record: Record) -> bytes:
        """Return an archived answer's bytes. Raises CorruptAnswerError if their sha256 is not the recorded one."""
        return self._storage.read(record)

    def read_all(self, records: Iterable[Record]) -> Iterator[bytes | ArchiveError]:
        """Yield the bytes of many answers in the records' order, or why one cannot be read."""
        return in_order(self._read_or_error, records, self._storage.readers)

    def check_all(self) -> Iterator[ArchiveError | None]:
        """Read every answer, and yield None, or why it is damaged or cannot be read; in the order of `folders`."""
        return in_order(self._check, self.folders(), self._storage.readers)

    def copy_day(self, day: date, folder: Path) -> None:
        """Copy all that the archive has for a day into a new folder. Raises OSError if that cannot be written."""
        self._storage.copy_day(day, folder)

    def require_writable(self) -> None:
        """Raise StoreError if an object store cannot be written. It costs a request; a folder is not tried."""
        self._storage.require_writable()

    def _about(
        self, body: bytes, fetched_at: datetime | None, fetch_time: FetchTime, source: str, origin: str
    ) -> Record:
        """Return what is recorded about an answer, before it has a revision and a path."""
        return Record(
            as_of=read_as_of(body),
            revision=0,
            sha256=hashlib.sha256(body).hexdigest(),
            size=len(body),
            fetched_at=fetched_at or self._clock(),
            origin=origin,
            source=source,
            path=self.root,
            fetch_time=fetch_time if fetched_at else FetchTime.UNKNOWN,
        )

    def _put_undated(self, body: bytes, about: Record) -> Stored:
        ending, at = _undated_ending(about.sha256), about.fetched_at
        while True:
            for same in self._storage.undated(ending):
                # A damaged one does not count.
                if isinstance(same, Record) and self._intact(same) == body:
                    return Stored(same, new=False)
            path = self._storage.answer_file(UNDATED, f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%f}{ending}")
            record = self._storage.fit(replace(about, as_of=None, revision=0, path=path))
            if self._storage.write(record, body):
                return Stored(record, new=True)
            at += timedelta(microseconds=1)  # a damaged one has this name

    def _is_wanted(self, place: Place) -> bool:
        try:
            found = self._storage.leftover(place)
            return found is not None and not self._has_intact(found[1])
        except ArchiveError:
            return True

    def _same(self, records: Iterable[Record], body: bytes, sha256: str, *, same_content: bool) -> Record | None:
        if same_content:
            return next((record for record in records if self._has_content(record, body)), None)
        same = (record for record in records if record.sha256 == sha256)
        return next((record for record in same if self._intact(record) is not None), None)

    def _has_content(self, record: Record, body: bytes) -> bool:
        """Return whether a revision is intact and has the same JSON."""
        archived = self._intact(record)
        try:
            return archived is not None and (archived == body or bool(parse_json(archived) == parse_json(body)))
        except ValueError:
            return False

    def _intact(self, record: Record) -> bytes | None:
        """Return an archived answer's bytes, or None if they are damaged or cannot be read."""
        try:
            return self.read(record)
        except ArchiveError:
            return None

    def _has_intact(self, record: Record) -> bool:
        """Return whether the bytes of an unfinished write are archived, and intact."""
        archived: Iterable[Record | ArchiveError]
        if record.as_of is not None:
            archived = self.revisions(record.as_of)
        else:
            archived = self._storage.undated(_undated_ending(record.sha256))
        same = (r for r in archived if isinstance(r, Record) and r.sha256 == record.sha256)
        return any(self._intact(r) is not None for r in same)

    def _restore(self, revisions: Iterable[Record], body: bytes, sha256: str) -> bool:
        """Replace the damaged bytes of revisions that had this answer, and return whether one was replaced.

        A copy of the damaged folder is set aside first. If that is impossible, the revision stays as it is.
        """
        damaged = [r for r in revisions if r.sha256 == sha256 and self._intact(r) is None]
        restored = False
        for record in damaged:
            with self._storage.repairing():
                aside = self._storage.restore(record, body, self._clock())
            if aside is not None:
                _log.warning("Restored the damaged answer %s; its damaged copy is %s", record.path, aside)
                restored = True
        return restored

    def _set_damaged_aside(self, day: date) -> None:
        """Set a day's damaged revisions aside, after an intact answer of the day has been archived."""
        if not self._damaged_numbers(self.day(day)):
            return
        with self._storage.repairing():
            for number in self._damaged_numbers(self.day(day)):  # another process may have restored one
                aside = self._storage.set_aside(day, number, self._clock())
                if aside is not None:
                    _log.warning("Set the damaged answer r%s of %s aside as %s", number, day, aside)

    def _damaged_numbers(self, day: ArchivedDay) -> list[int]:
        """Return the numbers of a day's revisions that are damaged, and not only unreadable now."""
        numbers = [number for number, error in day.damaged.items() if isinstance(error, CorruptAnswerError)]
        for record in day.revisions:
            try:
                self.read(record)
            except CorruptAnswerError:
                numbers.append(record.revision)
            except ArchiveError:
                pass
        return numbers

    def _read_or_error(self, record: Record) -> bytes | ArchiveError:
        try:
            return self.read(record)
        except ArchiveError as error:
            return error

    def _record_or_error(self, folder: Place) -> Record | ArchiveError:
        try:
            return self.record(folder)
        except ArchiveError as error:
            return error

    def _check(self, folder: Place) -> ArchiveError | None:
        try:
            self.read(self.record(folder))
        except ArchiveError as error:
            return error
        return None


def _storage(place: Place) -> Storage:
    if isinstance(place, Path):
        return FolderStorage(place)
    from orpipeline.archive.objects import ObjectStorage

    return ObjectStorage(place)


def _archived_day(entries: Iterable[Entry]) -> ArchivedDay:
    found = ArchivedDay()
    for number, record in entries:
        if isinstance(record, ArchiveError):
            found.damaged[number] = record
        else:
            (found.misdated if record.is_misdated else found.revisions).append(record)
    found.revisions.sort(key=lambda record: record.age)
    return found


def _newest_at_or_since(revisions: list[Record], fetched_at: datetime | None) -> list[Record]:
    """Return the revision that was the newest at a time, and those fetched since; all if the time is unknown."""
    if fetched_at is None:
        return revisions
    unknown = [r for r in revisions if r.fetch_time is FetchTime.UNKNOWN]
    known = sorted((r for r in revisions if r.fetch_time is not FetchTime.UNKNOWN), key=lambda r: r.fetched_at)
    earlier = [*unknown, *(r for r in known if r.fetched_at < fetched_at)]
    return [*unknown, *known][max(len(earlier) - 1, 0) :]


def _undated_ending(sha256: str) -> str:
    """Return the end of the name of an undated answer's folder."""
    return f"Z-{sha256[:16]}"

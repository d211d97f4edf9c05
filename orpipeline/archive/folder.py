"""The append-only archive of the API's answers as a folder, with one subfolder for each day and revision.

    raw/2026-10-06/r1/task_classifications.json.gz    the answer's bytes, gzipped
    raw/2026-10-06/r1/record.json                     sha256, fetch time, source, origin
    raw/2026-10-06/damaged-r1-20261008T002003/         a damaged revision, or what it was before it was restored
    raw/undated/20261007T002003.123456Z-.../           answers that belong to no day

A revision's folder is written under a temporary name, synced to disk and renamed. It is either complete or absent, and
an intact one never changes. You can read the archive with ordinary tools: `gzip -dc ... | jq`, or DuckDB's
`read_json('raw/*/r*/*.json.gz')`.

Revision numbers give the order in which answers were archived. The newest revision is the one fetched last, which can
have a smaller number: you can import an older answer later.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

from filelock import FileLock

from orpipeline.archive.records import (
    MAX_ANSWER_BYTES,
    ArchivedDay,
    ArchiveError,
    CorruptAnswerError,
    FetchTime,
    Record,
    Stored,
)
from orpipeline.clock import Clock, utc_now
from orpipeline.files import sync_folder, write_synced
from orpipeline.openrouter.answer import iso_date, parse_json, read_as_of

_log = logging.getLogger(__name__)

ANSWER_FILE = "task_classifications.json.gz"
RECORD_FILE = "record.json"
UNDATED = "undated"
_WRITING = ".writing-"
_DAMAGED = "damaged-"
_ABANDONED_AFTER = timedelta(hours=1)  # writing an answer takes far less, so its process was killed
_REVISION = re.compile(r"r([1-9][0-9]{0,8})")
SET_ASIDE = re.compile(rf"{_DAMAGED}r([1-9][0-9]{{0,8}})-[0-9]{{8}}T.*")
"""Matches the name of a damaged revision's folder after it was set aside."""


class Archive:
    """The raw archive in the folder `root`.

    The first write creates the folder, readable by its owner only. Reading creates nothing. `clock` gives the time of
    an import whose fetch time is unknown.
    """

    def __init__(self, root: Path, *, clock: Clock = utc_now) -> None:
        self.root = root
        self._clock = clock

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
            # If another process adds a revision after this listing, it takes this number. The write below then fails,
            # and the next round compares with that revision, too.
            place = self._next_place(about.as_of)
            day = self.day(about.as_of)
            restored |= self._restore(day.revisions, body, about.sha256)
            is_recorded = about.fetch_time is FetchTime.RECORDED
            comparable = [r for r in day.revisions if not is_recorded or r.fetch_time is FetchTime.RECORDED]
            candidates = _newest_at_or_since(comparable, fetched_at)
            same = self._same(candidates, body, about.sha256, same_content=same_content)
            if same is not None and day.damaged_after(same) is None:
                stored = Stored(same, new=restored)
            else:
                record = replace(about, revision=place[0], path=place[1])
                stored = Stored(record, new=True) if self._write(record, body) else None
        if day.revisions or day.damaged:
            self._set_damaged_aside(about.as_of)
        return stored

    def put_undated(self, body: bytes, *, fetched_at: datetime, source: str, origin: str) -> Stored:
        """Archive an answer that belongs to no day, whatever its `data.as_of` is: once, in `undated`, as revision 0.

        Raises ArchiveError if it cannot be written.
        """
        return self._put_undated(body, self._about(body, fetched_at, FetchTime.RECORDED, source, origin))

    def adopt(self) -> list[Record]:
        """Archive the complete answers that processes left before they could rename them, and return new ones.

        Leftovers that are older than an hour are then removed if they are archived or incomplete. Those that cannot be
        read or archived now stay, and a warning names them.
        """
        adopted = []
        for folder in self._leftover_folders():
            try:
                found = self._leftover(folder)
                if found is not None:
                    stored = self._put_leftover(*found)
                    adopted += [stored.record] if stored.new else []
            except ArchiveError as error:
                _log.warning("The unfinished answer in %s stays there for now. %s", folder, error)
                continue
            with suppress(OSError):  # its process may have renamed it
                if self._clock().timestamp() - folder.stat().st_mtime > _ABANDONED_AFTER.total_seconds():
                    shutil.rmtree(folder)
        for record in adopted:
            _log.warning("Archived the answer that an earlier process had fetched: %s", record.path)
        return adopted

    def leftovers(self) -> list[Path]:
        """Return the folders of unfinished writes that `adopt` would archive, or that cannot be read."""
        return [folder for folder in self._leftover_folders() if self._is_wanted(folder)]

    def days(self) -> list[date]:
        """Return the archived days, oldest first."""
        # A process that is killed before its rename can leave a day's folder empty.
        return [day for day in self._day_folders() if self.has(day)]

    def first_day(self) -> date | None:
        """Return the first archived day, or None if the archive is empty."""
        return next((day for day in self._day_folders() if self.has(day)), None)

    def has(self, day: date) -> bool:
        """Return whether the archive has any revision of a day, intact or damaged."""
        return any(isinstance(record, ArchiveError) or not record.is_misdated for _, record in self._entries(day))

    def day(self, day: date) -> ArchivedDay:
        """Return all that the archive has for a day: its revisions, and what is damaged or misdated."""
        found = ArchivedDay()
        for number, record in self._entries(day):
            if isinstance(record, ArchiveError):
                found.damaged[number] = record
            else:
                (found.misdated if record.is_misdated else found.revisions).append(record)
        found.revisions.sort(key=lambda record: record.age)
        return found

    def revisions(self, day: date) -> list[Record]:
        """Return a day's readable records, the newest last; empty for a missing day."""
        return self.day(day).revisions

    def latest(self, day: date) -> Record | None:
        """Return the record of a day's newest revision, or None for a missing day."""
        revisions = self.revisions(day)
        return revisions[-1] if revisions else None

    def is_current(self, day: date) -> bool:
        """Return whether a day's newest revision is intact."""
        found = self.day(day)
        newest = found.revisions[-1] if found.revisions else None
        return newest is not None and found.damaged_after(newest) is None and self._intact(newest) is not None

    def misdated(self) -> list[Record]:
        """Return the answers below a day that the API could not have had at their fetch time; they belong to no day.

        `put` stores such answers in `undated`; version 0.1 did not.
        """
        return [record for day in self._day_folders() for record in self.day(day).misdated]

    def folders(self) -> list[Path]:
        """Return the folder of each answer, undated answers last."""
        dated = [self.root / day.isoformat() for day in self._day_folders()]
        revisions = [folder / f"r{number}" for folder in dated for number in _numbers_in(folder)]
        return [*revisions, *(self.root / UNDATED / name for name in _folder_names(self.root / UNDATED))]

    def record(self, folder: Path) -> Record:
        """Return the record in one of `folders`. Raises ArchiveError if it cannot be read."""
        day = iso_date(folder.parent.name)
        return _read_record(folder, day, int(folder.name.removeprefix("r")) if day else 0)

    def read(self, record: Record) -> bytes:
        """Return an archived answer's bytes. Raises CorruptAnswerError if their sha256 is not the recorded one."""
        try:
            with gzip.open(record.path) as file:
                body = file.read(MAX_ANSWER_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _corrupt(record.path, f"it cannot be unpacked ({error})") from None
        except FileNotFoundError:
            raise _corrupt(record.path, "it is missing") from None
        except OSError as error:
            raise _failed("read", record.path, error) from None
        if hashlib.sha256(body).hexdigest() != record.sha256:
            raise _corrupt(record.path, "its sha256 does not match the record")
        return body

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

    def _next_place(self, day: date) -> tuple[int, Path]:
        """Return the number and the file of a day's next revision; the number of a damaged one is not used again."""
        folder = self.root / day.isoformat()
        with _disk_errors("read", folder):
            # Of files and links, too: they are in the way.
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        taken = (pattern.fullmatch(name) for name in names for pattern in (_REVISION, SET_ASIDE))
        number = max((int(match[1]) for match in taken if match), default=0) + 1
        return number, folder / f"r{number}" / ANSWER_FILE

    def _put_undated(self, body: bytes, about: Record) -> Stored:
        undated, name = self.root / UNDATED, f"Z-{about.sha256[:16]}"
        at = about.fetched_at
        while True:
            for folder in (undated / known for known in _folder_names(undated) if known.endswith(name)):
                with suppress(ArchiveError):  # a damaged one does not count
                    same = _read_record(folder, None, 0)
                    if self._intact(same) == body:
                        return Stored(same, new=False)
            path = undated / f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%f}{name}" / ANSWER_FILE
            record = replace(about, as_of=None, revision=0, path=path)
            if self._write(record, body):
                return Stored(record, new=True)
            at += timedelta(microseconds=1)  # a damaged one has this name

    def _leftover_folders(self) -> list[Path]:
        return [self.root / name for name in _folder_names(self.root) if name.startswith(_WRITING)]

    def _leftover(self, folder: Path) -> tuple[bytes, Record] | None:
        """Return the complete answer of an unfinished write, or None if it is incomplete.

        Raises ArchiveError if it cannot be read.
        """
        try:
            record = Record.from_json((folder / RECORD_FILE).read_bytes(), path=folder / ANSWER_FILE)
            return self.read(record), record
        except (FileNotFoundError, CorruptAnswerError, *_NOT_A_RECORD):
            return None
        except OSError as error:
            raise _failed("read", folder, error) from None

    def _is_wanted(self, folder: Path) -> bool:
        try:
            found = self._leftover(folder)
            return found is not None and not self._has_intact(found[1])
        except ArchiveError:
            return True

    def _put_leftover(self, body: bytes, record: Record) -> Stored:
        known = record.fetch_time is not FetchTime.UNKNOWN
        if record.as_of is None:
            return self._put_undated(body, record)
        return self.put(
            body,
            fetched_at=record.fetched_at if known else None,
            source=record.source,
            origin=record.origin,
            fetch_time=record.fetch_time,
        )

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
        if record.as_of is not None:
            archived = self.revisions(record.as_of)
        else:
            undated = (self.root / UNDATED / name for name in _folder_names(self.root / UNDATED))
            archived = [replace(record, path=folder / ANSWER_FILE) for folder in undated]
        return any(r.sha256 == record.sha256 and self._intact(r) is not None for r in archived)

    def _restore(self, revisions: Iterable[Record], body: bytes, sha256: str) -> bool:
        """Replace the damaged bytes of revisions that had this answer, and return whether one was replaced.

        A copy of the damaged folder is set aside first. If that is impossible, the revision stays as it is.
        """
        damaged = [r for r in revisions if r.sha256 == sha256 and self._intact(r) is None]
        restored = False
        for record in damaged:
            with self._repairing():
                if self._intact(record) is not None:  # another process has just restored it
                    continue
                try:
                    aside = self._unused_name(record.path.parent)
                    shutil.copytree(record.path.parent, aside, symlinks=True)
                    _replace(record.path, gzip.compress(body, compresslevel=6, mtime=0))
                except OSError as error:
                    _log.warning("Cannot restore the damaged answer %s: %s", record.path, error)
                    continue
            _log.warning("Restored the damaged answer %s; its damaged copy is %s", record.path, aside.name)
            restored = True
        return restored

    def _set_damaged_aside(self, day: date) -> None:
        """Set a day's damaged revisions aside, after an intact answer of the day has been archived."""
        if not self._damaged_numbers(self.day(day)):
            return
        with self._repairing(), _disk_errors("write", self.root):
            for number in self._damaged_numbers(self.day(day)):  # another process may have restored one
                folder = self.root / day.isoformat() / f"r{number}"
                aside = self._unused_name(folder)
                folder.rename(aside)
                _log.warning("Set the damaged answer %s aside as %s", folder, aside.name)

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

    def _unused_name(self, folder: Path) -> Path:
        """Return the path that a damaged revision's folder gets."""
        name = f"{_DAMAGED}{folder.name}-{self._clock():%Y%m%dT%H%M%S}"
        names = (folder.with_name(name if n == 1 else f"{name}-{n}") for n in count(1))
        return next(path for path in names if not path.exists())

    @contextmanager
    def _repairing(self) -> Iterator[None]:
        """Let one process at a time repair the archive."""
        with _disk_errors("write", self.root), FileLock(self.root / ".repair.lock", mode=0o600):
            yield

    def _write(self, record: Record, body: bytes) -> bool:
        """Write a revision's folder in one step; return False if another process has already written it.

        If only the last step fails, the complete answer stays under its temporary name, and `adopt` archives it.
        """
        folder = record.path.parent
        with _disk_errors("write", self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._write_aside(record, body)
            if folder.parent.is_symlink():
                raise ArchiveError(
                    f"{folder.parent} in the raw archive is a link, and nothing is written through links. Replace it "
                    f"with a folder. The answer is in {temporary}, and the next run archives it."
                )
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                # Renaming to a folder that has files fails, so nothing is ever overwritten.
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                shutil.rmtree(temporary)
                return False
            sync_folder(folder.parent)
            sync_folder(self.root)
        return True

    def _write_aside(self, record: Record, body: bytes) -> Path:
        """Write a revision's folder under a temporary name. If that fails, nothing is left."""
        # mkdtemp makes the folder readable by its owner only.
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.root))
        try:
            # The record comes first: a leftover with a complete answer has one, too.
            _write_synced(temporary / RECORD_FILE, record.to_json())
            _write_synced(temporary / ANSWER_FILE, gzip.compress(body, compresslevel=6, mtime=0))
            sync_folder(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return temporary

    def _day_folders(self) -> list[date]:
        return sorted(day for name in _folder_names(self.root) if (day := iso_date(name)) is not None)

    def _entries(self, day: date) -> Iterator[tuple[int, Record | ArchiveError]]:
        """Yield each revision's number with its record, or with why that cannot be read."""
        folder = self.root / day.isoformat()
        for number in _numbers_in(folder):
            try:
                yield number, _read_record(folder / f"r{number}", day, number)
            except ArchiveError as error:
                yield number, error


def _newest_at_or_since(revisions: list[Record], fetched_at: datetime | None) -> list[Record]:
    """Return the revision that was the newest at a time, and those fetched since; all if the time is unknown."""
    if fetched_at is None:
        return revisions
    unknown = [r for r in revisions if r.fetch_time is FetchTime.UNKNOWN]
    known = sorted((r for r in revisions if r.fetch_time is not FetchTime.UNKNOWN), key=lambda r: r.fetched_at)
    earlier = [*unknown, *(r for r in known if r.fetched_at < fetched_at)]
    return [*unknown, *known][max(len(earlier) - 1, 0) :]


def _numbers_in(folder: Path) -> list[int]:
    """Return the numbers of a day's revisions, in order."""
    return sorted(int(match[1]) for name in _folder_names(folder) if (match := _REVISION.fullmatch(name)))


def _folder_names(folder: Path) -> list[str]:
    with _disk_errors("read", folder):
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


_NOT_A_RECORD = (ValueError, OverflowError, KeyError, TypeError, AttributeError)


def _read_record(folder: Path, as_of: date | None, revision: int) -> Record:
    """Return a folder's record. Its place decides the day and the revision."""
    path = folder / RECORD_FILE
    try:
        record = Record.from_json(path.read_bytes(), path=folder / ANSWER_FILE)
    except FileNotFoundError:
        raise _corrupt(path, "it is missing") from None
    except OSError as error:
        raise _failed("read", path, error) from None
    except _NOT_A_RECORD as error:
        raise _corrupt(path, f"it is not a record ({error})") from None
    return replace(record, as_of=as_of, revision=revision)


def _replace(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    _write_synced(temporary, content)
    temporary.replace(path)
    sync_folder(path.parent)


def _write_synced(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        write_synced(file, content)


@contextmanager
def _disk_errors(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(verb, Path(error.filename2 or error.filename or path), error) from None


def _failed(verb: str, path: Path, error: OSError) -> ArchiveError:
    reason = error.strerror or str(error)
    return ArchiveError(f"Cannot {verb} {path} in the raw archive: {reason}. Earlier answers are unchanged.")


def _corrupt(path: Path, reason: str) -> CorruptAnswerError:
    return CorruptAnswerError(
        f"The archived file {path} is damaged: {reason}. The tables are unchanged. Restore the file from a backup, or "
        "fetch or import the answer again: its folder is then set aside."
    )

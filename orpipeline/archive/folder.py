"""The append-only archive of the API's answers as a folder, with one subfolder for each day and revision.

    raw/2026-10-06/r1/task_classifications.json.gz    the answer's bytes, gzipped
    raw/2026-10-06/r1/record.json                     sha256, fetch time, source, origin
    raw/undated/20261007T002003.123456Z-.../           answers without a readable `data.as_of`

A revision's folder is written under a temporary name, synced to disk and renamed. It is either complete or absent, and
an existing one never changes. You can read the archive with ordinary tools: `gzip -dc ... | jq`, or DuckDB's
`read_json('raw/*/r*/*.json.gz')`.

Revision numbers give the order in which answers were archived. The newest revision is the one fetched last, which can
have a smaller number: you can import an older answer later.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orpipeline.archive.records import MAX_ANSWER_BYTES, ArchiveError, CorruptAnswerError, Record, Stored
from orpipeline.clock import Clock, utc_now
from orpipeline.files import write_synced
from orpipeline.openrouter.answer import iso_date, parse_json, read_as_of

ANSWER_FILE = "task_classifications.json.gz"
RECORD_FILE = "record.json"
UNDATED = "undated"
_WRITING = ".writing-"
_ABANDONED_AFTER = timedelta(hours=1)  # writing an answer takes far less, so its process was killed
_REVISION = re.compile(r"r([1-9][0-9]*)")


class Archive:
    """The raw archive in the folder `root`.

    The first write creates the folder, readable by its owner only. Reading creates nothing. `clock` gives the time of
    an import whose fetch time is unknown.
    """

    def __init__(self, root: Path, *, clock: Clock = utc_now) -> None:
        self.root = root
        self._clock = clock
        self._swept = False

    def put(
        self, body: bytes, *, fetched_at: datetime | None, source: str, origin: str, same_content: bool = False
    ) -> Stored:
        """Archive an answer's bytes under its `data.as_of`, as the day's next revision.

        An answer that the archive already has is not stored again. It is compared with the revision that was the newest
        at `fetched_at` and with those fetched since: figures that change and change back become three revisions. With
        `fetched_at=None` (unknown) it is compared with all of the day's revisions.

        With `same_content`, as for imports, an answer with the same JSON in other bytes counts as the same, and
        damaged answers are not compared: importing an answer again replaces a damaged one.

        An answer without a readable `data.as_of` is stored under `undated`, once, as revision 0.

        Raises ArchiveError if the answer cannot be written. With `same_content`, raises CorruptAnswerError if one of
        the day's records is damaged.
        """
        as_of = read_as_of(body)
        sha256 = hashlib.sha256(body).hexdigest()
        at = fetched_at or self._clock()
        while True:
            if as_of is None:
                revision, same = 0, self._same_undated(sha256)
            else:
                numbers = list(self._revision_numbers(as_of))
                # You still have the file that you import, but an answer of the API exists only once: store it even
                # beside a damaged record.
                records = self._records(as_of, numbers, skip_damaged=not same_content)
                candidates = _newest_at_or_since(records, fetched_at)
                same = self._same(candidates, body, sha256, same_content=same_content)
                # If another process adds a revision after this listing, it takes this number. The write below then
                # fails, and the next round compares with that revision, too.
                revision = max(numbers, default=0) + 1
            if same is not None:
                return Stored(same, new=False)
            folder = self._place(as_of, revision, sha256, at)
            path = folder / ANSWER_FILE
            record = Record(as_of, revision, sha256, len(body), at, origin, source, path, fetched_at is not None)
            if self._write(folder, body, record):
                return Stored(record, new=True)

    def days(self) -> list[date]:
        """Return the archived days, oldest first."""
        days = [day for name in _folder_names(self.root) if (day := iso_date(name)) is not None]
        # A process that is killed before its rename can leave a day's folder empty.
        return sorted(day for day in days if any(self._revision_numbers(day)))

    def has(self, day: date) -> bool:
        """Return whether the archive has any revision of a day."""
        return any(self._revision_numbers(day))

    def revisions(self, day: date) -> list[Record]:
        """Return a day's records in the order of their fetch times, the newest last; empty for a missing day.

        Raises CorruptAnswerError if a record is damaged.
        """
        return self._records(day, self._revision_numbers(day))

    def latest(self, day: date) -> Record | None:
        """Return the record of a day's newest revision, or None for a missing day.

        Raises CorruptAnswerError if one of the day's records is damaged.
        """
        revisions = self.revisions(day)
        return revisions[-1] if revisions else None

    def folders(self) -> list[Path]:
        """Return the folder of each answer, undated answers last."""
        dated = [self.root / day.isoformat() for day in self.days()]
        revisions = [folder / f"r{number}" for folder in dated for number in _numbers_in(folder)]
        return [*revisions, *(self.root / UNDATED / name for name in _folder_names(self.root / UNDATED))]

    def record(self, folder: Path) -> Record:
        """Return the record in one of `folders`. Raises CorruptAnswerError if it is damaged."""
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

    def _same(self, records: Iterable[Record], body: bytes, sha256: str, *, same_content: bool) -> Record | None:
        if same_content:
            return next((record for record in records if self._has_content(record, body)), None)
        return next((record for record in records if record.sha256 == sha256), None)

    def _has_content(self, record: Record, body: bytes) -> bool:
        """Return whether a revision is undamaged and has the same JSON."""
        try:
            archived = self.read(record)
            return archived == body or bool(parse_json(archived) == parse_json(body))
        except (CorruptAnswerError, ValueError):
            return False

    def _same_undated(self, sha256: str) -> Record | None:
        undated = self.root / UNDATED
        for name in _folder_names(undated):
            if name.endswith(f"Z-{sha256[:16]}"):
                record = _read_record(undated / name, None, 0)
                if record.sha256 != sha256:
                    raise _corrupt(undated / name / RECORD_FILE, "its sha256 does not match its folder's name")
                return record
        return None

    def _place(self, as_of: date | None, revision: int, sha256: str, fetched_at: datetime) -> Path:
        if as_of is None:
            return self.root / UNDATED / f"{fetched_at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{sha256[:16]}"
        return self.root / as_of.isoformat() / f"r{revision}"

    def _write(self, folder: Path, body: bytes, record: Record) -> bool:
        """Write a revision's folder in one step; return False if another process has already written it."""
        with _disk_errors("write", self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True  # once for each Archive is enough
                self._sweep()
            # mkdtemp makes the folder readable by its owner only.
            temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.root))
            try:
                _write_synced(temporary / ANSWER_FILE, gzip.compress(body, compresslevel=6, mtime=0))
                _write_synced(temporary / RECORD_FILE, record.to_json())
                _sync_folder(temporary)
                folder.parent.mkdir(mode=0o700, exist_ok=True)
                try:
                    # Renaming to a folder that has files fails, so nothing is ever overwritten.
                    temporary.rename(folder)
                except OSError:
                    if not folder.is_dir():  # a file is in the way; the next attempt would fail, too
                        raise
                    return False
                _sync_folder(folder.parent)
                _sync_folder(self.root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return True

    def _sweep(self) -> None:
        """Remove incomplete folders that killed processes left an hour ago or longer.

        A leftover with a complete answer stays: it may be the day's only one.
        """
        for folder in self.root.glob(f"{_WRITING}*"):
            with suppress(OSError, ArchiveError):
                age = self._clock().timestamp() - folder.stat().st_mtime
                if age > _ABANDONED_AFTER.total_seconds() and not self._is_complete(folder):
                    shutil.rmtree(folder)

    def _is_complete(self, folder: Path) -> bool:
        if not ((folder / ANSWER_FILE).exists() and (folder / RECORD_FILE).exists()):
            return False
        try:
            self.read(_read_record(folder, None, 0))
        except CorruptAnswerError:
            return False
        return True

    def _records(self, day: date, numbers: Iterable[int], *, skip_damaged: bool = False) -> list[Record]:
        """Return some of a day's records, the newest last."""
        skipped = (CorruptAnswerError,) if skip_damaged else ()
        records = []
        for number in numbers:
            with suppress(*skipped):
                records.append(_read_record(self.root / day.isoformat() / f"r{number}", day, number))
        return sorted(records, key=lambda record: record.age)

    def _revision_numbers(self, day: date) -> Iterator[int]:
        return _numbers_in(self.root / day.isoformat())


def _newest_at_or_since(revisions: list[Record], fetched_at: datetime | None) -> list[Record]:
    """Return the revision that was the newest at a time, and those fetched since; all if the time is unknown."""
    if fetched_at is None:
        return revisions
    earlier = [r for r in revisions if not r.fetched_at_known or r.fetched_at < fetched_at]
    return revisions[max(len(earlier) - 1, 0) :]


def _numbers_in(folder: Path) -> Iterator[int]:
    for name in _folder_names(folder):
        if match := _REVISION.fullmatch(name):
            yield int(match[1])


def _folder_names(folder: Path) -> Iterator[str]:
    with _disk_errors("read", folder):
        if folder.is_dir():
            yield from sorted(path.name for path in folder.iterdir() if path.is_dir())


def _read_record(folder: Path, as_of: date | None, revision: int) -> Record:
    path = folder / RECORD_FILE
    try:
        return Record.from_json(path.read_bytes(), as_of=as_of, revision=revision, path=folder / ANSWER_FILE)
    except FileNotFoundError:
        raise _corrupt(path, "it is missing") from None
    except OSError as error:
        raise _failed("read", path, error) from None
    except (ValueError, OverflowError, KeyError, TypeError) as error:
        raise _corrupt(path, f"it is not a record ({error})") from None


def _write_synced(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        write_synced(file, content)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(verb, Path(error.filename or path), error) from None


def _failed(verb: str, path: Path, error: OSError) -> ArchiveError:
    reason = error.strerror or str(error)
    return ArchiveError(f"Cannot {verb} {path} in the raw archive: {reason}. Earlier answers are unchanged.")


def _corrupt(path: Path, reason: str) -> CorruptAnswerError:
    return CorruptAnswerError(
        f"The archived file {path} is damaged: {reason}. The tables are unchanged. Restore the file from a "
        "backup, or move its folder away, then fetch or import the answer again."
    )

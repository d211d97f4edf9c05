"""The append-only archive of the API's answers, one folder a day and revision.

    raw/2026-10-06/r1/task_classifications.json.gz    the answer's bytes, gzipped
    raw/2026-10-06/r1/record.json                     sha256, fetched at, source, origin
    raw/undated/20261007T002003.123456Z-.../           answers that no day can be told from

A revision's folder is written under a temporary name, synced to disk, and renamed: it is there whole or not
at all, and an existing one is never touched. Ordinary tools read it (`gzip -dc ... | jq`, or DuckDB's
`read_json('raw/*/r*/*.json.gz')`).

A revision's number says in which order the answers came into this archive. Which of them is the newest, their fetch
times say: an answer that is imported later may well be older.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orpipeline.clock import utc_now
from orpipeline.errors import OrpipelineError
from orpipeline.files import write_synced
from orpipeline.openrouter.answer import iso_date, parse_json, read_as_of
from orpipeline.text import encodable

ANSWER_FILE = "task_classifications.json.gz"
RECORD_FILE = "record.json"
UNDATED = "undated"
_WRITING = ".writing-"
_KILLED_AFTER = timedelta(hours=1)  # no process that lives takes so long to write an answer
_REVISION = re.compile(r"r([1-9][0-9]*)")
MAX_ANSWER_BYTES = 20_000_000  # twice what the client lets in; a damaged file cannot fill the memory


class ArchiveError(OrpipelineError):
    """The archive cannot be read or written."""


class CorruptAnswerError(ArchiveError):
    """An archived answer is not what was archived: its sha256 does not match, or a file is damaged."""


@dataclass(frozen=True)
class Record:
    """Where one archived answer came from."""

    as_of: date | None
    """The day that the answer states, or None for one kept aside."""
    revision: int
    """1 for the first answer that came into the archive for that day, the next number for each other one."""
    sha256: str
    """Of the answer's bytes, uncompressed, in hex."""
    size: int
    """The answer's length in bytes, uncompressed."""
    fetched_at: datetime
    """UTC. Where `fetched_at_known` is False, when it was imported."""
    origin: str
    """`api`, `import` or `demo`."""
    source: str
    """The URL that was asked, or the name of the file that was imported."""
    path: Path
    """The file that holds the bytes."""
    fetched_at_known: bool = True
    """False for an imported answer that nothing tells the fetch time of."""

    @property
    def age(self) -> tuple[bool, datetime, int]:
        """What a day's revisions are ordered by, the newest last.

        One whose fetch time nobody knows does not displace one of which it is known; among themselves, they are
        in the order in which they came.
        """
        known = self.fetched_at_known
        return known, self.fetched_at if known else datetime.min.replace(tzinfo=UTC), self.revision


@dataclass(frozen=True)
class Kept:
    """What `Archive.put` did."""

    record: Record
    new: bool
    """False where the archive had these bytes for that day already."""


class Archive:
    """The raw archive in the folder `root`, made at the first write, private to its user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept = False

    def put(
        self, body: bytes, *, fetched_at: datetime | None, source: str, origin: str, same_content: bool = False
    ) -> Kept:
        """Keep an answer's bytes for ever, under the `as_of` that they state.

        Nothing is added by the bytes of the revision that was newest when the answer was fetched, or of one fetched
        since: figures that changed and changed back are kept as what they are, three revisions. With `same_content`,
        the same JSON in other bytes adds nothing either, and a damaged answer does not count: an import mends it.
        Anything else becomes the next revision. An answer whose day cannot be told is kept aside under its fetch time,
        as revision 0 with `as_of` None. `fetched_at` is None where nothing tells it. Raises ArchiveError where the disk
        does not take the answer and, with `same_content`, CorruptAnswerError where a record of the day is damaged.
        """
        as_of = read_as_of(body)
        sha256 = hashlib.sha256(body).hexdigest()
        known_time = fetched_at is not None
        at = fetched_at or utc_now()
        while True:
            if as_of is None:
                revision, found = 0, self._kept_aside(sha256)
            else:
                numbers = list(self._revision_numbers(as_of))
                # What is imported, its owner still has; what the API answered is kept beside a damaged record too.
                since = self._since(self._records(as_of, numbers, whole_only=not same_content), fetched_at)
                same = (r for r in since if (self._says(r, body) if same_content else r.sha256 == sha256))
                found = next(same, None)
                # The number after those that were compared: one that came since has it, and is compared next.
                revision = max(numbers, default=0) + 1
            if found is not None:
                return Kept(found, new=False)
            folder = self._place(as_of, revision, sha256, at)
            record = Record(as_of, revision, sha256, len(body), at, origin, source, folder / ANSWER_FILE, known_time)
            if self._write(folder, body, record):
                return Kept(record, new=True)
            # Another process took that revision in the meantime: look again.

    def days(self) -> list[date]:
        """Return the days that the archive has, oldest first."""
        days = [day for name in self._names(self.root) if (day := iso_date(name)) is not None]
        # A process that was killed before its rename may have left a day's folder with nothing in it.
        return sorted(day for day in days if any(self._revision_numbers(day)))

    def has(self, day: date) -> bool:
        """Return whether the archive has any revision of a day."""
        return any(self._revision_numbers(day))

    def revisions(self, day: date) -> list[Record]:
        """Return a day's records, by the time of their fetch, oldest first; empty where the archive lacks the day."""
        return self._records(day, self._revision_numbers(day))

    def latest(self, day: date) -> Record | None:
        """Return a day's newest revision, or None where the archive lacks the day."""
        revisions = self.revisions(day)
        return revisions[-1] if revisions else None

    def folders(self) -> list[Path]:
        """Return every answer's folder, those kept aside last."""
        dated = [self.root / day.isoformat() for day in self.days()]
        revisions = [folder / f"r{number}" for folder in dated for number in self._numbers_in(folder)]
        return [*revisions, *(self.root / UNDATED / name for name in self._names(self.root / UNDATED))]

    def record(self, folder: Path) -> Record:
        """Return the record of one of `folders`. Raises CorruptAnswerError where it is none."""
        day = iso_date(folder.parent.name)
        return self._record(folder, day, int(folder.name.removeprefix("r")) if day else 0)

    def read(self, record: Record) -> bytes:
        """Return an archived answer's bytes. Raises CorruptAnswerError where they are not what was kept."""
        try:
            with gzip.open(record.path) as file:
                body = file.read(MAX_ANSWER_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _corrupt(record.path, f"it cannot be unpacked ({error})") from None
        except FileNotFoundError:
            raise _corrupt(record.path, "it is not there") from None
        except OSError as error:
            raise _failed("read", record.path, error) from None
        if hashlib.sha256(body).hexdigest() != record.sha256:
            raise _corrupt(record.path, "its sha256 is not the recorded one")
        return body

    @staticmethod
    def _since(revisions: list[Record], fetched_at: datetime | None) -> list[Record]:
        """Return the revision that was newest at a time, and those fetched since; all where the time is not known."""
        if fetched_at is None:
            return revisions
        earlier = [r for r in revisions if not r.fetched_at_known or r.fetched_at < fetched_at]
        return revisions[max(len(earlier) - 1, 0) :]

    def _says(self, record: Record, body: bytes) -> bool:
        """Say whether a revision is undamaged and holds the same JSON."""
        try:
            kept = self.read(record)
            return kept == body or bool(parse_json(kept) == parse_json(body))
        except (CorruptAnswerError, ValueError):
            return False

    def _kept_aside(self, sha256: str) -> Record | None:
        aside = self.root / UNDATED
        for name in self._names(aside):
            if name.endswith(f"Z-{sha256[:16]}"):
                record = self._record(aside / name, None, 0)
                if record.sha256 != sha256:
                    raise _corrupt(aside / name / RECORD_FILE, "its sha256 is not the one in its folder's name")
                return record
        return None

    def _place(self, as_of: date | None, revision: int, sha256: str, fetched_at: datetime) -> Path:
        """Return the folder that an answer gets."""
        if as_of is None:
            return self.root / UNDATED / f"{fetched_at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{sha256[:16]}"
        return self.root / as_of.isoformat() / f"r{revision}"

    def _write(self, folder: Path, body: bytes, record: Record) -> bool:
        """Write a revision's folder as one step; return False where another process was first."""
        with _disk_errors("write", self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True  # once is enough: what is left over now was left over then
                self._sweep()
            # mkdtemp makes the folder readable by its user alone.
            temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.root))
            try:
                _write_synced(temporary / ANSWER_FILE, gzip.compress(body, compresslevel=6, mtime=0))
                _write_synced(temporary / RECORD_FILE, _as_json(record).encode())
                _sync_folder(temporary)
                folder.parent.mkdir(mode=0o700, exist_ok=True)
                try:
                    # Onto a folder that holds files, a rename fails: nothing is ever overwritten.
                    temporary.rename(folder)
                except OSError:
                    if not folder.is_dir():  # a file in the way would be in the way for ever
                        raise
                    return False
                _sync_folder(folder.parent)
                _sync_folder(self.root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return True

    def _sweep(self) -> None:
        """Remove what killed processes left half written, an hour ago or longer.

        A leftover that holds a whole answer stays: it may be the only one of its day that there is.
        """
        for folder in self.root.glob(f"{_WRITING}*"):
            with suppress(OSError, ArchiveError):
                age = utc_now().timestamp() - folder.stat().st_mtime
                if age > _KILLED_AFTER.total_seconds() and not self._is_whole(folder):
                    shutil.rmtree(folder)

    def _is_whole(self, folder: Path) -> bool:
        if not ((folder / ANSWER_FILE).exists() and (folder / RECORD_FILE).exists()):
            return False
        try:
            self.read(self._record(folder, None, 0))
        except CorruptAnswerError:
            return False
        return True

    def _records(self, day: date, numbers: Iterable[int], *, whole_only: bool = False) -> list[Record]:
        """Return revisions of a day by their age; `whole_only` leaves out those whose record is damaged."""
        passed_over = (CorruptAnswerError,) if whole_only else ()
        records = []
        for number in numbers:
            with suppress(*passed_over):
                records.append(self._record(self.root / day.isoformat() / f"r{number}", day, number))
        return sorted(records, key=lambda record: record.age)

    def _revision_numbers(self, day: date) -> Iterator[int]:
        return self._numbers_in(self.root / day.isoformat())

    def _numbers_in(self, folder: Path) -> Iterator[int]:
        for name in self._names(folder):
            if match := _REVISION.fullmatch(name):
                yield int(match[1])

    def _names(self, folder: Path) -> Iterator[str]:
        with _disk_errors("read", folder):
            if folder.is_dir():
                yield from sorted(path.name for path in folder.iterdir() if path.is_dir())

    def _record(self, folder: Path, as_of: date | None, revision: int) -> Record:
        path = folder / RECORD_FILE
        try:
            fields = parse_json(path.read_bytes())
            return Record(
                as_of=as_of,
                revision=revision,
                sha256=str(fields["sha256"]),
                size=int(fields["bytes"]),
                fetched_at=datetime.fromisoformat(fields["fetched_at"]).astimezone(UTC),
                origin=str(fields["origin"]),
                source=encodable(str(fields["source"])),
                path=folder / ANSWER_FILE,
                fetched_at_known=bool(fields.get("fetched_at_known", True)),
            )
        except FileNotFoundError:
            raise _corrupt(path, "it is not there") from None
        except OSError as error:
            raise _failed("read", path, error) from None
        except (ValueError, OverflowError, KeyError, TypeError) as error:
            raise _corrupt(path, f"it is no record ({error})") from None


def _as_json(record: Record) -> str:
    fields = {
        "as_of": record.as_of.isoformat() if record.as_of else None,
        "revision": record.revision,
        "sha256": record.sha256,
        "bytes": record.size,
        "fetched_at": record.fetched_at.astimezone(UTC).isoformat(),
        "origin": record.origin,
        "source": record.source,
        "fetched_at_known": record.fetched_at_known,
    }
    return json.dumps(fields, indent=2) + "\n"


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
    return ArchiveError(f"The raw archive cannot {verb} {path}: {reason}. What it already has is unharmed.")


def _corrupt(path: Path, reason: str) -> CorruptAnswerError:
    return CorruptAnswerError(
        f"The archived file {path} is damaged: {reason}. The tables keep what they had. Restore the file from "
        "a backup, or move its folder away so that the answer can be fetched or imported again."
    )

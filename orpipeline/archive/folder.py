"""Keeping an archive's answers in a folder, with one subfolder for each day and revision.

    raw/2026-10-06/r1/task_classifications.json.gz    the answer's bytes, gzipped
    raw/2026-10-06/r1/record.json                     sha256, fetch time, source, origin

A revision's folder is written under a temporary name, synced to disk and renamed. It is either complete or absent, and
an intact one never changes. You can read the archive with ordinary tools: `gzip -dc ... | jq`, or DuckDB's
`read_json('raw/*/r*/*.json.gz')`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from functools import partial
from itertools import count
from pathlib import Path

from filelock import FileLock

from orpipeline.archive.records import ArchiveError, CorruptAnswerError, Record
from orpipeline.archive.storage import (
    ANSWER_FILE,
    DAMAGED,
    NOT_A_RECORD,
    RECORD_FILE,
    REVISION,
    SET_ASIDE,
    UNDATED,
    Entry,
    Place,
    corrupt,
    pack,
    read_record,
    unpack,
)
from orpipeline.files import sync_folder, write_synced
from orpipeline.openrouter.answer import iso_date

_log = logging.getLogger(__name__)

_WRITING = ".writing-"


class FolderStorage:
    """The answers in the folder `root`.

    The first write creates the folder, readable by its owner only. Reading creates nothing.
    """

    readers = 1  # from a disk, one thread is fastest
    writers = 8  # writing an answer is mostly waiting for the disk

    def __init__(self, root: Path) -> None:
        self.root = root

    def days(self) -> Iterator[date]:
        """Yield the archived days, oldest first. One is opened at a time."""
        # A process that is killed before its rename can leave a day's folder empty.
        return (day for day in self._day_folders() if self.has_any([day]))

    def has_any(self, days: Collection[date]) -> bool:
        """Return whether any of the days has a revision, intact or damaged."""
        entries = (record for day in days for _, record in self._entries(day))
        return any(isinstance(record, ArchiveError) or not record.is_misdated for record in entries)

    def entries(self, days: Collection[date] | None = None) -> Mapping[date, list[Entry] | ArchiveError]:
        """Return the revisions of these days, or of all, or why a day's folder cannot be read."""
        found: dict[date, list[Entry] | ArchiveError] = {}
        for day in self._day_folders() if days is None else days:
            try:
                found[day] = list(self._entries(day))
            except ArchiveError as error:
                found[day] = error
        return found

    def next_revision(self, day: date) -> tuple[int, Callable[[], list[Entry]]]:
        """Return the number of a day's next revision, and a function that returns the revisions it already has."""
        folder = self.root / day.isoformat()
        with _disk_errors("read", folder):
            # Of files and links, too: they are in the way.
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        taken = (pattern.fullmatch(name) for name in names for pattern in (REVISION, SET_ASIDE))
        number = max((int(match[1]) for match in taken if match), default=0) + 1
        return number, lambda: list(self._entries(day))

    def undated(self, ending: str) -> list[Record | ArchiveError]:
        """Return the undated answers whose folders' names have this ending."""
        undated = self.root / UNDATED
        return [_or_error(partial(_read_record, undated / name, None, 0)) for name in self._undated_names(ending)]

    def places(self) -> list[Place]:
        """Return the folder of each answer, undated answers last."""
        dated = [self.root / day.isoformat() for day in self._day_folders()]
        revisions = [folder / f"r{number}" for folder in dated for number in _numbers_in(folder)]
        return [*revisions, *(self.root / UNDATED / name for name in self._undated_names())]

    def record(self, place: Place) -> Record:
        """Return the record in one of `places`. Raises ArchiveError if it cannot be read."""
        folder = Path(place)
        day = iso_date(folder.parent.name)
        return _read_record(folder, day, int(folder.name.removeprefix("r")) if day else 0)

    def read(self, record: Record) -> bytes:
        """Return an answer's bytes. Raises CorruptAnswerError if their sha256 is not the recorded one."""
        path = Path(record.path)
        try:
            with path.open("rb") as file:
                return unpack(file, path, record.sha256)
        except FileNotFoundError:
            raise corrupt(path, "it is missing") from None
        except OSError as error:
            raise _failed("read", path, error) from None

    def answer_file(self, folder: str, name: str) -> Path:
        """Return where the answer of a revision is: the folder is a day or `undated`."""
        return self.root / folder / name / ANSWER_FILE

    def fit(self, record: Record) -> Record:
        """Return the record: a file has room for it."""
        return record

    def write(self, record: Record, body: bytes) -> bool:
        """Write a revision's folder in one step; return False if another process has already written it.

        If only the last step fails, the complete answer stays under its temporary name, as a leftover.
        """
        folder = Path(record.path).parent
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

    @contextmanager
    def repairing(self) -> Iterator[None]:
        """Let one process at a time repair the archive."""
        with _disk_errors("write", self.root), FileLock(self.root / ".repair.lock", mode=0o600):
            yield

    def restore(self, record: Record, body: bytes, at: datetime) -> str | None:
        """Replace an answer's damaged bytes, after the folder was copied. Return the copy's name, or None."""
        path = Path(record.path)
        with suppress(ArchiveError):
            self.read(record)
            return None  # another process has just restored it
        try:
            aside = _unused_name(path.parent, at)
            shutil.copytree(path.parent, aside, symlinks=True)
            _replace(path, pack(body))
        except OSError as error:
            _log.warning("Cannot restore the damaged answer %s: %s", path, error)
            return None
        return aside.name

    def set_aside(self, day: date, number: int, at: datetime) -> str | None:
        """Rename a damaged revision's folder, and return its new name."""
        folder = self.root / day.isoformat() / f"r{number}"
        aside = _unused_name(folder, at)
        with _disk_errors("write", self.root):
            folder.rename(aside)
        return aside.name

    def leftovers(self) -> list[Path]:
        """Return the folders of unfinished writes."""
        return [self.root / name for name in _folder_names(self.root) if name.startswith(_WRITING)]

    def complete(self, place: Place) -> None:
        """Do nothing: `put` archives the answer of a leftover, because its revision's number can be taken by now."""

    def leftover(self, place: Place) -> tuple[bytes, Record] | None:
        """Return the complete answer of an unfinished write, or None if it is incomplete.

        Raises ArchiveError if it cannot be read.
        """
        folder = Path(place)
        try:
            record = Record.from_json((folder / RECORD_FILE).read_bytes(), path=folder / ANSWER_FILE)
            return self.read(record), record
        except (FileNotFoundError, CorruptAnswerError, *NOT_A_RECORD):
            return None
        except OSError as error:
            raise _failed("read", folder, error) from None

    def remove_leftover(self, place: Place, before: datetime) -> None:
        """Remove an unfinished write that is older than `before`."""
        with suppress(OSError):  # its process may have renamed it
            if Path(place).stat().st_mtime < before.timestamp():
                shutil.rmtree(place)

    def copy_day(self, day: date, folder: Path) -> None:
        """Copy a day's folder."""
        if (self.root / day.isoformat()).is_dir():
            shutil.copytree(self.root / day.isoformat(), folder)

    def require_writable(self) -> None:
        """Do nothing: only the write itself shows whether a disk has the space."""

    def _write_aside(self, record: Record, body: bytes) -> Path:
        """Write a revision's folder under a temporary name. If that fails, nothing is left."""
        # mkdtemp makes the folder readable by its owner only.
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self.root))
        try:
            # The record comes first: a leftover with a complete answer has one, too.
            _write_synced(temporary / RECORD_FILE, record.to_json())
            _write_synced(temporary / ANSWER_FILE, pack(body))
            sync_folder(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return temporary

    def _day_folders(self) -> list[date]:
        return sorted(day for name in _folder_names(self.root) if (day := iso_date(name)) is not None)

    def _undated_names(self, ending: str = "") -> list[str]:
        return [name for name in _folder_names(self.root / UNDATED) if name.endswith(ending)]

    def _entries(self, day: date) -> Iterator[Entry]:
        """Yield each revision's number with its record, or with why that cannot be read."""
        folder = self.root / day.isoformat()
        for number in _numbers_in(folder):
            yield number, _or_error(partial(_read_record, folder / f"r{number}", day, number))


def _or_error(read: Callable[[], Record]) -> Record | ArchiveError:
    try:
        return read()
    except ArchiveError as error:
        return error


def _numbers_in(folder: Path) -> list[int]:
    """Return the numbers of a day's revisions, in order."""
    return sorted(int(match[1]) for name in _folder_names(folder) if (match := REVISION.fullmatch(name)))


def _folder_names(folder: Path) -> list[str]:
    with _disk_errors("read", folder):
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _read_record(folder: Path, as_of: date | None, revision: int) -> Record:
    path = folder / RECORD_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise corrupt(path, "it is missing") from None
    except OSError as error:
        raise _failed("read", path, error) from None
    return read_record(content, folder / ANSWER_FILE, as_of, revision)


def _unused_name(folder: Path, at: datetime) -> Path:
    """Return the path that a damaged revision's folder gets."""
    name = f"{DAMAGED}{folder.name}-{at:%Y%m%dT%H%M%S}"
    names = (folder.with_name(name if n == 1 else f"{name}-{n}") for n in count(1))
    return next(path for path in names if not path.exists())


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

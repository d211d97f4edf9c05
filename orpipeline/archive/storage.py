"""What an archive needs from the place where it keeps its answers, and the format of their files.

2026-10-06/r1/task_classifications.json.gz        the answer's bytes, gzipped
2026-10-06/r1/record.json                         sha256, fetch time, source, origin
2026-10-06/damaged-r1-20261008T002003/            a damaged revision, or what it was before it was restored
undated/20261007T002003.123456Z-.../              answers that belong to no day
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import IO, Protocol, TypeVar

from orpipeline.archive.records import MAX_ANSWER_BYTES, ArchiveError, CorruptAnswerError, Record, folder_of

ANSWER_FILE = "task_classifications.json.gz"
RECORD_FILE = "record.json"
UNDATED = "undated"
DAMAGED = "damaged-"
REVISION = re.compile(r"r([1-9][0-9]{0,8})")
SET_ASIDE = re.compile(rf"{DAMAGED}r([1-9][0-9]{{0,8}})-[0-9]{{8}}T.*")
"""Matches the name of a damaged revision's folder after it was set aside."""

Place = Path | str
"""A path on this machine, or a URL."""
Entry = tuple[int, Record | ArchiveError]
"""A revision's number, and its record or why that cannot be read."""

T = TypeVar("T")
R = TypeVar("R")


class Storage(Protocol):
    """Where an archive keeps its answers: a folder, or an object store.

    Each method may raise an error that concerns the whole storage: ArchiveError for a folder, StoreError for an object
    store. CorruptAnswerError is only raised or returned if it is certain that an answer is damaged.
    """

    readers: int
    """How many answers to read at once."""
    writers: int
    """How many answers to write at once."""

    @property
    def root(self) -> Place:
        """The archive's folder or URL."""

    def days(self) -> Iterator[date]:
        """Yield the archived days, oldest first."""

    def has_any(self, days: Collection[date]) -> bool:
        """Return whether any of the days has a revision, intact or damaged."""

    def entries(self, days: Collection[date] | None = None) -> Mapping[date, list[Entry] | ArchiveError]:
        """Return the revisions of these days, or of all, or why a day cannot be listed. Misdated ones are included."""

    def next_revision(self, day: date) -> tuple[int, Callable[[], list[Entry]]]:
        """Return the number of a day's next revision, and a function that returns the revisions it already has.

        The number of a damaged revision is not used again. A revision that appears after this call takes the number.
        """

    def undated(self, ending: str) -> list[Record | ArchiveError]:
        """Return the undated answers whose folders' names have this ending."""

    def places(self) -> list[Place]:
        """Return the folder or URL of each answer, undated answers last."""

    def record(self, place: Place) -> Record:
        """Return the record in one of `places`. Raises ArchiveError if it cannot be read."""

    def read(self, record: Record) -> bytes:
        """Return an answer's bytes. Raises CorruptAnswerError if their sha256 is not the recorded one."""

    def answer_file(self, folder: str, name: str) -> Place:
        """Return where the answer of a revision is: the folder is a day or `undated`."""

    def fit(self, record: Record) -> Record:
        """Return a record as the storage can keep it: its source can be too long."""

    def write(self, record: Record, body: bytes) -> bool:
        """Write an answer and its record once; return False if another answer has the same place."""

    def repairing(self) -> AbstractContextManager[None]:
        """Keep other repairs away, as far as the storage can."""

    def restore(self, record: Record, body: bytes, at: datetime) -> str | None:
        """Replace an answer's damaged bytes, after a copy was set aside. Return the copy's name.

        Returns None if the answer is intact now, or cannot be replaced.
        """

    def set_aside(self, day: date, number: int, at: datetime) -> str | None:
        """Set a damaged revision aside, and return its new name. Returns None if it is intact now, or gone."""

    def leftovers(self) -> Sequence[Place]:
        """Return the places of unfinished writes."""

    def complete(self, place: Place) -> Record | None:
        """Complete an unfinished write in its place, with the record it was to have. Return None if that fails."""

    def leftover(self, place: Place) -> tuple[bytes, Record] | None:
        """Return the complete answer of an unfinished write, or None if it is incomplete."""

    def remove_leftover(self, place: Place, before: datetime) -> None:
        """Remove an unfinished write that is older than `before`."""

    def copy_day(self, day: date, folder: Path) -> None:
        """Copy all that there is for a day into a folder on this machine. Raises OSError if that cannot be written."""

    def require_writable(self) -> None:
        """Raise an error if nothing can be written, where that can be found out in advance."""


def pack(body: bytes) -> bytes:
    """Return the content of an answer's file."""
    return gzip.compress(body, compresslevel=6, mtime=0)


def unpack(file: IO[bytes], path: Place, sha256: str) -> bytes:
    """Return the answer in a file. Raises CorruptAnswerError if it is not the one with this sha256."""
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            body = unpacked.read(MAX_ANSWER_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise corrupt(path, f"it cannot be unpacked ({error})") from None
    if hashlib.sha256(body).hexdigest() != sha256:
        raise corrupt(path, "its sha256 does not match the record")
    return body


def read_record(content: bytes, answer_file: Place, as_of: date | None, revision: int) -> Record:
    """Return the record in a file. Its place decides the day and the revision. Raises ArchiveError."""
    try:
        record = Record.from_json(content, path=answer_file)
    except NOT_A_RECORD as error:
        raise corrupt(f"{folder_of(answer_file)}/{RECORD_FILE}", f"it is not a record ({error})") from None
    return replace(record, as_of=as_of, revision=revision)


NOT_A_RECORD = (ValueError, OverflowError, KeyError, TypeError, AttributeError)
"""What `Record.from_json` raises for other content."""


def corrupt(path: Place, reason: str) -> CorruptAnswerError:
    """Return the error for a damaged file."""
    return CorruptAnswerError(
        f"The archived file {path} is damaged: {reason}. The tables are unchanged. Restore the file from a backup, or "
        "fetch or import the answer again: its folder is then set aside."
    )


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the function's results in the items' order; with several workers, it is called in that many threads."""
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as threads:
        yield from threads.map(function, items)  # after an error, calls that have not begun are cancelled

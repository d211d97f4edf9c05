"""What the archive records about each answer, and the errors that it raises."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

from orpipeline.clock import API_CLOCK_TOLERANCE
from orpipeline.errors import NextAttempt, OrpipelineError
from orpipeline.openrouter.answer import iso_date, parse_json
from orpipeline.text import encodable

MAX_ANSWER_BYTES = 20_000_000
"""The archive reads no more than this of an answer, twice the client's limit: a damaged file cannot fill memory."""
RECORD_VERSION = 2
"""The version of `record.json`. Version 1, that of orpipeline 0.1, has no field `version`."""
LONGEST_DELAY = timedelta(days=31)
"""How old the newest day that the API serves can be. It is yesterday, or a few days old if OpenRouter is late."""


class ArchiveError(OrpipelineError):
    """The archive cannot be read or written."""


class CorruptAnswerError(ArchiveError):
    """An archived answer or its record is damaged: a file is unreadable, or the sha256 does not match."""


class NewerRecordError(ArchiveError):
    """A newer version of orpipeline wrote a record, and this version cannot read it."""

    next_attempt = NextAttempt.NEEDS_PERSON


class FetchTime(IntEnum):
    """How a fetch time is known. A day's newest revision is the one fetched last among those with the most certain one.

    A fetch time without evidence therefore never displaces our own fetch.
    """

    UNKNOWN = 0
    """It is the time of the import."""
    STATED = 1
    """An imported file states it, without evidence."""
    RECORDED = 2
    """orpipeline fetched the answer, here or where the archive with its record was imported from."""


def could_be_served(as_of: date, at: datetime, *, oldest: timedelta | None = LONGEST_DELAY) -> bool:
    """Return whether the API could serve `as_of` as its newest day at a time (UTC): the day has ended, and recently.

    `oldest` is how long ago it may have ended, or None for any time. Source: "as_of ... yesterday in UTC".
    """
    age = (at + API_CLOCK_TOLERANCE).date() - as_of
    return age >= timedelta(days=1) and (oldest is None or age <= oldest)


def folder_of(path: Path | str) -> Path | str:
    """Return the folder of a file, or of an object's URL."""
    return path.parent if isinstance(path, Path) else path.rpartition("/")[0]


@dataclass(frozen=True)
class Record:
    """Where one archived answer came from."""

    as_of: date | None
    """The day in the answer's `data.as_of`, or None for an undated answer."""
    revision: int
    """The answer's number among the day's answers, in the order in which they were archived, from 1.

    0 for an undated answer."""
    sha256: str
    """Of the answer's bytes, uncompressed, in hex."""
    size: int
    """The answer's length in bytes, uncompressed."""
    fetched_at: datetime
    """UTC. The time of the import if it is unknown."""
    origin: str
    """`api`, `import` or `demo`."""
    source: str
    """The URL that was requested, or the name of the file that was imported."""
    path: Path | str
    """The file with the bytes, or its URL."""
    fetch_time: FetchTime = FetchTime.RECORDED
    """How `fetched_at` is known."""

    @property
    def folder(self) -> Path | str:
        """The folder of the file with the bytes, or its URL."""
        return folder_of(self.path)

    @property
    def age(self) -> tuple[FetchTime, datetime, int]:
        """The sort key of a day's revisions, the newest last.

        The most certain fetch time comes first, then the latest. Revisions with unknown fetch times sort in the order
        in which they were archived.
        """
        known = self.fetch_time is not FetchTime.UNKNOWN
        return self.fetch_time, self.fetched_at if known else datetime.min.replace(tzinfo=UTC), self.revision

    @property
    def is_misdated(self) -> bool:
        """Whether the API could not have had this day when the answer was fetched."""
        if self.as_of is None:
            return False
        oldest = LONGEST_DELAY if self.fetch_time is FetchTime.RECORDED else None
        return not could_be_served(self.as_of, self.fetched_at, oldest=oldest)

    def to_json(self) -> bytes:
        """Return the content of the record's file."""
        fields = {
            "version": RECORD_VERSION,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "revision": self.revision,
            "sha256": self.sha256,
            "bytes": self.size,
            "fetched_at": self.fetched_at.astimezone(UTC).isoformat(),
            "fetch_time": self.fetch_time.name.lower(),
            "origin": self.origin,
            "source": self.source,
        }
        return f"{json.dumps(fields, indent=2)}\n".encode()

    @classmethod
    def from_json(cls, content: bytes, *, path: Path | str) -> Record:
        """Return the record in a file.

        Raises NewerRecordError for the record of a newer version, and ValueError, OverflowError, KeyError, TypeError or
        AttributeError if it is not a record.
        """
        fields = parse_json(content)
        version = int(fields.get("version", 1))
        if version > RECORD_VERSION:
            raise NewerRecordError(
                f"{folder_of(path)} was archived by a newer version of orpipeline (record version {version}; this "
                f"version reads up to {RECORD_VERSION}). It is unchanged. Upgrade orpipeline."
            )
        fetched_at = datetime.fromisoformat(fields["fetched_at"]).astimezone(UTC)
        if not 2000 <= fetched_at.year < 9999:
            raise ValueError(f"it was not fetched in the year {fetched_at.year}")
        origin = str(fields["origin"])
        return cls(
            as_of=iso_date(fields["as_of"]),
            revision=int(fields["revision"]),
            sha256=str(fields["sha256"]),
            size=int(fields["bytes"]),
            fetched_at=fetched_at,
            origin=origin,
            source=encodable(str(fields["source"])),
            path=path,
            fetch_time=FetchTime[fields["fetch_time"].upper()] if version > 1 else _fetch_time_of_0_1(fields, origin),
        )


def _fetch_time_of_0_1(fields: dict[str, Any], origin: str) -> FetchTime:
    if not fields.get("fetched_at_known", True):
        return FetchTime.UNKNOWN
    return FetchTime.STATED if origin == "import" else FetchTime.RECORDED


@dataclass(frozen=True)
class ArchivedDay:
    """What the archive has for one day."""

    revisions: list[Record] = field(default_factory=list)
    """The records in the order of their `age`, the newest last."""
    damaged: dict[int, ArchiveError] = field(default_factory=dict)
    """Revisions whose record cannot be read, by number, with the reason."""
    misdated: list[Record] = field(default_factory=list)
    """Answers that the API could not have had at their fetch time. They do not belong to the day."""

    @property
    def newest(self) -> Record | None:
        """The record of the newest revision, or None without one."""
        return self.revisions[-1] if self.revisions else None

    def damaged_after(self, record: Record | None) -> ArchiveError | None:
        """Return why the newest revision with an unreadable record is damaged, if it is newer than `record`.

        Without its record, a revision's number decides which one is newer.
        """
        newest = max(self.damaged, default=0)
        return self.damaged[newest] if newest > (record.revision if record else 0) else None


@dataclass(frozen=True)
class Stored:
    """The result of archiving an answer."""

    record: Record
    new: bool
    """False if the archive already had the answer; `record` is then the existing one."""

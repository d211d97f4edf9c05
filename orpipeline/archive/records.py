"""What the archive records about each answer, and the errors that it raises."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.answer import parse_json
from orpipeline.text import encodable

MAX_ANSWER_BYTES = 20_000_000
"""The archive reads no more than this of an answer, twice the client's limit: a damaged file cannot fill memory."""


class ArchiveError(OrpipelineError):
    """The archive cannot be read or written."""


class CorruptAnswerError(ArchiveError):
    """An archived answer or its record is damaged: a file is unreadable, or the sha256 does not match."""


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
    """UTC. The time of the import if `fetched_at_known` is False."""
    origin: str
    """`api`, `import` or `demo`."""
    source: str
    """The URL that was requested, or the name of the file that was imported."""
    path: Path
    """The file with the bytes."""
    fetched_at_known: bool = True
    """False for an imported answer whose fetch time is unknown."""

    @property
    def age(self) -> tuple[bool, datetime, int]:
        """The sort key of a day's revisions, the newest last.

        The newest revision is the one fetched last. An answer with an unknown fetch time never replaces an answer with
        a known one; several with unknown fetch times sort in the order in which they were archived.
        """
        known = self.fetched_at_known
        return known, self.fetched_at if known else datetime.min.replace(tzinfo=UTC), self.revision

    def to_json(self) -> bytes:
        """Return the content of the record's file."""
        fields = {
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "revision": self.revision,
            "sha256": self.sha256,
            "bytes": self.size,
            "fetched_at": self.fetched_at.astimezone(UTC).isoformat(),
            "origin": self.origin,
            "source": self.source,
            "fetched_at_known": self.fetched_at_known,
        }
        return f"{json.dumps(fields, indent=2)}\n".encode()

    @classmethod
    def from_json(cls, content: bytes, *, as_of: date | None, revision: int, path: Path) -> Record:
        """Return the record in a file. The file's place decides the day and revision.

        Raises ValueError, OverflowError, KeyError or TypeError if it is not a record.
        """
        fields = parse_json(content)
        return cls(
            as_of=as_of,
            revision=revision,
            sha256=str(fields["sha256"]),
            size=int(fields["bytes"]),
            fetched_at=datetime.fromisoformat(fields["fetched_at"]).astimezone(UTC),
            origin=str(fields["origin"]),
            source=encodable(str(fields["source"])),
            path=path,
            fetched_at_known=bool(fields.get("fetched_at_known", True)),
        )


@dataclass(frozen=True)
class Stored:
    """The result of archiving an answer."""

    record: Record
    new: bool
    """False if the archive already had the answer; `record` is then the existing one."""

"""The append-only archive of the API's responses: one file each, in a folder or an object store.

    task_classifications/2026-10-06/20261007T002003Z-3e39cf29aaa678ff-api.json.gz

A name has the dataset, the day, the fetch time, the first 16 digits of the sha256 of the bytes, and the origin. So a
file is complete or absent by itself, and nothing beside it describes it. gzip's own header has the source: the URL, or
the file that was imported (`file` shows it). Files are created and never changed. You can read the archive with
ordinary tools: `gzip -dc ... | jq`, or DuckDB's `read_json('raw/*/*/*.json.gz')`.

A response whose `as_of` the API could not have had belongs to no day and is kept in the folder `undated`. A damaged
file, whose bytes do not have the sha256 of its name, is renamed (`.damaged`) when an intact one of its day arrives.
"""

from __future__ import annotations

import hashlib
import logging
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orpipeline.clock import LONGEST_DELAY, Clock, could_be_served, utc_now
from orpipeline.errors import DamagedResponseError, StoreError
from orpipeline.openrouter.response import CLASSIFICATIONS, Dataset, iso_date, parse_json
from orpipeline.stores import Store
from orpipeline.text import encodable

UNDATED = "undated"
DAMAGED = ".damaged"
MAX_RESPONSE_BYTES = 20_000_000
"""The archive reads no more than this of a response, twice the client's limit: a damaged file cannot fill memory."""
DIGITS = 16
"""How many hex digits of the sha256 a file's name has."""
NAME = re.compile(r"(unknown|[0-9]{8}T[0-9]{6}Z)-([0-9a-f]{16})-([a-z]+)\.json\.gz")
_TIME = "%Y%m%dT%H%M%SZ"
_ABANDONED_AFTER = timedelta(hours=1)  # writing a response takes far less, so its process was killed
_READERS = 24  # from an object store; from a disk, one thread is fastest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Revision:
    """One archived response, as its file's name describes it."""

    name: str
    """The file's name in the archive, with its folders."""
    path: Path | str
    """The file's path, or its URL."""
    as_of: date | None
    """The day, or None for a response that belongs to none."""
    number: int
    """Its place among the day's responses, in the order of fetch times, from 1; 0 for an undated one."""
    digest: str
    """The first 16 hex digits of the sha256 of its bytes."""
    fetched_at: datetime | None
    """UTC, in whole seconds. None if an import did not know it."""
    origin: str
    """`api`, `import` or `demo`."""

    @property
    def age(self) -> tuple[datetime, str]:
        """The sort key of a day's responses, the newest last. An unknown fetch time never comes after a known one."""
        return self.fetched_at or datetime.min.replace(tzinfo=UTC), self.name


@dataclass(frozen=True)
class Content:
    """What an archived file holds: the response's bytes, and the URL or file that they came from."""

    body: bytes
    source: str

    @property
    def sha256(self) -> str:
        """The sha256 of the bytes, in hex."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class Stored:
    """The result of archiving a response."""

    revision: Revision
    new: bool
    """False if the archive already had the response; `revision` is then the existing one."""


class Archive:
    """The responses of a dataset at `place`: a folder, or the URL of an object store. All methods raise StoreError."""

    def __init__(self, place: Path | str, *, dataset: Dataset = CLASSIFICATIONS, clock: Clock = utc_now) -> None:
        self.place = place
        self._dataset = dataset
        self._store = Store(place, setting="ORPIPELINE_ARCHIVE", private=True)
        self._clock = clock

    def of(self, dataset: Dataset) -> Archive:
        """Return the archive of another dataset at the same place."""
        return Archive(self.place, dataset=dataset, clock=self._clock)

    def put(
        self, body: bytes, *, fetched_at: datetime | None, source: str, origin: str, same_content: bool = False
    ) -> Stored:
        """Archive a response's bytes under the day that it is of. The same bytes from two processes make one revision.

        A response is not stored if the one fetched before it or the one fetched after it has the same bytes: figures
        that change and change back become three revisions. With `fetched_at=None` (unknown) it is compared with all of
        the day's. With `same_content`, as for imports, the same JSON in other bytes counts as the same response. The
        day's damaged files are then renamed, and never deleted.

        A response that names no day, or one that the API could not have had at `fetched_at`, is stored as `put_undated`
        does.
        """
        as_of = self._dataset.day_of(body, fetched_at)
        oldest = None if origin == "import" else LONGEST_DELAY
        if as_of is None or (fetched_at is not None and not could_be_served(as_of, fetched_at, oldest=oldest)):
            return self.put_undated(body, fetched_at=fetched_at or self._clock(), source=source, origin=origin)
        new = self._revision(as_of, body, fetched_at, origin)
        day = self._files([as_of]).get(as_of, [])
        contents = {one: self._read_or_error(one) for one in day}  # one that cannot be read now may be intact
        intact = {one: content for one, content in contents.items() if isinstance(content, Content)}
        damaged = [one for one, error in contents.items() if isinstance(error, DamagedResponseError)]
        same = next((one for one in _neighbours(intact, new) if _is_same(intact[one].body, body, same_content)), None)
        for one in damaged:  # one can have the new file's name
            self._set_aside(one)
        is_new = same is None and self._store.create(new.name, pack(body, source))
        return Stored(self._numbered(as_of, same or new), new=is_new)

    def put_undated(self, body: bytes, *, fetched_at: datetime, source: str, origin: str) -> Stored:
        """Archive a response that belongs to no day, whatever its `data.as_of` is: once, in `undated`."""
        new = self._revision(None, body, fetched_at, origin)
        for one in self._listed(UNDATED):
            if one.digest == new.digest and self._intact(one) is not None:
                return Stored(one, new=False)
        return Stored(new, new=self._store.create(new.name, pack(body, source)))

    def days(self) -> list[date]:
        """Return the archived days, oldest first."""
        return sorted(self._files(None))

    def revisions(self, day: date) -> list[Revision]:
        """Return a day's revisions, the newest last; empty for a missing day. Nothing is read: one may be damaged."""
        return self.revisions_of([day])[day]

    def revisions_of(self, days: Collection[date]) -> dict[date, list[Revision]]:
        """Return the revisions of each of these days. With many days, the whole dataset is listed once."""
        files = self._files(days)
        return {day: _numbered(files.get(day, [])) for day in days}

    def latest(self, day: date) -> Revision | None:
        """Return a day's newest revision, or None for a missing day."""
        return next(reversed(self.revisions(day)), None)

    def is_current(self, day: date) -> bool:
        """Return whether a day's newest revision is intact."""
        newest = self.latest(day)
        return newest is not None and self._intact(newest) is not None

    def all(self) -> list[Revision]:
        """Return every response, undated ones last."""
        dated = [one for of_day in self._files(None).values() for one in of_day]
        return [*dated, *self._listed(UNDATED)]

    def read(self, revision: Revision) -> Content:
        """Return what a file holds. Raises DamagedResponseError if its bytes do not have the sha256 of its name."""
        packed = self._store.read(revision.name)
        if packed is None:
            raise _damaged(revision, "it is missing")
        try:
            unpacking = zlib.decompressobj(wbits=31)
            content = Content(unpacking.decompress(packed, MAX_RESPONSE_BYTES), _source(packed))
            if not unpacking.eof or unpacking.unused_data:
                raise ValueError("it is incomplete, or has more than one response")
        except (zlib.error, ValueError) as error:
            raise _damaged(revision, f"it cannot be unpacked ({error})") from None
        if not content.sha256.startswith(revision.digest):
            raise _damaged(revision, "its bytes do not have the sha256 of its name")
        return content

    def read_all(self, revisions: Iterable[Revision]) -> Iterator[Content | StoreError]:
        """Yield what many files hold in the revisions' order, or why one cannot be read."""
        with ThreadPoolExecutor(1 if self._store.is_local else _READERS) as threads:
            yield from threads.map(self._read_or_error, revisions)

    def sweep(self) -> None:
        """Remove the incomplete files that killed writers left an hour ago or longer."""
        self._store.sweep(f"{self._dataset.name}/*/*.json.gz", before=(self._clock() - _ABANDONED_AFTER).timestamp())

    def deliver(self, to: Archive) -> list[Revision]:
        """Move every response to another archive, as `put` archives it, and return their revisions there.

        A damaged file stays, and a warning names it. Raises StoreError if the other archive cannot be written; what it
        does not have by then stays.
        """
        delivered = []
        for one in self.all():
            try:
                content = self.read(one)
            except DamagedResponseError as error:
                if self._store.read(one.name) is not None:  # not if another process has just delivered it
                    _log.warning("A response that waits for the archive is damaged, and stays there. %s", error)
                continue
            if one.as_of is not None:
                stored = to.put(content.body, fetched_at=one.fetched_at, source=content.source, origin=one.origin)
            else:
                at = one.fetched_at or self._clock()
                stored = to.put_undated(content.body, fetched_at=at, source=content.source, origin=one.origin)
            self._store.remove(one.name)
            delivered.append(stored.revision)
        return delivered

    def _revision(self, as_of: date | None, body: bytes, fetched_at: datetime | None, origin: str) -> Revision:
        at = fetched_at.astimezone(UTC).replace(microsecond=0) if fetched_at else None
        digest = hashlib.sha256(body).hexdigest()[:DIGITS]
        file = f"{at.strftime(_TIME) if at else 'unknown'}-{digest}-{origin}.json.gz"
        name = f"{self._dataset.name}/{as_of or UNDATED}/{file}"
        return Revision(name, self._store.address(name), as_of, 0, digest, at, origin)

    def _files(self, days: Collection[date] | None) -> dict[date, list[Revision]]:
        """Return the files of some days, or of all, oldest day first, each day's in the order of their age."""
        if days is not None and (len(days) == 1 or (self._store.is_local and len(days) < 1000)):
            listed = [one for day in days for one in self._listed(str(day))]
        else:
            listed = [one for one in self._listed("") if days is None or one.as_of in days]
        found: dict[date, list[Revision]] = {}
        for one in sorted(listed, key=lambda one: one.name):
            if one.as_of is not None:
                found.setdefault(one.as_of, []).append(one)
        return {day: sorted(of_day, key=lambda one: one.age) for day, of_day in found.items()}

    def _listed(self, folder: str) -> list[Revision]:
        return [
            replace(one, path=self._store.address(name))
            for name in self._store.entries(f"{self._dataset.name}/{folder}".rstrip("/"))
            if (one := named(name)) is not None and (folder == UNDATED) == (one.as_of is None)
        ]

    def _numbered(self, as_of: date, revision: Revision) -> Revision:
        """Return a revision with its number. Of the same bytes archived at once, the first is the revision."""
        numbered = self.revisions(as_of)
        return next(
            (one for one in numbered if one.name == revision.name),
            next((one for one in numbered if one.digest == revision.digest), revision),
        )

    def _intact(self, revision: Revision) -> Content | None:
        """Return what a file holds, or None if it is damaged."""
        try:
            return self.read(revision)
        except DamagedResponseError:
            return None

    def _set_aside(self, revision: Revision) -> None:
        if self._store.move(revision.name, f"{revision.name}{DAMAGED}"):
            _log.warning("Renamed the damaged file %s: it now ends with %s", revision.path, DAMAGED)
        elif self._intact(revision) is None:  # there is one already
            self._store.move(revision.name, f"{revision.name}{DAMAGED}-{self._clock():{_TIME}}")

    def _read_or_error(self, revision: Revision) -> Content | StoreError:
        try:
            return self.read(revision)
        except StoreError as error:
            return error


def named(name: str) -> Revision | None:
    """Return the revision that the last two parts of a file's name describe, or None if they do not describe one."""
    folder, _, file = name.rpartition("/")
    folder = folder.rpartition("/")[2]
    match, as_of = NAME.fullmatch(file), iso_date(folder)
    if match is None or (as_of is None and folder != UNDATED):
        return None
    time, digest, origin = match.groups()
    try:
        at = None if time == "unknown" else datetime.strptime(time, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Revision(name, name, as_of, 0, digest, at, origin)


def pack(body: bytes, source: str) -> bytes:
    """Return the content of a response's file: gzip, with its source in place of a file name."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + encodable(source).encode().replace(b"\0", b"") + b"\0"
    trailer = struct.pack("<LL", zlib.crc32(body), len(body) & 0xFFFFFFFF)
    return header + compressor.compress(body) + compressor.flush() + trailer


def _source(packed: bytes) -> str:
    """Return the name in gzip's header. Raises ValueError if it has none."""
    if packed[:4] != b"\x1f\x8b\x08\x08":
        raise ValueError("not a file of this archive")
    return encodable(packed[10 : packed.index(b"\0", 10)].decode(errors="backslashreplace"))


def _neighbours(day: Mapping[Revision, Content], new: Revision) -> list[Revision]:
    """Return the day's responses fetched just before and just after a new one; all if its fetch time is unknown.

    A response with a known fetch time is not compared with those without one: it says more.
    """
    if new.fetched_at is None:
        return list(day)
    known = [one for one in day if one.fetched_at is not None]
    before = [one for one in known if one.age <= new.age]
    return [*before[-1:], *known[len(before) : len(before) + 1]]


def _numbered(files: Iterable[Revision]) -> list[Revision]:
    """Return a day's revisions with their numbers.

    Of files in a row with the same bytes, the first one with a known fetch time counts.
    """
    revisions: list[Revision] = []
    for one in files:
        if not revisions or revisions[-1].digest != one.digest:
            revisions.append(replace(one, number=len(revisions) + 1))
        elif revisions[-1].fetched_at is None:
            revisions[-1] = replace(one, number=len(revisions))
    return revisions


def _is_same(archived: bytes, body: bytes, same_content: bool) -> bool:
    if archived == body:
        return True
    try:
        return same_content and bool(parse_json(archived) == parse_json(body))
    except ValueError:
        return False


def _damaged(revision: Revision, reason: str) -> DamagedResponseError:
    return DamagedResponseError(
        f"The archived file {revision.path} is damaged: {reason}. The tables are unchanged. Restore the file from a "
        "backup, or fetch or import the response again: the file is then renamed."
    )

"""An archive's answers in an object store: Amazon S3 and compatible servers, Google Cloud Storage or Azure.

    s3://bucket/prefix/2026-10-06/r1/task_classifications.json.gz
    s3://bucket/prefix/2026-10-06/r1/record.json

Objects are created only if they do not exist (a conditional put), so no writer overwrites another's. The answer is
written before its record, and a revision exists when its record exists. The answer's metadata has the record, too: if
a writer is interrupted between the two, any other process completes the revision with exactly the same record.

A day counts as archived if it has a record, whose content is not read for that: `put` stores no misdated answer below
a day. To move an archive of version 0.1 into an object store, import it.

Only S3 was tested, with a server on loopback. No request was ever sent to `gs://` or `az://`.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from orpipeline.archive.records import MAX_ANSWER_BYTES, ArchiveError, CorruptAnswerError, Record, folder_of
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
    in_order,
    pack,
    read_record,
    unpack,
)
from orpipeline.openrouter.answer import iso_date
from orpipeline.stores import StoreUnreachableError, open_store, require_writable, store_errors

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_log = logging.getLogger(__name__)

SETTING = "ORPIPELINE_ARCHIVE"
_RECORD_ATTRIBUTE = "orpipeline_record"  # a name that is valid in all stores: Azure allows no hyphen
_WRITER_ATTRIBUTE = "orpipeline_writer"  # different for each write
_MAX_ATTRIBUTE_BYTES = 1_800  # S3 allows 2 KB of metadata for an object, names included
_MAX_RECORD_BYTES = 100_000
_SHORTENED = "..."
_CLAIMED = b"This damaged answer is being set aside.\n"
_QUICK_SECONDS = 3.0
_MAX_CACHED = 50_000
_records: dict[tuple[str, str], Record] = {}
"""Records that were read, by URL and ETag. A record's object never changes."""


class ObjectStorage:
    """The answers below a URL of an object store."""

    readers = 24  # each transfer is mostly waiting for the store
    writers = 24

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")

    def days(self) -> Iterator[date]:
        """Yield the archived days, oldest first. One list of the whole archive."""
        return iter(sorted(self._numbers(self._list())))

    def has_any(self, days: Collection[date]) -> bool:
        """Return whether any of the days has a record."""
        return not self._numbers(self._list_days(days)).keys().isdisjoint(days)

    def entries(self, days: Collection[date] | None = None) -> Mapping[date, list[Entry] | ArchiveError]:
        """Return the revisions of these days, or of all. Records that are not known yet are read at once."""
        listed = self._list() if days is None else self._list_days(days)
        numbers = self._numbers(listed)
        wanted = [
            (day, number) for day in (sorted(numbers) if days is None else days) for number in numbers.get(day, ())
        ]
        found: dict[date, list[Entry] | ArchiveError] = {day: [] for day in (sorted(numbers) if days is None else days)}
        read = in_order(lambda revision: self._entry(*revision, listed), wanted, self.readers if wanted[1:] else 1)
        for (day, _), entry in zip(wanted, read, strict=True):
            of_day = found[day]
            if isinstance(of_day, list):
                of_day.append(entry)
        return found

    def next_revision(self, day: date) -> tuple[int, Callable[[], list[Entry]]]:
        """Return the number of a day's next revision, and a function that returns the revisions it already has.

        An answer without a record, of another writer or one that was interrupted, is completed first.
        """
        listed = self._list(day.isoformat())
        for key in _without_record(listed):
            if self._completed(key) is not None:
                listed[f"{_folder(key)}/{RECORD_FILE}"] = {**listed[key], "e_tag": None}
        names = {key.split("/")[1] for key in listed}
        taken = (pattern.fullmatch(name) for name in names for pattern in (REVISION, SET_ASIDE))
        number = max((int(match[1]) for match in taken if match), default=0) + 1
        numbers = self._numbers(listed).get(day, [])
        return number, lambda: [self._entry(day, n, listed) for n in numbers]

    def undated(self, ending: str) -> list[Record | ArchiveError]:
        """Return the undated answers whose names have this ending. Those without a record are completed first."""
        found: list[Record | ArchiveError] = []
        listed = self._list(UNDATED)
        for folder in sorted({_folder(key) for key in listed if _is_revision(key)}):
            if not folder.endswith(ending):
                continue
            try:
                if f"{folder}/{RECORD_FILE}" not in listed:
                    self._completed(f"{folder}/{ANSWER_FILE}")
                found.append(self.record(self._url(folder)))
            except ArchiveError as error:
                found.append(error)
        return found

    def places(self) -> list[Place]:
        """Return the URL of each revision, undated answers last."""
        listed = self._list()
        dated = [f"{day}/r{number}" for day, numbers in sorted(self._numbers(listed).items()) for number in numbers]
        undated = sorted(_folder(key) for key in listed if key.startswith(f"{UNDATED}/") and _is_record(key))
        return [self._url(folder) for folder in (*dated, *undated)]

    def record(self, place: Place) -> Record:
        """Return the record in one of `places`. Raises ArchiveError if it cannot be read."""
        folder = self._key(place)
        day, name = iso_date(folder.split("/")[0]), folder.split("/")[-1]
        return self._read_record(folder, day, int(name.removeprefix("r")) if day else 0)

    def read(self, record: Record) -> bytes:
        """Return an answer's bytes. Raises CorruptAnswerError if their sha256 is not the recorded one."""
        content = self._get(self._key(record.path), MAX_ANSWER_BYTES)[0]
        return unpack(io.BytesIO(content), record.path, record.sha256)

    def answer_file(self, folder: str, name: str) -> str:
        """Return the URL of a revision's answer: the folder is a day or `undated`."""
        return self._url(f"{folder}/{name}/{ANSWER_FILE}")

    def fit(self, record: Record) -> Record:
        """Return the record with a source that fits into an object's metadata."""
        return replace(record, source=json.loads(_attribute(record))["source"])

    def write(self, record: Record, body: bytes) -> bool:
        """Create the answer, then its record; return False if the place has another answer."""
        key, content, about, writer = self._key(record.path), pack(body), _attribute(record), uuid4().hex
        if not self._create(key, content, {_RECORD_ATTRIBUTE: about, _WRITER_ATTRIBUTE: writer}):
            # Of another writer, or ours: the response to an earlier attempt can be lost.
            there, attributes, _ = self._get(key, MAX_ANSWER_BYTES)
            if there != content or attributes.get(_WRITER_ATTRIBUTE) != writer:
                return False
        self._create(f"{_folder(key)}/{RECORD_FILE}", _record_file(about))
        return True

    def repairing(self) -> nullcontext[None]:
        """Do nothing: no lock spans machines. Each step of a repair has a condition instead."""
        return nullcontext()

    def restore(self, record: Record, body: bytes, at: datetime) -> str | None:
        """Replace an answer's damaged bytes, after they were copied. Return the copy's name, or None."""
        from obstore.exceptions import PreconditionError

        key = self._key(record.path)
        content, e_tag = self._get_raw(key)
        if content == _CLAIMED or self._is_intact(content, record):
            return None
        aside = self._copy_aside(_folder(key), content, at)
        attributes = {_RECORD_ATTRIBUTE: _attribute(record)}
        if content is None:
            return aside if self._create(key, pack(body), attributes) else None
        try:
            self._update(key, pack(body), e_tag, attributes)
        except (PreconditionError, FileNotFoundError):  # another process has just restored it or set it aside
            return None
        return aside

    def set_aside(self, day: date, number: int, at: datetime) -> str | None:
        """Copy a damaged revision, claim it, then delete it. Return the copy's name.

        After the claim, which replaces exactly the damaged bytes, no other process restores the answer. If this one is
        interrupted before it has deleted the revision, the next repair does.
        """
        from obstore.exceptions import PreconditionError

        folder = f"{day}/r{number}"
        key = f"{folder}/{ANSWER_FILE}"
        content, e_tag = self._get_raw(key)
        with suppress(ArchiveError):
            if self._is_intact(content, self._read_record(folder, day, number)):
                return None
        aside = self._copy_aside(folder, content, at)
        if content is None:
            self._create(key, _CLAIMED)
        elif content != _CLAIMED:
            try:
                self._update(key, _CLAIMED, e_tag, {})
            except (PreconditionError, FileNotFoundError):
                return None
        self._delete(key)
        self._delete(f"{folder}/{RECORD_FILE}")
        return aside

    def leftovers(self) -> list[str]:
        """Return the URLs of answers without a record."""
        return [self._url(key) for key in _without_record(self._list())]

    def complete(self, place: Place) -> Record | None:
        """Write the record of an answer that has none, from the answer's metadata.

        Returns the record, or None if the answer has no usable metadata, or another process was faster.
        """
        completed = self._completed(self._key(place))
        return completed[0] if completed and completed[1] else None

    def leftover(self, place: Place) -> tuple[bytes, Record] | None:
        """Return an answer and the record in its metadata, or None if they do not belong together."""
        found = self._unfinished(self._key(place))
        return found[:2] if found else None

    def remove_leftover(self, place: Place, before: datetime) -> None:
        """Do nothing: an answer that cannot be completed stays, and takes its number."""

    def copy_day(self, day: date, folder: Path) -> None:
        """Download all objects of a day."""
        for key in self._list(day.isoformat()):
            path = folder.joinpath(*key.split("/")[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._get_raw(key)[0] or b"")

    def require_writable(self) -> None:
        """Write a small object. Raises StoreError if that is impossible."""
        require_writable(self.root, setting=SETTING)

    def _completed(self, key: str) -> tuple[Record, bool] | None:
        """Write a missing record, and return it, and whether it was still missing."""
        found = self._unfinished(key)
        return (found[1], self._create(f"{_folder(key)}/{RECORD_FILE}", _record_file(found[2]))) if found else None

    def _unfinished(self, key: str) -> tuple[bytes, Record, str] | None:
        """Return an answer, and the record in its metadata as a value and as text."""
        folder, name = _folder(key).split("/")
        day = iso_date(folder)
        try:
            content, attributes, _ = self._get(key, MAX_ANSWER_BYTES)
            text = attributes[_RECORD_ATTRIBUTE]
            record = Record.from_json(text.encode(), path=self._url(key))
            if (record.as_of, record.revision) != (day, int(name.removeprefix("r")) if day else 0):
                return None  # a copy of another revision
            return unpack(io.BytesIO(content), record.path, record.sha256), record, text
        except (CorruptAnswerError, *NOT_A_RECORD):
            return None

    def _url(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _key(self, place: Place) -> str:
        return str(place).removeprefix(f"{self.root}/")

    @cached_property
    def _store(self) -> ObjectStore:
        return open_store(self.root, setting=SETTING)

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        _ = self._store  # raises the error if obstore is not installed
        with store_errors(verb, self.root, setting=SETTING):
            yield

    def _list(self, folder: str | None = None) -> dict[str, ObjectMeta]:
        """Return the objects below a folder by key. A request returns up to 1,000."""
        import obstore

        with self._errors("list"):
            return {one["path"]: one for one in obstore.list(self._store, folder).collect()}

    def _list_days(self, days: Collection[date]) -> dict[str, ObjectMeta]:
        """Return the objects of some days; with many days, those of all days: that takes fewer requests."""
        return self._list(next(iter(days)).isoformat()) if len(days) == 1 else self._list() if days else {}

    def _numbers(self, listed: Mapping[str, ObjectMeta]) -> dict[date, list[int]]:
        """Return the numbers of each day's revisions that have a record, in order."""
        found: dict[date, list[int]] = {}
        for key in listed:
            match key.split("/"):
                case [folder, name, file] if file == RECORD_FILE:
                    day, revision = iso_date(folder), REVISION.fullmatch(name)
                    if day and revision:
                        found.setdefault(day, []).append(int(revision[1]))
        return {day: sorted(numbers) for day, numbers in found.items()}

    def _entry(self, day: date, number: int, listed: Mapping[str, ObjectMeta]) -> Entry:
        folder = f"{day}/r{number}"
        try:
            return number, self._read_record(folder, day, number, listed[f"{folder}/{RECORD_FILE}"]["e_tag"])
        except ArchiveError as error:
            return number, error

    def _read_record(self, folder: str, day: date | None, number: int, e_tag: str | None = None) -> Record:
        """Return a record, from the cache if an ETag is given and known."""
        place = self._url(folder)
        if e_tag and (known := _records.get((place, e_tag))):
            return known
        content, _, read_e_tag = self._get(f"{folder}/{RECORD_FILE}", _MAX_RECORD_BYTES)
        record = read_record(content, f"{place}/{ANSWER_FILE}", day, number)
        if read_e_tag and len(_records) < _MAX_CACHED:
            _records[place, read_e_tag] = record
        return record

    def _is_intact(self, content: bytes | None, record: Record) -> bool:
        try:
            return content is not None and unpack(io.BytesIO(content), record.path, record.sha256) is not None
        except CorruptAnswerError:
            return False

    def _get(self, key: str, limit: int) -> tuple[bytes, dict[str, str], str | None]:
        """Return an object's content, metadata and ETag. Raises CorruptAnswerError if it is missing or too large."""
        import obstore

        try:
            with self._errors("read"):
                found = obstore.get(self._store, key)
                if found.meta["size"] > limit:
                    raise corrupt(self._url(key), f"it has {found.meta['size']:,} bytes")
                return bytes(found.bytes()), {str(k): v for k, v in found.attributes.items()}, found.meta["e_tag"]
        except FileNotFoundError:
            raise corrupt(self._url(key), "it is missing") from None

    def _get_raw(self, key: str) -> tuple[bytes | None, str | None]:
        """Return an object's content, and its ETag; None for both if it does not exist.

        Raises ArchiveError if it is so large that it cannot be anything that an archive writes.
        """
        import obstore

        try:
            with self._errors("read"):
                found = obstore.get(self._store, key)
                if found.meta["size"] > 2 * MAX_ANSWER_BYTES:
                    raise ArchiveError(
                        f"{self._url(key)} has {found.meta['size']:,} bytes, more than any answer. Move it away."
                    )
                return bytes(found.bytes()), found.meta["e_tag"]
        except FileNotFoundError:
            return None, None

    def _create(self, key: str, content: bytes, attributes: dict[str, str] | None = None) -> bool:
        """Create an object; return False if it exists."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        began = monotonic()
        for attempt in count(1):
            try:
                with self._errors("write"):
                    obstore.put(
                        self._store, key, content, mode="create", attributes=attributes or {}, use_multipart=False
                    )
            except AlreadyExistsError:
                return False
            except StoreUnreachableError:
                # obstore does not repeat a request whose response was lost. Repeating a creation is safe.
                if attempt == 2 or monotonic() - began > _QUICK_SECONDS:
                    raise
            else:
                return True
        raise AssertionError("unreachable")

    def _update(self, key: str, content: bytes, e_tag: str | None, attributes: dict[str, str]) -> None:
        """Replace an object if it still has this ETag. Raises obstore's PreconditionError if it does not."""
        import obstore

        with self._errors("write"):
            obstore.put(self._store, key, content, mode={"e_tag": e_tag}, attributes=attributes, use_multipart=False)

    def _delete(self, key: str) -> None:
        import obstore

        with suppress(FileNotFoundError), self._errors("write"):
            obstore.delete(self._store, key)

    def _copy_aside(self, folder: str, answer: bytes | None, at: datetime) -> str:
        """Copy a damaged revision, with this answer, to an unused name, and return it."""
        day, name = folder.split("/")
        contents = {ANSWER_FILE: answer, RECORD_FILE: self._get_raw(f"{folder}/{RECORD_FILE}")[0]}
        copies = {file: content for file, content in contents.items() if content is not None and content != _CLAIMED}
        for n in count(1):
            aside = f"{DAMAGED}{name}-{at:%Y%m%dT%H%M%S}" + (f"-{n}" if n > 1 else "")
            if all(self._create_same(f"{day}/{aside}/{file}", content) for file, content in copies.items()):
                return aside
        raise AssertionError("unreachable")

    def _create_same(self, key: str, content: bytes) -> bool:
        """Create an object; return False if it exists with other content."""
        return self._create(key, content) or self._get_raw(key)[0] == content


def _folder(key: str) -> str:
    return str(folder_of(key))


def _is_record(key: str) -> bool:
    return key.endswith(f"/{RECORD_FILE}")


def _without_record(listed: Mapping[str, ObjectMeta]) -> list[str]:
    """Return the keys of revisions' answers that have no record."""
    return [
        key
        for key in listed
        if key.endswith(f"/{ANSWER_FILE}") and _is_revision(key) and f"{_folder(key)}/{RECORD_FILE}" not in listed
    ]


def _is_revision(key: str) -> bool:
    folder, *names = key.split("/")
    if len(names) != 2:
        return False
    return folder == UNDATED or (iso_date(folder) is not None and REVISION.fullmatch(names[0]) is not None)


def _attribute(record: Record) -> str:
    """Return a record as metadata: JSON in ASCII on one line. A source that is too long for it loses its beginning."""
    fields = json.loads(record.to_json())
    text = json.dumps(fields)
    source = str(fields["source"])
    while len(text) > _MAX_ATTRIBUTE_BYTES and source:
        source = source[len(source) // 4 + 1 :]
        text = json.dumps({**fields, "source": f"{_SHORTENED}{source}"})
    return text


def _record_file(attribute: str) -> bytes:
    """Return the content of the record's file, from the record in an answer's metadata."""
    return f"{json.dumps(json.loads(attribute), indent=2)}\n".encode()

"""Importing responses that others archived into the archive.

Imports use bounded memory, however many responses there are. An interrupted import leaves only complete responses, and
the next import continues it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from orpipeline.archive import Archive
from orpipeline.catalogue import CATALOGUE
from orpipeline.catalogue.rows import catalogue_rows
from orpipeline.clock import LONGEST_DELAY, could_be_served, missing_days, newest_completed_day
from orpipeline.contracts.findings import broken_rules, rejected_days
from orpipeline.contracts.frames import parse
from orpipeline.contracts.validation import validate
from orpipeline.errors import DamagedResponseError, PartlyImportedError, SettingsError
from orpipeline.importing.files import TIME_IN_NAME, ResponseFile, read_responses
from orpipeline.importing.responses import FoundResponse, Reading, Rejected, is_catalogue
from orpipeline.openrouter.response import read_as_of
from orpipeline.settings import DEFAULT_START_DATE

_BYTES_AT_ONCE = 6_000_000  # of responses that are parsed and validated together: about 200, in about 100 MB of memory
_MAX_REJECTED = 100  # of one file
_SHOWN = 3
_WRITERS_TO_FOLDER, _WRITERS_TO_OBJECT_STORE = 8, 24  # threads, which wait for the disk or the network


@dataclass
class Imported:
    """The outcome of an import. A day is listed once for each of its responses."""

    new: list[date] = field(default_factory=list)
    """Days that the archive did not have before."""
    same: list[date] = field(default_factory=list)
    """Days whose response the archive already had."""
    restated: list[date] = field(default_factory=list)
    """Days that the archive had with other content; the import added a revision."""
    catalogues: list[date] = field(default_factory=list)
    """Days whose model catalogue the archive did not have before."""
    rejected: list[Rejected] = field(default_factory=list)
    """Files, or parts of them, that were not imported."""

    @property
    def days(self) -> set[date]:
        """The days of all valid responses."""
        return {*self.new, *self.same, *self.restated}

    def raise_for_rejected(self, *, dry_run: bool = False) -> None:
        """Raise PartlyImportedError if anything was rejected."""
        if self.rejected:
            count, same = len(self.new) + len(self.restated), len(self.same)
            others = f"{'Would import' if dry_run else 'Imported'}: {count}; already archived: {same}."
            shown = "; ".join(f"{one.source}: {one.reason}" for one in self.rejected[:_SHOWN])
            more = f"; and {len(self.rejected) - _SHOWN} more" if len(self.rejected) > _SHOWN else ""
            raise PartlyImportedError(
                f"Rejected: {len(self.rejected)}. {others} {shown}{more}",
                [(one.source, one.reason) for one in self.rejected],
            )


class _Dated(NamedTuple):
    """A found response with its day and, if known, its fetch time."""

    day: date
    fetched_at: datetime | None
    found: FoundResponse


def import_files(
    archive: Archive,
    files: Iterable[ResponseFile],
    *,
    first: date,
    newest: date,
    dry_run: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Archive each valid response in the files under its own `as_of`.

    Responses of days after `newest` are rejected, and so are those that break the contracts. A day before `first`, the
    first partition, is rejected only before `DEFAULT_START_DATE`: tables need no partition. `on_progress` is called
    with each file's size once it is read. `dry_run` changes nothing and returns what an import would do. Raises
    StoreError if a response cannot be written; responses archived before stay.
    """
    imported, first = Imported(), min(first, DEFAULT_START_DATE)
    known = set(archive.days())
    found = _read_files(files, imported, on_progress)
    of_days = _without_catalogues(archive, found, newest, imported, dry_run=dry_run)
    dated = (one for response in of_days if (one := _dated(response, first, newest, imported)) is not None)
    writers = _WRITERS_TO_FOLDER if isinstance(archive.place, Path) else _WRITERS_TO_OBJECT_STORE
    with tempfile.TemporaryDirectory(prefix="orpipeline_") as folder, ThreadPoolExecutor(writers) as threads:
        target = Archive(Path(folder)) if dry_run else archive
        for batch in _batches(dated):
            by_day = _valid(batch, imported)
            if dry_run:
                _copy(archive, target, by_day)
            for day, stored in zip(by_day, threads.map(partial(_put, target), by_day.values()), strict=True):
                for is_new in stored:
                    days = imported.same if not is_new else imported.restated if day in known else imported.new
                    days.append(day)
                    known.add(day)
    return imported


def still_missing(archive: Archive, imported: Imported) -> list[date]:
    """Return the days between the first and last imported day that are still missing from the archive."""
    return sorted(set(missing_days(imported.days)) - set(archive.days()))


def _put(archive: Archive, responses: Sequence[_Dated]) -> list[bool]:
    """Archive one day's responses; return for each whether it is new."""
    return [
        archive.put(found.body, fetched_at=fetched_at, source=found.source, origin=found.origin, same_content=True).new
        for _, fetched_at, found in responses
    ]


def _copy(archive: Archive, target: Archive, days: Collection[date]) -> None:
    """Copy what an archive has for some days, without the damaged responses, which an import renames."""
    for one in chain.from_iterable(archive.revisions_of(days).values()):
        with suppress(DamagedResponseError):
            content = archive.read(one)
            target.put(content.body, fetched_at=one.fetched_at, source=content.source, origin=one.origin)


def _read_files(
    files: Iterable[ResponseFile], imported: Imported, on_progress: Callable[[int], None]
) -> Iterator[FoundResponse]:
    reading, found = Reading(), 0
    for file in files:
        rejected_before = len(imported.rejected)
        try:
            for item in read_responses(file, reading):
                if isinstance(item, FoundResponse):
                    found += 1
                    yield item
                else:
                    imported.rejected.append(item)
                if len(imported.rejected) - rejected_before >= _MAX_REJECTED:
                    reason = f"{_MAX_REJECTED:,} of its parts were rejected; the rest of it is not read"
                    imported.rejected.append(Rejected(file.name, reason))
                    break
        except SettingsError as error:
            imported.rejected.append(Rejected(file.name, str(error)))
            return
        on_progress(file.size)
    if not found and not imported.rejected:
        imported.rejected.append(Rejected("the given folders", "they have no file that may hold responses"))


def _without_catalogues(
    archive: Archive, found: Iterable[FoundResponse], newest: date, imported: Imported, *, dry_run: bool
) -> Iterator[FoundResponse]:
    """Archive the model catalogues among the responses, and yield the others.

    A catalogue belongs to the day that had just ended when it was fetched, so it needs a stated time or one in its
    file's name.
    """
    for one in found:
        if not is_catalogue(one.body):
            yield one
            continue
        fetched_at = one.fetched_at or (one.saved_at if TIME_IN_NAME.search(one.source) else None)
        day = newest_completed_day(fetched_at) if fetched_at else None
        if day is None or day > newest:
            why = "a model catalogue needs the time when it was fetched, in its file's name or beside it"
            imported.rejected.append(Rejected(one.source, why))
            continue
        findings = catalogue_rows(day, one.body)[1]
        if rejected_days(findings):
            imported.rejected.append(Rejected(one.source, broken_rules(day, findings)))
            continue
        catalogues = archive.of(CATALOGUE)
        is_new = not catalogues.revisions(day)
        if not dry_run:
            is_new = catalogues.put(one.body, fetched_at=fetched_at, source=one.source, origin=one.origin).new
        imported.catalogues += [day] if is_new else []


def _dated(found: FoundResponse, first: date, newest: date, imported: Imported) -> _Dated | None:
    """Return the response with its day and its fetch time if known, or None if it is rejected because of its day.

    The fetch time is the one that is stated. Otherwise it is the time when the file was saved, if that is on the day
    after `day`, the only one on which the API serves it. A stated time in the future counts as unknown: with it, the
    response would always stay the newest revision.
    """
    day, fetched_at, saved_at = read_as_of(found.body), found.fetched_at, found.saved_at
    if fetched_at is None and saved_at and newest_completed_day(saved_at) == day:
        fetched_at = saved_at
    elif fetched_at and newest_completed_day(fetched_at) > newest:
        fetched_at = None
    oldest = None if found.origin == "import" else LONGEST_DELAY
    if day is None:
        reason = "it has no valid day in `data.as_of`"
    elif day > newest:
        reason = f"{day} is not over yet in UTC"
    elif day < first:
        reason = f"{day} is before {first}; set ORPIPELINE_START_DATE to an earlier day"
    elif fetched_at and not could_be_served(day, fetched_at, oldest=oldest):
        reason = f"the API could not have had {day} at {fetched_at:%Y-%m-%d %H:%M:%S} UTC, its fetch time"
    else:
        return _Dated(day, fetched_at, found)
    imported.rejected.append(Rejected(found.source, reason))
    return None


def _batches(responses: Iterable[_Dated]) -> Iterator[list[_Dated]]:
    """Yield as many responses as are parsed and validated at once."""
    batch: list[_Dated] = []
    size = 0
    for one in responses:
        batch.append(one)
        size += len(one.found.body)
        if size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _valid(batch: Iterable[_Dated], imported: Imported) -> Mapping[date, Sequence[_Dated]]:
    """Return the responses that meet the contracts, by day, in the order to archive them; reject the others.

    The oldest one is first. One without a fetch time is last: it adds nothing if another one has the same figures.
    """
    by_day: dict[date, list[_Dated]] = {}
    valid: dict[date, list[_Dated]] = {}
    for one in sorted(batch, key=lambda one: (one.day, one.fetched_at or datetime.max.replace(tzinfo=UTC))):
        by_day.setdefault(one.day, []).append(one)
    for at_most_one_a_day in zip_longest(*by_day.values()):
        responses = [one for one in at_most_one_a_day if one is not None]
        findings = validate(parse((one.day, one.found.body) for one in responses))
        invalid = rejected_days(findings)
        for one in responses:
            if one.day in invalid:
                imported.rejected.append(Rejected(one.found.source, broken_rules(one.day, findings)))
            else:
                valid.setdefault(one.day, []).append(one)
    return valid

"""Fetching: call the API and archive its answer. Does not use Dagster, tables or contracts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError, Record, Stored
from orpipeline.archive.spool import deliver, mark_used, waiting, was_used
from orpipeline.clock import newest_completed_day
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.answer import read_as_of
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import UnreadableAnswerError
from orpipeline.stores import StoreError

_log = logging.getLogger(__name__)


class Fetch(Enum):
    """When to call the API. The run config takes the members' names."""

    auto = "auto"
    """Only for the newest completed UTC day, and only if the archive has no intact answer for it."""
    always = "always"
    """In any case; the answer is archived under its own `as_of`."""
    never = "never"
    """Not at all: use the archive alone."""


class DayNotAvailableError(OrpipelineError):
    """A day's answer is not archived, and the API does not serve it yet, or no longer serves it."""


def capture(
    client: Client, archive: Archive, days: Sequence[date], fetch: Fetch, now: datetime, *, spool: Archive | None = None
) -> Record | None:
    """Call the API if `fetch` requires it, and archive the answer before any other step.

    A complete answer that a killed process left is archived first, and so is what waits in the `spool`, an archive in
    a folder on this machine. Returns the answer's record, or None if the API was not called. Raises the client's
    errors, ArchiveError or StoreError if the answer cannot be written, and DayNotAvailableError if the answer names no
    day, or one that the API could not have had. Such an answer, one that is not readable, and one that had to be
    altered to remove the API key are archived as undated.

    With a `spool`, an answer that the archive does not take waits there, and the error names its place. If an object
    store fails before the API is called, but was used from here before, the newest day is fetched once and waits, too:
    the API serves it for one day only. Then the store's error is raised. If the store was never used from here, its
    settings are probably wrong: its error is raised, and the API is not called. A folder that could not take an answer,
    which still waits, counts as used before.
    """
    keep = _Keep(archive, spool)
    newest_day = newest_completed_day(now)
    try:
        refused = keep.deliver()
        archive.adopt()
        is_missing = newest_day in days and not archive.is_current(newest_day)
        if fetch is Fetch.never or (fetch is Fetch.auto and not is_missing):
            return None
        if fetch is Fetch.auto and newest_day in refused:
            raise refused[newest_day]
        keep.require_writable()
    except (ArchiveError, StoreError) as error:
        is_wanted = fetch is Fetch.always or (fetch is Fetch.auto and newest_day in days)
        if spool is None or not is_wanted or not _worked_before(archive, spool):
            raise
        raise _waiting(error, _fetched_during_outage(client, spool, newest_day, now, error)) from error
    return _fetch(client, keep, now)


def _worked_before(archive: Archive, spool: Archive) -> bool:
    """Return whether an archive that fails now is one that was used before, so its settings were right."""
    return bool(waiting(spool)) or was_used(spool, archive.root)


def _fetch(client: Client, keep: _Keep, now: datetime) -> Record:
    """Call the API, keep its answer, and return its record."""
    try:
        answer = client.fetch()
    except UnreadableAnswerError as error:
        body = error.body
        undated = keep.put(lambda to: to.put_undated(body, fetched_at=now, source=client.url, origin="api"))
        raise UnreadableAnswerError(f"{error} It is archived as {undated.path}.", body=body) from None
    record = keep.put(
        lambda to: to.put(answer.body, fetched_at=answer.fetched_at, source=answer.url, origin=answer.origin)
    )
    if record.as_of is None:
        named = read_as_of(answer.body)
        what = f"{named} as its day, which it cannot have had" if named else "no day (`data.as_of`)"
        raise DayNotAvailableError(
            f"The API's answer names {what}, so it belongs to no partition. It is archived as {record.path}. "
            "Try again later."
        )
    return record


def _fetched_during_outage(
    client: Client, spool: Archive, newest_day: date, now: datetime, outage: OrpipelineError
) -> Record:
    """Return the record of the newest day's answer in the spool, and fetch it if it is not there yet."""
    record = spool.latest(newest_day)
    if record is not None and spool.is_current(newest_day):
        return record
    _log.warning("%s The newest day is fetched in any case, and waits in %s.", outage, spool.root)
    return _fetch(client, _Keep(spool, None), now)


class _Keep:
    """Where an answer is kept: the archive, and the spool while the archive does not take it."""

    def __init__(self, archive: Archive, spool: Archive | None) -> None:
        self._archive, self._spool = archive, spool
        self._is_remote = not isinstance(archive.root, Path)

    def deliver(self) -> dict[date | None, ArchiveError]:
        """Archive what waits in the spool. Return why a day's answer still waits."""
        delivered = deliver(self._spool, self._archive) if self._spool is not None else {}
        return {record.as_of: outcome for record, outcome in delivered.items() if isinstance(outcome, ArchiveError)}

    def require_writable(self) -> None:
        """Raise StoreError if an object store cannot be written, unless it could be used from here before."""
        if not self._is_remote or (self._spool and was_used(self._spool, self._archive.root)):
            return
        self._archive.require_writable()
        if self._spool:
            mark_used(self._spool, self._archive.root)

    def put(self, put: Callable[[Archive], Stored]) -> Record:
        """Keep an answer, and return its record in the archive. Raises the archive's error with where it waits."""
        if self._spool is None:
            return put(self._archive).record
        if self._is_remote:
            # A transfer takes time, in which this process can end. On the disk, the answer is safe in milliseconds.
            return self._put_through(put, self._spool)
        try:
            return put(self._archive).record
        except ArchiveError as error:
            raise _waiting(error, _kept(put, self._spool)) from error

    def _put_through(self, put: Callable[[Archive], Stored], spool: Archive) -> Record:
        kept = _kept(put, spool)
        if kept is None:
            return put(self._archive).record
        try:
            delivered = deliver(spool, self._archive)
        except OrpipelineError as error:
            raise _waiting(error, kept) from error
        outcome = delivered.get(kept)
        if isinstance(outcome, ArchiveError):
            raise _waiting(outcome, kept) from outcome
        # Another process can have delivered it. Then the archive has it, and finds it again.
        return outcome.record if outcome else put(self._archive).record


def _kept(put: Callable[[Archive], Stored], spool: Archive) -> Record | None:
    """Return the record of an answer in the spool, or None if it cannot be written there either."""
    try:
        return put(spool).record
    except ArchiveError as error:
        _log.warning("The answer cannot be kept in the spool: %s", error)
        return None


def _waiting(error: OrpipelineError, record: Record | None) -> OrpipelineError:
    """Return the error with where the answer waits."""
    if record is None:
        return error
    what = f"The answer for {record.as_of}" if record.as_of else "The answer"
    return type(error)(f"{error} {what} waits in {record.path}; the next run archives it.")

"""Fetching a day: call the API, and archive its response. Imports neither polars nor the warehouse."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from enum import Enum

from orpipeline.archive import Archive, Revision
from orpipeline.clock import newest_completed_day
from orpipeline.errors import DayNotAvailableError, StoreError, UnreadableResponseError
from orpipeline.openrouter.client import Client


class Fetch(Enum):
    """When to call the API. The run config takes the members' names."""

    auto = "auto"
    """Only for the newest completed UTC day, and only if the archive has no intact response for it."""
    always = "always"
    """In any case; the response is archived under its own `as_of`."""
    never = "never"
    """Not at all: use the archive alone."""


def capture(
    client: Client,
    archive: Archive,
    days: Collection[date],
    fetch: Fetch,
    now: datetime,
    *,
    spool: Archive | None = None,
) -> Revision | None:
    """Call the API if `fetch` requires it, and archive the response before any other step.

    Returns its revision, or None if the API was not called. Raises the client's errors, StoreError if the response
    cannot be written, and DayNotAvailableError if it names no day, or one that the API could not have had. Such a
    response, one that is not readable, and one that had to be altered to remove the API key are archived as undated.

    With a `spool`, an archive in a folder on this machine, a response is written there first, because a transfer to an
    object store takes time in which this process can end. What the archive does not take waits there, the next call
    delivers it, and the error names its place. The newest day is fetched even if the archive cannot be read: the API
    serves it for one day only.
    """
    newest_day = newest_completed_day(now)
    outage: StoreError | None = None
    try:
        if spool is not None:
            spool.deliver(archive)
        archive.sweep()
        is_missing = newest_day in days and not archive.is_current(newest_day)
    except StoreError as error:
        if spool is None or fetch is Fetch.never or newest_day not in days:
            raise
        outage, is_missing = error, not spool.is_current(newest_day)
    revision, unreadable = None, None
    if fetch is Fetch.always or (fetch is Fetch.auto and is_missing):
        revision, unreadable = _fetch(client, archive if spool is None else spool, now)
        if spool is not None and outage is None:
            try:
                revision = _delivered(spool, archive, revision)
            except StoreError as error:
                outage = error
    if outage is not None:
        kept = (revision or spool.latest(newest_day)) if spool else None
        waits = f" The response waits in {kept.path}; the next run archives it." if kept else ""
        raise StoreError(f"{outage}{waits}", next_attempt=outage.next_attempt) from outage
    if revision is not None and unreadable is not None:
        raise UnreadableResponseError(f"{unreadable} It is archived as {revision.path}.", body=unreadable.body)
    if revision is not None and revision.as_of is None:
        raise DayNotAvailableError(
            "The API's response names no day, or one that it cannot have had, so it belongs to no partition. "
            f"It is archived as {revision.path}. Try again later."
        )
    return revision


def _fetch(client: Client, to: Archive, now: datetime) -> tuple[Revision, UnreadableResponseError | None]:
    """Call the API, archive its response, and return its revision, and the error if it is not readable."""
    try:
        response = client.fetch()
    except UnreadableResponseError as error:
        if not error.body:
            raise
        return to.put_undated(error.body, fetched_at=now, source=client.url, origin="api").revision, error
    at = response.fetched_at
    return to.put(response.body, fetched_at=at, source=response.url, origin=response.origin).revision, None


def _delivered(spool: Archive, archive: Archive, kept: Revision) -> Revision:
    delivered = {one.name: one for one in spool.deliver(archive)}
    of_day = archive.revisions(kept.as_of) if kept.as_of else []
    return next((one for one in reversed(of_day) if one.digest == kept.digest), delivered.get(kept.name, kept))

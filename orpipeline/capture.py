"""Fetching: call the API and archive its answer. Needs no Dagster, no tables and no contracts, and imports none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import Enum

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import Record
from orpipeline.clock import newest_completed_day
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.answer import read_as_of
from orpipeline.openrouter.client import Client
from orpipeline.openrouter.errors import UnreadableAnswerError


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


def capture(client: Client, archive: Archive, days: Sequence[date], fetch: Fetch, now: datetime) -> Record | None:
    """Call the API if `fetch` requires it, and archive the answer before any other step.

    A complete answer that a killed process left is archived first. Returns the answer's record, or None if the API was
    not called. Raises the client's errors, ArchiveError if the answer cannot be written, and DayNotAvailableError if
    the answer names no day, or one that the API could not have had. Such an answer, one that is not readable, and one
    that had to be altered to remove the API key are archived as undated.
    """
    archive.adopt()
    newest_day = newest_completed_day(now)
    is_missing = newest_day in days and not archive.is_current(newest_day)
    if fetch is Fetch.never or (fetch is Fetch.auto and not is_missing):
        return None
    try:
        answer = client.fetch()
    except UnreadableAnswerError as error:
        undated = archive.put_undated(error.body, fetched_at=now, source=client.url, origin="api").record
        raise UnreadableAnswerError(f"{error} It is archived as {undated.path}.", body=error.body) from None
    record = archive.put(answer.body, fetched_at=answer.fetched_at, source=answer.url, origin=answer.origin).record
    if record.as_of is None:
        named = read_as_of(answer.body)
        what = f"{named} as its day, which it cannot have had" if named else "no day (`data.as_of`)"
        raise DayNotAvailableError(
            f"The API's answer names {what}, so it belongs to no partition. It is archived as {record.path}. "
            "Try again later."
        )
    return record

"""History: answers that somebody else kept come into the archive, and the tables are made again from it.

Many days at once, in bounded memory; whatever is interrupted is whole, and goes on where it is run again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from orpipeline.archive.folder import Archive, ArchiveError, CorruptAnswerError, Kept
from orpipeline.contracts.judgement import broken_rules, rejected_days, validate
from orpipeline.days import missing_days
from orpipeline.errors import OrpipelineError
from orpipeline.importing.formats import AnswerFile, FoundAnswer, NoAnswer, read_answers
from orpipeline.openrouter.answer import read_as_of
from orpipeline.openrouter.frames import parse
from orpipeline.rebuild import Progress

_ANSWERS_AT_ONCE = 400
_WRITERS = 8  # most of an answer's way to the disk is waiting for it


class PartlyImportedError(OrpipelineError):
    """Some of the answers were not imported; all others were. `refused` says which, and why."""

    def __init__(self, message: str, refused: Sequence[NoAnswer]) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass
class Imported:
    """What an import found. A day counts once for each of its answers."""

    new: list[date] = field(default_factory=list)
    """Days that the archive did not have."""
    same: list[date] = field(default_factory=list)
    """Days whose answer the archive had already."""
    restated: list[date] = field(default_factory=list)
    """Days that the archive has in another revision."""
    refused: list[NoAnswer] = field(default_factory=list)
    """Files, or parts of them, that did not come in, and why."""

    @property
    def days(self) -> set[date]:
        """The days of all answers that hold."""
        return {*self.new, *self.same, *self.restated}

    def raise_for_refused(self, *, dry_run: bool = False) -> None:
        """Raise PartlyImportedError where something was refused."""
        if self.refused:
            came, there = len(self.new) + len(self.restated), len(self.same)
            rest = f"{'Would come in' if dry_run else 'Came in'}: {came}; there already: {there}."
            shown = "; ".join(f"{no.source}: {no.reason}" for no in self.refused[:3])
            more = f"; and {len(self.refused) - 3} more" if len(self.refused) > 3 else ""
            raise PartlyImportedError(f"Refused: {len(self.refused)}. {rest} {shown}{more}", self.refused)


@dataclass(frozen=True)
class _Dated:
    """A found answer with its day, and its fetch time where anything tells it."""

    day: date
    fetched_at: datetime | None
    found: FoundAnswer


def import_files(
    archive: Archive,
    files: Iterable[AnswerFile],
    *,
    first: date,
    newest: date,
    dry_run: bool = False,
    on_progress: Progress = lambda _: None,
) -> Imported:
    """Archive every answer of the files that holds to the contracts, under its own `as_of`.

    Answers outside `first` to `newest` are refused. `on_progress` is told the bytes of the files as they are done
    with. With `dry_run`, nothing is written, and what would be done is returned. Raises ArchiveError where the disk
    does not take an answer; what came in before stays.
    """
    imported = Imported()
    answers = _read_files(files, imported, on_progress)
    with _copied_on_write(archive) if dry_run else nullcontext(archive.put) as put:
        while batch := list(islice(answers, _ANSWERS_AT_ONCE)):
            dated = [d for found in batch if (d := _dated(found, first, newest, imported)) is not None]
            for answers_of_days in _one_a_day(dated):
                _keep(_that_hold(answers_of_days, imported), put, imported)
    return imported


def still_missing(archive: Archive, imported: Imported) -> list[date]:
    """Return the days between those of the import that neither it nor the archive has."""
    return sorted(set(missing_days(imported.days)) - set(archive.days()))


def _read_files(files: Iterable[AnswerFile], imported: Imported, on_progress: Progress) -> Iterator[FoundAnswer]:
    for file in files:
        for item in read_answers(file, on_progress):
            if isinstance(item, NoAnswer):
                imported.refused.append(item)
            else:
                yield item


def _dated(found: FoundAnswer, first: date, newest: date, imported: Imported) -> _Dated | None:
    """Return the answer with its day, or None where it has none among the partitions (and say so)."""
    day = read_as_of(found.body)
    if day is None:
        reason = "it states no day (`data.as_of`)"
    elif day > newest:
        reason = f"{day} is not over yet in UTC"
    elif day < first:
        reason = f"{day} is before the first partition, {first}; ORPIPELINE_START_DATE moves it"
    else:
        return _Dated(day, _fetch_time(found, day, newest), found)
    imported.refused.append(NoAnswer(found.source, reason))
    return None


def _fetch_time(found: FoundAnswer, day: date, newest: date) -> datetime | None:
    """Return when an answer was fetched: what the file says, or when it was written, where that can be.

    The API serves a day on the day after alone; a file that was written then was written by who fetched it. A time
    that is still to come is no fetch time: it would make its answer the newest for good.
    """
    if found.fetched_at is not None:
        tomorrow = datetime.combine(newest + timedelta(days=2), time.min, UTC)
        return found.fetched_at if found.fetched_at < tomorrow else None
    served_from = datetime.combine(day + timedelta(days=1), time.min, UTC)
    modified_at = found.modified_at
    return modified_at if modified_at and served_from <= modified_at < served_from + timedelta(days=1) else None


def _one_a_day(answers: Sequence[_Dated]) -> Iterator[list[_Dated]]:
    """Yield the answers in lists that have a day at most once: a day's first ones first."""
    of_day: dict[date, list[_Dated]] = {}
    for answer in answers:
        of_day.setdefault(answer.day, []).append(answer)
    for several in of_day.values():
        several.sort(key=lambda answer: answer.fetched_at or datetime.min.replace(tzinfo=UTC))
    for n in range(max(map(len, of_day.values()), default=0)):
        yield [several[n] for several in of_day.values() if n < len(several)]


def _that_hold(answers: Sequence[_Dated], imported: Imported) -> list[_Dated]:
    """Return the answers that hold to the contracts, and note the others."""
    findings = validate(parse((answer.day, answer.found.body) for answer in answers))
    refused = rejected_days(findings)
    imported.refused += [
        NoAnswer(answer.found.source, broken_rules(answer.day, findings)) for answer in answers if answer.day in refused
    ]
    return [answer for answer in answers if answer.day not in refused]


def _keep(answers: Sequence[_Dated], put: Callable[..., Kept], imported: Imported) -> None:
    def attempt(answer: _Dated) -> Kept | CorruptAnswerError:
        try:
            return put(
                answer.found.body,
                fetched_at=answer.fetched_at,
                source=answer.found.source,
                origin="demo" if answer.found.demo else "import",
                same_content=True,
            )
        except CorruptAnswerError as error:
            return error

    # Different days touch different folders, so they can be written side by side.
    with ThreadPoolExecutor(_WRITERS) as writers:
        for answer, kept in zip(answers, writers.map(attempt, answers), strict=True):
            if isinstance(kept, CorruptAnswerError):
                imported.refused.append(NoAnswer(answer.found.source, str(kept)))
            elif not kept.new:
                imported.same.append(answer.day)
            else:
                (imported.new if kept.record.revision == 1 else imported.restated).append(answer.day)


@contextmanager
def _copied_on_write(archive: Archive) -> Iterator[Callable[..., Kept]]:
    """Have answers put into a copy that is thrown away, of those days of the archive that they are of."""
    with tempfile.TemporaryDirectory(prefix="orpipeline_dry_run_") as name:
        copy = Archive(Path(name))

        def put(body: bytes, **about: Any) -> Kept:
            day = str(read_as_of(body))
            try:
                if (archive.root / day).is_dir() and not (copy.root / day).exists():
                    shutil.copytree(archive.root / day, copy.root / day)
            except (shutil.Error, OSError) as error:
                raise ArchiveError(
                    f"What would come in cannot be tried out: {archive.root / day} cannot be copied to {copy.root}. "
                    f"Nothing was changed. Make room or rights, or leave out --dry-run. {error}"
                ) from error
            return copy.put(body, **about)

        yield put

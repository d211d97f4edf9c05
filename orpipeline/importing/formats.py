"""The answers in a file: plain, gzipped, or packed in a `.zip`, `.tar` or `.tar.gz`.

File types are detected from content, not from the name. For a file in the folder of another orpipeline's archive, the
record beside it gives the fetch time and origin.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator, Iterator
from io import BufferedReader
from pathlib import Path

from orpipeline.archive.records import ArchiveError, Record
from orpipeline.archive.storage import ANSWER_FILE, RECORD_FILE
from orpipeline.importing.answers import Found, FoundAnswer, Origin, Rejected, read_text
from orpipeline.importing.discover import AnswerFile
from orpipeline.importing.kinds import (
    GZIP,
    HEAD_BYTES,
    ZIP,
    has_known_suffix,
    is_hidden,
    is_tar,
    leaves_its_archive,
    may_hold_answers,
    why_unsupported,
)
from orpipeline.importing.limits import Allowance, LimitError
from orpipeline.importing.unpacking import (
    UNPACKING_ERRORS,
    DamagedTarError,
    Member,
    from_epoch,
    gunzipped,
    tar_members,
    zip_members,
)
from orpipeline.text import encodable

_MAX_RECORD_BYTES = 10_000  # a record has about 400


def read_answers(file: AnswerFile, on_progress: Callable[[int], None] = lambda _: None) -> Generator[Found, None, None]:
    """Yield each answer in a file. What cannot be read is yielded as Rejected; nothing is raised.

    Memory and time are bounded: see `orpipeline.importing.limits`. `on_progress` is called with the number of the
    file's bytes that were processed since the last call; in the end, or when the iterator is closed, their sum is the
    file's size.
    """
    size, read, reported = file.size, 0, 0
    try:
        if fault := file.fault or _not_a_file(file.path):
            yield Rejected(file.name, fault)
            return
        with file.path.open("rb") as stream:
            for item in _read_file(file, stream):
                yield item
                # A text is read at once but its answers are processed one by one; an archive is read step by step.
                read += len(item.body) if isinstance(item, FoundAnswer) else 0
                processed = min(read, stream.tell(), size)
                if processed > reported:
                    on_progress(processed - reported)
                    reported = processed
    except OSError as error:
        yield Rejected(file.name, f"it cannot be read: {error.strerror or error}")
    except LimitError as error:
        yield Rejected(file.name, str(error))
    finally:
        on_progress(size - reported)


def _not_a_file(path: Path) -> str:
    """Return why a path is not to be opened, or nothing if it is that of a file. A pipe or device might never end."""
    return "" if stat.S_ISREG(path.stat().st_mode) else "it is a pipe or a device; save its content to a file first"


def _read_file(file: AnswerFile, stream: BufferedReader) -> Iterator[Found]:
    origin = Origin(file.name, from_epoch(file.path.stat().st_mtime), _record_beside(file.path))
    yield from _read(stream, origin, Allowance())


def _record_beside(path: Path) -> Record | None:
    record = path.parent / RECORD_FILE
    try:
        if path.name != ANSWER_FILE or _not_a_file(record):
            return None
        with record.open("rb") as file:
            return Record.from_json(file.read(_MAX_RECORD_BYTES), path=path)
    except (OSError, ArchiveError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return None


def _read(stream: BufferedReader, origin: Origin, allowance: Allowance) -> Iterator[Found]:
    try:
        head = _peek(stream)
        if head.startswith(ZIP):
            yield from _read_members(zip_members(stream, allowance), origin, allowance)
            return
        counted = stream if origin.packed else allowance.counted(stream)
        unpacked = gunzipped(counted, allowance) if head.startswith(GZIP) else counted
        yield from _read_unpacked(unpacked, origin, allowance)
    except UNPACKING_ERRORS as error:
        yield Rejected(origin.name, f"it is damaged: {error}")


def _read_unpacked(stream: BufferedReader, origin: Origin, allowance: Allowance) -> Iterator[Found]:
    head = _peek(stream)
    if is_tar(head):
        yield from _read_members(tar_members(stream, allowance), origin, allowance)
    elif reason := why_unsupported(head):
        yield Rejected(origin.name, reason)
    else:
        yield from read_text(stream, origin, allowance)


def _peek(stream: BufferedReader) -> bytes:
    return stream.peek(HEAD_BYTES)[:HEAD_BYTES]


def _read_members(members: Iterator[Member], origin: Origin, allowance: Allowance) -> Iterator[Found]:
    if origin.packed:
        yield Rejected(origin.name, "it is an archive inside an archive; unpack it first")
        return
    item = None
    try:
        for member in members:
            if not is_hidden(member.name):
                for item in _read_member(member, origin, allowance):
                    yield item
    except DamagedTarError as error:
        yield Rejected(origin.name, f"it is damaged: {error}")
        return
    if item is None:
        yield Rejected(origin.name, "it has no file that may hold answers")


def _read_member(member: Member, origin: Origin, allowance: Allowance) -> Iterator[Found]:
    name = encodable(f"{origin.name}/{member.name.removeprefix('./')}")
    if member.content is None:
        yield Rejected(name, member.fault)
        return
    try:
        if not has_known_suffix(member.name) and not may_hold_answers(_peek(member.content)):
            return
    except UNPACKING_ERRORS as error:
        yield Rejected(name, f"it is damaged: {error}")
        return
    if leaves_its_archive(member.name):
        yield Rejected(name, "its path is absolute or has `..`; pack it again with a path inside the archive")
    else:
        yield from _read(member.content, Origin(name, member.modified_at, packed=True), allowance)

"""The answers in a file: plain, gzipped, or packed in a `.zip`, `.tar` or `.tar.gz`.

File types are detected from content, not from the name. For a file in the folder of another orpipeline's archive, the
record beside it gives the fetch time and origin.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from orpipeline.archive.folder import RECORD_FILE
from orpipeline.importing.answers import Found, FoundAnswer, Origin, Rejected, read_text
from orpipeline.importing.discover import AnswerFile
from orpipeline.importing.kinds import (
    GZIP,
    HEAD_BYTES,
    ZIP,
    has_known_suffix,
    is_hidden,
    is_tar,
    may_hold_answers,
    why_unsupported,
)
from orpipeline.openrouter.answer import parse_json
from orpipeline.text import encodable

_MAX_TEXT_BYTES = 1_000_000_000  # unpacked; ten years of answers in one file are a tenth of it
# What Python's readers raise for damaged files. zipfile raises RuntimeError for an encrypted member, and its subclass
# NotImplementedError for an unknown compression.
_DAMAGED = (
    *(EOFError, ValueError, OverflowError, RuntimeError, zlib.error, lzma.LZMAError),
    *(gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile),
)


def read_answers(file: AnswerFile, on_progress: Callable[[int], None] = lambda _: None) -> Iterator[Found]:
    """Yield each answer in a file. What cannot be read is yielded as Rejected; nothing is raised.

    `on_progress` is called with the number of the file's bytes that were processed since the last call; in the end
    their sum is the file's size.
    """
    if file.fault:
        yield Rejected(file.name, file.fault)
        return
    size, read, reported = file.size, 0, 0
    try:
        with file.path.open("rb") as stream:
            for item in _read_file(file, stream):
                yield item
                # A text is read at once but its answers are processed one by one; an archive is read step by step.
                read += len(item.body) if isinstance(item, FoundAnswer) else 0
                processed = min(read, stream.tell(), size) if stream.seekable() else 0
                if processed > reported:
                    on_progress(processed - reported)
                    reported = processed
    except OSError as error:
        yield Rejected(file.name, f"it cannot be read: {error.strerror or error}")
    on_progress(size - reported)


def _read_file(file: AnswerFile, stream: IO[bytes]) -> Iterator[Found]:
    if stream.seekable():
        modified_at = _from_epoch(file.path.stat().st_mtime)
        yield from _read(stream, Origin(file.name, modified_at, _record_beside(file.path)))
    else:  # a pipe, which has no modification time
        yield from _read(BytesIO(stream.read(_MAX_TEXT_BYTES + 1)), Origin(file.name))


def _record_beside(path: Path) -> Mapping[str, Any]:
    try:
        record = parse_json((path.parent / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _read(stream: IO[bytes], origin: Origin) -> Iterator[Found]:
    try:
        head = _peek(stream)
        if head.startswith(GZIP):
            with gzip.open(stream) as unpacked:
                yield from _read_unpacked(cast("IO[bytes]", unpacked), origin)
        elif head.startswith(ZIP):
            yield from _read_members(_read_zip(stream, origin), origin)
        else:
            yield from _read_unpacked(stream, origin)
    except _DAMAGED as error:
        yield _damaged(origin.name, error)


def _read_unpacked(stream: IO[bytes], origin: Origin) -> Iterator[Found]:
    head = _peek(stream)
    if is_tar(head):
        yield from _read_members(_read_tar(stream, origin), origin)
    elif reason := why_unsupported(head):
        yield Rejected(origin.name, reason)
    else:
        text = stream.read(_MAX_TEXT_BYTES + 1)
        if len(text) > _MAX_TEXT_BYTES:
            yield _too_large(origin.name)
        else:
            yield from read_text(text, origin)


def _read_members(members: Iterator[Found], origin: Origin) -> Iterator[Found]:
    if origin.packed:
        yield Rejected(origin.name, "it is an archive inside an archive; unpack it first")
        return
    item = None
    for item in members:
        yield item
    if item is None:
        yield Rejected(origin.name, "it has no file that may hold answers")


def _read_zip(stream: IO[bytes], origin: Origin) -> Iterator[Found]:
    with zipfile.ZipFile(stream) as packed:
        for member in packed.infolist():
            name = member.filename.removeprefix("./")
            if member.is_dir() or is_hidden(name):
                continue
            try:
                with packed.open(member) as content:
                    # A zip has local times without a time zone.
                    yield from _read_member(content, origin, name, None)
            except _DAMAGED as error:
                yield _damaged(encodable(f"{origin.name}/{name}"), error)


def _read_tar(stream: IO[bytes], origin: Origin) -> Iterator[Found]:
    with tarfile.open(fileobj=stream, mode="r|") as packed:
        for member in packed:
            name = member.name.removeprefix("./")
            content = packed.extractfile(member) if member.isfile() and not is_hidden(name) else None
            if content is not None:
                yield from _read_member(content, origin, name, _from_epoch(member.mtime))


def _read_member(content: IO[bytes], origin: Origin, name: str, modified_at: datetime | None) -> Iterator[Found]:
    head = content.read(HEAD_BYTES)
    if not has_known_suffix(name) and not may_hold_answers(head):
        return
    full_name = encodable(f"{origin.name}/{name}")
    text = head + content.read(_MAX_TEXT_BYTES)
    if len(text) > _MAX_TEXT_BYTES:
        yield _too_large(full_name)
    else:
        yield from _read(BytesIO(text), Origin(full_name, modified_at, packed=True))


def _from_epoch(seconds: float) -> datetime | None:
    """Return the time that a file or member was last written, or None if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _peek(stream: IO[bytes]) -> bytes:
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    return head


def _damaged(name: str, error: Exception) -> Rejected:
    return Rejected(name, f"it is damaged: {error}")


def _too_large(name: str) -> Rejected:
    return Rejected(name, f"it is larger than {_MAX_TEXT_BYTES:,} bytes; split it")

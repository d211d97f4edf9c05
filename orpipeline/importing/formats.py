"""The responses in a file: plain, gzipped, or packed in a `.zip`, `.tar` or `.tar.gz`.

File types are detected from content, not from the name. Only a file of another orpipeline's archive is recognized by
its name, which has its fetch time and origin. Memory and time are bounded: see `orpipeline.importing.limits`.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from io import BufferedIOBase, BufferedReader
from typing import IO, NamedTuple, Self, cast

from orpipeline.archive import named
from orpipeline.errors import SettingsError
from orpipeline.importing.discover import ResponseFile
from orpipeline.importing.kinds import GZIP, HEAD_BYTES, ZIP, is_hidden, is_tar, may_hold_responses, why_unsupported
from orpipeline.importing.limits import Allowance
from orpipeline.importing.responses import Found, Place, Rejected, read_text
from orpipeline.text import encodable

# What damaged files raise. zipfile raises RuntimeError for an encrypted member.
_DAMAGE = (
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
    gzip.BadGzipFile,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)
_NO_FILE = "it is a link or a device in the archive; pack the file itself"
_COMPRESSION = "its compression is not supported; pack it as a usual .zip (deflate)"


def read_responses(
    file: ResponseFile, on_progress: Callable[[int], None] = lambda _: None
) -> Generator[Found, None, None]:
    """Yield each response in a file. What cannot be read is yielded as Rejected; nothing is raised.

    `on_progress` is called with the number of the file's bytes that were read since the last call; in the end, or when
    the iterator is closed, their sum is the file's size.
    """
    size, reported = file.size, 0
    try:
        status = file.path.stat()
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):  # reading it might never end
            yield Rejected(file.name, "it is a pipe or a device; save its content to a file first")
            return
        place = Place(file.name, _utc(status.st_mtime), named(file.path.absolute().as_posix()))
        allowance = Allowance()
        allowance.take_bytes(size)
        with file.path.open("rb") as stream:
            for item in _or_damaged(_read(stream, place, allowance), place):
                yield item
                position = min(stream.tell(), size)
                if position > reported:
                    on_progress(position - reported)
                    reported = position
    except OSError as error:
        yield Rejected(file.name, f"it cannot be read: {error.strerror or error}")
    except SettingsError as error:
        yield Rejected(file.name, str(error))
    finally:
        on_progress(size - reported)


def _or_damaged(items: Iterator[Found], place: Place) -> Iterator[Found]:
    try:
        yield from items
    except _DAMAGE as error:
        yield Rejected(place.name, f"it is damaged: {error}")


def _read(stream: BufferedReader, place: Place, allowance: Allowance) -> Iterator[Found]:
    head = _head(stream)
    if head.startswith(ZIP):
        yield from _read_members(_zip_members(stream), place, allowance)
        return
    if head.startswith(GZIP):
        stream = allowance.counted(gzip.GzipFile(fileobj=stream))
        head = _head(stream)
    if is_tar(head):
        yield from _read_members(_tar_members(stream), place, allowance)
    elif reason := why_unsupported(head):
        yield Rejected(place.name, reason)
    else:
        yield from read_text(stream, place, allowance)


def _head(stream: BufferedReader) -> bytes:
    return stream.peek(HEAD_BYTES)[:HEAD_BYTES]


class _Member(NamedTuple):
    """A file in a zip or tar: how to open it, before the next one is read, or why it cannot be opened."""

    name: str
    modified_at: datetime | None
    content: Callable[[], IO[bytes] | None] | str


def _read_members(members: Iterator[_Member], place: Place, allowance: Allowance) -> Iterator[Found]:
    if place.packed:
        yield Rejected(place.name, "it is an archive inside an archive; unpack it first")
        return
    is_empty = True
    for member in members:
        allowance.take_parts()
        if not is_hidden(member.name):
            name = encodable(f"{place.name}/{member.name.removeprefix('./')}")
            inner = Place(name, member.modified_at, named(member.name), packed=True)
            for item in _or_damaged(_read_member(member, inner, allowance), inner):
                yield item
                is_empty = False
    if is_empty:
        yield Rejected(place.name, "it has no file that may hold responses")


def _read_member(member: _Member, place: Place, allowance: Allowance) -> Iterator[Found]:
    if isinstance(member.content, str):
        if may_hold_responses(member.name):
            yield Rejected(place.name, member.content)
        return
    content = cast("BufferedIOBase", member.content())
    # The bytes of a tar's members are those of the tar.
    stream = content if isinstance(content, BufferedReader) else allowance.counted(content)
    if may_hold_responses(member.name, _head(stream)):
        yield from _read(stream, place, allowance)


def _zip_members(packed: BufferedReader) -> Iterator[_Member]:
    """Yield the files of a zip. They have no time: a zip has local times without a time zone."""
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others need much memory
                yield _Member(info.filename, None, _COMPRESSION)
            elif not info.is_dir():
                yield _Member(info.filename, None, partial(archive.open, info))


def _tar_members(packed: BufferedReader) -> Iterator[_Member]:
    with tarfile.open(fileobj=packed, mode="r|", tarinfo=_Header) as archive:
        for info in archive:
            if info.isreg():
                yield _Member(info.name, _utc(info.mtime), partial(archive.extractfile, info))
            elif not info.isdir():
                yield _Member(info.name, None, _NO_FILE)


class _Header(tarfile.TarInfo):
    """A header of a tar. tarfile takes a damaged one for the end, which would hide that the others are lost."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _utc(seconds: float) -> datetime | None:
    """Return the UTC time of a number of seconds since 1970, or None if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None

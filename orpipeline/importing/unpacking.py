"""Unpacking `.gz`, `.zip` and `.tar` in constant memory.

Python's gzip and tarfile do not bound their work: gzip skips padding byte by byte, and tarfile reads a header or a
sparse member's map of any size. A hole in a file or a few hundred bytes, unpacked, make them take minutes and
gigabytes.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader, RawIOBase
from typing import IO, TYPE_CHECKING, cast

from orpipeline.importing.kinds import has_known_suffix
from orpipeline.importing.limits import CHUNK_BYTES, Allowance, Readable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP_FORMAT = 31  # zlib's number for it, with the largest window
_BLOCK = 512
_MAX_HEADER_BYTES = 100_000  # of a tar member's name and attributes
_MAX_DIRECTORY_BYTES = 2_000_000  # a zip's list of members: about 15,000 of them
_ZIP_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WITHOUT_CONTENT = (
    tarfile.DIRTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_NO_FILE = "it is a link or a device in the archive; pack the file itself"
_SPARSE = "it is a sparse file; unpack the archive and import its files"
UNPACKING_ERRORS = (EOFError, ValueError, OverflowError, RuntimeError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
"""What damaged files raise. zipfile raises RuntimeError for an encrypted member."""


class DamagedTarError(Exception):
    """A tar is damaged or ends within a member. Members after it cannot be read."""


@dataclass(frozen=True)
class Member:
    """A file in a zip or tar."""

    name: str
    modified_at: datetime | None = None
    content: BufferedReader | None = None
    """Its bytes, which must be read before the next member; None if there is a fault."""
    fault: str = ""
    """Why it cannot be read."""


def gunzipped(packed: Readable, allowance: Allowance) -> BufferedReader:
    """Return a stream of what is packed in one gzip stream or several, one after another."""
    return allowance.counted(_Gunzipped(packed))


class _Gunzipped(RawIOBase):
    def __init__(self, packed: Readable) -> None:
        self._source, self._packed = packed, b""
        self._unpacker = zlib.decompressobj(_GZIP_FORMAT)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view, unpacked = memoryview(buffer), b""
        while not unpacked:
            if self._unpacker.eof:
                self._packed = self._unpacker.unused_data.lstrip(b"\0")
                while not self._packed:
                    if not (packed := self._source.read(CHUNK_BYTES)):
                        return 0
                    self._packed = packed.lstrip(b"\0")  # padding
                self._unpacker = zlib.decompressobj(_GZIP_FORMAT)
            elif not self._packed:
                self._packed = self._source.read(CHUNK_BYTES) or b""
                if not self._packed:
                    raise EOFError("it ends too early")
            unpacked = self._unpacker.decompress(self._packed, len(view))
            self._packed = self._unpacker.unconsumed_tail
        view[: len(unpacked)] = unpacked
        return len(unpacked)


def zip_members(packed: IO[bytes], allowance: Allowance) -> Iterator[Member]:
    """Yield the files of a zip. Members have no time: a zip has local times without a time zone."""
    with zipfile.ZipFile(cast("IO[bytes]", _SmallReads(packed))) as archive:
        for info in archive.infolist():
            allowance.take_part()
            if info.is_dir():
                continue
            with ExitStack() as opened:
                yield _zip_member(archive, info, allowance, opened)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance, opened: ExitStack) -> Member:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return Member(info.filename, fault=_NO_FILE)
    if info.compress_type not in _ZIP_COMPRESSIONS:  # the others need much memory or time
        return Member(info.filename, fault="its compression is not supported; pack it as a usual .zip (deflate)")
    try:
        content = opened.enter_context(archive.open(info))
    except UNPACKING_ERRORS as error:
        return Member(info.filename, fault=f"it is damaged: {error}")
    return Member(info.filename, content=allowance.counted(content))


class _SmallReads:
    """A file for zipfile, which reads the list of members at once and makes an object of each."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its list of members is larger than {_MAX_DIRECTORY_BYTES:,} bytes")
        return self._file.read(size)


def tar_members(packed: BufferedReader, allowance: Allowance) -> Iterator[Member]:
    """Yield the files of a tar, and its links and devices if their names are those of answer files.

    Raises DamagedTarError.
    """
    stream = _Tar(packed)
    common: dict[str, str] = {}
    extended: dict[str, str] = {}
    while (header := stream.header()) is not None:
        allowance.take_part()
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extended |= _pax_fields(stream.record(header))
        elif header.type == tarfile.XGLTYPE:
            common |= _pax_fields(stream.record(header))
        elif header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _text(stream.record(header).rstrip(b"\0"))
            extended |= {"path": text} if header.type == tarfile.GNUTYPE_LONGNAME else {}
        else:
            yield from _tar_member(stream, header, common | extended)
            extended = {}


def _tar_member(stream: _Tar, header: tarfile.TarInfo, fields: dict[str, str]) -> Iterator[Member]:
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in fields)
    name = fields.get("GNU.sparse.name") or fields.get("path") or header.name
    size = 0 if header.type in _WITHOUT_CONTENT else int(fields.get("size", header.size))
    if size < 0:
        raise DamagedTarError(f"{size} is not a size")
    content = _Content(stream, size)
    if is_sparse:
        stream.skip_sparse_map(header)
        yield Member(name, fault=_SPARSE)
    elif header.type in _REGULAR:
        yield Member(name, from_epoch(float(fields.get("mtime", header.mtime))), BufferedReader(content, CHUNK_BYTES))
    elif header.type != tarfile.DIRTYPE and has_known_suffix(name):
        yield Member(name, fault=_NO_FILE)
    content.skip()
    stream.exactly(-size % _BLOCK)


class _Tar:
    """A tar as a sequence of blocks."""

    def __init__(self, packed: BufferedReader) -> None:
        self._packed = packed
        self._block = b""

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes. Raises DamagedTarError if there are fewer."""
        try:
            data = self._packed.read(size)
        except UNPACKING_ERRORS as error:
            raise DamagedTarError(str(error)) from error
        if len(data) < size:
            raise DamagedTarError("it ends too early")
        return data

    def header(self) -> tarfile.TarInfo | None:
        """Return the next header, or None at the end."""
        try:
            self._block = self._packed.read(_BLOCK)
            if self._block.count(0) == len(self._block):  # a block of zeros, or no block
                return None
            return tarfile.TarInfo.frombuf(self._block, "utf-8", "surrogateescape")
        except UNPACKING_ERRORS as error:
            raise DamagedTarError(str(error)) from error

    def record(self, header: tarfile.TarInfo) -> bytes:
        """Return the content of a header that has a name or attributes of the next one."""
        if not 0 <= header.size <= _MAX_HEADER_BYTES:
            raise DamagedTarError(f"a header has {header.size:,} bytes; the limit is {_MAX_HEADER_BYTES:,}")
        return self.exactly(header.size + -header.size % _BLOCK)[: header.size]

    def skip_sparse_map(self, header: tarfile.TarInfo) -> None:
        """Skip the blocks between the header of GNU tar's old sparse format and the content."""
        more = header.type == tarfile.GNUTYPE_SPARSE and self._block[482] != 0
        while more:
            more = self.exactly(_BLOCK)[504] != 0


class _Content(RawIOBase):
    """The content of a member of a tar."""

    def __init__(self, tar: _Tar, size: int) -> None:
        self._tar, self._left = tar, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._tar.exactly(min(len(view), self._left, CHUNK_BYTES))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def skip(self) -> None:
        """Read the rest."""
        while self._left:
            self._left -= len(self._tar.exactly(min(self._left, CHUNK_BYTES)))


def _pax_fields(record: bytes) -> dict[str, str]:
    """Return the fields of a pax header: each is `LENGTH KEY=VALUE` and a line feed, with the length of all of it."""
    fields: dict[str, str] = {}
    start = 0
    while start < len(record):
        length, _, _ = record[start : start + 20].partition(b" ")
        end = start + int(length) if length.isdigit() else start
        key, equals, value = record[start + len(length) + 1 : end - 1].partition(b"=")
        if not equals:
            raise DamagedTarError("a pax header is invalid")
        fields[_text(key)] = _text(value)
        start = end
    return fields


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def from_epoch(seconds: float) -> datetime | None:
    """Return the UTC time of a number of seconds since 1970, or None if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None

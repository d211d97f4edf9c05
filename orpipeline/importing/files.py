"""The files to import, and the responses in them: plain, gzipped, or packed in a `.zip`, `.tar` or `.tar.gz`.

File types are detected from content, not from the name. The name is read for a time such as `20261007T002003Z`, and for
what it states if the file is from another orpipeline's archive.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from glob import glob
from io import BufferedReader
from pathlib import Path, PurePath
from typing import IO, Self, cast

from orpipeline.archive import DAMAGED, named
from orpipeline.errors import SettingsError
from orpipeline.importing.responses import Found, Place, Reading, Rejected, read_text
from orpipeline.text import encodable

_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")  # the second one is that of an empty zip
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz", ".tgz", ".tar", ".zip", ".xz", ".bz2", ".zst")
_JSON_OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"')  # or a list of objects
TIME_IN_NAME = re.compile(r"(?<![0-9])[0-9]{8}T[0-9]{6}Z")
# What damaged files raise. zipfile raises RuntimeError for an encrypted member.
_DAMAGE = (
    *(EOFError, ValueError, OverflowError, RuntimeError),
    *(zlib.error, tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class ResponseFile:
    """A file to import."""

    path: Path
    name: str
    """How messages and the archive name it: its path, starting at the folder that was given."""
    in_folder: bool = False
    """Whether it was found in a folder, so it may be something else than a file of responses."""

    @property
    def size(self) -> int:
        """The file's length in bytes; 0 if it is unknown."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def find_files(paths: Sequence[str]) -> list[ResponseFile]:
    """Return the files that `paths` name, each file once.

    A path is a file, a folder (with everything below it, including hidden folders), or a pattern such as
    `2026-*.json.gz`. Links are followed. A folder that cannot be listed is returned as if it was a file: reading it
    gives the reason. Raises SettingsError for a path that names no file.
    """
    found: dict[str, ResponseFile] = {}
    for path in paths:
        given = os.path.expanduser(path)  # noqa: PTH111 - pathlib raises for an unknown user
        matches = [given] if os.path.exists(given) else sorted(glob(given, recursive=True))  # noqa: PTH110, PTH207
        files = [file for match in matches if os.path.exists(match) for file in _files_in(Path(match))]  # noqa: PTH110
        if not files:
            reason = "no such file, or none that you may read"
            raise SettingsError(f"{encodable(path) or 'An empty path'}: {reason}. Nothing was imported.")
        for file in files:
            found.setdefault(os.path.realpath(file.path), file)
    return list(found.values())


def _files_in(path: Path) -> list[ResponseFile]:
    if not path.is_dir():
        return [ResponseFile(path, encodable(path.name))]
    found: list[Path] = []
    visited: set[Path] = set()
    unlisted: list[OSError] = []
    for root, folders, files in os.walk(path, onerror=unlisted.append, followlinks=True):
        folder = Path(root).resolve()
        if folder in visited:  # through a link
            folders.clear()
        else:
            visited.add(folder)
            found += [Path(root, name) for name in files]
    found += [Path(error.filename) for error in unlisted]
    top = Path(path.resolve().name)
    return [ResponseFile(one, encodable(str(top / one.relative_to(path))), in_folder=True) for one in sorted(found)]


def read_responses(file: ResponseFile, reading: Reading | None = None) -> Iterator[Found]:
    """Yield each response in a file. What cannot be read is yielded as Rejected.

    Raises SettingsError if the `reading`, which many files share, ends the import.
    """
    try:
        status = file.path.stat()
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):  # reading it might never end
            if not file.in_folder:
                yield Rejected(file.name, "it is a pipe or a device; save its content to a file first")
            return
        place = _place(file.name, file.path.absolute().as_posix(), status.st_mtime)
        with file.path.open("rb") as stream:
            if not file.in_folder or _may_hold_responses(stream, place.name):
                reading = reading or Reading()
                reading.add(status.st_size)
                yield from _or_damaged(_read(stream, place, reading), place)
    except OSError as error:
        if not (file.in_folder and file.path.is_symlink()):  # a broken one
            yield Rejected(file.name, f"it cannot be read: {error.strerror or error}")


def _place(name: str, path: str, modified_at: float | None) -> Place:
    saved_at = None
    with suppress(ValueError, OverflowError, OSError):  # outside the calendar
        saved_at = None if modified_at is None else datetime.fromtimestamp(modified_at, UTC)
    for stated in TIME_IN_NAME.findall(PurePath(path).name):
        with suppress(ValueError):
            saved_at = datetime.strptime(stated, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return Place(name, saved_at, named(path))


def _head(stream: BufferedReader) -> bytes:
    return stream.peek(512)[:512]


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _may_hold_responses(stream: BufferedReader, name: str) -> bool:
    """Return whether to read a file that was not named: by its name, or by its first bytes.

    A hidden file's name does not count: macOS puts a `._a.json` beside each `a.json`. Responses that an archive has
    renamed because they are damaged are left out.
    """
    file, head = PurePath(name).name, _head(stream)
    has_suffix = file.lower().endswith(_SUFFIXES) and not file.startswith(".")
    is_known = head.startswith((_GZIP, *_ZIP)) or _is_tar(head) or bool(_JSON_OBJECT.match(head))
    return f".gz{DAMAGED}" not in file and (has_suffix or is_known)


def _or_damaged(items: Iterator[Found], place: Place) -> Iterator[Found]:
    try:
        yield from items
    except _DAMAGE as error:
        yield Rejected(place.name, f"it is damaged or not supported: {error}")


def _read(stream: BufferedReader, place: Place, reading: Reading, *, packed: bool = False) -> Iterator[Found]:
    """Yield what is in a file, or in one that is `packed` in an archive."""
    is_zip = _head(stream).startswith(_ZIP)
    if _head(stream).startswith(_GZIP):
        stream = cast("BufferedReader", gzip.GzipFile(fileobj=stream))
    if not is_zip and not _is_tar(_head(stream)):
        yield from read_text(stream, place, reading)
    elif packed:
        yield Rejected(place.name, "it is an archive inside an archive; unpack it first")
    else:
        is_empty = True
        for name, size, modified_at, opened in _members(stream, is_zip=is_zip):
            reading.add(size)
            member = _place(encodable(f"{place.name}/{name.removeprefix('./')}"), name, modified_at)
            for item in _or_damaged(_read_member(opened, member, reading), member):
                yield item
                is_empty = False
        if is_empty:
            yield Rejected(place.name, "it has no file that may hold responses")


def _read_member(opened: Callable[[], IO[bytes] | None], place: Place, reading: Reading) -> Iterator[Found]:
    stream = cast("BufferedReader", opened())
    if _may_hold_responses(stream, place.name):
        yield from _read(stream, place, reading, packed=True)


def _members(
    stream: BufferedReader, *, is_zip: bool
) -> Iterator[tuple[str, int, float | None, Callable[[], IO[bytes] | None]]]:
    """Yield name, size, time and what opens it, of each file in a zip or tar, but not of links: it has their targets.

    In a zip, times are local times without a time zone, so they say nothing.
    """
    if is_zip:
        with zipfile.ZipFile(stream) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, None, partial(_open_in_zip, archive, info)
    else:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as packed:
            for member in packed:
                if member.isreg():
                    yield member.name, member.size, member.mtime, partial(packed.extractfile, member)


def _open_in_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked in memory
        raise ValueError("its compression is not deflate")
    return archive.open(member)


class _Header(tarfile.TarInfo):
    """A header of a tar. tarfile takes a damaged one for the end, which would hide that the others are lost."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined] # not in its stubs
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

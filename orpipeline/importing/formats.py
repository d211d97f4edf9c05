"""Answers in files that somebody else kept: found by what a file holds, whatever it is called.

A file, or a member of a `.zip` or `.tar.gz`, gzipped or not, holds one of these, or a list or lines (JSONL) of them:

- the API's plain answer, `{"data": {...}}`;
- an envelope, `{"fetched_at": ..., "requests": [{"path": ..., "status": 200, "response": {"data": {...}}}]}`, with one
  answer or several. An answer's bytes are then those that stand in the envelope, to the letter.

An answer in a folder of another orpipeline's archive brings its record with it.
"""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from glob import glob, has_magic
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePath
from typing import IO, Any, cast

import msgspec

from orpipeline.archive.folder import MAX_ANSWER_BYTES, RECORD_FILE
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.answer import parse_json
from orpipeline.text import encodable

_MAX_FILE_BYTES = 1_000_000_000  # unpacked: ten years of answers in one file are a tenth of it
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz", ".zip", ".tgz", ".tar")
_ENDPOINT = "/classifications/task"
_HEAD_BYTES = 512  # of a file, what tells its kind: a tar says what it is at 257
_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one's
_OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"')  # or a list of objects
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"[\x00", b"\x00[")
_COMPRESSED = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7-Zip"}
_DIGITS = re.compile(r"([0-9]+)")
# Strings, so that what looks like one of the names within them is passed over, and the names that are no JSON.
_NOT_A_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)')
# What Python's readers of archives raise for damaged ones; a RuntimeError is a zip's that is encrypted, or packed in a
# way that Python does not know.
_DAMAGED = (
    *(EOFError, ValueError, OverflowError, RuntimeError, zlib.error, lzma.LZMAError),
    *(gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile),
)


class NoSuchFileError(OrpipelineError):
    """A path or pattern names no file that could hold answers, or may not be read."""


@dataclass(frozen=True)
class FoundAnswer:
    """What looks like an answer of the API."""

    body: bytes
    """The answer's bytes, of at most 20 MB."""
    source: str
    """The file's name with the folders below the path that was given, and the place in it."""
    fetched_at: datetime | None
    """UTC; what the file says, or None."""
    modified_at: datetime | None
    """UTC; when the file was last written, or None where that is not told in UTC."""
    demo: bool = False
    """Whether its record says that it was made up."""


@dataclass(frozen=True)
class NoAnswer:
    """A file, or a part of one, that holds no answer, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class AnswerFile:
    """A file to read, and the name that it goes by."""

    path: Path
    name: str
    fault: str = ""
    """Why it cannot be read, where that is known before: it is a folder then."""

    @property
    def size(self) -> int:
        """Its length in bytes; 0 where it cannot be looked at."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


@dataclass(frozen=True)
class _Origin:
    """What is known of a text before it is read."""

    name: str
    modified_at: datetime | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False
    """Whether it is a member of an archive."""

    def part(self, place: str) -> _Origin:
        """Return what is known of a part of the text."""
        return _Origin(f"{self.name}{place}", self.modified_at)


_NOTHING, _NULL, _OK = msgspec.Raw(), msgspec.Raw(b"null"), msgspec.Raw(b"200")


class _Text(msgspec.Struct):
    """The fields that tell an answer, an envelope and a record from each other."""

    data: msgspec.Raw = msgspec.Raw()
    requests: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    sha256: msgspec.Raw = msgspec.Raw()
    fetched_at: msgspec.Raw = msgspec.Raw()

    @property
    def has_data(self) -> bool:
        """Whether it may be an answer."""
        return self.data not in (_NOTHING, _NULL)


class _Request(msgspec.Struct):
    """One request of an envelope."""

    path: str = _ENDPOINT
    status: msgspec.Raw = _OK
    fetched_at: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_TEXT = msgspec.json.Decoder(_Text)
_REQUEST = msgspec.json.Decoder(_Request)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def find_files(paths: Sequence[str]) -> list[AnswerFile]:
    """Return the files that paths name: files, folders (and all below them), and patterns such as `2026-*.json.gz`.

    Below a folder, links are followed; hidden files are passed over, and those that neither their name nor their first
    bytes make out to hold answers. A folder that cannot be listed is returned with its fault. Raises NoSuchFileError
    for a path that names no file or may not be read.
    """
    found: dict[Path, AnswerFile] = {}
    for given in paths:
        reason = "there is no file that could hold answers"
        files: list[AnswerFile] = []
        try:
            if not given:
                raise ValueError("a path is empty")  # a variable that is not set would mean this folder
            files = [file for match in _matches(Path(given).expanduser()) for file in _named(match)]
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = f"it cannot be read: {error.strerror or error}"
        except (RuntimeError, ValueError) as error:  # a home folder of nobody, a name that no file can have
            reason = str(error).rstrip(".")
        if not files:
            raise NoSuchFileError(f"{encodable(given)}: {reason}. Nothing was imported.")
        for file in files:
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def read_answers(
    file: AnswerFile, on_progress: Callable[[int], None] = lambda _: None
) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield all that a file holds; what cannot be read is yielded as NoAnswer, and nothing is raised.

    `on_progress` is told the file's bytes as they are done with, as far as its packing lets see; in the end all of it.
    """
    size, read, told = file.size, 0, 0
    if file.fault:
        yield NoAnswer(file.name, file.fault)
        return
    try:
        with file.path.open("rb") as stream:
            for item in _read_file(file, stream):
                yield item
                # A text is read as one, and its answers are worked on one by one; an archive is read as it is unpacked.
                read += len(item.body) if isinstance(item, FoundAnswer) else 0
                done = min(read, stream.tell(), size) if stream.seekable() else 0
                if done > told:
                    on_progress(done - told)
                    told = done
    except OSError as error:
        yield NoAnswer(file.name, f"it cannot be read: {error.strerror or error}")
    on_progress(size - told)


def _read_file(file: AnswerFile, stream: IO[bytes]) -> Iterator[FoundAnswer | NoAnswer]:
    if stream.seekable():
        modified_at = _from_epoch(file.path.stat().st_mtime)
        yield from _read(stream, _Origin(file.name, modified_at, _record_beside(file.path)))
    else:  # a pipe, whose time is that of this moment
        yield from _read(BytesIO(stream.read(_MAX_FILE_BYTES + 1)), _Origin(file.name))


def _matches(path: Path) -> list[Path]:
    """Return what a path or pattern names. Raises OSError where that is nothing."""
    try:
        path.stat()
    except OSError:
        # The pathlib of Python 3.11 has no pattern that may be absolute.
        matches = glob(str(path), recursive=True) if has_magic(str(path)) else []  # noqa: PTH207
        there = [match for match in map(Path, matches) if match.exists()]
        if not there:
            raise
        return sorted(there, key=_natural)
    return [path]


def _natural(path: PurePath) -> list[tuple[int, str]]:
    """Return what sorts `.r2` before `.r10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(str(path))]


def _named(path: Path) -> list[AnswerFile]:
    return _below(path) if path.is_dir() else [AnswerFile(path, encodable(path.name))]


def _below(top: Path) -> list[AnswerFile]:
    """Return what may hold answers in a folder and below it, and the folders there that cannot be listed."""
    unlisted: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    faults: dict[Path, str] = {}
    for name, folders, files in os.walk(top, onerror=unlisted.append, followlinks=True):
        folder = Path(name)
        about = folder.stat()
        if (about.st_dev, about.st_ino) in seen:  # a link led to a folder above, or to one that was read
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        faults |= {folder / name: "" for name in files if not _is_hidden(name) and _may_be_read(folder / name)}
    for error in unlisted:
        if Path(error.filename) == top:
            raise error
        faults[Path(error.filename)] = f"it cannot be listed: {error.strerror}"
    within = Path(top.resolve().name)
    return [
        AnswerFile(path, encodable(str(within / path.relative_to(top))), faults[path])
        for path in sorted(faults, key=_natural)
    ]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePath(name).parts)


def _may_be_read(path: Path) -> bool:
    """Say whether a file below a folder may hold answers, as one may that cannot be opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        if _is_named_so(path.name):
            return True
        with path.open("rb") as file:
            return _looks_so(file.read(_HEAD_BYTES))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)  # a link that leads nowhere


def _is_named_so(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _looks_so(head: bytes) -> bool:
    """Say whether a file that begins so may hold answers, or would if it were not packed as it is."""
    return _is_tar(head) or head.startswith((_GZIP, *_ZIP, *_UTF16, *_COMPRESSED)) or bool(_OBJECT.match(head))


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _record_beside(path: Path) -> Mapping[str, Any]:
    try:
        record = parse_json((path.parent / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _read(stream: IO[bytes], origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield what a stream holds: an archive's members, a gzipped text's, a text's."""
    try:
        head = _peek(stream)
        if head.startswith(_GZIP):
            with gzip.open(stream) as unpacked:
                yield from _read_unpacked(cast("IO[bytes]", unpacked), origin)
        elif head.startswith(_ZIP):
            yield from _read_archive(_read_zip(stream, origin), origin)
        else:
            yield from _read_unpacked(stream, origin)
    except _DAMAGED as error:
        yield NoAnswer(origin.name, f"it is damaged: {error}")


def _read_unpacked(stream: IO[bytes], origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    head = _peek(stream)
    if _is_tar(head):
        yield from _read_archive(_read_tar(stream, origin), origin)
    elif reason := _why_not_read(head):
        yield NoAnswer(origin.name, reason)
    else:
        text = stream.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            yield NoAnswer(origin.name, f"it is larger than {_MAX_FILE_BYTES:,} bytes")
        else:
            yield from _read_text(text, origin)


def _why_not_read(head: bytes) -> str | None:
    """Return what is said of that which begins so, where it is no text."""
    if head.startswith((_GZIP, *_ZIP)):
        return "it is packed twice; unpack it first"
    if head.startswith(_UTF16):
        return "it is in UTF-16, which is not read; write it in UTF-8"
    packer = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    return packer and f"it is compressed with {packer}, which is not read; unpack it first"


def _read_archive(members: Iterator[FoundAnswer | NoAnswer], origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    if origin.packed:
        yield NoAnswer(origin.name, "it is an archive in an archive; unpack it first")
        return
    item = None
    for item in members:
        yield item
    if item is None:
        yield NoAnswer(origin.name, "it has no file that could hold answers")


def _read_zip(stream: IO[bytes], origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            name = member.filename.removeprefix("./")
            if member.is_dir() or _is_hidden(name):
                continue
            try:
                with archive.open(member) as content:
                    # A zip's times are in an unnamed time zone.
                    yield from _read_member(content, origin, name, None)
            except _DAMAGED as error:
                yield NoAnswer(encodable(f"{origin.name}/{name}"), f"it is damaged: {error}")


def _read_tar(stream: IO[bytes], origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            content = archive.extractfile(member) if member.isfile() and not _is_hidden(name) else None
            if content is not None:
                yield from _read_member(content, origin, name, _from_epoch(member.mtime))


def _from_epoch(seconds: float) -> datetime | None:
    """Return the time that a file or a member was written at, or None where it is no time that a calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _read_member(
    content: IO[bytes], origin: _Origin, name: str, modified_at: datetime | None
) -> Iterator[FoundAnswer | NoAnswer]:
    head = content.read(_HEAD_BYTES)
    if not _is_named_so(name) and not _looks_so(head):
        return
    name = encodable(f"{origin.name}/{name}")
    text = head + content.read(_MAX_FILE_BYTES)
    if len(text) > _MAX_FILE_BYTES:
        yield NoAnswer(name, "it is too large")
    else:
        yield from _read(BytesIO(text), _Origin(name, modified_at, packed=True))


def _peek(stream: IO[bytes]) -> bytes:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    return head


def _read_text(text: bytes, origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield what a JSON text holds, or each line of JSONL."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        yield from _read_value(text, origin)
    except (ValueError, RecursionError) as error:
        lines = text.splitlines()
        if _is_json_lines(lines):
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield from _read_text(line, origin.part(f":{number}"))
        else:
            yield NoAnswer(origin.name, _why_no_json(text, error))


def _is_json_lines(lines: Sequence[bytes]) -> bool:
    """Say whether the first of several lines is JSON by itself, or most of them are answers or envelopes.

    So the lines of an indented text that is damaged are not read each by itself.
    """
    several = [line for line in lines if line.strip()]
    return len(several) > 1 and (_is_json(several[0]) or 2 * sum(map(_holds_answers, several)) > len(several))


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _holds_answers(line: bytes) -> bool:
    try:
        fields = _TEXT.decode(line)
    except (ValueError, RecursionError):
        return False
    return fields.has_data or bool(fields.requests)


def _why_no_json(text: bytes, error: Exception) -> str:
    if text and not text.strip(b"\0"):
        return "it is nothing but zero bytes, as an empty .tar is"
    if zipfile.is_zipfile(BytesIO(text)):
        return "it is a .zip that something stands before; unpack it first"
    return f"it is no JSON: {error}"


def _read_value(text: bytes, origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield what one JSON value holds. Raises ValueError where it is none."""
    if _has_not_a_number(text):
        # Python's json takes it, so the contracts shall name the place. In a list or an envelope, the other answers are
        # as they were.
        payload = parse_json(text)
        if isinstance(payload, dict) and payload.get("data") is not None:
            yield _answer(text, origin, None)
            return
        text = _NOT_A_NUMBER.sub(lambda match: b"null" if match[1] else match[0], text)
    if text.lstrip().startswith(b"["):
        for number, item in enumerate(_LIST.decode(text), start=1):
            yield from _read_value(bytes(item), origin.part(f"[{number}]"))
        return
    fields = _fields(text)
    if fields.requests and not fields.has_data:
        yield from _read_envelope(fields, origin)
    elif fields.has_data or fields.error or not fields.sha256:  # an archive's own record is no answer, and no fault
        yield _read_response(text, fields, origin, _time(fields.fetched_at))


def _read_response(text: bytes, fields: _Text, origin: _Origin, fetched_at: datetime | None) -> FoundAnswer | NoAnswer:
    """Return what the API answered, in a file of its own or in an envelope."""
    if fields.has_data:
        return _answer(text, origin, fetched_at)
    if fields.error:
        return NoAnswer(origin.name, f"it is an error of the API: {_shown(fields.error)}")
    return NoAnswer(origin.name, f"it is neither an answer of {_ENDPOINT} nor an envelope of some")


def _has_not_a_number(text: bytes) -> bool:
    # The search for the names is quick, and nearly always says no.
    named = b"NaN" in text or b"Infinity" in text
    return named and any(match[1] for match in _NOT_A_NUMBER.finditer(text))


def _fields(text: bytes) -> _Text:
    try:
        return _TEXT.decode(text)
    except msgspec.ValidationError:
        return _Text()  # JSON, but no object


def _read_envelope(fields: _Text, origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    try:
        requests = [_request(item) for item in _LIST.decode(fields.requests)]
    except msgspec.ValidationError as error:
        yield NoAnswer(origin.name, f"its `requests` are not as in an envelope: {error}")
        return
    wanted = [request for request in requests if isinstance(request, str) or _asked_tasks(request)]
    if not wanted:
        yield NoAnswer(origin.name, f"none of its requests asked {_ENDPOINT}")
    for number, request in enumerate(wanted, start=1):
        part = origin.part("" if len(wanted) == 1 else f"[{number}]")
        if isinstance(request, str):
            yield NoAnswer(part.name, f"its request is not as in an envelope: {request}")
        elif request.status != _OK or not request.response:
            yield NoAnswer(
                part.name, f"its request was answered with status {_shown(request.status)} and is no snapshot"
            )
        else:
            response = bytes(request.response)
            yield _read_response(
                response, _fields(response), part, _time(request.fetched_at) or _time(fields.fetched_at)
            )


def _request(item: msgspec.Raw) -> _Request | str:
    """Return one request of an envelope, or what is odd about it."""
    try:
        return _REQUEST.decode(item)
    except msgspec.ValidationError as error:
        return str(error)


def _asked_tasks(request: _Request) -> bool:
    path = re.split("[?#]", request.path)[0]
    return path.rstrip("/").endswith(_ENDPOINT)


def _answer(body: bytes, origin: _Origin, fetched_at: datetime | None) -> FoundAnswer | NoAnswer:
    if len(body) > MAX_ANSWER_BYTES:
        return NoAnswer(origin.name, f"it is larger than {MAX_ANSWER_BYTES:,} bytes, as no answer is")
    record = origin.record if origin.record.get("sha256") == sha256(body).hexdigest() else {}
    demo = record.get("origin") == "demo"
    if not record.get("fetched_at_known", True):
        return FoundAnswer(body, origin.name, fetched_at, None, demo)  # written when it was imported there
    return FoundAnswer(body, origin.name, _instant(record.get("fetched_at")) or fetched_at, origin.modified_at, demo)


def _time(raw: msgspec.Raw) -> datetime | None:
    try:
        return _instant(msgspec.json.decode(raw)) if raw else None
    except ValueError:
        return None


def _instant(value: object) -> datetime | None:
    """Return the time that an ISO 8601 text names, in UTC (also where it names no time zone), or None."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _shown(value: msgspec.Raw) -> str:
    shown = json.dumps(parse_json(bytes(value)))
    return shown if len(shown) <= 100 else f"{shown[:97]}..."

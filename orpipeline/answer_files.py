"""Answers in files that somebody else kept: found by what a file holds, whatever it is called.

A file, or a member of a `.zip` or `.tar.gz`, gzipped or not, holds one of these, or a list or lines (JSONL) of them:

- the API's plain answer, `{"data": {...}}`;
- an envelope, `{"fetched_at": ..., "requests": [{"path": ..., "status": 200, "response": {"data": {...}}}]}`, with one
  answer or several. An answer's bytes are then those that stand in the envelope, to the letter.

An answer in a folder of another orpipeline's archive brings its record with it.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob, has_magic
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePath
from typing import IO, Any, cast

import msgspec

from orpipeline.archive import MAX_ANSWER_BYTES, RECORD_FILE
from orpipeline.errors import OrpipelineError
from orpipeline.openrouter.answer import parse_json

_MAX_FILE_BYTES = 1_000_000_000  # unpacked: ten years of answers in one file are a tenth of it
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz", ".zip", ".tgz", ".tar")
_ENDPOINT = "/classifications/task"
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
    """A path or pattern names no file that could hold answers."""


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
    modified_at: datetime | None
    record: Mapping[str, Any]


class _Text(msgspec.Struct):
    """The fields that tell an answer, an envelope and a record from each other."""

    data: msgspec.Raw = msgspec.Raw()
    requests: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    sha256: msgspec.Raw = msgspec.Raw()
    fetched_at: msgspec.Raw = msgspec.Raw()


class _Request(msgspec.Struct):
    """One request of an envelope."""

    path: str = _ENDPOINT
    status: int = 200
    fetched_at: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_TEXT = msgspec.json.Decoder(_Text)
_REQUESTS = msgspec.json.Decoder(list[_Request])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def find_files(paths: Sequence[str]) -> list[AnswerFile]:
    """Return the files that paths name: files, folders (and all below them), and patterns such as `2026-*.json.gz`.

    Below a folder, hidden files and those whose name ends in nothing that could hold answers are passed over. Raises
    NoSuchFileError for a path that names none.
    """
    found: dict[Path, AnswerFile] = {}
    for given in paths:
        try:
            files = [file for match in _matches(Path(given).expanduser()) for file in _below(match)]
        except OSError:  # a name that no file can have
            files = []
        if not files:
            raise NoSuchFileError(f"{given}: there is no file that could hold answers. Nothing was imported.")
        for file in files:
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def read_answers(file: AnswerFile) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield all that a file holds; what cannot be read is yielded as NoAnswer, and nothing is raised."""
    try:
        with file.path.open("rb") as stream:
            modified_at = _from_epoch(file.path.stat().st_mtime)
            yield from _read(stream, _Origin(file.name, modified_at, _record_beside(file.path)))
    except OSError as error:
        yield NoAnswer(file.name, f"it cannot be read: {error.strerror or error}")


def _matches(path: Path) -> list[Path]:
    if has_magic(str(path)) and not path.exists():
        return sorted(map(Path, glob(str(path), recursive=True)), key=_natural)  # noqa: PTH207 - it may be absolute
    return [path]


def _natural(path: PurePath) -> list[tuple[int, str]]:
    """Return what sorts `.r2` before `.r10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(str(path))]


def _below(path: Path) -> Iterator[AnswerFile]:
    if path.is_dir():
        for file in sorted(path.rglob("*"), key=_natural):
            within = file.relative_to(path)
            if _may_hold_answers(within) and file.is_file():
                yield AnswerFile(file, str(Path(path.resolve().name) / within))
    elif path.exists():
        yield AnswerFile(path, path.name)


def _may_hold_answers(within: PurePath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in within.parts)
    return within.name.lower().endswith(_SUFFIXES) and not hidden


def _record_beside(path: Path) -> Mapping[str, Any]:
    try:
        record = parse_json((path.parent / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _read(stream: IO[bytes], origin: _Origin, depth: int = 0) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield what a stream holds: an archive's members, a gzipped text's, a text's."""
    try:
        head = _peek(stream)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(stream) as unpacked:
                yield from _read_unpacked(cast("IO[bytes]", unpacked), origin, depth)
        elif head.startswith(b"PK\x03\x04"):
            yield from _read_zip(stream, origin, depth)
        else:
            yield from _read_unpacked(stream, origin, depth)
    except _DAMAGED as error:
        yield NoAnswer(origin.name, f"it is damaged: {error}")


def _read_unpacked(stream: IO[bytes], origin: _Origin, depth: int) -> Iterator[FoundAnswer | NoAnswer]:
    if _peek(stream)[257:262] == b"ustar":
        yield from _read_tar(stream, origin, depth)
        return
    text = stream.read(_MAX_FILE_BYTES + 1)
    if len(text) > _MAX_FILE_BYTES:
        yield NoAnswer(origin.name, f"it is larger than {_MAX_FILE_BYTES:,} bytes")
    else:
        yield from _read_text(text, origin)


def _read_zip(stream: IO[bytes], origin: _Origin, depth: int) -> Iterator[FoundAnswer | NoAnswer]:
    with zipfile.ZipFile(stream) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        wanted = [member for member in members if _may_hold_answers(PurePath(member.filename.removeprefix("./")))]
        if not wanted:
            yield NoAnswer(origin.name, "it has no file that could hold answers")
        for member in wanted:
            name = member.filename.removeprefix("./")
            try:
                with archive.open(member) as content:
                    # A zip's times are in an unnamed time zone.
                    yield from _read_member(content, origin, name, None, depth)
            except _DAMAGED as error:
                yield NoAnswer(f"{origin.name}/{name}", f"it is damaged: {error}")


def _read_tar(stream: IO[bytes], origin: _Origin, depth: int) -> Iterator[FoundAnswer | NoAnswer]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            content = archive.extractfile(member) if member.isfile() and _may_hold_answers(PurePath(name)) else None
            if content is not None:
                yield from _read_member(content, origin, name, _from_epoch(member.mtime), depth)


def _from_epoch(seconds: float) -> datetime | None:
    """Return the time that a file or a member was written at, or None where it is no time that a calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _read_member(
    content: IO[bytes], origin: _Origin, name: str, modified_at: datetime | None, depth: int
) -> Iterator[FoundAnswer | NoAnswer]:
    name = f"{origin.name}/{name}"
    packed = content.read(_MAX_FILE_BYTES + 1)
    if depth or len(packed) > _MAX_FILE_BYTES:
        yield NoAnswer(name, "it is an archive in an archive; unpack it first" if depth else "it is too large")
    else:
        yield from _read(BytesIO(packed), _Origin(name, modified_at, {}), depth + 1)


def _peek(stream: IO[bytes]) -> bytes:
    head = stream.read(512)
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
                    yield from _read_text(line, _Origin(f"{origin.name}:{number}", origin.modified_at, {}))
        else:
            yield NoAnswer(origin.name, f"it is no JSON: {error}")


def _is_json_lines(lines: Sequence[bytes]) -> bool:
    """Say whether at least one of several lines is an object by itself."""
    several = [line for line in lines if line.strip()]
    return len(several) > 1 and any(map(_is_object, several))


def _is_object(line: bytes) -> bool:
    try:
        _TEXT.decode(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read_value(text: bytes, origin: _Origin) -> Iterator[FoundAnswer | NoAnswer]:
    """Yield what one JSON value holds. Raises ValueError where it is none."""
    if _has_not_a_number(text):
        # Python's json takes it, so the contracts shall name the place. In a list or an envelope, the other answers are
        # as they were.
        payload = parse_json(text)
        if isinstance(payload, dict) and "data" in payload:
            yield _answer(text, origin, None)
            return
        text = _NOT_A_NUMBER.sub(lambda match: b"null" if match[1] else match[0], text)
    if text.lstrip().startswith(b"["):
        for number, item in enumerate(_LIST.decode(text), start=1):
            yield from _read_value(bytes(item), _Origin(f"{origin.name}[{number}]", origin.modified_at, {}))
        return
    fields = _fields(text)
    if fields.data:
        yield _answer(text, origin, _time(fields.fetched_at))
    elif fields.requests:
        yield from _read_envelope(fields, origin)
    elif fields.error:
        yield NoAnswer(origin.name, f"it is an error of the API: {_shown(bytes(fields.error))}")
    elif not fields.sha256:  # an archive's own record is no answer, and no fault
        yield NoAnswer(origin.name, f"it is neither an answer of {_ENDPOINT} nor an envelope of some")


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
        requests = _REQUESTS.decode(fields.requests)
    except msgspec.ValidationError as error:
        yield NoAnswer(origin.name, f"its `requests` are not as in an envelope: {error}")
        return
    wanted = [request for request in requests if request.path.rstrip("/").endswith(_ENDPOINT)]
    if not wanted:
        yield NoAnswer(origin.name, f"none of its requests asked {_ENDPOINT}")
    for number, request in enumerate(wanted, start=1):
        name = origin.name if len(wanted) == 1 else f"{origin.name}[{number}]"
        if request.status != 200 or not request.response:
            yield NoAnswer(name, f"its request was answered with status {request.status} and is no snapshot")
        else:
            fetched_at = _time(request.fetched_at) or _time(fields.fetched_at)
            yield _answer(bytes(request.response), _Origin(name, origin.modified_at, {}), fetched_at)


def _answer(body: bytes, origin: _Origin, fetched_at: datetime | None) -> FoundAnswer | NoAnswer:
    if len(body) > MAX_ANSWER_BYTES:
        return NoAnswer(origin.name, f"it is larger than {MAX_ANSWER_BYTES:,} bytes, as no answer is")
    record = origin.record if origin.record.get("sha256") == sha256(body).hexdigest() else {}
    if record.get("fetched_at_known", True):
        fetched_at = _instant(record.get("fetched_at")) or fetched_at
    return FoundAnswer(body, origin.name, fetched_at, origin.modified_at, demo=record.get("origin") == "demo")


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


def _shown(text: bytes) -> str:
    shown = json.dumps(parse_json(text))
    return shown if len(shown) <= 100 else f"{shown[:97]}..."

"""The answers in a JSON text.

A text holds one of these, or a list or lines (JSONL) of them:

- an answer as the API sends it, `{"data": {...}}`;
- an envelope, `{"fetched_at": ..., "requests": [{"path": ..., "status": 200, "response": {"data": {...}}}]}`, with one
  answer or several. Each answer is cut out of the envelope byte for byte.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from typing import Any

import msgspec

from orpipeline.archive.records import MAX_ANSWER_BYTES
from orpipeline.openrouter.answer import parse_json

_ENDPOINT = "/classifications/task"
# Strings (which are skipped, whatever they contain), and the names that Python's json reads but JSON does not have.
_STRING_OR_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)')


@dataclass(frozen=True)
class FoundAnswer:
    """An answer found in a file, not yet validated."""

    body: bytes
    """The answer's bytes, 20 MB at most."""
    source: str
    """Where it was found: the file's name, then the archive member, line or position, as in `days.zip/a.json[2]`."""
    fetched_at: datetime | None
    """The fetch time that the file or an archive's record states, in UTC, or None."""
    modified_at: datetime | None
    """When the file was last written, in UTC, or None if that is unknown."""
    demo: bool = False
    """Whether the archive that it comes from records it as demo data."""
    fetch_time_recorded: bool = False
    """Whether `fetched_at` is what another orpipeline recorded when it fetched the answer."""


@dataclass(frozen=True)
class Rejected:
    """A file, or a part of one, that is not imported, and the reason."""

    source: str
    """Its name, as in `FoundAnswer`."""
    reason: str


Found = FoundAnswer | Rejected


@dataclass(frozen=True)
class Origin:
    """What is known about a text before it is read."""

    name: str
    modified_at: datetime | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """The record beside the file, if the file is in another orpipeline's archive."""
    packed: bool = False
    """Whether the text is a member of a zip or tar."""

    def part(self, place: str) -> Origin:
        """Return the origin of a part of the text."""
        return Origin(f"{self.name}{place}", self.modified_at)


_ABSENT, _NULL, _OK = msgspec.Raw(), msgspec.Raw(b"null"), msgspec.Raw(b"200")


class _Fields(msgspec.Struct):
    """The fields that distinguish an answer, an envelope and a record."""

    data: msgspec.Raw = msgspec.Raw()
    requests: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    sha256: msgspec.Raw = msgspec.Raw()
    fetched_at: msgspec.Raw = msgspec.Raw()

    @property
    def has_data(self) -> bool:
        return self.data not in (_ABSENT, _NULL)


class _Request(msgspec.Struct):
    """One request of an envelope."""

    path: str = _ENDPOINT
    status: msgspec.Raw = _OK
    fetched_at: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()

    @property
    def is_for_tasks(self) -> bool:
        return re.split("[?#]", self.path)[0].rstrip("/").endswith(_ENDPOINT)


# msgspec.Raw keeps the exact bytes of a value, which Python's json does not.
_FIELDS = msgspec.json.Decoder(_Fields)
_REQUEST = msgspec.json.Decoder(_Request)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def read_text(text: bytes, origin: Origin) -> Iterator[Found]:
    """Yield each answer in a JSON or JSONL text, and what cannot be read as one."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        yield from _read_value(text, origin)
    except (ValueError, RecursionError) as error:
        lines = text.splitlines()
        if _is_json_lines(lines):
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield from read_text(line, origin.part(f":{number}"))
        else:
            yield Rejected(origin.name, _why_not_json(text, error))


def _is_json_lines(lines: Sequence[bytes]) -> bool:
    """Return whether these are lines of JSONL: the first one is JSON, or most of them are answers or envelopes.

    The lines of a damaged, indented JSON text are neither, so it is reported once and not once for each line.
    """
    filled = [line for line in lines if line.strip()]
    return len(filled) > 1 and (_is_json(filled[0]) or 2 * sum(map(_holds_answers, filled)) > len(filled))


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _holds_answers(line: bytes) -> bool:
    try:
        fields = _FIELDS.decode(line)
    except (ValueError, RecursionError):
        return False
    return fields.has_data or bool(fields.requests)


def _why_not_json(text: bytes, error: Exception) -> str:
    if text and not text.strip(b"\0"):
        return "it has only zero bytes, like an empty .tar"
    if zipfile.is_zipfile(BytesIO(text)):
        return "it is a .zip with other content before it; unpack it first"
    return f"not valid JSON: {error}"


def _read_value(text: bytes, origin: Origin) -> Iterator[Found]:
    """Yield what one JSON value holds. Raises ValueError if the text is not JSON."""
    if _has_nan(text):
        # Python's json reads NaN and msgspec does not. An answer is passed on as it is: the contracts name the value's
        # place. In a list or an envelope, null replaces NaN: the answer is rejected, and the others keep their bytes.
        payload = parse_json(text)
        if isinstance(payload, dict) and payload.get("data") is not None:
            yield _answer(text, origin, None)
            return
        text = _STRING_OR_NAN.sub(lambda match: b"null" if match[1] else match[0], text)
    if text.lstrip().startswith(b"["):
        for number, item in enumerate(_LIST.decode(text), start=1):
            yield from _read_value(bytes(item), origin.part(f"[{number}]"))
        return
    fields = _fields(text)
    if fields.requests and not fields.has_data:
        yield from _read_envelope(fields, origin)
    elif fields.has_data or fields.error or not fields.sha256:  # skips an archive's record
        yield _read_response(text, fields, origin, _time(fields.fetched_at))


def _has_nan(text: bytes) -> bool:
    # The plain search is fast and nearly always finds nothing.
    named = b"NaN" in text or b"Infinity" in text
    return named and any(match[1] for match in _STRING_OR_NAN.finditer(text))


def _fields(text: bytes) -> _Fields:
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError:
        return _Fields()  # JSON, but not an object


def _read_response(text: bytes, fields: _Fields, origin: Origin, fetched_at: datetime | None) -> Found:
    """Return what the API sent, alone or in an envelope."""
    if fields.has_data:
        return _answer(text, origin, fetched_at)
    if fields.error:
        return Rejected(origin.name, f"it is an API error: {_shortened(fields.error)}")
    return Rejected(origin.name, f"it is neither an answer of {_ENDPOINT} nor an envelope with answers")


def _read_envelope(envelope: _Fields, origin: Origin) -> Iterator[Found]:
    try:
        requests = [_request(item) for item in _LIST.decode(envelope.requests)]
    except msgspec.ValidationError as error:
        yield Rejected(origin.name, f"its `requests` are not those of an envelope: {error}")
        return
    wanted = [request for request in requests if isinstance(request, str) or request.is_for_tasks]
    if not wanted:
        yield Rejected(origin.name, f"it has no request for {_ENDPOINT}")
    for number, request in enumerate(wanted, start=1):
        yield _read_request(request, envelope, origin.part("" if len(wanted) == 1 else f"[{number}]"))


def _request(item: msgspec.Raw) -> _Request | str:
    """Return one request of an envelope, or why it cannot be read."""
    try:
        return _REQUEST.decode(item)
    except msgspec.ValidationError as error:
        return str(error)


def _read_request(request: _Request | str, envelope: _Fields, origin: Origin) -> Found:
    if isinstance(request, str):
        return Rejected(origin.name, f"its request is not that of an envelope: {request}")
    if request.status != _OK or not request.response:
        return Rejected(origin.name, f"its request failed: status {_shortened(request.status)}")
    body = bytes(request.response)
    return _read_response(body, _fields(body), origin, _time(request.fetched_at) or _time(envelope.fetched_at))


def _answer(body: bytes, origin: Origin, fetched_at: datetime | None) -> Found:
    if len(body) > MAX_ANSWER_BYTES:
        return Rejected(origin.name, f"it is larger than {MAX_ANSWER_BYTES:,} bytes, the limit for an answer")
    record = origin.record if origin.record.get("sha256") == sha256(body).hexdigest() else {}
    demo = record.get("origin") == "demo"
    if not record.get("fetched_at_known", True):
        return FoundAnswer(body, origin.name, fetched_at, None, demo)  # the file's time is that of its import there
    return FoundAnswer(body, origin.name, _instant(record.get("fetched_at")) or fetched_at, origin.modified_at, demo)


def _time(value: msgspec.Raw) -> datetime | None:
    try:
        return _instant(parse_json(bytes(value))) if value else None
    except ValueError:  # msgspec skips a value without decoding it
        return None


def _instant(value: object) -> datetime | None:
    """Return the time that an ISO 8601 text names, in UTC (UTC is assumed if it has no time zone), or None."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _shortened(value: msgspec.Raw) -> str:
    shown = json.dumps(parse_json(bytes(value)))
    return shown if len(shown) <= 100 else f"{shown[:97]}..."

"""The answers in a JSON text.

A text holds one of these, or a list or lines (JSONL) of them:

- an answer as the API sends it, `{"data": {...}}`;
- an envelope, `{"fetched_at": ..., "requests": [{"path": ..., "status": 200, "response": {"data": {...}}}]}`, with one
  answer or several. Each answer is cut out of the envelope byte for byte.

Time is linear in a text's length. Memory is that of a text of `MAX_TEXT_BYTES`, of which only answers are copied.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import islice, takewhile
from typing import Any

import msgspec

from orpipeline.archive.records import FetchTime, Record
from orpipeline.importing.limits import (
    CHUNK_BYTES,
    MAX_ANSWER_BYTES,
    MAX_ANSWER_COMMAS,
    MAX_ANSWER_OBJECTS,
    MAX_ITEMS,
    MAX_LINE_BYTES,
    MAX_TEXT_BYTES,
    Allowance,
    Readable,
)
from orpipeline.openrouter.answer import parse_json
from orpipeline.text import plain

_ENDPOINT = "/classifications/task"
_BLANK = re.compile(rb"\s*+")
_LIST_START = re.compile(rb"\s*+\[")
_NAN = re.compile(rb"NaN|Infinity")
# The names that Python's json reads but JSON does not have, and before them strings (whatever these contain) and the
# rest. No part of it can match in two ways (`*+` never gives back), so the time is linear.
_UP_TO_NAN = re.compile(
    rb"""[^"NI-]*+(?:(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|-(?!Infinity))[^"NI-]*+)*+(NaN|-?Infinity)""", re.DOTALL
)
_MAX_NANS = 1_000
_MAX_NAN_TEXT_BYTES = 10_000_000  # it is copied
_SAMPLED_LINES = 1_000
_HEAD_BYTES = 1_000_000  # enough for the first lines of usual JSONL
_LONGEST_SHOWN = 100  # characters of a value

_Text = bytes | bytearray | memoryview | msgspec.Raw


@dataclass(frozen=True)
class FoundAnswer:
    """An answer found in a file, not yet validated."""

    body: bytes
    """The answer's bytes, 2 MB at most."""
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
    """A file, or a part of one, that is not imported, and the reason. Both texts are short: long ones are cut."""

    source: str
    """Its name, as in `FoundAnswer`."""
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", shortened(self.source, 300))
        object.__setattr__(self, "reason", shortened(self.reason, 1_000))


Found = FoundAnswer | Rejected


@dataclass(frozen=True)
class Origin:
    """What is known about a text before it is read."""

    name: str
    modified_at: datetime | None = None
    record: Record | None = None
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

    path: msgspec.Raw = msgspec.Raw(b'"/classifications/task"')
    status: msgspec.Raw = _OK
    fetched_at: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()

    @property
    def is_for_tasks(self) -> bool:
        """Whether its path is that of the endpoint. Raises ValidationError if that is not a text."""
        path = msgspec.json.decode(self.path, type=str) if len(self.path) < 2_000 else ""
        return re.split("[?#]", path)[0].rstrip("/").endswith(_ENDPOINT)


# msgspec.Raw keeps the exact bytes of a value, which Python's json does not, and does not copy them.
_FIELDS = msgspec.json.Decoder(_Fields)
_REQUEST = msgspec.json.Decoder(_Request)
_ANY = msgspec.json.Decoder(msgspec.Raw)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def read_text(stream: Readable, origin: Origin, allowance: Allowance) -> Iterator[Found]:
    """Yield each answer in a JSON or JSONL text, and what cannot be read as one."""
    text = stream.read(_HEAD_BYTES) or b""
    start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    if _begins_with_json_line(text, start):
        yield from _read_lines(_filled_lines(text, start, stream), origin, allowance)
        return
    text += stream.read(MAX_TEXT_BYTES + 1 - len(text)) or b""
    if len(text) > MAX_TEXT_BYTES:
        reason = _too_large(MAX_TEXT_BYTES)
    else:
        try:
            yield from _read_value(memoryview(text)[start:], origin, allowance)
            return
        except (ValueError, RecursionError) as error:
            reason = _why_not_json(text, error)
    if _is_json_lines(text, start):
        lines = _filled_lines(text, start, stream)
        del text  # the lines are views of it, and let it go when they are read
        yield from _read_lines(lines, origin, allowance)
    else:
        yield Rejected(origin.name, reason)


def _too_large(limit: int) -> str:
    return f"it is larger than {limit:,} bytes; split it, or make it JSONL with one answer in each line"


def _filled_lines(text: bytes, start: int, stream: Readable) -> Iterator[tuple[int, _Text | None]]:
    """Yield each line's number and content, without blank lines; None for a line that is too long.

    The lines are those of `text` from `start` on, and then those of the stream.
    """
    chunk, at, number = text, start, 1
    del text
    begun, too_long = bytearray(), False  # a line that began in an earlier chunk
    while chunk:
        if not begun and not too_long:
            filled = _BLANK.match(chunk, at).end()  # type: ignore[union-attr] # it always matches
            number += chunk.count(b"\n", at, filled)
            at = filled
        end = chunk.find(b"\n", at)
        line = memoryview(chunk)[at : end if end >= 0 else None]
        too_long |= len(begun) + len(line) > MAX_LINE_BYTES
        if end < 0 or begun:
            begun += b"" if too_long else line
        if end < 0:
            del line
            chunk, at = stream.read(CHUNK_BYTES) or b"", 0
            continue
        yield number, None if too_long else _without_return(begun or line)
        begun, too_long = bytearray(), False
        at, number = end + 1, number + 1
    if begun or too_long:
        yield number, None if too_long else _without_return(begun)


def _without_return(line: bytearray | memoryview) -> memoryview:
    view = memoryview(line)
    return view[:-1] if view and view[-1] == ord("\r") else view


def _begins_with_json_line(text: bytes, start: int) -> bool:
    """Return whether a text's first line is JSON and another one follows. Then the text need not be read at once."""
    lines = [line for _, line in islice(_filled_lines(text, start, BytesIO()), 2)]
    return len(lines) > 1 and _is_json(lines[0])


def _is_json_lines(text: bytes, start: int) -> bool:
    """Return whether a text is JSONL: its first line is JSON, or most of its first lines are answers or envelopes.

    The lines of a damaged, indented JSON text are neither, so it is reported once and not once for each line.
    """
    sample = [line for _, line in islice(_filled_lines(text, start, BytesIO()), _SAMPLED_LINES)]
    return len(sample) > 1 and (_is_json(sample[0]) or 2 * sum(map(_holds_answers, sample)) > len(sample))


def _is_json(line: _Text | None) -> bool:
    try:
        return line is not None and bool(_ANY.decode(_without_nan(line)))
    except (ValueError, RecursionError):
        return False


def _holds_answers(line: _Text | None) -> bool:
    try:
        fields = _FIELDS.decode(line or b"")
    except (ValueError, RecursionError):
        return False
    return fields.has_data or bool(fields.requests)


def _why_not_json(text: bytes, error: Exception) -> str:
    if text and text.count(0) == len(text):
        return "it has only zero bytes, like an empty .tar"
    if zipfile.is_zipfile(BytesIO(text)):
        return "it is a .zip with other content before it; unpack it first"
    return f"not valid JSON: {error}"


def _read_lines(lines: Iterator[tuple[int, _Text | None]], origin: Origin, allowance: Allowance) -> Iterator[Found]:
    for number, line in lines:
        place = origin.part(f":{number}")
        try:
            if line is None:
                yield Rejected(place.name, _too_large(MAX_LINE_BYTES))
            else:
                yield from _read_value(line, place, allowance)
        except (ValueError, RecursionError) as error:
            yield Rejected(place.name, f"not valid JSON: {error}")
        del line  # it keeps the whole text in memory


def _read_value(text: _Text, origin: Origin, allowance: Allowance) -> Iterator[Found]:
    """Yield what one JSON value holds. Raises ValueError or RecursionError if the text is not JSON."""
    allowance.take_part()
    # Python's json reads NaN and msgspec does not. An answer is passed on as it is: the contracts name the value's
    # place. In a list or an envelope, null replaces NaN: the answer is rejected, and the others keep their bytes.
    json_text = _without_nan(text)
    if not _LIST_START.match(json_text):
        yield from _read_object(json_text, text, origin)
        return
    items = _items(json_text)
    for number, item in enumerate(items[:MAX_ITEMS], start=1):
        allowance.take_part()
        yield from _read_object(item, item, origin.part(f"[{number}]"))
    if len(items) > MAX_ITEMS:
        yield Rejected(origin.name, _TOO_MANY_ITEMS)


_TOO_MANY_ITEMS = f"it has more than {MAX_ITEMS:,} items, and the others are not read; split it"


def _without_nan(text: _Text) -> _Text:
    """Return the text, with `null` for each NaN and Infinity. Raises ValueError or RecursionError if it is not JSON."""
    try:
        _ANY.decode(text)
        return text
    except ValueError:
        if not _NAN.search(text):
            raise
    parts: list[_Text] = []
    start, view = 0, memoryview(text)
    while match := _UP_TO_NAN.match(view, start):
        if len(parts) > 2 * _MAX_NANS or len(view) > _MAX_NAN_TEXT_BYTES:
            raise ValueError("it has too many values NaN or Infinity, which JSON does not have")
        parts += [view[start : match.start(1)], b"null"]
        start = match.end()
    return b"".join([*parts, view[start:]])


def _items(text: _Text) -> Sequence[msgspec.Raw]:
    """Return the items of a list, at most one more than `MAX_ITEMS`."""
    if len(memoryview(text)) < 10 * MAX_ITEMS:
        return _LIST.decode(text)[: MAX_ITEMS + 1]
    # Millions of small items would fill the memory.
    return list(takewhile(bool, msgspec.structs.astuple(_first_items().decode(text))))


@cache
def _first_items() -> msgspec.json.Decoder[Any]:
    """Return a decoder that validates a list and keeps its first items only."""
    fields = [(f"item_{n}", msgspec.Raw, _ABSENT) for n in range(MAX_ITEMS + 1)]
    return msgspec.json.Decoder(msgspec.defstruct("FirstItems", fields, array_like=True))


def _read_object(json_text: _Text, text: _Text, origin: Origin) -> Iterator[Found]:
    """Yield what an answer, an envelope or another value holds: `text` itself, or without NaN as `json_text`."""
    fields = _fields(json_text)
    if fields.requests and not fields.has_data:
        yield from _read_envelope(fields, origin)
    elif fields.has_data or fields.error or not fields.sha256:  # skips an archive's record
        yield _read_response(text, fields, origin, _time(fields.fetched_at))


def _fields(text: _Text) -> _Fields:
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError:
        return _Fields()  # JSON, but not an object


def _read_response(text: _Text, fields: _Fields, origin: Origin, fetched_at: datetime | None) -> Found:
    """Return what the API sent, alone or in an envelope."""
    if fields.has_data:
        return _answer(memoryview(text), origin, fetched_at)
    if fields.error:
        return Rejected(origin.name, f"it is an API error: {_shown(fields.error)}")
    return Rejected(origin.name, f"it is neither an answer of {_ENDPOINT} nor an envelope with answers")


def _read_envelope(envelope: _Fields, origin: Origin) -> Iterator[Found]:
    try:
        items = _items(envelope.requests)
    except msgspec.ValidationError as error:
        yield Rejected(origin.name, f"its `requests` are not those of an envelope: {error}")
        return
    requests = [_request(item) for item in items[:MAX_ITEMS]]
    wanted = [request for request in requests if request is not None]
    if not wanted:
        yield Rejected(origin.name, f"it has no request for {_ENDPOINT}")
    for number, request in enumerate(wanted, start=1):
        yield _read_request(request, envelope, origin.part("" if len(wanted) == 1 else f"[{number}]"))
    if len(items) > MAX_ITEMS:
        yield Rejected(origin.name, _TOO_MANY_ITEMS)


def _request(item: msgspec.Raw) -> _Request | str | None:
    """Return one request of an envelope, or why it cannot be read; None if it is for another endpoint."""
    try:
        request = _REQUEST.decode(item)
        return request if request.is_for_tasks else None
    except msgspec.ValidationError as error:
        return str(error)


def _read_request(request: _Request | str, envelope: _Fields, origin: Origin) -> Found:
    if isinstance(request, str):
        return Rejected(origin.name, f"its request is not that of an envelope: {request}")
    if request.status != _OK or not request.response:
        return Rejected(origin.name, f"its request failed: status {_shown(request.status)}")
    fetched_at = _time(request.fetched_at) or _time(envelope.fetched_at)
    return _read_response(request.response, _fields(request.response), origin, fetched_at)


def _answer(text: memoryview, origin: Origin, fetched_at: datetime | None) -> Found:
    if len(text) > MAX_ANSWER_BYTES:
        return Rejected(origin.name, f"it is larger than {MAX_ANSWER_BYTES:,} bytes, the limit for an imported answer")
    body, record = bytes(text), origin.record
    if body.count(b"{") > MAX_ANSWER_OBJECTS or body.count(b",") > MAX_ANSWER_COMMAS:
        return Rejected(origin.name, f"it has more than {MAX_ANSWER_OBJECTS:,} objects or {MAX_ANSWER_COMMAS:,} commas")
    if record is None:
        return FoundAnswer(body, origin.name, fetched_at, origin.modified_at)
    if record.sha256 != sha256(body).hexdigest():
        return Rejected(origin.name, "it is damaged: its sha256 does not match the record beside it")
    if record.as_of is None:
        return Rejected(origin.name, "the archive that it comes from records that it belongs to no day")
    demo = record.origin == "demo"
    if record.fetch_time is FetchTime.UNKNOWN:
        return FoundAnswer(body, origin.name, fetched_at, None, demo)  # the file's time is that of its import there
    recorded = record.fetch_time is FetchTime.RECORDED
    return FoundAnswer(body, origin.name, record.fetched_at, origin.modified_at, demo, recorded)


def _time(value: msgspec.Raw) -> datetime | None:
    try:
        return _instant(parse_json(bytes(value))) if 0 < len(value) <= 100 else None
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


def _shown(value: msgspec.Raw) -> str:
    """Return the beginning of a JSON value, in one line."""
    start = bytes(memoryview(value)[: 4 * _LONGEST_SHOWN]).decode(errors="backslashreplace")
    return shortened(plain(" ".join(start.split())), _LONGEST_SHOWN)


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text: its beginning and, if there are more, three dots."""
    return text if len(text) <= length else f"{text[: length - 3]}..."

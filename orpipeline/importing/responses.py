"""The responses in a JSON text.

A text holds one of these, or a list or lines (JSONL) of them:

- a response as the API sends it, `{"data": {...}}`;
- an envelope, `{"fetched_at": ..., "requests": [{"path": ..., "status": 200, "response": {"data": {...}}}]}`, with one
  response or several. Each response is cut out of the envelope byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from io import BufferedReader, BytesIO
from itertools import chain

import msgspec
from msgspec import Raw

from orpipeline.archive import Revision
from orpipeline.importing.limits import MAX_RESPONSE_BYTES, MAX_TEXT_BYTES, MAX_TEXT_COMMAS, Allowance
from orpipeline.text import one_line

_ENDPOINT = "/classifications/task"
_LONGEST_SHOWN = 100  # characters of a value
_SPLIT = "split it, or make it JSONL with one response in each line"


@dataclass(frozen=True)
class FoundResponse:
    """A response found in a file, not yet validated."""

    body: bytes
    """The response's bytes, 2 MB at most."""
    source: str
    """Where it was found: the file's name, then the archive member, line or position, as in `days.zip/a.json[2]`."""
    fetched_at: datetime | None
    """The fetch time that the file states, in UTC, or None."""
    modified_at: datetime | None
    """When the file was last written, in UTC, or None if that is unknown or has no meaning."""
    origin: str = "import"
    """`import`, or the origin that another orpipeline's archive states."""


@dataclass(frozen=True)
class Rejected:
    """A file, or a part of one, that is not imported, and the reason. Both texts are short: long ones are cut."""

    source: str
    """Its name, as in `FoundResponse`."""
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", _shortened(self.source, 300))
        object.__setattr__(self, "reason", _shortened(self.reason, 1_000))


Found = FoundResponse | Rejected


@dataclass(frozen=True)
class Place:
    """Where a text is, and what is known about it before it is read."""

    name: str
    modified_at: datetime | None = None
    archived: Revision | None = None
    """What the file's name states, if it is one of another orpipeline's archive."""
    packed: bool = False
    """Whether the text is a member of a zip or tar."""

    def part(self, place: str) -> Place:
        """Return the place of a part of the text."""
        return Place(f"{self.name}{place}", self.modified_at)


class _Object(msgspec.Struct):
    """The fields that distinguish a response from an envelope. msgspec.Raw has the exact bytes of a value."""

    data: Raw = Raw()
    requests: Raw = Raw()
    error: Raw = Raw()
    fetched_at: Raw = Raw()

    @property
    def has_data(self) -> bool:
        return self.data not in (Raw(), Raw(b"null"))


class _Request(msgspec.Struct):
    """One request of an envelope."""

    path: str = _ENDPOINT
    status: Raw = Raw(b"200")
    fetched_at: Raw = Raw()
    response: Raw = Raw()


_Text = bytes | Raw
_Objects = Sequence[tuple[_Text, Place]]
_JSON = msgspec.json.Decoder(Raw)
_LIST = msgspec.json.Decoder(list[Raw])
_OBJECT = msgspec.json.Decoder(_Object)
_REQUEST = msgspec.json.Decoder(_Request)


def read_text(stream: BufferedReader, place: Place, allowance: Allowance) -> Iterator[Found]:
    """Yield each response in a JSON or JSONL text, and what cannot be read as one."""
    text = stream.read(MAX_TEXT_BYTES).removeprefix(b"\xef\xbb\xbf")
    if stream.peek(1):
        objects: _Objects | str = f"it is larger than {MAX_TEXT_BYTES:,} bytes; {_SPLIT}"
    else:
        objects = _objects(text, place, allowance)
    # The first line of JSONL may be damaged. In other JSON, neither of the first two lines is JSON by itself.
    if isinstance(objects, str) and any(map(_is_json, text.lstrip().split(b"\n", 2)[:2])):
        yield from _read_lines(text, stream, place, allowance)
    else:
        yield from _read_objects(objects, place, allowance)


def _read_lines(text: bytes, stream: BufferedReader, place: Place, allowance: Allowance) -> Iterator[Found]:
    """Read the lines of a text and of the rest of its stream. A line that is too long is cut into several."""
    text += stream.readline(MAX_TEXT_BYTES)
    number = 1
    for line in chain(BytesIO(text), iter(partial(stream.readline, MAX_TEXT_BYTES), b"")):
        allowance.take_parts()
        if not line.isspace():
            at = place.part(f":{number}")
            yield from _read_objects(_objects(line.rstrip(b"\r\n"), at, allowance), at, allowance)
        number += line.endswith(b"\n")


def _is_json(line: bytes) -> bool:
    try:
        return bool(_JSON.decode(line))
    except (ValueError, RecursionError):
        return False


def _objects(text: bytes, place: Place, allowance: Allowance) -> _Objects | str:
    """Return a JSON value, or a list's items with their places; or why the text cannot be read."""
    if text.count(b",") > MAX_TEXT_COMMAS:
        return f"it has more than {MAX_TEXT_COMMAS:,} values; {_SPLIT}"
    try:
        if text.lstrip().startswith(b"["):
            return [(item, place.part(f"[{n}]")) for n, item in enumerate(_items(text, allowance), start=1)]
        _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    return [(text, place)]


def _items(text: _Text, allowance: Allowance) -> Sequence[Raw]:
    items = _LIST.decode(text)
    allowance.take_parts(len(items))
    return items


def _read_objects(objects: _Objects | str, place: Place, allowance: Allowance) -> Iterator[Found]:
    """Yield what responses, envelopes or other JSON values hold."""
    if isinstance(objects, str):
        yield Rejected(place.name, objects)
        return
    for text, at in objects:
        found = _object(text)
        if found.requests and not found.has_data:
            yield from _read_envelope(found, at, allowance)
        else:
            yield _response(text, found, at, _time(found.fetched_at))


def _object(text: _Text) -> _Object:
    try:
        return _OBJECT.decode(text)
    except msgspec.ValidationError:
        return _Object()  # JSON, but not an object


def _read_envelope(envelope: _Object, place: Place, allowance: Allowance) -> Iterator[Found]:
    try:
        items = _items(envelope.requests, allowance)
    except msgspec.ValidationError as error:
        yield Rejected(place.name, f"its `requests` are not those of an envelope: {error}")
        return
    requests = [one for item in items if (one := _request(item)) is not None]
    if not requests:
        yield Rejected(place.name, f"it has no request for {_ENDPOINT}")
    for number, request in enumerate(requests, start=1):
        at = place.part("" if len(requests) == 1 else f"[{number}]")
        if isinstance(request, str):
            yield Rejected(at.name, f"its request is not that of an envelope: {request}")
        elif request.status != Raw(b"200") or not request.response:
            yield Rejected(at.name, f"its request failed: status {_shown(request.status)}")
        else:
            fetched_at = _time(request.fetched_at) or _time(envelope.fetched_at)
            yield _response(request.response, _object(request.response), at, fetched_at)


def _request(item: Raw) -> _Request | str | None:
    """Return one request of an envelope, or why it cannot be read; None if it is for another endpoint."""
    try:
        request = _REQUEST.decode(item)
    except msgspec.ValidationError as error:
        return str(error)
    return request if re.split("[?#]", request.path)[0].rstrip("/").endswith(_ENDPOINT) else None


def _response(text: _Text, found: _Object, place: Place, fetched_at: datetime | None) -> Found:
    """Return what the API sent, alone or in an envelope."""
    if not found.has_data:
        if found.error:
            return Rejected(place.name, f"it is an API error: {_shown(found.error)}")
        return Rejected(place.name, f"it is neither a response of {_ENDPOINT} nor an envelope with responses")
    if len(text) > MAX_RESPONSE_BYTES:
        reason = f"it is larger than {MAX_RESPONSE_BYTES:,} bytes, the limit for an imported response"
        return Rejected(place.name, reason)
    body, archived = bytes(text), place.archived
    if archived is None:
        return FoundResponse(body, place.name, fetched_at, place.modified_at)
    if archived.as_of is None:
        return Rejected(place.name, "the archive that it comes from keeps it as undated: it belongs to no day")
    if not sha256(body).hexdigest().startswith(archived.digest):
        return Rejected(place.name, "it is damaged: its bytes do not have the sha256 of its name")
    return FoundResponse(body, place.name, archived.fetched_at, None, archived.origin)


def _time(value: Raw) -> datetime | None:
    """Return the time of an ISO 8601 text, in UTC (UTC is assumed if it has no time zone), or None."""
    try:
        instant = datetime.fromisoformat(msgspec.json.decode(value, type=str))
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _shown(value: Raw) -> str:
    """Return the beginning of a JSON value, in one line."""
    start = bytes(memoryview(value)[: 4 * _LONGEST_SHOWN]).decode(errors="backslashreplace")
    return _shortened(one_line(start), _LONGEST_SHOWN)


def _shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text: its beginning and, if there are more, three dots."""
    return text if len(text) <= length else f"{text[: length - 3]}..."

"""The responses in a JSON text: wherever they are in it, alone or in what others wrapped around them.

A text is one JSON value, or several one after another, such as JSON Lines. Each response is cut out byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import BufferedReader
from typing import Any

import msgspec
from msgspec import Raw

from orpipeline.archive import Revision
from orpipeline.errors import SettingsError
from orpipeline.text import one_line

MAX_RESPONSE_BYTES = 2_000_000
"""A typical response has 31 kB."""
MAX_BYTES = 2_000_000_000
"""Of all files of an import, packed and unpacked. Ten years of responses have about 115 MB."""
MAX_FILES = 100_000
"""Of an import, including those in archives."""
_MAX_VALUE_BYTES = 20_000_000  # of one JSON value, such as a list: more than a year. It is in memory as a whole.
_MAX_COMMAS = 1_000_000  # in as many bytes, for the same reason; a year of responses has 400,000
_MAX_DEPTH = 8  # of a response in a JSON value
_TIMES = ("fetched_at", "retrieved_at", "captured_at", "downloaded_at")
_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_NEXT_VALUE = re.compile(r"\n(?=[{\[])")  # where reading goes on after a damaged one


@dataclass(frozen=True)
class FoundResponse:
    """A response found in a file, not yet validated."""

    body: bytes
    """The response's bytes, 2 MB at most."""
    source: str
    """Where it was found: the file's name, then the archive member, line or number, as in `days.zip/a.json[2]`."""
    fetched_at: datetime | None
    """The fetch time that the text states, in UTC, or None."""
    saved_at: datetime | None
    """The time in the file's name, or else when it was last written, in UTC; None if that is unknown."""
    origin: str = "import"
    """`import`, or the origin that another orpipeline's archive states."""


@dataclass(frozen=True)
class Rejected:
    """A file, or a part of one, that is not imported, and the reason. Both texts are short: long ones are cut."""

    source: str
    """Its name, as in `FoundResponse`."""
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source[:300])
        object.__setattr__(self, "reason", self.reason[:1_000])


Found = FoundResponse | Rejected


@dataclass(frozen=True)
class Place:
    """A text's name, when it was saved, and what the name states if it is that of a file in an archive of ours."""

    name: str
    saved_at: datetime | None = None
    archived: Revision | None = None

    def part(self, place: str) -> Place:
        """Return the place of a part of the text."""
        return Place(f"{self.name}{place}", self.saved_at)


Recognize = Callable[[bytes], bytes | None]
"""Returns a JSON value as the API sends a response of a dataset, or None if the value is not one."""

_LIST = msgspec.json.Decoder(list[Raw])
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


def task_classifications(value: bytes) -> bytes | None:
    """Recognize a response of `GET /classifications/task`, or its `data` alone."""
    fields = _fields(value)
    if {"as_of", "classifications"} <= fields.keys():
        return b'{"data":%s}' % value
    return value if {"as_of", "classifications"} <= _fields(fields.get("data", Raw())).keys() else None


def any_response(value: bytes) -> bytes | None:
    """Recognize a response of either dataset: of the task classifications, or a model catalogue."""
    return task_classifications(value) or (value if is_catalogue(value) else None)


def is_catalogue(value: bytes) -> bool:
    """Return whether a JSON value is a response of `GET /models`."""
    models = _decoded(_LIST, _fields(value).get("data", Raw())) or [Raw()]
    return "canonical_slug" in _fields(models[0])


class Reading:
    """What an import looks for, and how much it has read. Raises SettingsError when it is too much."""

    def __init__(self, recognize: Recognize = any_response) -> None:
        self.recognize = recognize
        self._bytes = self._files = 0

    def add(self, size: int, files: int = 1) -> None:
        """Count the bytes of a file, packed or unpacked."""
        self._bytes += size
        self._files += files
        if self._bytes > MAX_BYTES or self._files > MAX_FILES:
            limit = f"{MAX_BYTES:,} bytes or {MAX_FILES:,} files"
            raise SettingsError(f"the import has more than {limit}; the rest is not read. Import less at once.")


def read_text(stream: BufferedReader, place: Place, reading: Reading) -> Iterator[Found]:
    """Yield the responses in a text, and each JSON value in it that has none or cannot be read.

    Raises ValueError if the text has too many values.
    """
    is_empty = True
    for value, at in _values(stream, place, reading):
        is_empty = False
        found = list(_search(value, reading.recognize, _MAX_DEPTH)) if isinstance(value, bytes) else []
        if isinstance(value, str):
            yield Rejected(at.name, f"not valid JSON: {value}")
        elif not found:
            start = one_line(value[:100].decode(errors="backslashreplace"))
            yield Rejected(at.name, f"it has no response; it begins with {start}")
        for number, (body, fetched_at) in enumerate(found, start=1):
            yield _response(body, fetched_at, at if len(found) == 1 else at.part(f"[{number}]"))
    if is_empty:
        yield Rejected(place.name, "not valid JSON: it is empty")


def _values(stream: BufferedReader, place: Place, reading: Reading) -> Iterator[tuple[bytes | str, Place]]:
    """Yield the JSON values that follow one another, or why one cannot be read, each with its place.

    After one that is damaged, reading goes on where a line begins with `{` or `[`.
    """
    chunk = _chunk(stream, reading).removeprefix(b"\xef\xbb\xbf")
    if not stream.peek(1) and chunk and _why_not_json(chunk) is None:
        yield chunk, place
        return
    decoder = json.JSONDecoder(strict=False)
    text, start, line = chunk.decode("latin-1"), 0, 1  # in latin-1, each character is a byte
    while True:
        if len(text) - start < _MAX_VALUE_BYTES:
            text, start = text[start:] + _chunk(stream, reading).decode("latin-1"), 0
        found = _NOT_BLANK.search(text, start)
        first = found.start() if found else len(text)
        line += text.count("\n", start, first)
        start = first
        if found:
            try:
                start = decoder.raw_decode(text, first)[1]
                value = text[first:start].encode("latin-1")
                yield _why_not_json(value) or value, place.part(f":{line}")
            except (ValueError, RecursionError) as error:
                following = _NEXT_VALUE.search(text, first + 1)
                start = following.end() if following else len(text)
                larger = f", or larger than {_MAX_VALUE_BYTES:,} bytes" if stream.peek(1) else ""
                yield f"{getattr(error, 'msg', error)}{larger}", place.part(f":{line}")
            line += text.count("\n", first, start)
        elif not stream.peek(1):
            return


def _chunk(stream: BufferedReader, reading: Reading) -> bytes:
    chunk = stream.read(_MAX_VALUE_BYTES)
    reading.add(len(chunk), files=0)
    if chunk.count(b",") > _MAX_COMMAS:
        raise ValueError(f"more than {_MAX_COMMAS:,} values in {_MAX_VALUE_BYTES:,} bytes")
    return chunk


def _why_not_json(text: bytes) -> str | None:
    try:
        msgspec.json.decode(text, type=Raw)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


def _search(value: bytes, recognize: Recognize, depth: int) -> Iterator[tuple[bytes, datetime | None]]:
    """Yield each response in a JSON value, with the fetch time that the nearest object around it states.

    The time can also be in an object beside the response, such as `{"_provenance": {"fetched_at": ...}, "raw": ...}`.
    """
    fields = _fields(value)
    stated = _stated_time(fields)
    body = recognize(value)
    if body is not None:
        yield body, stated
    elif depth:
        parts = [
            part
            for one in fields.values() or _decoded(_LIST, value) or ()
            if (part := bytes(one)).startswith((b"{", b"["))
        ]
        inner = [(part, list(_search(part, recognize, depth - 1))) for part in parts]
        if fields and stated is None:
            beside = (_stated_time(_fields(part)) for part, found in inner if not found)
            stated = next(filter(None, beside), None)
        for _, found in inner:
            yield from ((body, time or stated) for body, time in found)


def _fields(value: bytes | Raw) -> dict[str, Raw]:
    """Return the fields of a JSON object; none for another value."""
    return _decoded(_OBJECT, value) or {}


def _decoded(decoder: msgspec.json.Decoder[Any], value: bytes | Raw) -> Any:
    try:
        return decoder.decode(value)
    except (ValueError, RecursionError):  # JSON of another kind, or no JSON
        return None


def _stated_time(fields: dict[str, Raw]) -> datetime | None:
    """Return the fetch time that an object states: ISO 8601, and UTC if it has no time zone."""
    for name in _TIMES:
        try:
            instant = datetime.fromisoformat(msgspec.json.decode(fields.get(name, b""), type=str))
            return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    return None


def _response(body: bytes, fetched_at: datetime | None, place: Place) -> Found:
    archived = place.archived
    if len(body) > MAX_RESPONSE_BYTES:
        return Rejected(place.name, f"it is larger than {MAX_RESPONSE_BYTES:,} bytes, the limit for a response")
    if archived is None:
        return FoundResponse(body, place.name, fetched_at, place.saved_at)
    if archived.as_of is None:
        return Rejected(place.name, "the archive that it comes from keeps it as undated: it belongs to no day")
    if not sha256(body).hexdigest().startswith(archived.digest):
        return Rejected(place.name, "it is damaged: its bytes do not have the sha256 of its name")
    return FoundResponse(body, place.name, archived.fetched_at, None, archived.origin)

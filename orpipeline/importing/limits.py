"""How much an import reads of one file. Memory and time are bounded whatever the file is, also if it unpacks to more.

A typical answer has 31 kB, so ten years of answers have about 115 MB.
"""

from __future__ import annotations

from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_FILE_BYTES = 250_000_000
"""Of one file, packed and unpacked."""
MAX_PARTS = 50_000
"""Of one file: its members, lines and list items, whether they hold answers or not."""
MAX_TEXT_BYTES = 20_000_000
"""Of one JSON text, such as a list: more than a year of answers. It is in memory as a whole; JSONL is not."""
MAX_LINE_BYTES = 16_000_000
"""Of one line of JSONL: more than a year of answers."""
MAX_ITEMS = 10_000
"""Of one list."""
MAX_ANSWER_BYTES = 2_000_000
"""Of one answer."""
MAX_ANSWER_OBJECTS = 25_000
MAX_ANSWER_COMMAS = 150_000
"""Of one answer; a typical one has 325 objects and 1,090 commas. The 20,000 models that the contracts admit fit."""

CHUNK_BYTES = 65_536
"""How much is read and unpacked at once."""


class LimitError(Exception):
    """A file exceeds a limit, so the rest of it is not read."""


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes; none at the end."""


class Allowance:
    """How much may still be read of one file. Raises LimitError when that is used up."""

    def __init__(self) -> None:
        self._bytes, self._parts = MAX_FILE_BYTES, MAX_PARTS

    def take_part(self) -> None:
        """Count one member, line or list item."""
        self._parts -= 1
        if self._parts < 0:
            raise LimitError(
                f"it has more than {MAX_PARTS:,} members, lines or list items; the rest is not read. Split it"
            )

    def take_bytes(self, count: int) -> None:
        """Count bytes that were read or unpacked."""
        self._bytes -= count
        if self._bytes < 0:
            raise LimitError(
                f"it is larger than {MAX_FILE_BYTES:,} bytes, packed and unpacked; the rest is not read. Split it"
            )

    def counted(self, stream: Readable) -> BufferedReader:
        """Return a stream with the same bytes that counts them."""
        return BufferedReader(_Counted(stream, self), CHUNK_BYTES)


class _Counted(RawIOBase):
    def __init__(self, stream: Readable, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, or its first `CHUNK_BYTES`, unless the stream ends before."""
        view, filled = memoryview(buffer)[:CHUNK_BYTES], 0
        while filled < len(view) and (chunk := self._stream.read(len(view) - filled)):
            view[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        self._allowance.take_bytes(filled)
        return filled

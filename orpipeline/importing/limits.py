"""How much an import reads of one file, so that memory and time stay bounded, whatever the file unpacks to.

A typical response has 31 kB, so ten years of responses have about 115 MB.
"""

from __future__ import annotations

from io import BufferedIOBase, BufferedReader, RawIOBase
from typing import TYPE_CHECKING

from orpipeline.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_FILE_BYTES = 250_000_000
"""Of one file, packed and unpacked."""
MAX_PARTS = 50_000
"""Of one file: its members, lines and list items, whether they hold responses or not."""
MAX_TEXT_BYTES = 20_000_000
"""Of one JSON text, such as a list, and of one line of JSONL: more than a year. It is in memory as a whole."""
MAX_TEXT_COMMAS = 1_000_000
"""Of the same; a year of typical responses has 400,000. Millions of small list items would fill the memory."""
MAX_RESPONSE_BYTES = 2_000_000

_CHUNK_BYTES = 65_536


class Allowance:
    """How much may still be read of one file. Raises SettingsError when that is used up."""

    def __init__(self) -> None:
        self._bytes, self._parts = MAX_FILE_BYTES, MAX_PARTS

    def take_parts(self, count: int = 1) -> None:
        """Count members, lines or list items."""
        self._parts -= count
        if self._parts < 0:
            raise _exceeded(f"{MAX_PARTS:,} members, lines or list items")

    def take_bytes(self, count: int) -> None:
        """Count bytes of the file, or bytes that it unpacks to."""
        self._bytes -= count
        if self._bytes < 0:
            raise _exceeded(f"{MAX_FILE_BYTES:,} bytes, packed and unpacked")

    def counted(self, stream: BufferedIOBase) -> BufferedReader:
        """Return a stream with the same bytes that counts them."""
        return BufferedReader(_Counted(stream, self), _CHUNK_BYTES)


class _Counted(RawIOBase):
    def __init__(self, stream: BufferedIOBase, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._stream.readinto(buffer)
        self._allowance.take_bytes(count)
        return count


def _exceeded(limit: str) -> SettingsError:
    return SettingsError(f"it has more than {limit}; the rest is not read. Split it")

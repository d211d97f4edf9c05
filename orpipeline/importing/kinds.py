"""What a file is, from its name and its first bytes."""

from __future__ import annotations

import re
from pathlib import PurePath

HEAD_BYTES = 512
"""How much of a file's beginning the functions below need: a tar has its magic number at byte 257."""
GZIP = b"\x1f\x8b"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""A zip's first bytes, and those of an empty one."""

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz", ".zip", ".tgz", ".tar")
_JSON_OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"')  # or a list of objects
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"[\x00", b"\x00[")
_COMPRESSED = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7-Zip"}


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden, is in a hidden folder, or is metadata that macOS adds to a zip."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in PurePath(name).parts)


def may_hold_responses(name: str, head: bytes = b"") -> bool:
    """Return whether a file's name or its first bytes are those of a format for responses, supported or not."""
    return (
        name.lower().endswith(_SUFFIXES)
        or is_tar(head)
        or head.startswith((GZIP, *ZIP, *_UTF16, *_COMPRESSED))
        or bool(_JSON_OBJECT.match(head))
    )


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is an uncompressed tar."""
    return head[257:262] == b"ustar"


def why_unsupported(head: bytes) -> str | None:
    """Return why content that begins with these bytes, already unpacked once, cannot be read; None if it can."""
    if head.startswith((GZIP, *ZIP)):
        return "it is compressed twice; unpack it first"
    if head.startswith(_UTF16):
        return "it is in UTF-16, which is not supported; convert it to UTF-8"
    compression = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    return compression and f"it is compressed with {compression}, which is not supported; unpack it first"

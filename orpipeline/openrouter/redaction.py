"""Finding the API key in what a server sends, however it is written."""

from __future__ import annotations

import re

PLACEHOLDER = b"[key]"
"""What replaces a key."""

# The bytes of UTF-16 and UTF-32 between those of ASCII. `+` after a repetition makes it possessive: it gives nothing
# back, so a search takes time in proportion to the text, whatever a server sends.
_GAP = rb"\x00{0,3}+"


def key_pattern(key: str) -> re.Pattern[bytes]:
    """Return a pattern that finds an ASCII key in bytes, also if its characters are escaped or encoded.

    Each character may be itself, a JSON escape (`\\u0073`, `\\/`), a Python escape (`\\x73`) or percent-encoded
    (`%73`), in any mix, in upper or lower case, escaped several times, and in UTF-8, UTF-16 or UTF-32.
    """
    # A match begins with one backslash at most. Otherwise, each one of a long row would be compared with all others.
    # A key's own backslash takes all that follow it, also those that escape the next character.
    escapes = [b"%b", *(b"(?:%b)*+" if previous == "\\" else b"(?:%b)++" for previous in key)]
    return re.compile(b"".join(map(_character, key, escapes)))


def _character(character: str, escapes: bytes) -> bytes:
    """Return the pattern of one character; `escapes` repeats an escaping backslash."""
    code = f"{ord(character):02x}"
    backslash = _exactly("\\") + b"(?:%b)*+" % (_exactly("u") + _hex("005c"))
    backslashes = escapes % backslash
    escape = backslashes + b"(?:%b|%b)" % (_exactly("u") + _hex(f"00{code}"), _exactly("x") + _hex(code))
    percent = _exactly("%") + b"(?:%b)*+" % _hex("25")
    percent = percent if character == "%" else percent + _hex(code)
    if character == "\\":
        forms = [backslashes, percent]
    else:
        forms = [_exactly(character), escape, percent, backslashes + _exactly(character)]
    return b"(?:%b)" % b"|".join(forms)


def _exactly(character: str) -> bytes:
    return re.escape(character.encode()) + _GAP


def _hex(digits: str) -> bytes:
    return b"".join(b"[%b%b]" % (digit.encode(), digit.upper().encode()) + _GAP for digit in digits)

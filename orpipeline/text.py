"""Text that is safe to print and to store, and the citation of the figures."""

from __future__ import annotations

import re
from datetime import date

LICENSE = "Licensed under CC BY 4.0."
# Letters, marks and symbols that Python calls printable, although nothing is drawn for them.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def plain(text: str) -> str:
    """Return text that is safe to print in a terminal: control and invisible characters become escapes: `\\u001b`."""
    return "".join(c if c.isprintable() and not _BLANK.match(c) else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str) -> str:
    """Return text as one line that is safe to print: runs of white space become one space, the rest is `plain`."""
    return plain(" ".join(text.split()))


def encodable(text: str) -> str:
    """Return text that can be encoded as UTF-8: other characters become escapes such as `\\udcff`.

    Python decodes a file name that is not valid UTF-8 to such characters; polars and DuckDB reject them.
    """
    return text.encode(errors="backslashreplace").decode()


def citation(as_of: date, origin: str) -> str:
    """Return the citation of a day's figures that OpenRouter's data guide requires when you publish them.

    For made-up figures (`origin` is `demo`) the text names no source but the demo.
    """
    if origin == "demo":
        return f"Demo data, made up by orpipeline, as of {as_of}. Not from OpenRouter."
    return f"Source: OpenRouter (openrouter.ai/rankings), as of {as_of}. {LICENSE}"

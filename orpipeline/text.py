"""Making text from files and the API safe to print and to store."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text that is safe to print in a terminal: unprintable characters become escapes such as `\\u001b`."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def encodable(text: str) -> str:
    """Return text that can be encoded as UTF-8: other characters become escapes such as `\\udcff`.

    Python decodes a file name that is not valid UTF-8 to such characters; polars and DuckDB reject them.
    """
    return text.encode(errors="backslashreplace").decode()

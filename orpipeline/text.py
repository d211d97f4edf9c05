"""Upstream text, made safe to print and to store."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text that is safe to print in a terminal: characters that cannot be printed become their code."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def encodable(text: str) -> str:
    """Return text that can be encoded as UTF-8: anything else becomes an escape such as `\\udcff`.

    A file name need not be valid UTF-8, and neither polars nor DuckDB accepts what Python makes of such a name.
    """
    return text.encode(errors="backslashreplace").decode()

"""Whether this process runs tests, which must reach neither the real API nor real data. The pytest plugin sets it."""

from __future__ import annotations

from pathlib import Path

folder: Path | None = None
"""The folder of the test session, in place of the default data folder; None outside tests."""

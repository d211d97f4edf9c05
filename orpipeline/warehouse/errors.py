"""What can go wrong with the warehouse. Each of these errors means that its tables are unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from orpipeline.errors import NextAttempt, OrpipelineError


class WarehouseError(OrpipelineError):
    """The warehouse cannot be opened, read or written. Its tables are unchanged."""


class WarehouseBusyError(WarehouseError):
    """Another process, or another thread of this one, has locked the DuckDB file."""


class DamagedWarehouseError(WarehouseError):
    """The file is damaged, or is not a DuckDB database. `orpipeline rebuild` keeps it aside and writes a new one."""

    next_attempt = NextAttempt.NEEDS_PERSON


class NotPublishedError(WarehouseError):
    """There is no published copy to read yet."""


class NoSuchTableError(WarehouseError):
    """A reader names a table, column or scope that does not exist."""


class MissingDaysError(WarehouseError):
    """The tables lack days that an asset loads. `days` has them, oldest first."""

    def __init__(self, message: str, *, days: Sequence[date]) -> None:
        super().__init__(message)
        self.days = tuple(days)


class LayoutError(WarehouseError):
    """The tables, views and columns in the warehouse are not those that this version of orpipeline declares."""

    next_attempt = NextAttempt.NEEDS_PERSON


class OutdatedLayoutError(LayoutError):
    """The layout is older, or was changed by hand. `reason` is the part of the message that describes it."""

    def __init__(
        self,
        reason: str,
        action: str = "Run `orpipeline rebuild`, which rebuilds the tables from the archive; nothing was changed.",
    ) -> None:
        super().__init__(f"{reason} {action}")
        self.reason = reason


class NewerLayoutError(LayoutError):
    """A newer version of orpipeline wrote the tables; this one neither reads nor changes them."""

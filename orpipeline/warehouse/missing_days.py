"""Days that a table lacks when an asset loads them. A missing day is an error, unless the asset allows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from orpipeline.days import day_spans
from orpipeline.errors import SettingsError
from orpipeline.warehouse.errors import MissingDaysError

MISSING_DAYS = "orpipeline/missing_days"
REQUIRED_DAYS = "orpipeline/required_days"


def require_days(count: int) -> dict[str, Any]:
    """Return the metadata of an input that needs at least `count` of the days that it loads.

        >>> import dagster as dg
        >>> import orpipeline
        >>> last_7_days = dg.AssetIn(
        ...     orpipeline.asset_key("model_leaderboard"),
        ...     partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-6),
        ...     metadata=orpipeline.require_days(7),
        ... )

    With fewer days, loading the input raises MissingDaysError. With `count` days or more, the input has the days that
    exist. Raises SettingsError if `count` is not at least 1.
    """
    return {REQUIRED_DAYS: _count(count)}


@dataclass(frozen=True)
class MissingDays:
    """What an input does about missing days: raise for each, or load what exists if that is `required` days or more."""

    required: int | None
    """None: every day is required. 0: none is."""

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> MissingDays:
        """Return what the metadata of an input asks for. Raises SettingsError if it is not valid."""
        choice = metadata.get(MISSING_DAYS, "fail")
        if choice not in ("fail", "allow"):
            raise SettingsError(f'The input metadata "{MISSING_DAYS}" is {choice!r}; write "fail" or "allow".')
        if REQUIRED_DAYS in metadata:
            return cls(_count(metadata[REQUIRED_DAYS]))
        return cls(0 if choice == "allow" else None)

    def check(self, table: str, wanted: Sequence[date], stored: Collection[date]) -> list[date]:
        """Return the days of `wanted` that are not in `stored`, or raise MissingDaysError if that is not allowed."""
        missing = sorted(set(wanted) - set(stored))
        found = len(set(wanted)) - len(missing)
        if self.required is None and missing:
            raise MissingDaysError(
                f"{table} lacks {_days(missing)}. Run or import the days first, if the archive or a backup has them. "
                f'To load only days that exist, set the metadata {{"{MISSING_DAYS}": "allow"}} on the input, or '
                "`orpipeline.require_days(n)` if it needs at least n days.",
                days=missing,
            )
        if self.required is not None and found < self.required:
            lacks = f" It lacks {_days(missing)}." if missing else ""
            raise MissingDaysError(
                f"{table} has {found} of the days to load, and the input requires {self.required} "
                f"(`orpipeline.require_days`).{lacks}",
                days=missing,
            )
        return missing


def _count(count: Any) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise SettingsError(f"require_days({count!r}): the number of days is a whole number of at least 1.")
    return count


def _days(days: Sequence[date]) -> str:
    return f"{len(days)} {'day' if len(days) == 1 else 'days'}: {', '.join(day_spans(days))}"

"""Partitions that stay empty because a step's inputs lack their days are not recorded as materialized.

Dagster records all partitions of a run as materialized when the step returns its frame. In a range of days with holes,
the days that no input has would look materialized, without a row. The I/O manager therefore leaves them out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from orpipeline.days import day_spans
from orpipeline.warehouse.errors import MissingDaysError
from orpipeline.warehouse.requested import days_of

HasRows = Callable[[str], bool]
"""Whether the frame that was just stored has rows of a partition, by its key."""


class Holes:
    """The days that each step's inputs lack. One I/O manager loads a step's inputs and stores its output."""

    def __init__(self) -> None:
        self._of_step: defaultdict[str, set[date]] = defaultdict(set)

    def add(self, context: dg.InputContext, days: Iterable[date]) -> None:
        """Remember the days that an input lacks."""
        self._of_step[context.step_context.step.key].update(days)

    def leave_out(self, context: dg.OutputContext, has_rows: HasRows) -> list[str]:
        """Let Dagster record only the partitions of a run that have rows, or whose days no input lacks.

        Returns the other partitions' keys. Raises MissingDaysError if no partition remains: Dagster would record that
        the asset as a whole is materialized.
        """
        lacking = self._of_step.get(context.step_key, set())
        if not lacking:
            return []
        definition = context.asset_partitions_def
        empty: list[str] = []
        others: list[str] = []
        for key in context.asset_partition_keys:
            days = [day for part in dimensions(definition, key) if part.window for day in days_of(part.window)]
            is_hole = bool(days) and lacking.issuperset(days) and not has_rows(key)
            (empty if is_hole else others).append(key)
        if empty and not others:
            raise MissingDaysError(
                f"{context.asset_key.to_user_string()} has no rows for {_partitions(empty)}, because the tables that "
                "it loads lack these days. Nothing was written, and nothing is recorded as materialized.",
                days=sorted(lacking),
            )
        if empty:
            # Dagster records the partitions of this subset once the output is stored.
            context._asset_partitions_subset = definition.subset_with_partition_keys(others)
        return empty


@dataclass(frozen=True)
class Dimension:
    """A partition's key in one dimension, and its time window if it has one."""

    key: str
    window: dg.TimeWindow | None


def dimensions(definition: dg.PartitionsDefinition[Any], key: str) -> list[Dimension]:
    """Return the dimensions of a partition, in the definition's order: one, or those of a `MultiPartitionKey`."""
    if isinstance(definition, dg.MultiPartitionsDefinition) and isinstance(key, dg.MultiPartitionKey):
        parts = definition.partitions_defs
        return [found for p in parts for found in dimensions(p.partitions_def, key.keys_by_dimension[p.name])]
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return [Dimension(key, definition.time_window_for_partition_key(key))]
    return [Dimension(key, None)]


def _partitions(keys: list[str]) -> str:
    return f"{len(keys)} {'partition' if len(keys) == 1 else 'partitions'} ({', '.join(_spans(keys))})"


def _spans(keys: list[str]) -> list[str]:
    try:
        return day_spans(map(date.fromisoformat, keys))
    except ValueError:
        return keys

"""Partitions that stay empty because a step's inputs lack their days are not recorded as materialized.

Dagster records all partitions of a run as materialized when the step returns its frame. In a range of days with holes,
the days that no input has would look materialized, without a row. The I/O manager therefore leaves them out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date

import dagster as dg

from orpipeline.days import day_spans
from orpipeline.warehouse.errors import MissingDaysError
from orpipeline.warehouse.requested import days_of

HasRows = Callable[[dg.TimeWindow], bool]


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
        definition = context.asset_partitions_def if lacking else None
        if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
            return []
        empty: list[str] = []
        others: list[str] = []
        for key in context.asset_partition_keys:
            window = definition.time_window_for_partition_key(key)
            is_hole = lacking.issuperset(days_of(window)) and not has_rows(window)
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


def _partitions(keys: list[str]) -> str:
    return f"{len(keys)} {'partition' if len(keys) == 1 else 'partitions'} ({', '.join(_spans(keys))})"


def _spans(keys: list[str]) -> list[str]:
    try:
        return day_spans(map(date.fromisoformat, keys))
    except ValueError:
        return keys

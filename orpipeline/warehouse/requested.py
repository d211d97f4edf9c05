"""The days that an asset asks for when it loads one of the pipeline's tables, also those that have no partition."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg

_FAR = 3 * 366  # days and partitions: farther than any offset looks back or ahead


def requested_days(context: dg.InputContext, with_partition: Sequence[date], stored: Sequence[date]) -> list[date]:
    """Return the days that an input asks for, oldest first.

    `with_partition` are the days that Dagster lets it load: it leaves out those before the first and after the newest
    partition, which an offset or a longer window also asks for. An asset without partitions asks for all days that
    there are: those from the first to the last `stored` one. Outside a step, nothing more is known.
    """
    if not is_in_a_step(context):
        whole = len(with_partition) > 1
        return _between(with_partition, stored) if whole else list(with_partition)
    step = context.step_context
    consumer = step.job_def.asset_layer.get_assets_def_for_node(step.node_handle)
    if consumer is None or consumer.partitions_def is None:
        return _between(with_partition, stored)
    mapping = consumer.get_partition_mapping_for_dep(context.asset_key) or dg.TimeWindowPartitionMapping()
    theirs, ours = consumer.partitions_def, context.asset_partitions_def
    if not (
        isinstance(mapping, dg.TimeWindowPartitionMapping)
        and isinstance(theirs, dg.TimeWindowPartitionsDefinition)
        and isinstance(ours, dg.TimeWindowPartitionsDefinition)
    ):
        return list(with_partition)
    theirs, ours = _unbounded(theirs), _unbounded(ours)
    partitions = theirs.subset_with_partition_keys(theirs.get_partition_keys_in_range(step.partition_key_range))
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(partitions, theirs, ours)
    windows = map(ours.time_window_for_partition_key, mapped.partitions_subset.get_partition_keys())
    return sorted(day for window in windows for day in days_of(window))


def is_in_a_step(context: dg.InputContext) -> bool:
    """Return whether a step loads the input. `load_asset_value` loads one without a run."""
    try:
        return context.step_context is not None
    except dg.DagsterInvariantViolationError:
        return False


def days_of(window: dg.TimeWindow) -> list[date]:
    """Return the days of a time window; of a window shorter than a day, the day that it is in."""
    first, end = window.start.date(), window.end.date()
    return [first + timedelta(days=n) for n in range(max(1, (end - first).days))]


def _between(days: Sequence[date], stored: Sequence[date]) -> list[date]:
    return [day for day in days if stored[0] <= day <= stored[-1]] if stored else list(days)


def _unbounded(partitions: dg.TimeWindowPartitionsDefinition) -> dg.TimeWindowPartitionsDefinition:
    """Return the same partitions, but from years earlier to years later."""
    return dg.TimeWindowPartitionsDefinition(
        start=partitions.start - timedelta(days=_FAR),
        timezone=partitions.timezone,
        fmt=partitions.fmt,
        cron_schedule=partitions.cron_schedule,
        exclusions=partitions.exclusions,
        end_offset=partitions.end_offset + _FAR,
    )

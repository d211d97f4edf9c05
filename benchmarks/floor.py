"""The floor: Dagster's own time for eight assets that do nothing, for one day or for a range of days in one run.

The same graph as ours, with one function for each asset, in one process, on the SQLite instance of DAGSTER_HOME.

    DAGSTER_HOME=<folder> python floor.py <day> [<last day>]
"""

import os
import sys

import dagster as dg

first = os.environ.get("ORPIPELINE_START_DATE", "2026-06-17")
daily = dg.DailyPartitionsDefinition(start_date=first, timezone="UTC", fmt="%Y-%m-%d")
one_run = dg.BackfillPolicy.single_run()


@dg.asset(partitions_def=daily, backfill_policy=one_run)
def raw_task_classifications() -> None:
    """Stand in for the response."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[raw_task_classifications])
def snapshots() -> None:
    """Stand in for a table."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[raw_task_classifications])
def task_classifications() -> None:
    """Stand in for a table."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[raw_task_classifications])
def macro_categories() -> None:
    """Stand in for a table."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[raw_task_classifications])
def task_models() -> None:
    """Stand in for a table."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[task_classifications, task_models])
def model_leaderboard() -> None:
    """Stand in for the leaderboard."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[task_classifications, task_models])
def author_leaderboard() -> None:
    """Stand in for the leaderboard of authors."""


@dg.asset(partitions_def=daily, backfill_policy=one_run, deps=[task_classifications, task_models])
def leaderboard_coverage() -> None:
    """Stand in for the coverage."""


defs = dg.Definitions(
    assets=[
        raw_task_classifications,
        snapshots,
        task_classifications,
        macro_categories,
        task_models,
        model_leaderboard,
        author_leaderboard,
        leaderboard_coverage,
    ],
    jobs=[dg.define_asset_job("one_day", partitions_def=daily)],
    executor=dg.in_process_executor,
)


if __name__ == "__main__":
    first, last = sys.argv[1], sys.argv[-1]
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("one_day")
        if first == last:
            job.execute_in_process(instance=instance, partition_key=first)
        else:
            job.execute_in_process(instance=instance, tags=days)

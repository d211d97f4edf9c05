"""The floor: what Dagster itself takes for six assets of one day that do nothing.

The same graph as ours, one function an asset, in one process, on the SQLite instance of DAGSTER_HOME.

    DAGSTER_HOME=<folder> python floor.py <day>
"""

import sys

import dagster as dg

daily = dg.DailyPartitionsDefinition(start_date="2026-06-17", timezone="UTC", fmt="%Y-%m-%d")


@dg.asset(partitions_def=daily)
def raw_task_classifications() -> None:
    """Stand for the answer."""


@dg.asset(partitions_def=daily, deps=[raw_task_classifications])
def snapshots() -> None:
    """Stand for a table."""


@dg.asset(partitions_def=daily, deps=[raw_task_classifications])
def task_classifications() -> None:
    """Stand for a table."""


@dg.asset(partitions_def=daily, deps=[raw_task_classifications])
def macro_categories() -> None:
    """Stand for a table."""


@dg.asset(partitions_def=daily, deps=[raw_task_classifications])
def task_models() -> None:
    """Stand for a table."""


@dg.asset(partitions_def=daily, deps=[task_classifications, task_models])
def model_leaderboard() -> None:
    """Stand for the leaderboard."""


defs = dg.Definitions(
    assets=[
        raw_task_classifications,
        snapshots,
        task_classifications,
        macro_categories,
        task_models,
        model_leaderboard,
    ],
    jobs=[dg.define_asset_job("one_day", partitions_def=daily)],
    executor=dg.in_process_executor,
)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        defs.resolve_job_def("one_day").execute_in_process(instance=instance, partition_key=sys.argv[1])

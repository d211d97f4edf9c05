"""The scaffold that Dagster's documentation leads to: seven assets of pandas frames, dagster-duckdb-pandas' I/O
manager between them, and the default executor, which runs each step in its own process. No checks.

    DAGSTER_HOME=<folder> BENCHMARK_WAREHOUSE=<file> ORPIPELINE_BASE_URL=<url> OPENROUTER_API_KEY=<key> \
        python scaffold.py <day>

It needs dagster-duckdb-pandas, which needs pandas < 3.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

import json
import os
import sys
from typing import Any

import dagster as dg
import httpx
import pandas as pd
from dagster_duckdb_pandas import DuckDBPandasIOManager

daily = dg.DailyPartitionsDefinition(start_date="2026-06-17", timezone="UTC", fmt="%Y-%m-%d")
BY_DAY = {"partition_expr": "as_of"}


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def raw_task_classifications(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """Fetch the newest day, and return the response's text."""
    response = httpx.get(
        f"{os.environ['ORPIPELINE_BASE_URL']}/classifications/task",
        params={"window": "7d"},
        headers={"Authorization": f"Bearer {os.environ['OPENROUTER_API_KEY']}"},
        timeout=30,
    )
    response.raise_for_status()
    return pd.DataFrame({"as_of": [pd.Timestamp(context.partition_key)], "body": [response.text]})


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def task_classifications(raw_task_classifications: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each tag."""
    tasks = [
        {k: v for k, v in task.items() if k != "models"} for task in _data(raw_task_classifications)["classifications"]
    ]
    return _of_day(raw_task_classifications, tasks)


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def macro_categories(raw_task_classifications: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each group of tags."""
    return _of_day(raw_task_classifications, _data(raw_task_classifications)["macro_categories"])


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def task_models(raw_task_classifications: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each tag and listed model."""
    models = [
        {"tag": task["tag"], **model}
        for task in _data(raw_task_classifications)["classifications"]
        for model in task["models"]
    ]
    return _of_day(raw_task_classifications, models).rename(columns={"id": "model_id"})


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def model_leaderboard(task_classifications: pd.DataFrame, task_models: pd.DataFrame) -> pd.DataFrame:
    """Return each model's share of all traffic and of each macro-category's."""
    joined = task_models.merge(task_classifications, on=["as_of", "tag"])
    joined["usage_share"] *= joined["tag_usage_share"]
    both = pd.concat([joined.assign(scope="all"), joined.assign(scope=joined["macro_category"])])
    return both.groupby(["as_of", "scope", "model_id"], as_index=False)["usage_share"].sum()


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def author_leaderboard(model_leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return each author's share."""
    authors = model_leaderboard.assign(author=model_leaderboard["model_id"].str.split("/").str[0])
    return authors.groupby(["as_of", "scope", "author"], as_index=False)["usage_share"].sum()


@dg.asset(partitions_def=daily, metadata=BY_DAY)
def leaderboard_coverage(model_leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return how much the lists attribute."""
    return model_leaderboard.groupby(["as_of", "scope"], as_index=False)["usage_share"].sum()


def _data(raw: pd.DataFrame) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(raw["body"].iloc[0])["data"]
    return data


def _of_day(raw: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).assign(as_of=raw["as_of"].iloc[0])


def one_day() -> dg.JobDefinition:
    """Return the job; each step's process builds it again."""
    return dg.Definitions(
        assets=[
            raw_task_classifications,
            *(task_classifications, macro_categories, task_models),
            *(model_leaderboard, author_leaderboard, leaderboard_coverage),
        ],
        jobs=[dg.define_asset_job("one_day", partitions_def=daily)],
        resources={"io_manager": DuckDBPandasIOManager(database=os.environ["BENCHMARK_WAREHOUSE"], schema="main")},
    ).resolve_job_def("one_day")


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        tags = {"dagster/partition": sys.argv[1]}
        with dg.execute_job(dg.reconstructable(one_day), instance, tags=tags, raise_on_error=True):
            pass

import dagster as dg
import polars as pl

import orpipeline
from market.automation import new_day


@dg.asset(
    key_prefix="market",
    partitions_def=orpipeline.daily_partitions(),
    ins={"trends": dg.AssetIn(orpipeline.asset_key("model_trends"))},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
    automation_condition=new_day,
)
def newcomers(trends: pl.DataFrame) -> pl.DataFrame:
    """The models that are listed for the first time."""
    new = trends.filter(pl.col("scope") == "all", pl.col("first_seen") == pl.col("as_of"))
    return new.select("as_of", "model_id", "usage_share")

import dagster as dg
import polars as pl

import orpipeline

last_7_days = dg.TimeWindowPartitionMapping(start_offset=-6, allow_nonexistent_upstream_partitions=True)


@dg.asset(
    key_prefix="market",
    partitions_def=orpipeline.daily_partitions(),
    ins={"board": dg.AssetIn(orpipeline.asset_key("model_leaderboard"), partition_mapping=last_7_days)},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
)
def steady(context: dg.AssetExecutionContext, board: pl.DataFrame) -> pl.DataFrame:
    """How many of the last 7 days a model was among the first 10."""
    first = board.filter(pl.col("scope") == "all", pl.col("usage_rank") <= 10)
    as_of = pl.lit(context.partition_key).str.to_date().alias("as_of")
    return first.group_by("model_id").agg(days=pl.len()).select(as_of, "model_id", "days")

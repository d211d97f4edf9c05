import dagster as dg
import polars as pl

import orpipeline


@dg.asset(
    key_prefix="market",
    partitions_def=dg.WeeklyPartitionsDefinition(orpipeline.daily_partitions().start, day_offset=1, timezone="UTC"),
    ins={"board": dg.AssetIn(orpipeline.asset_key("author_leaderboard"))},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "monday"},
)
def weekly_authors(context: dg.AssetExecutionContext, board: pl.DataFrame) -> pl.DataFrame:
    """The authors of each week from Monday to Sunday."""
    sunday = board.filter(pl.col("as_of") == pl.col("as_of").max(), pl.col("scope") == "all")
    monday = pl.lit(context.partition_key).str.to_date().alias("monday")
    return sunday.select(monday, "author", "usage_rank", "usage_share")

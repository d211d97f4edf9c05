import dagster as dg
import polars as pl

import orpipeline


@dg.asset(
    key_prefix="market",
    partitions_def=orpipeline.daily_partitions(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"models": dg.AssetIn(orpipeline.asset_key("task_models"))},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
)
def code_models(models: pl.DataFrame) -> pl.DataFrame:
    """The listed models of the code tasks."""
    return models.filter(pl.col("tag").str.starts_with("code:"))

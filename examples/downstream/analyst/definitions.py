import dagster as dg
import polars as pl

import orpipeline


@dg.asset(
    key_prefix="analyst",
    ins={"board": dg.AssetIn(orpipeline.asset_key("model_leaderboard"))},
    io_manager_key="openrouter_io_manager",
)
def records(board: pl.DataFrame) -> pl.DataFrame:
    """The largest share that each model ever had."""
    return board.filter(pl.col("scope") == "all").group_by("model_id").agg(pl.col("usage_share").max())


defs = dg.Definitions([records, *orpipeline.external_specs()], resources=orpipeline.resources())

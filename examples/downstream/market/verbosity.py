import dagster as dg
import pandas as pd

import orpipeline


@dg.asset(
    key_prefix="market",
    partitions_def=orpipeline.daily_partitions(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"macros": dg.AssetIn(orpipeline.asset_key("macro_categories"))},
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
)
def verbosity(macros: pd.DataFrame) -> pd.DataFrame:
    """Each macro-category's share of tokens for each share of requests."""
    verbosity = macros["token_share"] / macros["usage_share"]
    return macros.assign(verbosity=verbosity)[["as_of", "key", "verbosity"]]

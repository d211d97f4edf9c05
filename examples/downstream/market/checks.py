import dagster as dg
import polars as pl
from pandera.errors import SchemaError

import orpipeline
from market.code_models import code_models


@dg.asset_check(asset=code_models)
def follows_the_contract(code_models: pl.DataFrame) -> dg.AssetCheckResult:
    """Whether `code_models` follows the rules of `task_models`."""
    try:
        orpipeline.TaskModels.validate(code_models)
    except SchemaError as error:
        return dg.AssetCheckResult(passed=False, metadata={"error": dg.MetadataValue.text(str(error))})
    return dg.AssetCheckResult(passed=True, metadata={"rows": len(code_models)})


@dg.asset_check(asset=orpipeline.asset_key("model_leaderboard"), partitions_def=orpipeline.daily_partitions())
def first_place_is_certain(model_leaderboard: pl.DataFrame) -> dg.AssetCheckResult:
    """Whether the day's first place of all requests is certain."""
    first = model_leaderboard.filter(pl.col("scope") == "all", pl.col("usage_rank") == 1)
    return dg.AssetCheckResult(passed=bool((first["usage_rank_worst"] == 1).all()))

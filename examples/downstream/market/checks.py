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

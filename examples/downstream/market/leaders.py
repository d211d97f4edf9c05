from pathlib import Path

import dagster as dg

import orpipeline

SQL = Path(__file__).with_suffix(".sql").read_text()


@dg.asset(
    key_prefix="market",
    partitions_def=orpipeline.daily_partitions(),
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[orpipeline.asset_key("model_leaderboard")],
    io_manager_key="openrouter_io_manager",
    metadata={"partition_expr": "as_of"},
)
def leaders(context: dg.AssetExecutionContext, openrouter_warehouse: orpipeline.WarehouseResource) -> None:
    """The first model of each day."""
    days = context.partition_keys
    with openrouter_warehouse.get_connection() as connection:
        ((stored,),) = connection.execute(SQL, [days[0], days[-1]]).fetchall()
        if stored < len(days):
            raise dg.Failure(f"{len(days) - stored} of {len(days)} days are missing.")

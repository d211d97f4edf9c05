import dagster as dg

import market
import orpipeline
from market.automation import sensor

defs = dg.Definitions.merge(
    dg.Definitions(
        assets=dg.load_assets_from_package_module(market),
        asset_checks=dg.load_asset_checks_from_package_module(market),
        sensors=[sensor],
        executor=dg.in_process_executor,
    ),
    orpipeline.build_defs(),
)

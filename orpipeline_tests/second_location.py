"""A second code location for `cluster.py`: another team's, with one asset on the pipeline's tables."""

from __future__ import annotations

import dagster as dg

import orpipeline


@dg.asset(deps=[orpipeline.asset_key("model_leaderboard")])
def weekly_note() -> str:
    """Stand for what another team makes of the leaderboard."""
    return "made by another team"


defs = dg.Definitions(
    assets=[weekly_note, *orpipeline.external_specs()],
    resources={**orpipeline.resources(), "io_manager": dg.FilesystemIOManager()},
)

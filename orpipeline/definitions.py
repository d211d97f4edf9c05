"""The code location: wiring only."""

from __future__ import annotations

import dagster as dg

from orpipeline.defs.alerts import alert_sensor
from orpipeline.defs.assets import snapshot
from orpipeline.defs.imports import import_archive
from orpipeline.defs.jobs import daily_snapshot
from orpipeline.defs.reports import leaderboard_report, report_sensor
from orpipeline.defs.resources import resources
from orpipeline.defs.schedules import daily_snapshot_schedule, recapture_schedule
from orpipeline.defs.sensors import snapshot_sensor
from orpipeline.settings import load_settings

defs = dg.Definitions(
    assets=[snapshot, leaderboard_report],
    jobs=[daily_snapshot, import_archive],
    schedules=[daily_snapshot_schedule, recapture_schedule],
    sensors=[snapshot_sensor, alert_sensor, report_sensor],
    resources=resources(load_settings()),
    # One process a run: a process for each step would import everything again, for more time than its work takes.
    executor=dg.in_process_executor,
)

"""The asset that is a page and a picture, and the sensor that keeps it up to date."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from datetime import date, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.events import failure
from orpipeline.defs.metadata import SPARKLINE_DAYS, leaderboard_metadata
from orpipeline.defs.resources import ArchiveResource, WarehouseResource
from orpipeline.defs.specs import REPORT, report_spec
from orpipeline.errors import OrpipelineError, SettingsError
from orpipeline.settings import load_settings


class ReportConfig(dg.Config):
    """The run config of the report."""

    day: str | None = Field(default=None, description="The day to show, as YYYY-MM-DD; without it, the newest.")


@dg.multi_asset(
    name=REPORT.path[-1],
    specs=[report_spec()],
    # A range of days has one report, of the newest.
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="warehouse",
)
def leaderboard_report(
    config: ReportConfig, archive: ArchiveResource, warehouse: WarehouseResource
) -> dg.MaterializeResult[Any]:
    """Write the report, and say where it is."""
    # Charts take a second to import, and only this asset draws some.
    from orpipeline.report.files import write_report

    now, tables = utc_now(), warehouse.warehouse()
    try:
        written = write_report(
            load_settings().reports_dir,
            archive.archive(),
            tables,
            day=_day(config.day),
            newest=newest_completed_day(now),
        )
        day = written.as_of
        rows = tables.read("model_leaderboard", since=day, until=day)
        recent = tables.read("model_trends", since=day - timedelta(days=SPARKLINE_DAYS), until=day)
    except OrpipelineError as error:
        raise failure(error) from error
    return dg.MaterializeResult(
        metadata={
            "as_of": day.isoformat(),
            "page": dg.MetadataValue.path(written.page),
            "picture": dg.MetadataValue.path(written.picture),
            **leaderboard_metadata(rows, recent),
            "page_bytes": written.page.stat().st_size,
            "seconds": round((utc_now() - now).total_seconds(), 3),
            "citation": written.citation,
        },
        data_version=dg.DataVersion(written.sha256),
    )


report_sensor = dg.AutomationConditionSensorDefinition(
    "report_sensor",
    target=dg.AssetSelection.assets(REPORT),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Makes the report again after tables changed without it, as an import or a backfill leaves them.",
)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise SettingsError(f"`day` is {text!r}; write it as YYYY-MM-DD.") from None

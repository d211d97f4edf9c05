"""The report as an asset, and the sensor that keeps it current."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from orpipeline.clock import utc_now
from orpipeline.defs.events import failure
from orpipeline.defs.names import Names
from orpipeline.defs.runs import active_run
from orpipeline.defs.specs import Labels, report_spec
from orpipeline.errors import OrpipelineError, SettingsError
from orpipeline.warehouse.reading import readable_tables

_ATTEMPTS = 6  # the distance no longer grows after these: 2, 4, ... 64 minutes


class ReportConfig(dg.Config):
    """The run config of the report."""

    day: str | None = Field(default=None, description="The day to show, as YYYY-MM-DD; the newest by default.")


def report_asset(names: Names, reports: Path | str, labels: Labels) -> dg.AssetsDefinition:
    """Return the asset that writes the report into a folder, or into an object store at a URL."""

    @dg.multi_asset(
        name=names.op("leaderboard_report"),
        specs=[report_spec(names, labels)],
        # A range of days has one report, of the newest.
        backfill_policy=dg.BackfillPolicy.single_run(),
        op_tags={"dagster/priority": "-2"},  # after the catalogue, whose names it shows, if there is one
        required_resource_keys={names.warehouse},
    )
    def leaderboard_report(context: dg.AssetExecutionContext, config: ReportConfig) -> dg.MaterializeResult[Any]:
        from orpipeline.report.files import write_report  # only this asset needs it

        resources = context.resources._asdict()
        try:
            with readable_tables(resources[names.warehouse].warehouse()) as tables:
                written = write_report(reports, tables, day=_day(config.day), now=utc_now())
        except OrpipelineError as error:
            raise failure(error) from error
        return dg.MaterializeResult(
            metadata={
                "as_of": written.as_of.isoformat(),
                "page": dg.MetadataValue.path(str(written.page)),
                "dated": dg.MetadataValue.path(str(written.dated)),
                "picture": dg.MetadataValue.path(str(written.picture)),
                "citation": written.citation,
            },
            data_version=dg.DataVersion(written.sha256),
        )

    return leaderboard_report


def report_sensor(names: Names) -> dg.SensorDefinition:
    """Return the sensor that updates the report after an import or a backfill.

    It is an ordinary sensor: an automation condition on the report would also be evaluated by your project's own
    automation sensor, and two such sensors must not share an asset.
    """

    @dg.sensor(
        name=names.job("report_sensor"),
        target=dg.AssetSelection.assets(names.report),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description="Updates the report after the tables changed without it, as after an import or a backfill.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = utc_now()
        newest = _newest_event(context.instance, names.asset("model_leaderboard"))
        if not newest:
            return dg.SkipReason("No day is materialized yet.")
        if _newest_event(context.instance, names.report) > newest:
            return dg.SkipReason("The report shows the newest tables.")
        run_id = active_run(context.instance, names, now)
        if run_id is not None:
            return dg.SkipReason(f"Run {run_id[:8]} is still changing the tables or the report.")
        key = f"report-{newest}"
        own = dg.RunsFilter(tags={"dagster/sensor_name": names.job("report_sensor")})
        records = context.instance.get_run_records(own, limit=_ATTEMPTS)
        failed = list(takewhile(lambda record: _failed(record.dagster_run, key), records))
        if failed:
            ended_at = datetime.fromtimestamp(failed[0].end_time or 0.0, UTC)
            due = ended_at + timedelta(minutes=2 ** len(failed))
            if now < due:
                return dg.SkipReason(f"The report failed {len(failed)} times in a row, next attempt {due:%H:%M} UTC.")
            key = f"{key}-{failed[0].dagster_run.run_id}"
        return dg.RunRequest(run_key=key, asset_selection=[names.report])

    return sensor


def _newest_event(instance: dg.DagsterInstance, key: dg.AssetKey) -> int:
    """Return the storage id of an asset's newest materialization, 0 without one."""
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=1).records
    return records[0].storage_id if records else 0


def _failed(run: dg.DagsterRun, key: str) -> bool:
    """Return whether a run was an attempt for the same tables, and failed."""
    return run.status is dg.DagsterRunStatus.FAILURE and run.tags.get("dagster/run_key", "").startswith(key)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise SettingsError(f"`day` is {text!r}; write it as YYYY-MM-DD.") from None

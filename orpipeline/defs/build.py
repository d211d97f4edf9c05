"""The pipeline's Dagster definitions, built from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from orpipeline.archive import Archive
from orpipeline.defs.alerts import alert_sensor
from orpipeline.defs.assets import daily_step
from orpipeline.defs.catalogue import catalogue_step
from orpipeline.defs.imports import import_job
from orpipeline.defs.jobs import daily_job
from orpipeline.defs.maintenance import maintenance_job, maintenance_schedule
from orpipeline.defs.names import DEFAULT_PREFIX, Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.reports import report_asset, report_sensor
from orpipeline.defs.resources import api_resource, hidden_config, io_manager, resources
from orpipeline.defs.schedules import daily_schedule, recapture_schedule
from orpipeline.defs.sensors import snapshot_sensor
from orpipeline.defs.specs import Labels, view_specs
from orpipeline.settings import Settings, api_key, used_settings


def build_defs(
    settings: Settings | None = None,
    *,
    key_prefix: str = DEFAULT_PREFIX,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    automation: bool = True,
    alerts: bool = False,
    report: bool = True,
) -> dg.Definitions:
    """Return the pipeline's definitions, to merge with those of your project.

        >>> import dagster as dg
        >>> import orpipeline
        >>> defs = dg.Definitions.merge(
        ...     dg.Definitions(resources={"io_manager": dg.FilesystemIOManager()}),
        ...     orpipeline.build_defs(orpipeline.Settings(data_dir="/srv/openrouter")),
        ... )

    They contain no executor, and only resources whose keys begin with `key_prefix`. Several pipelines with different
    settings and prefixes fit into one code location.

    Args:
        settings: By default from the environment, which this function reads once.
        key_prefix: The prefix of all asset keys, and the DuckDB schema of the tables. With any other than `openrouter`,
            the names of resources, jobs, schedules and sensors begin with it, too.
        group_name: The asset group of all assets; by default `openrouter`.
        owners: The owners of all assets, as Dagster defines them: email addresses or `team:name`.
        tags: Tags of all assets.
        automation: Include the schedules and sensors, which run by default. Without them, schedule the `daily_snapshot`
            job yourself.
        alerts: Include `alert_sensor` in any case. It is on if `Settings(alert_webhook=...)` is set.
        report: Include the report, and the sensor that keeps it current.

    Raises SettingsError if the environment has invalid settings, or if `key_prefix` is not a valid name.
    """
    used, names = used_settings(settings), Names(key_prefix)
    partitions, labels = daily_partitions(used), Labels(group_name, owners or (), tags or {})
    daily, importing = daily_job(names, report=report), import_job(names, partitions)
    maintenance = [maintenance_job(names)] if used.is_lake else []
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        daily_step(names, partitions, labels, has_key=api_key() is not None),
        catalogue_step(names, partitions, labels),
        *view_specs(names, partitions, labels),
    ]
    schedules: list[dg.ScheduleDefinition] = []
    sensors: list[dg.SensorDefinition] = []
    if report:
        assets.append(report_asset(names, used.reports, labels))
    if automation:
        schedules += [daily_schedule(names, daily), recapture_schedule(names, daily)]
        schedules += [maintenance_schedule(names, job) for job in maintenance]
        sensors.append(snapshot_sensor(names, daily, partitions, Archive(used.archive), api_resource(used)))
    if automation and report:
        sensors.append(report_sensor(names))
    if alerts or used.alert_webhook is not None:
        sensors.append(alert_sensor(names, used.alert_webhook))
    return dg.Definitions(
        assets=assets,
        jobs=[daily, importing, *maintenance],
        schedules=schedules,
        sensors=sensors,
        resources=hidden_config(resources(used, names)),
    )


def stand_alone_defs(settings: Settings) -> dg.Definitions:
    """Return the definitions of the stand-alone code location: those of `build_defs`, with alerts if a webhook is set.

    The I/O manager is also `io_manager`, so assets that you add there need no configuration.
    """
    ours = build_defs(settings)
    return dg.Definitions.merge(ours, dg.Definitions(resources=hidden_config({"io_manager": io_manager(settings)})))

"""The pipeline of `orpipeline.testing`, with what only the tests of the pipeline itself need."""

# No `from __future__ import annotations` here: Dagster reads the annotations of resources.

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import time_machine

# Dagster accepts a queued run only with where its job is. The names have no public equivalent.
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from orpipeline.archive import Archive, Stored
from orpipeline.capture import Fetch
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.build import build_defs
from orpipeline.defs.jobs import snapshot_config
from orpipeline.defs.names import Names
from orpipeline.defs.resources import api_resource
from orpipeline.defs.runs import Outcome, outcomes
from orpipeline.load import load_batches
from orpipeline.openrouter.budget import Budget
from orpipeline.openrouter.response import read_as_of
from orpipeline.testing import LocalApi, LocalPipeline
from orpipeline.testing.tables import NOON as NOON
from orpipeline.warehouse.warehouse import Warehouse

NAMES = Names()
AUTOMATED = {"dagster/sensor_name": "snapshot_sensor"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class World(LocalPipeline):
    """A pipeline that runs days through the real assets in every way, and shows the stored rows and events.

    `state` is the folder of a request budget that several pipelines share.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api: LocalApi | None = None,
        instance: dg.DagsterInstance | None = None,
        state: Path | None = None,
    ) -> None:
        super().__init__(folder, api=api, instance=instance)
        self.folder = folder
        if state is not None:
            self.settings = self.settings.model_copy(update={"state": state})

    @property
    def archive(self) -> Archive:
        return self._archive

    @property
    def warehouse(self) -> Warehouse:
        return self._warehouse

    @property
    def budget(self) -> Budget:
        return api_resource(self.settings).budget

    @cached_property
    def defs(self) -> dg.Definitions:
        return build_defs(self.settings)

    def store(self, body: bytes, origin: str = "import", fetched_at: datetime | None = None) -> Stored:
        """Archive a response, without calling the API; by default as if it was fetched at noon of the following day."""
        day = read_as_of(body) or NOON.date() - timedelta(days=1)
        noon = datetime.combine(day + timedelta(days=1), NOON.timetz())
        return self.archive.put(body, fetched_at=fetched_at or noon, source="a test", origin=origin)

    def run(
        self,
        *days: date,
        fetch: Fetch = Fetch.never,
        selection: Sequence[str] | None = None,
        extra: dg.Definitions | None = None,
        revision: int | None = None,
        automated: bool = False,
    ) -> dg.ExecuteInProcessResult:
        """Materialize a day, or the range from the first to the last of several, as one run.

        Without the report, unless `selection` names it. With `extra` definitions, all of their assets, too. With
        `automated`, as the sensor starts it, and otherwise as a person does.
        """
        first, last = min(days).isoformat(), max(days).isoformat()
        several = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        if extra is None:
            job = self.defs.resolve_job_def("daily_snapshot")
        else:
            job = dg.Definitions.merge(self.defs, extra).resolve_implicit_global_asset_job_def()
        selected = [NAMES.asset(name) for name in selection] if selection else list(NAMES.daily_assets)
        if extra is not None:
            selected += [
                key for asset in extra.assets or [] if isinstance(asset, dg.AssetsDefinition) for key in asset.keys
            ]
        return job.execute_in_process(
            instance=self.instance,
            partition_key=first if first == last else None,
            tags={**({} if first == last else several), **(AUTOMATED if automated else {})},
            asset_selection=selected,
            run_config={**snapshot_config(NAMES, fetch, revision), **QUIET},
            raise_on_error=False,
        )

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute a run of one day that the sensor or a schedule requests."""
        assert request.partition_key
        config = request.run_config["ops"][NAMES.op("snapshot")]["config"] if request.run_config else {}
        day, fetch = date.fromisoformat(request.partition_key), Fetch[config.get("fetch", "auto")]
        return self.run(day, fetch=fetch, automated=True)

    def tick(self, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate the sensor once."""
        with dg.build_sensor_context(instance=self.instance, cursor=cursor) as context:
            result = self.defs.resolve_sensor_def("snapshot_sensor")(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def make_tables(self, *days: date) -> None:
        """Load days into the tables as a run does, in a fraction of its time and without any event."""
        for loaded in load_batches(self.archive, self.warehouse, days, now=NOON):
            assert not loaded.validated.errors

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return every table's rows."""
        with self.warehouse.reading() as tables:
            return {name: tables.read(name).to_dicts() for name in TABLES}

    def metadata(self, asset: dg.AssetKey, day: date) -> dict[str, Any]:
        """Return the metadata of an asset's newest materialization of a day."""
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[day.isoformat()])
        (record,) = self.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization is not None
        return dict(record.asset_materialization.metadata)

    def materialized(self, asset: str) -> set[str]:
        """Return an asset's materialized partitions."""
        return set(self.instance.get_materialized_partitions(dg.AssetKey(["openrouter", asset])))


def evaluate(schedule: str, at: datetime, instance: dg.DagsterInstance | None = None) -> dg.RunRequest | dg.SkipReason:
    """Evaluate a schedule once, by its name. A schedule can only read an instance on disk; by default, an empty one.

    The context is closed here: a context that is left to the garbage collector restores its instance's state in the
    middle of another test.
    """
    with TemporaryDirectory() as folder:
        used = instance or dg.DagsterInstance.local_temp(folder)
        with time_machine.travel(at, tick=False), dg.build_schedule_context(used, at) as context:
            result = build_defs().resolve_schedule_def(schedule)(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


ASSETS = [key.path[-1] for key in NAMES.daily_assets]


def queued_run(job: str, **tags: str) -> dg.DagsterRun:
    """Return a queued run of a job, as Dagster's daemon creates it."""
    location = GrpcServerCodeLocationOrigin("127.0.0.1", port=1)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    return dg.DagsterRun(job, status=dg.DagsterRunStatus.QUEUED, tags=tags, remote_job_origin=origin)


def failure_of(result: dg.ExecuteInProcessResult) -> dg.Failure:
    """Return the Failure that ended a run."""
    assert not result.success
    data = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert data.user_failure_data is not None, data.error
    return dg.Failure(data.user_failure_data.description, metadata=data.user_failure_data.metadata)


def resource_of(defs: dg.Definitions, key: str) -> Any:
    """Return one of the definitions' resources as a run gets it."""
    with dg.build_resources({key: (defs.resources or {})[key]}) as resources:
        return getattr(resources, key)


def outcome_of(world: World, day: date) -> Outcome:
    """Return how the newest attempt for a day ended."""
    (_, newest), *_ = outcomes(world.instance, NAMES, [day])
    return newest


def checks_of(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """Return a run's check results by asset and check name."""
    return {(e.asset_key.path[-1], e.check_name): e for e in result.get_asset_check_evaluations()}


def local(place: Path | str) -> Path:
    """Return a place that is a path on this machine."""
    assert isinstance(place, Path)
    return place


def days_of(warehouse: Warehouse) -> list[date]:
    """Return the days that the tables have, oldest first."""
    with warehouse.reading() as tables:
        return tables.days()


def publish(warehouse: Warehouse) -> None:
    """Publish the tables as they are."""
    with warehouse.writing() as tables:
        tables.changed = True

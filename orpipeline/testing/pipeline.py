"""A whole pipeline on this machine, for tests of your own assets."""

# No `from __future__ import annotations` here: Dagster reads the annotations of resources.

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg
import polars as pl

import orpipeline.settings
from orpipeline.archive import Archive
from orpipeline.clock import as_day, newest_completed_day, utc_now
from orpipeline.defs.build import build_defs
from orpipeline.defs.names import DEFAULT_PREFIX, Names
from orpipeline.settings import API_KEY, PREFIX, Settings
from orpipeline.testing.clock import fixed_clock
from orpipeline.testing.local_api import KEY, LocalApi, Reply, Request
from orpipeline.testing.tables import days_between, load_sample_days
from orpipeline.warehouse.reading import read
from orpipeline.warehouse.warehouse import Warehouse, open_warehouse

_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
_LOCK_WAIT_SECONDS = 1.0
_PLACES = ("data_dir", "archive", "warehouse", "lake_data", "state", "reports", "base_url", "alert_webhook")


class LocalPipeline:
    """The pipeline with its own data folder, a `LocalApi` and an ephemeral Dagster instance.

        >>> from orpipeline.testing import LocalPipeline
        >>> with LocalPipeline(tmp_path) as openrouter:  # a folder
        ...     result = openrouter.materialize(day="2026-10-06")  # with your own assets: materialize([authors], ...)
        ...     rows = openrouter.read("model_leaderboard", scope="all")
        >>> result.success, rows["as_of"].n_unique()
        (True, 1)

    The pytest fixture `openrouter` is one, with a clock that starts at noon of 2026-10-07 (UTC) and the settings in the
    environment. Nothing in it needs a network or a real API key.

    `settings`, `instance` and `api` are its parts. You can pass an `instance` or an `api` that you already have; it is
    not closed at the end. `key_prefix` is the one of your own `build_defs`.

    Settings in your code fit: while the pipeline is active, `read(settings=SETTINGS)` reads this pipeline, and our
    partitions begin with those of your assets, such as `daily_partitions(SETTINGS)`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key_prefix: str = DEFAULT_PREFIX,
        api: LocalApi | None = None,
        instance: dg.DagsterInstance | None = None,
    ) -> None:
        self._open = ExitStack()
        self._instance = instance
        self._names = Names(key_prefix)
        self._has_own_api = api is None
        self.api = api or LocalApi()
        self.settings = Settings(data_dir=folder, base_url=self.api.base_url, lock_wait_seconds=_LOCK_WAIT_SECONDS)

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance."""
        if self._instance is None:
            # Not entered: Dagster keeps the storage of the last entered instance, and instances that do not end in the
            # opposite order of their beginning would leave that of an ended one to the tests that follow.
            self._instance = dg.DagsterInstance.ephemeral()
            self._open.callback(self._instance.dispose)
        return self._instance

    @property
    def requests(self) -> Sequence[Request]:
        """The requests that the API received, oldest first."""
        return self.api.requests

    def serve(self, *replies: Reply | bytes) -> None:
        """Let the API send these replies, as `LocalApi.serve` does; bytes are for example a `sample_response`."""
        self.api.serve(*replies)

    def fail_next(self, status: int, *, retry_after: float | str | None = None, times: int = 1) -> None:
        """Let the API fail the next `times` requests, as `LocalApi.fail_next` does."""
        self.api.fail_next(status, retry_after=retry_after, times=times)

    def load(self, since: date | str, until: date | str | None = None) -> None:
        """Load made-up days straight into archive and tables, by default one day. Dagster records no events of them."""
        load_sample_days(self._archive, self._warehouse, days_between(since, until or since))

    def read(
        self,
        table: str,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        scope: str | None = None,
    ) -> pl.DataFrame:
        """Return a table or view, as `orpipeline.read` does: ours, or yours, such as `public.authors`."""
        with self.active():
            return read(table, since=since, until=until, scope=scope, settings=self.settings)

    def materialize(
        self,
        assets: Sequence[Any] = (),
        *,
        day: date | str | None = None,
        partition_key: str | None = None,
        resources: Mapping[str, object] | None = None,
        run_config: Mapping[str, Any] | None = None,
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Run our daily step for a day, and your assets and checks downstream of it, as one run in this process.

            openrouter.materialize([authors, authors_are_known], day="2026-10-06")

            openrouter.load("2026-09-28", "2026-10-04")
            openrouter.materialize([weekly_authors], partition_key="2026-09-28")

        Our step fetches the day over HTTP. It is left out if the tables already have the day, unless `run_config` has
        an entry for it. With a `partition_key`, only your assets run, for that partition. During the run, the API
        key in the environment is made up, the other settings there are `settings`, and the clock shows noon of the day
        after `day`, unless `day` is the newest completed one anyway.

        Args:
            assets: Your assets, and asset checks.
            day: By default the newest completed day.
            partition_key: A partition of your assets, if it is not a day, or if you loaded the days yourself.
            resources: Your assets' resources, by key.
            run_config: Dagster's run config.
            raise_on_error: Raise the error of a failed step. Otherwise, see the result's `success`.

        Returns Dagster's result: materializations, check evaluations, events.
        """
        wanted = as_day(day) if day is not None else newest_completed_day(utc_now())
        settings = self.settings.model_copy(update=_start_of(assets))
        config = {**_QUIET, **(run_config or {})}
        with self.active(wanted):
            ours = build_defs(settings, key_prefix=self._names.prefix, automation=False, report=False)
            job = dg.Definitions.merge(ours, _definitions(assets, resources)).resolve_implicit_global_asset_job_def()
            return job.execute_in_process(
                instance=self.instance,
                partition_key=partition_key or wanted.isoformat(),
                asset_selection=[
                    *self._our_assets(wanted, partition_key, config),
                    *(key for asset in _executable(assets) for key in asset.keys),
                ],
                run_config=config,
                raise_on_error=raise_on_error,
            )

    @contextmanager
    def active(self, day: date | str | None = None) -> Iterator[None]:
        """Put the settings and a made-up API key into the environment, and in place of those in code, for a block.

        With a `day` that is not the newest completed one, the clock shows noon of the day after it.
        """
        with ExitStack() as block:
            block.enter_context(_environment(self._variables))
            block.callback(setattr, orpipeline.settings, "test_places", orpipeline.settings.test_places)
            orpipeline.settings.test_places = {name: getattr(self.settings, name) for name in _PLACES}
            if day is not None and as_day(day) != newest_completed_day(utc_now()):
                block.enter_context(fixed_clock(_noon_after(as_day(day)), ticking=True))
            yield

    def __enter__(self) -> Self:
        if self._has_own_api:
            self._open.enter_context(self.api)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def _archive(self) -> Archive:
        return Archive(self.settings.archive)

    @property
    def _warehouse(self) -> Warehouse:
        return open_warehouse(self.settings, schema=self._names.prefix)

    @property
    def _variables(self) -> dict[str, str]:
        # An empty variable counts as unset: those that are set elsewhere must not lead to real data.
        settings = dict.fromkeys(Settings.model_fields, "")
        settings |= self.settings.model_dump(mode="json", include=self.settings.model_fields_set)
        return {API_KEY: KEY, **{PREFIX + name.upper(): str(value) for name, value in settings.items()}}

    def _our_assets(self, day: date, partition_key: str | None, config: Mapping[str, Any]) -> list[dg.AssetKey]:
        """Return the assets of our daily step, if it has to run."""
        if partition_key is not None:
            return []
        is_wanted = (
            self._names.op("snapshot") in config.get("ops", {}) or day not in self._warehouse.read("snapshots")["as_of"]
        )
        return self._names.daily_assets if is_wanted else []


def _definitions(assets: Sequence[Any], resources: Mapping[str, object] | None) -> dg.Definitions:
    checks = [asset for asset in assets if _is_check(asset)]
    others = [asset for asset in assets if not _is_check(asset)]
    return dg.Definitions(assets=others, asset_checks=checks, resources=dict(resources or {}))


def _executable(assets: Sequence[Any]) -> list[dg.AssetsDefinition]:
    """Return the assets that can be materialized; their checks run with them."""
    return [asset for asset in assets if isinstance(asset, dg.AssetsDefinition) and not _is_check(asset)]


def _is_check(asset: Any) -> bool:
    return isinstance(asset, dg.AssetChecksDefinition)


def _start_of(assets: Sequence[Any]) -> dict[str, date]:
    """Return the start date of the assets' daily partitions, if they have some: ours in the same run need the same."""
    partitions = [spec.partitions_def for asset in _executable(assets) for spec in asset.specs]
    starts = [one.start.date() for one in partitions if isinstance(one, dg.DailyPartitionsDefinition)]
    return {"start_date": starts[0]} if starts else {}


def _noon_after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(12), UTC)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

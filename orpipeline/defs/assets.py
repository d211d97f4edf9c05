"""The step that fetches a day and loads its tables."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import dagster as dg

# Dagster applies a step's output, with the tags of one event, to every partition of the run. Days that already have
# their own events need an output without events. This marker, made for an old feature of Dagster, is the only way.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as WITHOUT_EVENTS
from pydantic import Field

from orpipeline.archive import Archive
from orpipeline.capture import Fetch, capture
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.checks import bounds_results, check_specs, history_results, rule_results
from orpipeline.defs.events import Materialization, by_asset, failure, raw_materializations, table_materializations
from orpipeline.defs.failures import days_failed
from orpipeline.defs.names import Names
from orpipeline.defs.specs import Labels, daily_specs
from orpipeline.errors import InvalidSnapshotError, OrpipelineError, WarehouseError
from orpipeline.load import Loaded, Validated, load_days, validate_days, with_novelties
from orpipeline.openrouter.client import Client
from orpipeline.warehouse.warehouse import Warehouse

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


class SnapshotConfig(dg.Config):
    """The run config of the daily step."""

    fetch: Fetch = Field(
        default=Fetch.auto,
        description="`auto`: call the API only for the newest completed UTC day, and only if it is missing from the "
        "archive. `always`: call it, and archive the response under its own `as_of`. `never`: use the archive alone.",
    )
    revision: int | None = Field(
        default=None,
        ge=1,
        description="Load this revision of a restated day instead of the newest valid one.",
    )


def daily_step(
    names: Names, partitions: dg.DailyPartitionsDefinition, labels: Labels, *, has_key: bool
) -> dg.AssetsDefinition:
    """Return the step that materializes the raw response and all tables. The former's page says if a key is missing."""

    @dg.multi_asset(
        name=names.op("snapshot"),
        description=(
            "Fetches a day's response, archives it, validates it, and replaces the day's rows in all tables in one "
            "transaction. Selecting one table rebuilds the whole day."
        ),
        specs=daily_specs(names, partitions, labels, has_key=has_key),
        check_specs=check_specs(names),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        pool=names.warehouse,
        required_resource_keys={names.api, names.archive, names.warehouse},
    )
    def snapshot(context: dg.AssetExecutionContext, config: SnapshotConfig) -> Iterator[Event]:
        resources = context.resources._asdict()
        step = _Step(
            context,
            names,
            archive=resources[names.archive].archive(),
            spool=resources[names.archive].waiting(),
            warehouse=resources[names.warehouse].warehouse(),
            now=utc_now(),
        )
        try:
            yield from step.run(resources[names.api].client(), config)
        except OrpipelineError as error:
            raise failure(error) from error

    return snapshot


@dataclass(frozen=True)
class _Step:
    """One execution of the step."""

    context: dg.AssetExecutionContext
    names: Names
    archive: Archive
    spool: Archive | None
    warehouse: Warehouse
    now: datetime

    def run(self, client: Client, config: SnapshotConfig) -> Iterator[Event]:
        """Fetch, load and report. Raises a Failure that names the days that failed, after all others are loaded."""
        days, newest = self._days(), newest_completed_day(self.now)
        # Checks that run alone use the archive only.
        fetch = config.fetch if self.context.selected_asset_keys else Fetch.never
        served, not_fetched = self._fetch(client, days, fetch)
        table_days: Sequence[date] | None
        if self.context.selected_asset_keys - {self.names.raw}:
            loaded = yield from self._load(days, served, config.revision)
            if loaded.reloaded:
                self.context.log.warning(loaded.reloaded)
            validated, table_days = loaded.validated, loaded.days
            if table_days is None:  # nothing to load, so the warehouse is not open yet
                _, table_days = self._validate(days, served, config.revision)
        else:
            loaded = None
            validated, table_days = self._validate(days, served, config.revision)
        checks = self.context.selected_asset_check_keys
        if self.names.raw in self.context.selected_asset_keys:
            raw = raw_materializations(self.names, validated)
            yield from self._report(raw, complete=len(validated.newest) == len(days))
        yield from rule_results(checks, validated)
        if loaded is not None:
            yield from bounds_results(checks, validated.chosen)
            tables = table_materializations(self.names, loaded)
            yield from self._report(tables, complete=not validated.errors)
        # These checks read other responses, too. An error in one of those must not stop the tables, so they come last.
        yield from history_results(checks, validated, self.archive, table_days, newest)
        if validated.errors or not_fetched:
            raise days_failed(validated.errors, not_fetched, days, newest)

    def _days(self) -> list[date]:
        """Return the days of the run's partitions or, for checks that run alone, the newest archived day."""
        if self.context.has_partition_key or self.context.has_partition_key_range:
            return [date.fromisoformat(key) for key in sorted(self.context.partition_keys)]
        return self.archive.days()[-1:]

    def _fetch(
        self, client: Client, days: Sequence[date], fetch: Fetch
    ) -> tuple[date | None, dict[date, OrpipelineError]]:
        """Call the API if `fetch` requires it. Return the `as_of` of its response, if there is one.

        In a range, only the newest day can come from the API: if the call fails, the other days are loaded, and the
        error is returned as that day's.
        """
        try:
            revision = capture(client, self.archive, days, fetch, self.now, spool=self.spool)
        except OrpipelineError as error:
            if len(days) == 1:
                raise
            self.context.log.warning(str(error))
            return None, {newest_completed_day(self.now): error}
        if revision is None:
            return None, {}
        self.context.log.info(f"The API served {revision.as_of}; archived as {revision.path}")
        return revision.as_of, {}

    def _validate(
        self, days: Sequence[date], served: date | None, revision: int | None
    ) -> tuple[Validated, Sequence[date] | None]:
        """Return the validated days and the days in the tables. If the warehouse fails, the latter are None."""
        validated = validate_days(self.archive, days, now=self.now, served=served, revision=revision)
        try:
            with self.warehouse.reading() as tables:
                return with_novelties(validated, tables), tables.days()
        except WarehouseError as error:
            self.context.log.warning(str(error))
            return validated, None

    def _load(self, days: Sequence[date], served: date | None, revision: int | None) -> Generator[Event, None, Loaded]:
        """Load the days into the tables. If the warehouse fails, the raw responses are still reported."""
        self.context.log.info(
            f"Loading {len(days)} {'day' if len(days) == 1 else 'days'} into {len(TABLES)} tables, in one transaction: "
            "selecting one table rebuilds the whole day."
        )
        try:
            return load_days(self.archive, self.warehouse, days, now=self.now, served=served, revision=revision)
        except WarehouseError:
            if self.names.raw in self.context.selected_asset_keys:
                validated = validate_days(self.archive, days, now=self.now)
                raw = raw_materializations(self.names, validated)
                yield from self._report(raw, complete=len(validated.raw) == len(days))
            raise
        except InvalidSnapshotError as error:  # our own leaderboards: the write has judged them
            yield from bounds_results(self.context.selected_asset_check_keys, days, error.findings)
            raise

    def _report(self, materializations: Iterable[Materialization], *, complete: bool) -> Iterator[Event]:
        """Record which partitions of which assets are materialized now.

        A run of one day yields outputs, which Dagster records. In a range each day is logged by itself, with the data
        version of its own bytes. Outputs follow only if every day is `complete`, because steps downstream run on all
        of the run's partitions. Tables that changed without being selected are logged too.
        """
        for key, of_asset in by_asset(materializations).items():
            is_output = complete and key in self.context.selected_asset_keys
            if is_output and len(of_asset) == 1:
                yield dg.MaterializeResult(
                    asset_key=key, metadata=of_asset[0].metadata, data_version=of_asset[0].data_version
                )
                continue
            for materialization in of_asset:
                self.context.log_event(materialization.event(self.names))
            if is_output:
                yield dg.MaterializeResult(asset_key=key, metadata={WITHOUT_EVENTS: True})

"""The step that fetches a day and loads its tables."""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's parameters.

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from orpipeline.archive import Archive, Revision
from orpipeline.capture import Fetch, capture
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.contracts.tables import TABLES
from orpipeline.defs.checks import bounds_results, check_specs, history_results, rule_results
from orpipeline.defs.events import failure, raw_materializations, recorded, run_days, table_materializations
from orpipeline.defs.failures import days_failed
from orpipeline.defs.jobs import CATCH_UP_DAYS, archived_but_not_loaded, loaded_versions
from orpipeline.defs.names import Names
from orpipeline.defs.runs import observation, outcomes
from orpipeline.defs.specs import Labels, daily_specs
from orpipeline.errors import (
    DamagedResponseError,
    DayNotAvailableError,
    InvalidSnapshotError,
    NextAttempt,
    OrpipelineError,
    SettingsError,
    WarehouseError,
)
from orpipeline.load import Loaded, Validated, load_days, validate_days, with_novelties
from orpipeline.openrouter.client import Client
from orpipeline.warehouse.warehouse import Warehouse

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult
_PASSES = (NextAttempt.TRANSIENT, NextAttempt.STATES_TIME)
_AUTOMATION_TAGS = ("dagster/schedule_name", "dagster/sensor_name")


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
            step.record(error)
            if step.is_automated and error.next_attempt in _PASSES:
                context.log.warning(f"Nothing is materialized for this day; `snapshot_sensor` tries again. {error}")
                return
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

    @property
    def is_automated(self) -> bool:
        """Whether a schedule or a sensor started the run. A person's re-execution of such a run keeps its tags."""
        run = self.context.run
        return run.parent_run_id is None and any(tag in run.tags for tag in _AUTOMATION_TAGS)

    def run(self, client: Client, config: SnapshotConfig) -> Iterator[Event]:
        """Fetch, load and report.

        Raises the error of a single day, or a Failure that names the days of a range that failed, after all others are
        loaded. A run that automation started loads other archived days, too.
        """
        days, newest = self._days(), newest_completed_day(self.now)
        checks, selected = self.context.selected_asset_check_keys, self.context.selected_asset_keys
        # Checks that run alone use the archive only.
        fetched, not_fetched = self._fetch(client, days, config.fetch if selected else Fetch.never)
        lacking = self._lacking(newest)
        more = sorted(lacking - set(days))
        is_single = len(days) == 1
        # Nothing is to be written if the API sent the response again that the tables have, or that was rejected.
        is_settled = self._is_whole and fetched is not None and days == [fetched.as_of] and days[0] not in lacking
        if fetched is not None and is_settled:
            self._record_repetition(fetched, days[0])
        wanted = [*more, *([] if is_settled or (is_single and not_fetched) else days)]
        loaded, table_days = None, None
        if selected - {self.names.raw} and wanted:
            loaded = yield from self._load(wanted, fetched.as_of if fetched else None, config.revision)
            if loaded.reloaded:
                self.context.log.warning(loaded.reloaded)
            validated, table_days = loaded.validated, loaded.days
        if loaded is None or table_days is None:  # the warehouse was not open
            found, table_days = self._validate(days, fetched.as_of if fetched else None, config.revision)
            validated = loaded.validated if loaded else found
        if self.names.raw in selected and wanted:
            raw = raw_materializations(self.names, validated)
            yield from recorded(self.context, self.names, raw, complete=set(days) <= validated.newest.keys())
        if wanted or not validated.errors:  # a response that was rejected before is not rejected again
            yield from rule_results(checks, validated)
        if loaded is not None:
            yield from bounds_results(checks, validated.chosen)
            tables = table_materializations(self.names, loaded)
            yield from recorded(
                self.context,
                self.names,
                tables,
                complete=set(days) <= validated.chosen.keys() - validated.errors.keys(),
            )
        # These checks read other responses, too. An error in one of those must not stop the tables, so they come last.
        yield from history_results(checks, validated, self.archive, table_days, newest)
        errors = {**validated.errors, **not_fetched} if wanted else dict(not_fetched)
        for day in more:
            if day in errors:
                self.record(errors.pop(day), day)
        if is_single and errors:
            raise errors[days[0]]
        if errors:
            raise days_failed(validated.errors, not_fetched, days, newest)
        if fetched is not None and config.fetch is Fetch.always and is_single and not is_settled:
            self.context.log_event(observation(self.names, days[0], f"Fetched once more: {fetched.path}"))

    def record(self, error: OrpipelineError, day: date | None = None) -> None:
        """Record how the attempt for a day ended: the run's own, if it has a single one."""
        if day is None and self.context.has_partition_key:
            day = date.fromisoformat(self.context.partition_key)
        if day is None:
            return
        digest = ""
        if isinstance(error, InvalidSnapshotError | DamagedResponseError):
            newest = self.archive.latest(day)
            digest = newest.digest if newest else ""
        self.context.log_event(
            observation(self.names, day, str(error), type(error).__name__, error.next_attempt, digest)
        )

    @property
    def _is_whole(self) -> bool:
        """Whether automation started the run, for all assets. A person's run loads the days that it was asked for."""
        return self.is_automated and self.context.selected_asset_keys >= set(self.names.daily_assets)

    def _lacking(self, newest: date) -> set[date]:
        """Return the archived days of the last month that the tables lack, for a whole run that automation started."""
        if not self._is_whole:
            return set()
        first = self.context.assets_def.partitions_def.get_first_partition_key()
        window = [newest - timedelta(days=age) for age in range(CATCH_UP_DAYS)]
        days = [day for day in window if str(day) >= first]
        return {*archived_but_not_loaded(self.context.instance, self.names, self.archive, days)}

    def _record_repetition(self, fetched: Revision, day: date) -> None:
        """Record that the API sent the response again that the tables have, or that was rejected."""
        instance = self.context.instance
        loaded = loaded_versions(instance, self.names.asset("model_leaderboard")).get(day.isoformat(), "")
        if loaded.startswith(fetched.digest):
            reason = f"The API still serves the response for {day} that the tables have. Nothing was written."
            event = observation(self.names, day, reason)
        else:
            same = next(one for _, one in outcomes(instance, self.names, [day]) if one.digest == fetched.digest)
            reason = f"The API still serves the response for {day} that was rejected. {same.reason}"
            event = observation(self.names, day, same.reason, same.error, same.next_attempt, fetched.digest)
        self.context.log_event(event)
        self.context.log.info(reason)

    def _days(self) -> list[date]:
        """Return the days of the run's partitions or, for checks that run alone, the newest archived day."""
        days = run_days(self.context)
        if days:
            return days
        if self.context.selected_asset_keys:
            raise SettingsError(
                "This run has no partition, so there is no day to load. Start it with a partition, or leave the assets "
                f"of {self.names.prefix!r} out of your job: the job {self.names.job('daily_snapshot')} loads them."
            )
        return self.archive.days()[-1:]

    def _fetch(
        self, client: Client, days: Sequence[date], fetch: Fetch
    ) -> tuple[Revision | None, dict[date, OrpipelineError]]:
        """Call the API if `fetch` requires it. Return the revision of its response, if there is one, or the error.

        In a range, only the newest day can come from the API: if the call fails, the other days are loaded.
        """
        newest = newest_completed_day(self.now)
        try:
            revision = capture(client, self.archive, days, fetch, self.now, spool=self.spool)
            if revision is not None and self.is_automated and fetch is Fetch.always and revision.as_of != newest:
                raise DayNotAvailableError(f"The API still serves {revision.as_of} and not {newest}.")
        except OrpipelineError as error:
            if len(days) > 1:
                self.context.log.warning(str(error))
            return None, {days[0] if len(days) == 1 else newest: error}
        if revision is not None:
            self.context.log.info(f"The API served {revision.as_of}; archived as {revision.path}")
        return revision, {}

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
                yield from recorded(self.context, self.names, raw, complete=len(validated.raw) == len(days))
            raise
        except InvalidSnapshotError as error:  # our own leaderboards: the write has judged them
            yield from bounds_results(self.context.selected_asset_check_keys, days, error.findings)
            raise

"""Days that the tables lack stay missing in the assets that load them."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from orpipeline import MissingDaysError, Settings, SettingsError, asset_key, daily_partitions, resources
from orpipeline.archive import Archive
from orpipeline.defs.external import external_specs
from orpipeline.load import load_batches
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.world import NOON, QUIET, local

# Dagster warns at each use that single-run backfills are beta.
pytestmark = [pytest.mark.promise, pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]

FIRST = date(2026, 9, 20)
HOLES = [date(2026, 9, 24), date(2026, 9, 25)]
DAYS = [day for n in range(14) if (day := FIRST + timedelta(days=n)) not in HOLES]
LAST = DAYS[-1]
ALLOW = {"orpipeline/missing_days": "allow"}
START = "2026-09-18"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two weeks of tables with two missing days. The partitions begin two days earlier."""
    used = Settings(data_dir=tmp_path_factory.mktemp("data"), start_date=START)
    archive = Archive(used.archive)
    for day in DAYS:
        archive.put(sample_response(day), fetched_at=NOON, source="a test", origin="import")
    for loaded in load_batches(archive, Warehouse(local(used.warehouse)), DAYS, now=NOON):
        assert not loaded.validated.errors
    return used


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


Seen = list[list[date]]


def reader(
    settings: Settings,
    seen: Seen,
    name: str = "reader",
    *,
    source: str = "task_models",
    metadata: dict[str, Any] | None = None,
    mapping: dg.PartitionMapping | None = None,
    **how: Any,
) -> dg.AssetsDefinition:
    """Return an asset that loads one of our tables, and returns one row for each day that it got."""
    how.setdefault("partitions_def", daily_partitions(settings))

    @dg.asset(  # type: ignore[untyped-decorator] # mypy cannot choose an overload for `**how`
        name=name,
        ins={"rows": dg.AssetIn(asset_key(source), metadata=metadata, partition_mapping=mapping)},
        io_manager_key="openrouter_io_manager",
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": "as_of"},
        **how,
    )
    def load(rows: pl.DataFrame) -> pl.DataFrame:
        days = rows.select(pl.col("as_of").unique().sort())
        seen.append(days["as_of"].to_list())
        return days if mapping is None else days.tail(1)

    definition: dg.AssetsDefinition = load
    return definition


def run(
    settings: Settings,
    instance: dg.DagsterInstance,
    *assets: dg.AssetsDefinition,
    first: date | None = None,
    last: date | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize assets for no partition, a day, or a range as one run."""
    several = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    return dg.materialize(
        [*assets, *external_specs(settings)],
        instance=instance,
        partition_key=str(first) if first and not last else None,
        tags=several if last else None,
        resources=resources(settings),
        run_config=QUIET,
    )


def warnings_of(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    """Return the warnings that a run has logged."""
    logs = instance.all_logs(result.run_id)
    return "\n".join(entry.user_message for entry in logs if entry.level == logging.WARNING)


@pytest.mark.parametrize("source", ["task_models", "model_trends"])
def test_a_missing_day_is_an_error_that_names_the_day_and_the_options(
    settings: Settings, instance: dg.DagsterInstance, source: str
) -> None:
    seen: Seen = []
    asset = reader(settings, seen, source=source)
    assert run(settings, instance, asset, first=FIRST).success
    with pytest.raises(MissingDaysError, match=f"openrouter.{source} lacks 1 day: {HOLES[0]}") as error:
        run(settings, instance, asset, first=HOLES[0])
    assert error.value.days == (HOLES[0],)
    assert "orpipeline/missing_days" in str(error.value)
    assert seen == [[FIRST]]
    assert instance.get_materialized_partitions(asset.key) == {str(FIRST)}


def test_a_range_with_missing_days_is_an_error_before_the_asset_runs(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    seen: Seen = []
    asset = reader(settings, seen)
    with pytest.raises(MissingDaysError, match=f"4 days: {START} to 2026-09-19, {HOLES[0]} to {HOLES[1]}"):
        run(settings, instance, asset, first=date.fromisoformat(START), last=LAST)
    assert seen == []
    assert instance.get_materialized_partitions(asset.key) == set()


def test_a_range_that_allows_missing_days_loads_the_days_that_exist(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    seen: Seen = []
    asset = reader(settings, seen, metadata=ALLOW)
    result = run(settings, instance, asset, first=date.fromisoformat(START), last=LAST)
    assert seen == [DAYS]
    assert f"lacks 4 days: {START} to 2026-09-19, {HOLES[0]} to {HOLES[1]}" in warnings_of(result, instance)


LAST_7_DAYS = dg.TimeWindowPartitionMapping(start_offset=-6)


@pytest.mark.parametrize(
    ("day", "metadata", "found"),
    [
        (LAST, {}, 7),
        (LAST - timedelta(days=2), {}, None),  # a missing day is in its window
        (LAST - timedelta(days=2), ALLOW, 6),
        (date(2026, 9, 22), {}, None),  # its window begins before the first partition
        (date(2026, 9, 22), ALLOW, 3),
    ],
)
def test_the_last_7_days_are_all_there_unless_missing_days_are_allowed(
    settings: Settings, instance: dg.DagsterInstance, day: date, metadata: dict[str, Any], found: int | None
) -> None:
    seen: Seen = []
    asset = reader(settings, seen, metadata=metadata, mapping=LAST_7_DAYS)
    if found is None:
        with pytest.raises(MissingDaysError):
            run(settings, instance, asset, first=day)
    else:
        run(settings, instance, asset, first=day)
    assert [len(days) for days in seen] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("offsets", "day", "missing"),
    [
        ((-7, -7), date.fromisoformat(START), "2026-09-11"),  # the day before the first partition, and nothing else
        ((1, 1), LAST, "2026-10-04"),
        ((-3, 0), FIRST, "2026-09-17 to 2026-09-19"),
    ],
)
def test_days_without_a_partition_are_missing_too(
    settings: Settings, instance: dg.DagsterInstance, offsets: tuple[int, int], day: date, missing: str
) -> None:
    seen: Seen = []
    mapping = dg.TimeWindowPartitionMapping(*offsets, allow_nonexistent_upstream_partitions=True)
    with pytest.raises(MissingDaysError, match=missing):
        run(settings, instance, reader(settings, seen, mapping=mapping), first=day)
    assert seen == []


def test_two_weeks_from_before_the_first_partition_are_14_days(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    weeks = dg.WeeklyPartitionsDefinition("2026-09-20", end_date="2026-10-04")
    mapping = dg.TimeWindowPartitionMapping(start_offset=-1)
    with pytest.raises(MissingDaysError, match="9 days: 2026-09-13 to 2026-09-19, 2026-09-24 to 2026-09-25"):
        run(settings, instance, reader(settings, [], partitions_def=weeks, mapping=mapping), first=date(2026, 9, 20))


def test_an_unpartitioned_asset_loads_all_days_and_a_warning_names_lost_ones(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    seen: Seen = []
    result = run(settings, instance, reader(settings, seen, partitions_def=None))
    assert seen == [DAYS]
    assert f"openrouter.task_models lacks 2 days: {HOLES[0]} to {HOLES[1]}. " in warnings_of(result, instance)


def test_a_week_with_a_missing_day_is_an_error(settings: Settings, instance: dg.DagsterInstance) -> None:
    seen: Seen = []
    weeks = dg.WeeklyPartitionsDefinition("2026-09-20", end_date="2026-10-04")
    asset = reader(settings, seen, partitions_def=weeks)
    run(settings, instance, asset, first=date(2026, 9, 27))
    with pytest.raises(MissingDaysError, match="2 days"):
        run(settings, instance, asset, first=date(2026, 9, 20))
    assert [len(days) for days in seen] == [7]


def test_tables_without_any_day_lack_every_day(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    empty = Settings(data_dir=tmp_path, start_date=START)
    seen: Seen = []
    with Warehouse(local(empty.warehouse)).writing() as tables:
        tables.recreate()
    with pytest.raises(MissingDaysError, match=r"openrouter.task_models has no day yet") as error:
        run(empty, instance, reader(empty, seen), first=FIRST)
    assert error.value.days == (FIRST,)
    result = run(empty, instance, reader(empty, seen, partitions_def=None))
    assert seen == [[]]
    assert "openrouter.task_models has no day yet. No row is loaded." in warnings_of(result, instance)


def test_an_absent_table_is_an_error_that_names_the_days(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    absent = Settings(data_dir=tmp_path, start_date=START)
    for _ in range(2):  # without a file, and with one that has other tables
        with pytest.raises(MissingDaysError, match=f"openrouter.task_models does not exist .* lacks {FIRST}") as error:
            run(absent, instance, reader(absent, []), first=FIRST)
        assert error.value.days == (FIRST,)
        with Warehouse(local(absent.warehouse)).transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS mine AS SELECT 1 AS x")


def test_a_table_can_be_loaded_outside_a_run(settings: Settings) -> None:
    defs = dg.Definitions(assets=external_specs(settings), resources=resources(settings))
    loaded: Any = defs.load_asset_value(asset_key("task_models"), python_type=pl.DataFrame, partition_key=str(FIRST))
    assert loaded["as_of"].unique().to_list() == [FIRST]
    with pytest.raises(MissingDaysError, match=str(HOLES[0])):
        defs.load_asset_value(asset_key("task_models"), python_type=pl.DataFrame, partition_key=str(HOLES[0]))


@pytest.mark.parametrize(
    ("partitions", "keys"),
    [
        (dg.DailyPartitionsDefinition("20260101", end_date="20260108", fmt="%Y%m%d"), ["20260102"]),
        (dg.WeeklyPartitionsDefinition("2025-12-28", end_date="2026-01-11"), ["2025-12-28"]),
        (dg.HourlyPartitionsDefinition("2026-01-02-00:00", end_date="2026-01-03-00:00"), ["2026-01-02-05:00"]),
    ],
)
def test_an_empty_day_of_your_own_tables_is_not_missing_whatever_its_partitions_are(
    settings: Settings, instance: dg.DagsterInstance, partitions: dg.PartitionsDefinition[str], keys: list[str]
) -> None:
    metadata = {"partition_expr": "as_of"}

    @dg.asset(partitions_def=partitions, io_manager_key="openrouter_io_manager", metadata=metadata)
    def upstream() -> pl.DataFrame:
        return pl.DataFrame(schema={"as_of": pl.Date})

    days = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-04")

    @dg.asset(partitions_def=days, io_manager_key="openrouter_io_manager", metadata=metadata)
    def downstream(upstream: pl.DataFrame) -> pl.DataFrame:
        return upstream

    for asset, key in ((upstream, keys[0]), (downstream, "2026-01-02")):
        result = dg.materialize(
            [upstream, downstream],
            selection=[asset],
            partition_key=key,
            instance=instance,
            resources=resources(settings),
            run_config=QUIET,
        )
        assert result.success
    assert instance.get_materialized_partitions(downstream.key) == {"2026-01-02"}


def test_a_wrong_choice_in_the_metadata_is_an_error(settings: Settings, instance: dg.DagsterInstance) -> None:
    asset = reader(settings, [], metadata={"orpipeline/missing_days": "never"})
    with pytest.raises(SettingsError, match='missing_days" is \'never\'; write "fail" or "allow"'):
        run(settings, instance, asset, first=FIRST)

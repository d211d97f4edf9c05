# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from orpipeline import WarehouseResource, asset_key, daily_partitions
from orpipeline.contracts.frames import parse
from orpipeline.defs.io_manager import WarehouseIOManager
from orpipeline.errors import WarehouseBusyError, WarehouseError
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.engines import ON_BOTH_ENGINES, EnginePlace
from orpipeline_tests.processes import assert_another_process_can_write, held_open
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, QUIET, World, local

# Dagster warns at each use that single-run backfills are beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-08")
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
READS_DAILY: dict[str, Any] = {"partitions_def": DAYS, "backfill_policy": dg.BackfillPolicy.single_run()}
DAILY: dict[str, Any] = {**READS_DAILY, "metadata": {"partition_expr": "day"}}


class Store:
    """A warehouse with an I/O manager and a Dagster instance, without our pipeline."""

    def __init__(self, place: EnginePlace, instance: dg.DagsterInstance) -> None:
        self.place = place
        self.instance = instance

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return local(self.place.open().place)

    def materialize(
        self,
        *assets: dg.AssetsDefinition | dg.AssetSpec,
        partition: str | None = None,
        until: str | None = None,
        select: dg.AssetsDefinition | None = None,
        **io_config: Any,
    ) -> dg.ExecuteInProcessResult:
        several = {"dagster/asset_partition_range_start": partition, "dagster/asset_partition_range_end": until}
        lake_data = str(self.place.lake_data) if self.place.lake_data else None
        where = {"database": str(self.place.warehouse), "lake_data": lake_data}
        io_manager = WarehouseIOManager(**{**where, "lock_wait_seconds": 1, **io_config})
        return dg.materialize(
            assets,
            instance=self.instance,
            partition_key=None if until else partition,
            tags={key: value for key, value in several.items() if until and value},
            selection=[select] if select else None,
            resources={"io_manager": io_manager},
            run_config=QUIET,
        )

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with self.place.open().connect(read_only=True) as connection:
            return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


@pytest.fixture
def store(engine: EnginePlace) -> Iterator[Store]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Store(engine, instance)


def asset(function: Callable[..., object], **how: Any) -> dg.AssetsDefinition:
    definition: dg.AssetsDefinition = dg.asset(**how)(function)
    return definition


def prices(frame: object, name: str = "prices", **how: Any) -> dg.AssetsDefinition:
    """Return an asset that returns `frame`."""

    def give() -> Any:
        return frame

    return asset(give, name=name, **how)


def day_of(key: str) -> date:
    return date.fromisoformat(key)


def frame_of(*rows: tuple[str, int]) -> pl.DataFrame:
    """Return rows of a day and a price."""
    return pl.DataFrame(
        [(day_of(day), price) for day, price in rows], schema={"day": pl.Date, "price": pl.Int64}, orient="row"
    )


def metadata_of(result: dg.ExecuteInProcessResult, name: str = "prices") -> Mapping[str, Any]:
    (materialization,) = result.asset_materializations_for_node(name)
    return {key: entry.value for key, entry in materialization.metadata.items()}


# What readers got: the type of frame, and its rows.
Seen = list[tuple[type, list[dict[str, Any]]]]


def reads_polars(seen: Seen, name: str = "reader", **how: Any) -> dg.AssetsDefinition:
    def reader(prices: pl.DataFrame) -> None:
        seen.append((type(prices), prices.to_dicts()))

    return asset(reader, name=name, **how)


def reads_pandas(seen: Seen) -> dg.AssetsDefinition:
    def pandas_reader(prices: pd.DataFrame) -> None:
        rows: list[Any] = prices.to_dict("records")
        seen.append((type(prices), rows))

    return asset(pandas_reader)


def reads_arrow(seen: Seen) -> dg.AssetsDefinition:
    def arrow_reader(prices: pa.Table) -> None:
        seen.append((type(prices), prices.to_pylist()))

    return asset(arrow_reader)


def reads_without_annotation(seen: Seen) -> dg.AssetsDefinition:
    def plain_reader(prices) -> None:  # type: ignore[no-untyped-def] # an input without an annotation is the point
        seen.append((type(prices), prices.to_dicts()))

    return asset(plain_reader)


# Kinds of frames


VALUES: dict[str, list[Any]] = {
    "name": ["a", "'; DROP TABLE public.prices; --", "\N{FIRE}\0\x1b"],
    "count": [1, 2, 3],
    "share": [0.1, 0.2, 0.3],
    "good": [True, False, True],
    "at": [datetime(2026, 1, 1, 12, tzinfo=UTC)] * 3,
}
ROWS = [dict(zip(VALUES, values, strict=True)) for values in zip(*VALUES.values(), strict=True)]


@pytest.mark.parametrize("kind", [pl.DataFrame, pd.DataFrame, pa.table])
def test_frames_are_stored_and_loaded_by_annotation(store: Store, kind: Callable[[object], object]) -> None:
    seen: Seen = []
    store.materialize(
        prices(kind(VALUES)),
        reads_polars(seen),
        reads_pandas(seen),
        reads_arrow(seen),
        reads_without_annotation(seen),
    )
    assert sorted(str(loaded) for loaded, _ in seen) == sorted(
        map(str, [pl.DataFrame, pd.DataFrame, pa.Table, pl.DataFrame])
    )
    assert [rows for _, rows in seen] == [ROWS] * 4


@ON_BOTH_ENGINES
def test_missing_values_stay_missing_and_a_pandas_index_is_not_stored(store: Store) -> None:
    frame = pd.DataFrame({"name": ["a", None], "share": [0.5, None]}, index=pd.Index(["x", "y"], name="key"))
    store.materialize(prices(frame))
    assert store.rows("public.prices") == [("a", 0.5), (None, None)]


def test_anything_but_a_frame_is_an_error_and_the_old_rows_stay(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1))))
    with pytest.raises(Exception, match="does not have a handler for type '<class 'dict'>'"):
        store.materialize(prices({"day": FIRST}))
    assert store.rows("public.prices") == [(day_of(FIRST), 1)]


# Partitions


@pytest.mark.promise
@ON_BOTH_ENGINES
def test_materializing_a_partition_replaces_its_rows_only(store: Store) -> None:
    everything = frame_of((FIRST, 1), (SECOND, 2), (THIRD, 3))
    store.materialize(prices(everything, **DAILY), partition=FIRST, until=THIRD)
    store.materialize(prices(frame_of((SECOND, 20)), **DAILY), partition=SECOND)
    store.materialize(prices(frame_of(), **DAILY), partition=FIRST)
    assert store.rows("public.prices") == [(day_of(SECOND), 20), (day_of(THIRD), 3)]


@ON_BOTH_ENGINES
def test_an_empty_frame_can_be_the_first(store: Store) -> None:
    seen: Seen = []
    store.materialize(prices(frame_of(), **DAILY), reads_polars(seen, **READS_DAILY), partition=FIRST)
    store.materialize(prices(frame_of((SECOND, 1)), **DAILY), partition=SECOND)
    assert seen == [(pl.DataFrame, [])]
    assert store.rows("public.prices") == [(day_of(SECOND), 1)]


def test_a_later_run_reads_its_partition_and_an_unpartitioned_reader_reads_all(store: Store) -> None:
    seen: Seen = []
    upstream = prices(frame_of((FIRST, 1), (SECOND, 2)), **DAILY)
    daily, all_days = reads_polars(seen, **READS_DAILY), reads_polars(seen, "all_days")
    store.materialize(upstream, partition=FIRST, until=SECOND)
    store.materialize(upstream, daily, select=daily, partition=SECOND)
    store.materialize(upstream, daily, select=daily, partition=THIRD)
    store.materialize(upstream, all_days, select=all_days)
    assert [[row["price"] for row in rows] for _, rows in seen] == [[2], [], [1, 2]]


@pytest.mark.promise
@ON_BOTH_ENGINES
def test_a_range_of_partitions_is_one_write_and_one_read(store: Store) -> None:
    seen: Seen = []
    before = prices(frame_of((FIRST, 1), (SECOND, 2), (THIRD, 3), ("2026-01-04", 4)), **DAILY)
    store.materialize(before, partition=FIRST, until="2026-01-04")
    new = prices(frame_of((SECOND, 22), (THIRD, 33), (THIRD, 34)), **DAILY)
    store.materialize(new, reads_polars(seen, **READS_DAILY), partition=SECOND, until=THIRD)
    assert [[row["price"] for row in rows] for _, rows in seen] == [[22, 33, 34]]
    assert [price for _, price in store.rows("public.prices")] == [1, 22, 33, 34, 4]


def test_a_time_of_day_belongs_to_its_day(store: Store) -> None:
    times = [datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 23, 59, 59, 999999, tzinfo=UTC)]
    store.materialize(prices(pl.DataFrame({"day": times}), **DAILY), partition=SECOND)
    store.materialize(prices(pl.DataFrame({"day": times[:1]}), **DAILY), partition=SECOND)
    assert len(store.rows("public.prices")) == 1
    with pytest.raises(WarehouseError, match=r"1 rows .* outside the partition"):
        store.materialize(prices(pl.DataFrame({"day": [times[0] + timedelta(days=1)]}), **DAILY), partition=SECOND)


def test_static_partitions_with_hostile_keys(store: Store) -> None:
    keys = ["plain", "'; DROP TABLE public.prices; --"]
    seen: Seen = []
    static: dict[str, Any] = {"partitions_def": dg.StaticPartitionsDefinition(keys)}
    for key in [*keys, keys[1]]:
        upstream = prices(pl.DataFrame({"shop": [key]}), **static, metadata={"partition_expr": "shop"})
        store.materialize(upstream, reads_polars(seen, **static), partition=key)
    assert store.rows("public.prices") == sorted((key,) for key in keys)
    assert [rows for _, rows in seen] == [[{"shop": key}] for key in [*keys, keys[1]]]
    with pytest.raises(WarehouseError, match=r"1 rows .* outside the partition"):
        store.materialize(upstream, partition="plain")


@ON_BOTH_ENGINES
def test_partitions_in_two_dimensions(store: Store) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a", "b"])})
    how: dict[str, Any] = {"partitions_def": both, "metadata": {"partition_expr": {"day": "day", "shop": "shop"}}}
    for day, shop, price in ((FIRST, "a", 1), (FIRST, "b", 2), (SECOND, "a", 3), (FIRST, "a", 10)):
        frame = pl.DataFrame({"day": [day_of(day)], "shop": [shop], "price": [price]})
        store.materialize(prices(frame, **how), partition=dg.MultiPartitionKey({"day": day, "shop": shop}))
    assert [row[1:] for row in store.rows("public.prices")] == [("a", 10), ("b", 2), ("a", 3)]


@ON_BOTH_ENGINES
def test_without_partitions_all_rows_are_replaced(store: Store) -> None:
    for values in ([1, 2], [3], []):
        store.materialize(prices(pl.DataFrame({"price": values}, schema={"price": pl.Int64})))
        assert store.rows("public.prices") == [(value,) for value in values]


# Errors change nothing


@pytest.mark.promise
@ON_BOTH_ENGINES
def test_columns_are_matched_by_name(store: Store) -> None:
    for key, columns in ((FIRST, ["day", "price", "cost"]), (SECOND, ["cost", "day", "price"])):
        frame = pl.DataFrame({"day": [day_of(key)], "price": [1], "cost": [2]}).select(columns)
        store.materialize(prices(frame, **DAILY), partition=key)
    assert store.rows("public.prices") == [(day_of(FIRST), 1, 2), (day_of(SECOND), 1, 2)]


GOOD = frame_of((FIRST, 2))
WRONG = {
    "other columns": (GOOD.rename({"price": "Price"}), r"Missing: \['price'\]; extra: \['Price'\]"),
    "rows of another day": (frame_of((FIRST, 2), (SECOND, 3)), "1 rows of the frame .* outside the partition"),
    "rows of no day": (GOOD.with_columns(day=pl.lit(None, pl.Date)), "1 rows of the frame .* outside the partition"),
    "text for a number": (GOOD.with_columns(price=pl.lit("dear")), "dear"),
    "a fraction for an integer": (GOOD.with_columns(price=0.25), "price .* is BIGINT, which would change 1 values"),
    "no partition column": (GOOD.drop("day"), r"Missing: \['day'\]"),
}


@pytest.mark.promise
def test_a_wrong_frame_is_an_error_and_the_old_rows_stay(store: Store, subtests: pytest.Subtests) -> None:
    store.materialize(prices(frame_of((FIRST, 1), (SECOND, 1)), **DAILY), partition=FIRST, until=SECOND)
    for case, (frame, message) in WRONG.items():
        with subtests.test(case):
            with pytest.raises(WarehouseError, match=message):
                store.materialize(prices(frame, **DAILY), partition=FIRST)
            assert store.rows("public.prices") == [(day_of(FIRST), 1), (day_of(SECOND), 1)]


@pytest.mark.promise
@pytest.mark.parametrize("frame", [frame_of((SECOND, 1)), GOOD.drop("day")], ids=["another day", "no day"])
def test_a_first_frame_that_is_wrong_creates_no_table(store: Store, frame: pl.DataFrame) -> None:
    with pytest.raises(WarehouseError, match=r"outside the partition|\"day\""):
        store.materialize(prices(frame, **DAILY), partition=FIRST)
    assert store.rows("duckdb_tables()") == []
    assert_another_process_can_write(store.database)


@ON_BOTH_ENGINES
def test_a_column_of_another_type_is_accepted_if_no_value_changes(store: Store) -> None:
    store.materialize(prices(pl.DataFrame({"share": [0.5, None], "name": ["a", "b"]})))
    store.materialize(prices(pl.DataFrame({"share": [1, 2], "name": [None, None]})))
    assert store.rows("public.prices") == [(1.0, None), (2.0, None)]


@pytest.mark.promise
def test_a_frame_that_arrow_rejects_leaves_the_old_rows_and_closes_the_file(store: Store) -> None:
    store.materialize(prices(pd.DataFrame({"price": [1]})))
    with pytest.raises(WarehouseError, match=r"cannot be stored and loaded again: .*price"):
        store.materialize(prices(pd.DataFrame({"price": [1, "x", object()]})))
    assert store.rows("public.prices") == [(1,)]
    assert_another_process_can_write(store.database)


@ON_BOTH_ENGINES
def test_reading_a_table_that_does_not_exist_is_an_error(store: Store) -> None:
    upstream, reader = prices(frame_of()), reads_polars([])
    with pytest.raises(WarehouseError, match=f"prices does not exist in {store.place.warehouse}"):
        store.materialize(upstream, reader, select=reader)
    assert not store.place.open().exists
    store.materialize(prices(frame_of(), name="other"))
    with pytest.raises(WarehouseError, match="prices does not exist"):
        store.materialize(upstream, reader, select=reader)


@pytest.mark.promise
def test_a_locked_file_is_an_error_that_names_the_process(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1))))
    with held_open(store.database) as holder, pytest.raises(WarehouseBusyError, match=rf"\(PID {holder.pid}\)"):
        store.materialize(prices(frame_of((FIRST, 2))), lock_wait_seconds=0.2)
    assert store.rows("public.prices") == [(day_of(FIRST), 1)]


# Names


def test_the_schema_is_the_key_prefix_or_the_metadata_or_the_configured_one(store: Store) -> None:
    frame = pl.DataFrame({"price": [1]})
    store.materialize(
        prices(frame, key_prefix=["deep", "shop"]),
        prices(frame, key_prefix="shop", metadata={"schema": "market"}),
    )
    store.materialize(prices(frame, name="unprefixed"), schema="configured")
    assert store.rows("shop.prices") == store.rows("market.prices") == store.rows("configured.unprefixed") == [(1,)]


def test_a_schema_can_have_the_name_of_the_file(store: Store) -> None:
    # DuckDB names the catalog after the file: `warehouse.prices` alone is ambiguous.
    seen: Seen = []
    for price in (1, 2):
        upstream = prices(pl.DataFrame({"price": [price]}), key_prefix="warehouse")
        store.materialize(upstream, reads_polars(seen, ins={"prices": dg.AssetIn(key_prefix="warehouse")}))
    assert [rows for _, rows in seen] == [[{"price": 1}], [{"price": 2}]]
    assert store.rows("warehouse.warehouse.prices") == [(2,)]


@ON_BOTH_ENGINES
def test_odd_names_are_quoted_and_readers_can_choose_columns(store: Store) -> None:
    seen: Seen = []
    odd: dict[str, list[Any]] = {"my day": [day_of(FIRST)], "select": [1], 'q"uote': [2], "drop table x; --": [3]}
    how = {**DAILY, "metadata": {"partition_expr": '"my day"', "schema": 'group "by"; x'}}
    chosen = ["select", 'q"uote', "my day"]
    upstream = prices(pl.DataFrame(odd), name="select", **how)
    reader = reads_polars(seen, **READS_DAILY, ins={"prices": dg.AssetIn("select", metadata={"columns": chosen})})
    for _ in range(2):
        store.materialize(upstream, reader, partition=FIRST)
    assert [[list(row.items()) for row in rows] for _, rows in seen] == [[[(n, odd[n][0]) for n in chosen]]] * 2
    assert store.rows('"group ""by""; x"."select"') == [(day_of(FIRST), 1, 2, 3)]


def test_a_table_can_be_called_incoming(store: Store) -> None:
    for price in (1, 2):  # the I/O manager uses the same name for the frame that it inserts
        store.materialize(prices(pl.DataFrame({"price": [price]}), name="incoming"))
    assert store.rows("public.incoming") == [(2,)]


# Metadata


def test_a_materialization_has_its_row_counts_columns_and_query(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1)), **DAILY), partition=FIRST)
    result = store.materialize(prices(frame_of((SECOND, 1), (SECOND, 2)), **DAILY), partition=SECOND)
    metadata = metadata_of(result)
    assert (metadata["dagster/row_count"], metadata["dagster/partition_row_count"]) == (3, 2)
    assert [column.name for column in metadata["dagster/column_schema"].columns] == ["day", "price"]
    assert metadata["dagster/table_name"].endswith("public.prices")
    with duckdb.connect(store.database, read_only=True) as connection:
        assert connection.execute(metadata["Query"]).fetchall() == [(day_of(SECOND), 1), (day_of(SECOND), 2)]


def test_without_partitions_there_is_no_partition_row_count(store: Store) -> None:
    metadata = metadata_of(store.materialize(prices(frame_of((FIRST, 1)))))
    assert metadata["dagster/row_count"] == 1
    assert "dagster/partition_row_count" not in metadata


# Your own assets on the pipeline's tables


@pytest.mark.usefixtures("at_noon")
def test_your_assets_read_the_pipelines_tables_through_the_bound_io_manager(world: World) -> None:
    days = [DAY - timedelta(days=n) for n in (2, 1, 0)]
    for day in days:
        world.store(sample_response(day))
    world.make_tables(*days)
    before = world.tables()
    bound: dict[str, Any] = {"key_prefix": "mine", "io_manager_key": NAMES.io_manager}
    daily: dict[str, Any] = {
        **bound,
        "partitions_def": daily_partitions(),
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "metadata": {"partition_expr": "as_of"},
    }
    our_models = {"models": dg.AssetIn(asset_key("task_models"))}
    our_trends = {"trends": dg.AssetIn(asset_key("model_trends"))}

    def counted(models: pl.DataFrame) -> pl.DataFrame:
        return models.group_by("as_of").agg(pl.len().alias("models"))

    def counted_by_pandas(models: pd.DataFrame) -> pd.DataFrame:
        return models.groupby("as_of", as_index=False).agg(models=("model_id", "size"))

    def trend_days(trends: pa.Table) -> pa.Table:
        return trends.select(["as_of"]).group_by("as_of").aggregate([])

    def all_days(models: pl.DataFrame) -> pl.DataFrame:
        return models.select(pl.col("as_of").unique())

    by_day = [
        asset(counted, **daily, ins=our_models),
        asset(counted_by_pandas, **daily, ins=our_models),
        asset(trend_days, **daily, ins=our_trends),
    ]
    unpartitioned = asset(all_days, **bound, ins=our_models)
    extra = dg.Definitions(assets=[*by_day, unpartitioned])
    project = dg.Definitions.merge(world.defs, extra).resolve_implicit_global_asset_job_def()

    def materialize(first: date, last: date, *assets: dg.AssetsDefinition) -> None:
        span = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
        assert project.execute_in_process(
            instance=world.instance,
            asset_selection=[key for definition in assets for key in definition.keys],
            tags=span,
            run_config=QUIET,
        ).success

    def rows(name: str) -> list[tuple[Any, ...]]:
        with world.warehouse.connect(read_only=True) as connection:
            return connection.execute(f"SELECT * FROM mine.{name} ORDER BY ALL").fetchall()

    materialize(days[1], days[2], *by_day)
    materialize(days[1], days[1], by_day[0], unpartitioned)
    expected = [(day, len(parse([(day, sample_response(day))]).task_models)) for day in days[1:]]
    assert rows("counted") == expected
    assert [(day_of(str(day)[:10]), count) for day, count in rows("counted_by_pandas")] == expected
    assert rows("trend_days") == [(day,) for day in days[1:]]
    assert rows("all_days") == [(day,) for day in days]
    assert world.tables() == before


# Options


def test_duckdbs_own_options_are_applied_and_wrong_ones_rejected(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1))), connection_config={"default_order": "desc"})
    with pytest.raises(WarehouseError, match="no_such_option"):
        store.materialize(prices(frame_of((FIRST, 2))), connection_config={"no_such_option": 1})
    assert store.rows("public.prices") == [(day_of(FIRST), 1)]
    resource = WarehouseResource(database=str(store.database), connection_config={"threads": 1})
    with resource.get_connection() as connection:
        assert connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]


def test_each_write_of_an_asset_is_published(store: Store) -> None:
    published = store.database.with_name("published.duckdb")
    for price in (1, 2):
        store.materialize(prices(frame_of((FIRST, price))), published=str(published))
        with duckdb.connect(published, read_only=True) as reader:
            assert reader.execute("SELECT price FROM public.prices").fetchall() == [(price,)]


@pytest.mark.promise
def test_an_asset_cannot_overwrite_a_table_of_the_pipeline(store: Store) -> None:
    with Warehouse(store.database).writing() as tables:
        tables.recreate()
    with pytest.raises(WarehouseError, match=r"openrouter\.task_models is a table of the pipeline"):
        store.materialize(prices(frame_of((FIRST, 1)), name="task_models", metadata={"schema": "openrouter"}))


# Frames without types, and values that a table cannot have


@pytest.mark.parametrize("frame", [pd.DataFrame([]), pd.DataFrame({"day": []}), pl.DataFrame(), frame_of()], ids=str)
def test_an_empty_frame_empties_its_partition_whatever_its_columns_are(store: Store, frame: object) -> None:
    for key, rows in ((FIRST, frame_of((FIRST, 1))), (SECOND, frame_of((SECOND, 2))), (FIRST, frame)):
        store.materialize(prices(rows, **DAILY), partition=key)
    assert store.rows("public.prices") == [(day_of(SECOND), 2)]


def test_an_empty_frame_without_columns_creates_no_table(store: Store) -> None:
    assert metadata_of(store.materialize(prices(pl.DataFrame())))["dagster/row_count"] == 0


def test_a_column_without_any_value_is_text_until_the_first_value_gives_it_a_type(store: Store) -> None:
    def frame(key: str, price: object) -> pd.DataFrame:
        return pd.DataFrame({"day": [day_of(key)], "price": pd.Series([price], dtype=None if price else object)})

    for key, price in ((FIRST, None), (SECOND, 2), (THIRD, None)):
        store.materialize(prices(frame(key, price), **DAILY), partition=key)
    assert store.rows("public.prices") == [(day_of(FIRST), None), (day_of(SECOND), 2), (day_of(THIRD), None)]


NEW_YORK = ZoneInfo("America/New_York")
STORABLE: dict[str, Any] = {
    "categories": pd.DataFrame({"x": pd.Categorical(["a", "b"])}),
    "polars categories": pl.DataFrame({"x": ["a", "b"]}, schema={"x": pl.Categorical}),
    "lists and structs": pl.DataFrame({"x": [[1, 2], []], "y": [{"a": 1}, {"a": None}]}),
    "decimals": pl.DataFrame({"x": [Decimal("1.10")]}),
    "large numbers": pl.DataFrame({"x": [2**64 - 1]}, schema={"x": pl.UInt64}),
    "bytes": pl.DataFrame({"x": [b"\0a"]}),
    "instants": pl.DataFrame({"x": [datetime(2026, 1, 1, 12, tzinfo=NEW_YORK)]}),
    "numbers as names": pd.DataFrame({0: [1], 1: [2]}),
}


@pytest.mark.parametrize("frame", STORABLE.values(), ids=STORABLE)
def test_what_is_stored_is_loaded_again(store: Store, frame: object) -> None:
    read: Seen = []
    upstream, reader = prices(frame), reads_polars(read)
    store.materialize(upstream, reader)
    expected = frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame.rename(columns=str))  # type: ignore[attr-defined] # pandas
    assert [tuple(row.values()) for row in read[0][1]] == [tuple(row) for row in expected.rows()]
    store.materialize(upstream)  # and stored again


NOT_STORABLE: dict[str, Any] = {
    "objects": pl.DataFrame({"x": [object()]}, schema={"x": pl.Object}),
    "durations": pd.DataFrame({"x": [pd.Timedelta(1, "h")]}),
    "two columns of one name": pd.DataFrame([[1, 2]], columns=["x", "X"]),
    "mixed types": pd.DataFrame({"x": [1, "a"]}),
}


@pytest.mark.parametrize("frame", NOT_STORABLE.values(), ids=NOT_STORABLE)
def test_what_cannot_be_stored_is_one_clear_error(store: Store, frame: object) -> None:
    with pytest.raises(WarehouseError, match=r"cannot be stored and loaded again: .*Nothing was written"):
        store.materialize(prices(frame))


# Partitions in another time zone than UTC


CHANGES = {  # the clock is set forward on 8 March 2026, and back on 1 November 2026
    "2026-03-07": 24,
    "2026-03-08": 23,
    "2026-03-09": 24,
    "2026-10-31": 24,
    "2026-11-01": 25,
    "2026-11-02": 24,
}


@pytest.mark.parametrize("zone", ["UTC", None], ids=["instants", "local times"])
def test_daily_partitions_of_another_time_zone_have_their_own_hours_on_days_when_the_clock_changes(
    store: Store, zone: str | None
) -> None:
    days = dg.DailyPartitionsDefinition("2026-01-01", timezone="America/New_York", end_date="2026-12-01")
    how: dict[str, Any] = {"partitions_def": days, "metadata": {"partition_expr": "moment"}}

    def hours(key: str) -> pl.DataFrame:
        """Return the hours of a New York day; local times once, also the hour that occurs twice."""
        start = datetime.fromisoformat(key).replace(tzinfo=NEW_YORK)
        end = datetime.combine(start.date() + timedelta(days=1), time(), NEW_YORK)
        instants = pl.datetime_range(start.astimezone(UTC), end.astimezone(UTC), "1h", closed="left", eager=True)
        local_times = instants.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None).unique()
        return pl.DataFrame({"moment": instants if zone else local_times})

    for key in [*CHANGES, *CHANGES]:  # storing a day again deletes its own rows only
        store.materialize(prices(hours(key), **how), partition=key)
    missing = 0 if zone else 1  # local times have no second 01:00
    assert len(store.rows("public.prices")) == sum(CHANGES.values()) - missing
    for key in CHANGES:
        read: Seen = []
        store.materialize(prices(hours(key), **how), reads_polars(read, partitions_def=days), partition=key)
        assert sorted(row["moment"] for row in read[0][1]) == sorted(hours(key)["moment"]), key
    with pytest.raises(WarehouseError, match="outside the partition"):
        store.materialize(prices(hours("2026-03-08"), **how), partition="2026-03-07")


def test_the_hour_that_occurs_twice_is_two_partitions_of_instants_and_no_partition_of_local_times(store: Store) -> None:
    each_hour = dg.HourlyPartitionsDefinition(
        "2026-11-01-00:00", timezone="America/New_York", end_date="2026-11-02-00:00"
    )
    how: dict[str, Any] = {"partitions_def": each_hour, "metadata": {"partition_expr": "moment"}}
    keys = each_hour.get_partition_keys()
    starts = [each_hour.time_window_for_partition_key(key).start.astimezone(UTC) for key in keys]
    for _ in range(2):
        for key, start in zip(keys[:4], starts, strict=False):
            store.materialize(prices(pl.DataFrame({"moment": [start]}), **how), partition=key)
    assert len(store.rows("public.prices")) == 4
    local_time = pl.DataFrame({"moment": [datetime.fromisoformat("2026-11-01T01:00")]})
    with pytest.raises(WarehouseError, match="has the same local times as the next one"):
        store.materialize(prices(local_time, name="local", **how), partition=keys[1])

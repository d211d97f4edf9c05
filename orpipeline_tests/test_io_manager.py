# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from orpipeline.archive.folder import Archive
from orpipeline.defs.assets import snapshot
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import resources
from orpipeline.openrouter.frames import parse
from orpipeline.settings import load_settings
from orpipeline.warehouse.database import Warehouse, WarehouseBusyError, WarehouseError
from orpipeline.warehouse.io_manager import WarehouseIOManager
from orpipeline_tests.answers import answer
from orpipeline_tests.processes import assert_another_process_can_write, held_open

# Dagster calls single-run backfills beta at each use.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-08")
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
READS_DAILY: dict[str, Any] = {"partitions_def": DAYS, "backfill_policy": dg.BackfillPolicy.single_run()}
DAILY: dict[str, Any] = {**READS_DAILY, "metadata": {"partition_expr": "day"}}


class Store:
    """A DuckDB file of a test's own, with an I/O manager and a Dagster instance."""

    def __init__(self, database: Path, instance: dg.DagsterInstance) -> None:
        self.database = database
        self.instance = instance

    def materialize(
        self,
        *assets: dg.AssetsDefinition | dg.AssetSpec,
        partition: str | None = None,
        until: str | None = None,
        select: dg.AssetsDefinition | None = None,
        **io_config: Any,
    ) -> dg.ExecuteInProcessResult:
        several = {"dagster/asset_partition_range_start": partition, "dagster/asset_partition_range_end": until}
        io_manager = WarehouseIOManager(**{"database": str(self.database), "lock_wait_seconds": 1, **io_config})
        return dg.materialize(
            assets,
            instance=self.instance,
            partition_key=None if until else partition,
            tags={key: value for key, value in several.items() if until and value},
            selection=[select] if select else None,
            resources={"io_manager": io_manager},
        )

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.database, read_only=True) as connection:
            return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Store(tmp_path / "data" / "store.duckdb", instance)


def asset(function: Callable[..., object], **how: Any) -> dg.AssetsDefinition:
    made: dg.AssetsDefinition = dg.asset(**how)(function)
    return made


def prices(frame: object, name: str = "prices", **how: Any) -> dg.AssetsDefinition:
    """An asset that returns that frame."""

    def give() -> Any:
        return frame

    return asset(give, name=name, **how)


def day_of(key: str) -> date:
    return date.fromisoformat(key)


def frame_of(*rows: tuple[str, int]) -> pl.DataFrame:
    """Rows of a day and a price."""
    return pl.DataFrame(
        [(day_of(day), price) for day, price in rows], schema={"day": pl.Date, "price": pl.Int64}, orient="row"
    )


def metadata_of(result: dg.ExecuteInProcessResult, name: str = "prices") -> Mapping[str, Any]:
    (materialization,) = result.asset_materializations_for_node(name)
    return {key: entry.value for key, entry in materialization.metadata.items()}


# What readers of each kind of frame get: (kind of frame, its rows).
Seen = list[tuple[type, list[dict[str, Any]]]]


def reads_polars(seen: Seen, **how: Any) -> dg.AssetsDefinition:
    def reader(prices: pl.DataFrame) -> None:
        seen.append((type(prices), prices.to_dicts()))

    return asset(reader, **how)


def reads_pandas(seen: Seen, **how: Any) -> dg.AssetsDefinition:
    def reader(prices: pd.DataFrame) -> None:
        rows: list[Any] = prices.to_dict("records")
        seen.append((type(prices), rows))

    return asset(reader, **how)


def reads_arrow(seen: Seen, **how: Any) -> dg.AssetsDefinition:
    def reader(prices: pa.Table) -> None:
        seen.append((type(prices), prices.to_pylist()))

    return asset(reader, **how)


def reads_unannotated(seen: Seen, **how: Any) -> dg.AssetsDefinition:
    def reader(prices) -> None:  # type: ignore[no-untyped-def] # an input without an annotation is the point
        seen.append((type(prices), prices.to_dicts()))

    return asset(reader, **how)


# Kinds of frames


VALUES: dict[str, list[Any]] = {
    "name": ["a", "'; DROP TABLE public.prices; --", "\N{FIRE}\0\x1b"],
    "count": [1, 2, 3],
    "share": [0.1, 0.2, 0.3],
    "good": [True, False, True],
    "at": [datetime(2026, 1, 1, 12, tzinfo=UTC)] * 3,
}
ROWS = [dict(zip(VALUES, values, strict=True)) for values in zip(*VALUES.values(), strict=True)]


@pytest.mark.parametrize(
    "frame", [pl.DataFrame(VALUES), pd.DataFrame(VALUES), pa.table(VALUES)], ids=lambda f: str(type(f))
)
@pytest.mark.parametrize(
    ("reads", "kind"),
    [
        (reads_polars, pl.DataFrame),
        (reads_pandas, pd.DataFrame),
        (reads_arrow, pa.Table),
        (reads_unannotated, pl.DataFrame),
    ],
)
def test_any_kind_of_frame_is_stored_and_loads_as_the_annotation_says(
    store: Store, frame: object, reads: Any, kind: type
) -> None:
    seen: Seen = []
    store.materialize(prices(frame), reads(seen))
    assert seen == [(kind, ROWS)]


def test_a_run_that_only_reads_finds_what_an_earlier_run_stored(store: Store) -> None:
    seen: Seen = []
    upstream, reader = prices(pl.DataFrame(VALUES)), reads_polars(seen)
    store.materialize(upstream)
    store.materialize(upstream, reader, select=reader)
    assert seen == [(pl.DataFrame, ROWS)]


def test_a_pandas_index_is_not_stored(store: Store) -> None:
    store.materialize(prices(pd.DataFrame({"price": [1, 2]}, index=pd.Index(["x", "y"], name="key"))))
    assert store.rows("public.prices") == [(1,), (2,)]


def test_missing_values_stay_missing(store: Store) -> None:
    seen: Seen = []
    store.materialize(prices(pd.DataFrame({"name": ["a", None], "share": [0.5, None]})), reads_polars(seen))
    assert seen[0][1] == [{"name": "a", "share": 0.5}, {"name": None, "share": None}]


def test_what_is_no_frame_is_an_error_and_the_old_rows_stand(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1))))
    with pytest.raises(Exception, match="does not have a handler for type '<class 'dict'>'"):
        store.materialize(prices({"day": FIRST}))
    assert store.rows("public.prices") == [(day_of(FIRST), 1)]


# Partitions


def test_materializing_a_partition_again_replaces_it_alone(store: Store) -> None:
    for key, price in ((FIRST, 1), (SECOND, 2), (THIRD, 3), (SECOND, 20)):
        store.materialize(prices(frame_of((key, price)), **DAILY), partition=key)
    assert store.rows("public.prices") == [(day_of(FIRST), 1), (day_of(SECOND), 20), (day_of(THIRD), 3)]


def test_an_empty_frame_empties_its_partition(store: Store) -> None:
    for key in (FIRST, SECOND):
        store.materialize(prices(frame_of((key, 1)), **DAILY), partition=key)
    store.materialize(prices(frame_of(), **DAILY), partition=FIRST)
    assert store.rows("public.prices") == [(day_of(SECOND), 1)]


def test_an_empty_frame_can_be_the_first(store: Store) -> None:
    seen: Seen = []
    store.materialize(prices(frame_of(), **DAILY), reads_polars(seen, **READS_DAILY), partition=FIRST)
    store.materialize(prices(frame_of((SECOND, 1)), **DAILY), partition=SECOND)
    assert seen == [(pl.DataFrame, [])]
    assert store.rows("public.prices") == [(day_of(SECOND), 1)]


def test_a_reader_gets_the_rows_of_its_partition(store: Store) -> None:
    seen: Seen = []
    upstream, reader = prices(frame_of((FIRST, 1), (SECOND, 2)), **DAILY), reads_polars(seen, **READS_DAILY)
    store.materialize(upstream, partition=FIRST, until=SECOND)
    store.materialize(upstream, reader, select=reader, partition=SECOND)
    store.materialize(upstream, reader, select=reader, partition=THIRD)
    assert [rows for _, rows in seen] == [[{"day": day_of(SECOND), "price": 2}], []]


def test_a_range_of_partitions_is_one_write_and_one_read(store: Store) -> None:
    seen: Seen = []
    for key in (FIRST, THIRD, "2026-01-04"):
        store.materialize(prices(frame_of((key, 1)), **DAILY), partition=key)
    new = prices(frame_of((SECOND, 22), (THIRD, 33), (THIRD, 34)), **DAILY)
    reader = reads_polars(seen, **READS_DAILY)
    store.materialize(new, reader, partition=SECOND, until=THIRD)
    assert [[row["price"] for row in rows] for _, rows in seen] == [[22, 33, 34]]
    assert [price for _, price in store.rows("public.prices")] == [1, 22, 33, 34, 1]


def test_an_empty_frame_empties_a_range(store: Store) -> None:
    everything = prices(frame_of((FIRST, 1), (SECOND, 2), (THIRD, 3)), **DAILY)
    store.materialize(everything, partition=FIRST, until=THIRD)
    store.materialize(prices(frame_of(), **DAILY), partition=FIRST, until=SECOND)
    assert store.rows("public.prices") == [(day_of(THIRD), 3)]


def test_an_unpartitioned_reader_gets_all_partitions(store: Store) -> None:
    seen: Seen = []
    upstream, reader = prices(frame_of((FIRST, 1), (THIRD, 3)), **DAILY), reads_polars(seen)
    store.materialize(upstream, partition=FIRST, until=THIRD)
    store.materialize(upstream, reader, select=reader)
    assert [row["price"] for row in seen[0][1]] == [1, 3]


def test_a_time_of_day_belongs_to_its_day(store: Store) -> None:
    times = [datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 23, 59, 59, 999999, tzinfo=UTC)]
    store.materialize(prices(pl.DataFrame({"day": times}), **DAILY), partition=SECOND)
    store.materialize(prices(pl.DataFrame({"day": times[:1]}), **DAILY), partition=SECOND)
    assert len(store.rows("public.prices")) == 1
    with pytest.raises(WarehouseError, match=r"1 rows .* outside the partition"):
        store.materialize(prices(pl.DataFrame({"day": [times[0] + timedelta(days=1)]}), **DAILY), partition=SECOND)


def test_static_partitions_with_hostile_keys(store: Store) -> None:
    keys = ["plain", "o'brien", "'; DROP TABLE public.prices; --"]
    seen: Seen = []
    static: dict[str, Any] = {"partitions_def": dg.StaticPartitionsDefinition(keys)}
    for key in [*keys, keys[1]]:
        frame = pl.DataFrame({"shop": [key], "price": [1]})
        upstream = prices(frame, **static, metadata={"partition_expr": "shop"})
        store.materialize(upstream, reads_polars(seen, **static), partition=key)
    assert store.rows("public.prices") == sorted((key, 1) for key in keys)
    assert [[row["shop"] for row in rows] for _, rows in seen] == [[key] for key in [*keys, keys[1]]]
    with pytest.raises(WarehouseError, match=r"1 rows .* outside the partition"):
        store.materialize(prices(frame, **static, metadata={"partition_expr": "shop"}), partition="plain")


def test_partitions_in_two_dimensions(store: Store) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a", "b"])})
    how: dict[str, Any] = {"partitions_def": both, "metadata": {"partition_expr": {"day": "day", "shop": "shop"}}}
    for day, shop, price in ((FIRST, "a", 1), (FIRST, "b", 2), (SECOND, "a", 3), (FIRST, "a", 10)):
        frame = pl.DataFrame({"day": [day_of(day)], "shop": [shop], "price": [price]})
        store.materialize(prices(frame, **how), partition=dg.MultiPartitionKey({"day": day, "shop": shop}))
    assert [row[1:] for row in store.rows("public.prices")] == [("a", 10), ("b", 2), ("a", 3)]


def test_without_partitions_everything_is_replaced(store: Store) -> None:
    store.materialize(prices(pl.DataFrame({"price": [1, 2]})))
    store.materialize(prices(pl.DataFrame({"price": [3]})))
    assert store.rows("public.prices") == [(3,)]
    store.materialize(prices(pl.DataFrame(schema={"price": pl.Int64})))
    assert store.rows("public.prices") == []


# What is refused, and that it changes nothing


def test_columns_go_where_their_names_say(store: Store) -> None:
    for key, columns in ((FIRST, ["day", "price", "cost"]), (SECOND, ["cost", "day", "price"])):
        frame = pl.DataFrame({"day": [day_of(key)], "price": [1], "cost": [2]}).select(columns)
        store.materialize(prices(frame, **DAILY), partition=key)
    assert store.rows("public.prices") == [(day_of(FIRST), 1, 2), (day_of(SECOND), 1, 2)]


GOOD = frame_of((FIRST, 2))
WRONG = {
    "a column too few": (GOOD.drop("price"), r"does not have the table's columns: it lacks \['price'\]"),
    "a column too many": (GOOD.with_columns(cost=1), r"has \['cost'\] beyond"),
    "another case": (GOOD.rename({"price": "Price"}), r"lacks \['price'\], and has \['Price'\]"),
    "rows of another day": (frame_of((FIRST, 2), (SECOND, 3)), "1 rows of the frame .* outside the partition"),
    "rows of no day": (GOOD.with_columns(day=pl.lit(None, pl.Date)), "1 rows of the frame .* outside the partition"),
    "text for a number": (GOOD.with_columns(price=pl.lit("dear")), "dear"),
    "a fraction for an integer": (GOOD.with_columns(price=0.25), "price .* is BIGINT, which would change 1 values"),
    "a number too large": (GOOD.with_columns(price=pl.lit(2**64 - 1, pl.UInt64)), "18446744073709551615"),
}


@pytest.mark.parametrize(("frame", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_frame_is_an_error_and_the_old_rows_stand(store: Store, frame: pl.DataFrame, message: str) -> None:
    for key in (FIRST, SECOND):
        store.materialize(prices(frame_of((key, 1)), **DAILY), partition=key)
    with pytest.raises(WarehouseError, match=message):
        store.materialize(prices(frame, **DAILY), partition=FIRST)
    assert store.rows("public.prices") == [(day_of(FIRST), 1), (day_of(SECOND), 1)]
    assert_another_process_can_write(store.database)


def test_a_first_frame_that_is_wrong_leaves_no_table(store: Store) -> None:
    with pytest.raises(WarehouseError, match="outside the partition"):
        store.materialize(prices(frame_of((SECOND, 1)), **DAILY), partition=FIRST)
    assert store.rows("duckdb_tables()") == []
    store.materialize(prices(pl.DataFrame({"day": [day_of(FIRST)], "else": ["x"]}), **DAILY), partition=FIRST)


def test_a_column_of_another_type_is_let_through_where_no_value_changes(store: Store) -> None:
    store.materialize(prices(pl.DataFrame({"share": [0.5, None], "name": ["a", "b"]})))
    store.materialize(prices(pl.DataFrame({"share": [1, 2], "name": [None, None]})))
    assert store.rows("public.prices") == [(1.0, None), (2.0, None)]


def test_a_frame_that_arrow_cannot_hold_leaves_the_old_rows_and_closes_the_file(store: Store) -> None:
    store.materialize(prices(pd.DataFrame({"price": [1]})))
    with pytest.raises(pa.ArrowException, match="price"):
        store.materialize(prices(pd.DataFrame({"price": [1, "x", object()]})))
    assert store.rows("public.prices") == [(1,)]
    assert_another_process_can_write(store.database)


def test_a_partition_column_that_is_missing_is_an_error(store: Store) -> None:
    with pytest.raises(WarehouseError, match="day"):
        store.materialize(prices(pl.DataFrame({"price": [1]}), **DAILY), partition=FIRST)
    assert_another_process_can_write(store.database)


def test_reading_what_was_never_stored_is_an_error(store: Store) -> None:
    upstream, reader = prices(frame_of()), reads_polars([])
    with pytest.raises(WarehouseError, match=f"{store.database}.*does not exist"):
        store.materialize(upstream, reader, select=reader)
    assert not store.database.exists()
    store.materialize(prices(frame_of(), name="other"))
    with pytest.raises(WarehouseError, match="prices does not exist"):
        store.materialize(upstream, reader, select=reader)
    assert_another_process_can_write(store.database)


def test_a_file_that_another_process_holds_is_an_error_that_names_it(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1))))
    with held_open(store.database) as holder, pytest.raises(WarehouseBusyError, match=rf"\(PID {holder.pid}\)"):
        store.materialize(prices(frame_of((FIRST, 2))), lock_wait_seconds=0.2)
    assert store.rows("public.prices") == [(day_of(FIRST), 1)]


# Names


def test_the_schema_is_the_key_prefix_or_what_the_metadata_says(store: Store) -> None:
    frame = pl.DataFrame({"price": [1]})
    store.materialize(prices(frame, key_prefix=["deep", "shop"]))
    store.materialize(prices(frame, key_prefix="shop", metadata={"schema": "market"}))
    store.materialize(prices(frame, name="unprefixed"), schema="configured")
    assert store.rows("shop.prices") == store.rows("market.prices") == store.rows("configured.unprefixed") == [(1,)]


def test_a_schema_can_be_named_like_the_file(store: Store) -> None:
    # DuckDB names the catalog after the file: `store.prices` alone is ambiguous.
    seen: Seen = []
    for price in (1, 2):
        upstream = prices(pl.DataFrame({"price": [price]}), key_prefix="store")
        store.materialize(upstream, reads_polars(seen, ins={"prices": dg.AssetIn(key_prefix="store")}))
    assert [rows for _, rows in seen] == [[{"price": 1}], [{"price": 2}]]
    assert store.rows("store.store.prices") == [(2,)]


def test_odd_names_are_quoted(store: Store) -> None:
    seen: Seen = []
    odd: dict[str, list[Any]] = {"my day": [day_of(FIRST)], "select": [1], 'q"uote': [2], "drop table x; --": [3]}
    how = {**DAILY, "metadata": {"partition_expr": '"my day"', "schema": 'group "by"; x'}}
    wanted = ["select", 'q"uote', "drop table x; --", "my day"]
    upstream = prices(pl.DataFrame(odd), name="select", **how)
    reader = reads_polars(seen, **READS_DAILY, ins={"prices": dg.AssetIn("select", metadata={"columns": wanted})})
    for _ in range(2):
        store.materialize(upstream, reader, partition=FIRST)
    assert [rows for _, rows in seen] == [[{name: odd[name][0] for name in wanted}]] * 2
    assert store.rows('"group ""by""; x"."select"') == [(day_of(FIRST), 1, 2, 3)]


def test_a_table_can_be_named_like_the_frame_on_its_way_in(store: Store) -> None:
    for price in (1, 2):
        store.materialize(prices(pl.DataFrame({"price": [price]}), name="incoming"))
    assert store.rows("public.incoming") == [(2,)]


def test_a_reader_can_ask_for_some_columns(store: Store) -> None:
    seen: Seen = []
    some = reads_polars(seen, ins={"prices": dg.AssetIn(metadata={"columns": ["share", "name"]})})
    store.materialize(prices(pl.DataFrame(VALUES)), some)
    assert [list(row) for row in seen[0][1]] == [["share", "name"]] * 3


# What Dagster is told


def test_a_materialization_tells_its_rows_and_columns(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1)), **DAILY), partition=FIRST)
    result = store.materialize(prices(frame_of((SECOND, 1), (SECOND, 2)), **DAILY), partition=SECOND)
    told = metadata_of(result)
    assert (told["dagster/row_count"], told["dagster/partition_row_count"]) == (3, 2)
    assert [column.name for column in told["dagster/column_schema"].columns] == ["day", "price"]
    assert told["dagster/table_name"].endswith("public.prices")
    assert told["Query"].startswith('SELECT * FROM "public"."prices" WHERE')


def test_without_partitions_no_partition_rows_are_told(store: Store) -> None:
    told = metadata_of(store.materialize(prices(frame_of((FIRST, 1)))))
    assert told["dagster/row_count"] == 1
    assert "dagster/partition_row_count" not in told


def test_the_query_that_is_told_gives_the_partitions_rows(store: Store) -> None:
    store.materialize(prices(frame_of((FIRST, 1)), **DAILY), partition=FIRST)
    told = metadata_of(store.materialize(prices(frame_of((SECOND, 2)), **DAILY), partition=SECOND))
    with duckdb.connect(store.database, read_only=True) as connection:
        assert connection.execute(told["Query"]).fetchall() == [(day_of(SECOND), 2)]


# A user's asset on our tables

TASK_MODELS = dg.AssetKey(["openrouter", "task_models"])


def models_listed() -> dg.AssetsDefinition:
    """An asset as a user writes it."""

    @dg.asset(
        key_prefix="mine",
        ins={"task_models": dg.AssetIn(TASK_MODELS)},
        partitions_def=daily_partitions,
        metadata={"partition_expr": "as_of"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def listed(task_models: pl.DataFrame) -> pl.DataFrame:
        return task_models.group_by("as_of").agg(pl.len().alias("models")).sort("as_of")

    return listed


OUR_DAYS: Sequence[date] = [date(2026, 6, 17) + timedelta(days=n) for n in range(3)]


def model_count(day: date) -> int:
    return len(parse([(day, answer(day))]).task_models)


@pytest.mark.usefixtures("at_noon")  # so that the partitions are there
def test_a_users_asset_gets_its_partition_of_a_table_of_ours() -> None:
    settings, listed = load_settings(), models_listed()
    for day in OUR_DAYS:
        Archive(settings.archive_dir).put(answer(day), fetched_at=datetime.now(UTC), source="a test", origin="demo")
    ours: dict[str, Any] = {
        "resources": resources(settings),
        "run_config": {"ops": {"snapshot": {"config": {"fetch": "never"}}}},
    }
    with dg.DagsterInstance.ephemeral() as instance:
        for day in OUR_DAYS:
            dg.materialize([snapshot], instance=instance, partition_key=day.isoformat(), **ours)
        result = dg.materialize(
            [snapshot, listed],
            selection=[listed],
            instance=instance,
            partition_key=OUR_DAYS[1].isoformat(),
            resources=resources(settings),
        )
    expected = [{"as_of": OUR_DAYS[1], "models": model_count(OUR_DAYS[1])}]
    assert result.output_for_node("mine__listed").to_dicts() == expected


@pytest.mark.usefixtures("at_noon")  # so that the partitions are there
def test_a_users_asset_in_a_code_location_of_its_own_gets_a_range_of_a_table_of_ours(store: Store) -> None:
    frame = parse([(day, answer(day)) for day in OUR_DAYS]).task_models
    Warehouse(store.database).replace_days(OUR_DAYS, {"task_models": frame})
    theirs = dg.AssetSpec(TASK_MODELS, metadata={"partition_expr": "as_of"}, partitions_def=daily_partitions)
    store.materialize(theirs, models_listed(), partition=OUR_DAYS[1].isoformat(), until=OUR_DAYS[2].isoformat())
    assert store.rows("mine.listed") == [(day, model_count(day)) for day in OUR_DAYS[1:]]
    # Our own tables beside the user's are as they were.
    assert len(Warehouse(store.database).read("task_models")) == len(frame)

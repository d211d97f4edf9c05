"""How a lake grows over ten years, and what its maintenance does: files, snapshots, bytes, time to read and write.

    python benchmarks/lake.py [--days 3650] [--single 400]

Needs a clone with the extras `lake` and `test`, and Postgres (Debian's package `postgresql`). The last `--single` days
are a commit each, as runs write them; the days before come 50 at a time, as an import writes them. Every 200th of those
is loaded again, as if it had been restated. Then four maintenances follow, as if two days, 40 days and 47 days after
the first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orpipeline.contracts.tables import TABLES
from orpipeline.defs.maintenance import maintain
from orpipeline.testing import sample_tables
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.servers import PostgresServer

FIRST = date(2026, 6, 17)
AT_ONCE = 50
RESTATED_EVERY = 200


def main() -> None:
    """Fill a lake, maintain it, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=3650)
    parser.add_argument("--single", type=int, default=400)
    options = parser.parse_args()
    days = [FIRST + timedelta(days=number) for number in range(options.days)]
    with TemporaryDirectory() as folder, PostgresServer(Path(folder, "postgres")) as server:
        lake = Warehouse(server.lake(), lake_data=Path(folder, "lake"))
        fill(lake, days, options.single)
        show(lake, days[-1])
        now = datetime.now(UTC)
        for later in (0, 2, 40, 47):
            begin = time.perf_counter()
            maintained = maintain(lake, now=now + timedelta(days=later))
            seconds = time.perf_counter() - begin
            print(f"maintenance after {later} days: {seconds:.1f} s, deleted {maintained.deleted} files")
            print(f"  before: {maintained.before}\n  after: {maintained.after}")
            show(lake, days[-1])


def fill(lake: Warehouse, days: Sequence[date], single: int) -> None:
    """Write all days, through one connection: opening a lake takes longer than a small commit."""
    several, alone = days[: len(days) - single], days[len(days) - single :]
    with lake.locked() as connection:
        for batch in (
            *(several[start : start + AT_ONCE] for start in range(0, len(several), AT_ONCE)),
            *([day] for day in alone),
            *([day] for day in several[::RESTATED_EVERY]),
        ):
            connection.begin()
            Tables(connection, lake.schema).replace_days(batch, frames(batch))
            connection.commit()


def frames(days: Sequence[date]) -> dict[str, pl.DataFrame]:
    """Return the tables of some days, which are all alike."""
    one = sample_tables(1)
    return {name: pl.concat([one[name].with_columns(as_of=pl.lit(day)) for day in days]) for name in TABLES}


def show(lake: Warehouse, day: date) -> None:
    """Print how long it takes to read a day, to read all of a table, and to write a day again."""
    begin = time.perf_counter()
    lake.read("model_leaderboard", since=day, until=day)
    read_day = time.perf_counter()
    lake.read("model_leaderboard")
    read_all = time.perf_counter()
    with lake.writing() as tables:
        tables.replace_days([day], frames([day]))
    written = time.perf_counter()
    print(
        f"  read a day {read_day - begin:.2f} s, all days {read_all - read_day:.2f} s, "
        f"write a day {written - read_all:.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()

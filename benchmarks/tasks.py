"""The tasks that run.py times and that no command does alone, each in its own process. Prints seconds.

ORPIPELINE_DATA_DIR=<folder> python tasks.py import <folder with responses>
ORPIPELINE_DATA_DIR=<folder> python tasks.py publish
ORPIPELINE_DATA_DIR=<folder> DAGSTER_HOME=<folder> python tasks.py backfill <first day> <last day>
ORPIPELINE_DATA_DIR=<folder> DAGSTER_HOME=<folder> OPENROUTER_API_KEY=<key> python tasks.py tick
"""

from __future__ import annotations

import sys
import time
from collections import deque
from datetime import date, timedelta
from statistics import median

from orpipeline.archive import Archive
from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.importing.files import find_files
from orpipeline.importing.importer import import_files
from orpipeline.load import load_batches, load_days
from orpipeline.settings import load_settings
from orpipeline.testing import sample_response
from orpipeline.warehouse.warehouse import Warehouse, open_warehouse

ROUNDS = 15


def import_(folder: str) -> float:
    """Import responses, from bytes to leaderboard, without Dagster."""
    settings = load_settings()
    start = time.perf_counter()
    archive, warehouse = Archive(settings.archive), open_warehouse(settings)
    newest = newest_completed_day(utc_now())
    imported = import_files(archive, find_files([folder]), first=settings.start_date, newest=newest)
    deque(load_batches(archive, warehouse, imported.days, now=utc_now()), maxlen=0)
    imported.raise_for_rejected()
    return time.perf_counter() - start


def publish() -> float:
    """Load the newest day again, in turns with and without the published copy. Return the seconds that it adds."""
    settings, now = load_settings(), utc_now()
    archive, day = Archive(settings.archive), newest_completed_day(now)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS + 1):
        for published, taken in seconds.items():
            warehouse = Warehouse(settings.warehouse, published=settings.published if published else None)
            start = time.perf_counter()
            load_days(archive, warehouse, [day], now=now)
            taken.append(time.perf_counter() - start)
    return median(with_copy - without for with_copy, without in list(zip(*seconds.values(), strict=True))[1:])


def backfill(first: str, last: str) -> float:
    """Load a range of archived days in one run, as a backfill does."""
    from orpipeline.capture import Fetch
    from orpipeline.cli.dagster_runs import run_days

    start = time.perf_counter()
    since, until = date.fromisoformat(first), date.fromisoformat(last)
    days = [since + timedelta(days=n) for n in range((until - since).days + 1)]
    run_days(load_settings(), days, Fetch.never, report=False)
    return time.perf_counter() - start


def tick() -> float:
    """Evaluate a tick of the sensor while the newest day is archived and materialized."""
    import dagster as dg

    from orpipeline.defs.build import build_defs
    from orpipeline.defs.names import Names

    settings, newest = load_settings(), newest_completed_day(utc_now())
    Archive(settings.archive).put(sample_response(newest), fetched_at=utc_now(), source="made up", origin="demo")
    sensor = build_defs(settings).resolve_sensor_def("snapshot_sensor")
    with dg.DagsterInstance.get() as instance:
        for key in Names().daily_assets:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=newest.isoformat()))
        seconds = []
        for _ in range(30):
            with dg.build_sensor_context(instance) as context:
                start = time.perf_counter()
                result = sensor(context)
                seconds.append(time.perf_counter() - start)
            if not isinstance(result, dg.SensorResult) or not result.skip_reason:
                raise RuntimeError(f"the tick did not skip: {result}")
    return median(seconds)


if __name__ == "__main__":
    print({"import": import_, "publish": publish, "backfill": backfill, "tick": tick}[sys.argv[1]](*sys.argv[2:]))

"""Shows what breaks first with many sources, hourly windows, long lists of models and many readers. Prints tables.

    python benchmarks/scaling.py [--only sources|hourly|models|readers] [--small]

Run it from a clone, with the Python that orpipeline is installed in; it makes its own data, and needs no API key and no
network. It takes long, most of all `sources`, so run one part at a time. Machines differ, so read the growth: a number
in brackets is the ratio to the smallest size. Seconds are processor time, which other programs hardly change, unless a
table's text says that they are from start to end. The rows of a lake need Postgres and the extra `lake`; without them,
a line gives the reason.
"""

from __future__ import annotations

import gzip
import logging
import os
import platform
import resource
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import polars as pl

from orpipeline.archive import Archive
from orpipeline.clock import Stopwatch, newest_completed_day, utc_now
from orpipeline.contracts import frames
from orpipeline.contracts.findings import rejected_days
from orpipeline.contracts.validation import validate
from orpipeline.leaderboard import leaderboards
from orpipeline.load import load_batches, load_days
from orpipeline.openrouter.client import MAX_BODY_BYTES
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.warehouse.warehouse import Warehouse, open_warehouse

WORKERS = 4
"""How many processes work at once, whatever the number of sources or readers is."""
YEAR = 365
SOURCE_HISTORY = 7
"""How many days each source has before its day is loaded."""
READ_EVERY, WRITE_EVERY = 2.0, 3.0
"""Seconds between two reads of a reader, and between two writes."""
DAEMON = "telemetry:\n  enabled: false\n"
THREADS = "sensors:\n  use_threads: true\n  num_workers: 4\n"
LOCATION = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from scaling import location
defs = location(Path({root!r}), range({first}, {end}))
"""


# Tables


@dataclass
class Table:
    """A table of measurements: each row has a size, and numbers whose ratio to the first row shows how they grow."""

    title: str
    note: str = ""
    rows: list[tuple[str, dict[str, float | str]]] = field(default_factory=list)

    def add(self, size: str, **values: float | str) -> None:
        """Add a row. A column is named after its unit: `load_s`, `memory_MB`; text is shown as it is."""
        self.rows.append((size, values))
        click.echo(f"{self.title}: {size} done", err=True)

    def markdown(self) -> str:
        """Return the table as Markdown."""
        names = list(dict.fromkeys(name for _, values in self.rows for name in values))
        first = {name: next(values[name] for _, values in self.rows if name in values) for name in names}
        lines = [f"### {self.title}", "", *([self.note, ""] if self.note else [])]
        heads = [" ".join(name.split("_")) for name in names]
        lines += [f"| size | {' | '.join(heads)} |", f"| --- {'| --- ' * len(names)}|"]
        for size, values in self.rows:
            cells = [_cell(values.get(name, ""), first[name]) for name in names]
            lines.append(f"| {size} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _cell(value: float | str, first: float | str) -> str:
    if isinstance(value, str):
        return value
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    if not isinstance(first, str) and first > 0 and value != first:
        return f"{shown} ({value / first:.3g}x)"
    return shown


# Processes


@dataclass(frozen=True)
class Ran:
    """What a function returned, the processor time of it and of its whole process, and that's peak memory in MB."""

    result: Any
    seconds: float
    whole: float
    peak: float


def alone(work: Callable[..., Any], *arguments: Any) -> Ran:
    """Run a function in a new process."""
    with _processes(1) as pool:
        return pool.submit(_measured, work, arguments).result()


def _processes(count: int, *, max_tasks_per_child: int | None = None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, get_context("spawn"), _silence, max_tasks_per_child=max_tasks_per_child)


def _silence() -> None:
    # DuckDB takes a process that another one started for an interactive one, and shows progress bars.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.getLogger("orpipeline").setLevel(logging.ERROR)  # a writer that waits warns


def _measured(work: Callable[..., Any], arguments: Sequence[Any]) -> Ran:
    start = _processor_seconds()
    result = work(*arguments)
    return Ran(result, _processor_seconds() - start, _processor_seconds(), _memory("self", "VmHWM"))


def _memory(process: int | str, name: str) -> float:
    """Return a process's memory in MB: `VmRSS` now, or `VmHWM` at its peak; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getsid(int(folder.name)) == leader:
                found.append(int(folder.name))
    return found


def _processor_seconds() -> float:
    """Return the processor time of this process and of those that it waited for. Other programs hardly change it."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(times.ru_utime + times.ru_stime for times in used)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of processor time that some work takes, and its result."""
    start = _processor_seconds()
    result = work()
    return _processor_seconds() - start, result


def _clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds from the start to the end of some work, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


# Data


def archive_windows(folder: Path, count: int, newest: date) -> Archive:
    """Archive `count` responses up to `newest`: a made-up year, repeated. Each stands for one window."""
    archive = Archive(folder)
    of_year = {n: sample_response(newest - timedelta(days=n)) for n in range(min(count, YEAR))}
    for n in range(count):
        day, stated = newest - timedelta(days=n), newest - timedelta(days=n % YEAR)
        body = of_year[n % YEAR].replace(f'"as_of":"{stated}"'.encode(), f'"as_of":"{day}"'.encode())
        fetched = datetime(day.year, day.month, day.day, 0, 20, tzinfo=UTC) + timedelta(days=1)
        archive.put(body, fetched_at=fetched, source="made up", origin="demo")
    return archive


@dataclass(frozen=True)
class Place:
    """Where one source's tables are."""

    warehouse: Path | str
    schema: str
    published: Path | None
    lake_data: Path | None = None

    def open(self) -> Warehouse:
        """Return the warehouse. A writer waits for all others."""
        return Warehouse(
            self.warehouse,
            lake_data=self.lake_data,
            schema=self.schema,
            lock_wait_seconds=600,
            published=self.published,
        )


class Bench:
    """A folder, the sizes, and a Postgres server for the lake's rows, if there is one."""

    def __init__(self, root: Path, base_url: str, small: bool, close: ExitStack) -> None:
        self.root, self.base_url, self.small = root, base_url, small
        self.newest = newest_completed_day(utc_now())
        self.no_lake: str = ""
        self.postgres: Any = None
        self._databases = 0
        try:
            self.postgres = self._open_postgres(close)
        except (ImportError, RuntimeError, subprocess.CalledProcessError) as error:
            self.no_lake = f"no rows of a lake: {error}".split(chr(10))[0]

    def sizes(self, small: Sequence[int], whole: Sequence[int]) -> Sequence[int]:
        """Return the sizes to measure."""
        return small if self.small else whole

    def folder(self, name: str) -> Path:
        """Create a folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}_", dir=self.root))

    def lake(self) -> str:
        """Create a catalog, and return the lake's name."""
        self._databases += 1
        self.postgres.create_database(f"lake_{self._databases}")
        return str(self.postgres.lake(f"lake_{self._databases}"))

    def connections(self) -> int:
        """Return how many connections the lakes' catalogs have now."""
        return int(self.postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'lake%'"))

    def _open_postgres(self, close: ExitStack) -> Any:
        import duckdb_extensions  # noqa: F401 - the extra `lake`

        from orpipeline_tests.servers import PostgresServer

        return close.enter_context(PostgresServer(self.root / "postgres"))


# Many sources


def location(root: Path, numbers: Sequence[int]) -> Any:
    """Return a code location with one pipeline for each number. They share the archive, so its day is made once."""
    import dagster as dg

    from orpipeline.defs.build import build_defs

    return dg.Definitions.merge(
        *(
            build_defs(
                Settings(data_dir=root / f"source_{n}", archive=root / "raw", state=root / "state"),
                key_prefix=f"source_{n}",
            )
            for n in numbers
        )
    )


def load_location(root: Path, numbers: Sequence[int]) -> float:
    """Return the seconds to define a code location, without its imports."""
    import dagster  # noqa: F401

    import orpipeline.defs.build  # noqa: F401

    return _timed(lambda: location(root, numbers).get_repository_def())[0]


def run_one(root: Path, home: Path, pipelines: int) -> None:
    """Load a code location and run one of its pipelines' daily job, as a run's process does."""
    import dagster as dg

    from orpipeline.capture import Fetch
    from orpipeline.defs.jobs import snapshot_config
    from orpipeline.defs.names import Names

    names = Names("source_0")
    job = location(root, range(pipelines)).resolve_job_def(names.job("daily_snapshot"))
    day = newest_completed_day(utc_now())
    config = {**snapshot_config(names, Fetch.never), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job.execute_in_process(instance=instance, partition_key=day.isoformat(), run_config=config)


def record_days(home: Path, pipelines: int) -> None:
    """Record each pipeline's newest day and report in the event log, so that its sensors have nothing to do."""
    import dagster as dg

    from orpipeline.defs.names import Names

    day = newest_completed_day(utc_now()).isoformat()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for n in range(pipelines):
            names = Names(f"source_{n}")
            board = dg.AssetMaterialization(names.asset("model_leaderboard"), partition=day)
            for event in (board, dg.AssetMaterialization(names.report)):
                instance.report_runless_asset_event(event)


def load_source(place: Place, archive: Path, day: date) -> tuple[float, float]:
    """Load a source's day, and return the seconds of all of it and of the wait for other writers."""
    watch = Stopwatch()
    seconds, loaded = _clocked(lambda: load_days(Archive(archive), place.open(), [day], now=utc_now(), stopwatch=watch))
    if not loaded.days:
        raise RuntimeError(f"nothing was loaded: {loaded.validated.errors}")
    return seconds, watch.seconds["lock"]


def load_history(place: Place, archive: Path, days: Sequence[date]) -> None:
    """Load a source's earlier days."""
    for _ in load_batches(Archive(archive), place.open(), days, now=utc_now()):
        pass


def sources(bench: Bench) -> Iterator[Table]:
    """Measure 100 pipelines like this one."""
    yield code_locations(bench)
    yield daemon(bench)
    yield writers(bench)


def code_locations(bench: Bench) -> Table:
    """Measure the loading of code locations, and a run, whose process loads its code location."""
    table = Table("Sources: the code location", "`run_s` is one run's whole process, which loads the code location.")
    root = bench.folder("sources")
    archive_windows(root / "raw", 2, bench.newest)
    for pipelines in bench.sizes((1, 10), (1, 10, 100)):
        home = bench.folder("home")
        (home / "dagster.yaml").write_text(DAEMON)
        loaded = alone(load_location, root, range(pipelines))
        run = alone(run_one, root, home, pipelines)
        table.add(
            f"{pipelines} in one location",
            definitions_s=loaded.result,
            memory_MB=loaded.peak,
            run_s=run.whole,
            run_MB=run.peak,
        )
    if not bench.small:
        with _processes(2, max_tasks_per_child=1) as pool:
            parts = [pool.submit(_measured, load_location, (root, range(10 * n, 10 * n + 10))) for n in range(10)]
            loads = [part.result() for part in parts]
        table.add(
            "100 in ten locations",
            definitions_s=sum(load.result for load in loads),
            memory_MB=sum(load.peak for load in loads),
        )
    return table


def daemon(bench: Bench) -> Table:
    """Count the ticks that a real daemon evaluates while the sensors have nothing to do."""
    seconds = 30 if bench.small else 60
    table = Table(
        "Sources: the daemon",
        f"`wanted` and `ticks` are a minute's, over {seconds} s. Seconds are from start to end. `interval_s` is how "
        "often a `snapshot_sensor`, which is due every 30 s, has its turn at that rate. Memory includes code servers.",
    )
    cases = [(1, 1, ""), (10, 1, "")] if bench.small else [(10, 1, ""), (100, 1, ""), (100, 1, THREADS), (100, 10, "")]
    for pipelines, locations, more in cases:
        how = f"{pipelines} in {locations} location{'s' if locations > 1 else ''}{', 4 threads' if more else ''}"
        table.add(how, **_daemon(bench, pipelines, locations, more, seconds))
    return table


def _daemon(bench: Bench, pipelines: int, locations: int, more: str, seconds: int) -> dict[str, float]:
    root, home = bench.folder("daemon"), bench.folder("home")
    archive_windows(root / "raw", 1, bench.newest)  # the sensor would load any other day
    (home / "dagster.yaml").write_text(DAEMON + more)
    workspace = ["load_from:"]
    each = pipelines // locations
    for n in range(locations):
        file = root / f"location_{n}.py"
        file.write_text(
            LOCATION.format(here=str(Path(__file__).parent), root=str(root), first=n * each, end=(n + 1) * each)
        )
        workspace += ["  - python_file:", f"      relative_path: {file}", f"      location_name: location_{n}"]
    (root / "workspace.yaml").write_text("\n".join(workspace))
    alone(record_days, home, pipelines)
    ours = ("ORPIPELINE_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "DAGSTER_HOME": str(home),
        "OPENROUTER_API_KEY": KEY,
        "ORPIPELINE_BASE_URL": bench.base_url,
    }
    program = [str(Path(sysconfig.get_path("scripts"), "dagster-daemon")), "run", "-w", str(root / "workspace.yaml")]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(program, env=environment, stdout=log, stderr=log, cwd=root, start_new_session=True)
        try:
            ready = _wait_for_ticks(home, process, root / "log")
            before = _ticks(home)
            time.sleep(seconds)
            after = _ticks(home)
            memory = sum(_memory(pid, "VmRSS") for pid in _session(process.pid))
        finally:
            _end(process)
    took, wanted = after[len(before) :], 3.0 * pipelines
    ticks = len(took) * 60 / seconds
    return {
        "first_tick_s": ready,
        "wanted": wanted,
        "ticks": ticks,
        "tick_ms": 1000 * median(took),
        "interval_s": 30 * max(1.0, wanted / ticks),
        "memory_MB": memory,
    }


def _ticks(home: Path) -> list[float]:
    """Return the seconds that each tick of a sensor took, if it has ended."""
    file = home / "schedules" / "schedules.db"
    if not file.exists():
        return []
    query = """
        SELECT json_extract(tick_body, '$.end_timestamp') - json_extract(tick_body, '$.timestamp')
        FROM job_ticks WHERE status <> 'STARTED' AND type = 'SENSOR' ORDER BY id
    """
    with suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        return [seconds or 0.0 for (seconds,) in connection.execute(query)]
    return []


def _wait_for_ticks(home: Path, process: subprocess.Popen[bytes], log: Path) -> float:
    """Wait for the first tick, and return the seconds."""
    start = time.perf_counter()
    while not _ticks(home):
        if process.poll() is not None or time.perf_counter() - start > 150:
            raise RuntimeError(f"the daemon evaluated no tick:\n{log.read_text()[-2000:]}")
        time.sleep(0.5)
    return time.perf_counter() - start


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon and its code servers."""
    others = _session(process.pid)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for pid in (process.pid, *others):
        with suppress(OSError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()


def writers(bench: Bench) -> Table:
    """Load a day of each source, all at once, into one file, into a file for each source, and into a lake."""
    table = Table(
        "Sources: a day's loads",
        f"{WORKERS} processes load a day of each source, which has {SOURCE_HISTORY} days, and publish it. Seconds are "
        "from start to end: `load_s` is the median of one load with its wait, `wait_p95_s` the 95th percentile of the "
        "wait for other writers.",
    )
    days = [bench.newest - timedelta(days=n) for n in range(SOURCE_HISTORY + 1)]
    archive = bench.folder("responses")
    archive_windows(archive, len(days), bench.newest)
    for name, place_of in _places(bench).items():
        most = 30 if name == "one lake" else 100  # with 100, a lake takes ten minutes
        for count in bench.sizes((1, 10), (1, 10, most)):
            place = place_of()
            places = [place(n) for n in range(count)]
            with _processes(min(WORKERS, count)) as pool:
                list(pool.map(load_history, places, [archive] * count, [days[1:]] * count))
                start = time.perf_counter()
                took = list(pool.map(load_source, places, [archive] * count, [days[0]] * count))
                whole = time.perf_counter() - start
            waits = [wait for _, wait in took]
            table.add(
                f"{count} in {name}",
                all_s=whole,
                load_s=median(seconds for seconds, _ in took),
                wait_p95_s=_percentile(waits, 95),
                loads_a_minute=count * 60 / whole,
            )
    if bench.no_lake:
        table.note += f" There are {bench.no_lake}."
    return table


def _places(bench: Bench) -> dict[str, Callable[[], Callable[[int], Place]]]:
    """Return where the sources' tables can be, by name."""
    kinds: dict[str, Callable[[], Callable[[int], Place]]] = {
        "one DuckDB file": lambda: partial(_in_one_file, bench.folder("one")),
        "a file for each": lambda: partial(_in_own_file, bench.folder("each")),
    }
    if not bench.no_lake:
        kinds["one lake"] = lambda: partial(_in_lake, bench.lake(), bench.folder("lake"))
    return kinds


def _in_one_file(root: Path, n: int) -> Place:
    return Place(root / "warehouse.duckdb", f"source_{n}", root / "published" / "warehouse.duckdb")


def _in_own_file(root: Path, n: int) -> Place:
    own = root / str(n)
    return Place(own / "warehouse.duckdb", f"source_{n}", own / "published" / "warehouse.duckdb")


def _in_lake(lake: str, root: Path, n: int) -> Place:
    return Place(lake, f"source_{n}", root / "published" / "warehouse.duckdb", root / "data")


def _percentile(values: Sequence[float], percent: int) -> float:
    return max(values) if len(values) < 3 else quantiles(values, n=100, method="inclusive")[percent - 1]


# Hourly windows


def hourly(bench: Bench) -> Iterator[Table]:
    """Measure a year of hourly windows: 24 times the partitions and rows. Each window is stored as a day."""
    tables = Table(
        "Hourly windows: the tables",
        "`one_more` loads a window again, with what Dagster's pages show of it; `published` is what the published copy "
        "adds to that. `trends` reads one window of `model_trends`. The last column is that process's peak memory.",
    )
    for windows in bench.sizes((30, 365), (365, 1_460, 8_760)):
        root = bench.folder("windows")
        archive = archive_windows(root / "raw", windows, bench.newest)
        first = bench.newest - timedelta(days=windows - 1)
        load = alone(load_all, root, archive.place, first, bench.newest)
        more, copied = (alone(load_again, root, archive.place, bench.newest, copy) for copy in (False, True))
        trends = alone(read_trends, root, bench.newest)
        page = alone(report_page, root)
        tables.add(
            f"{windows:,} windows",
            load_all_s=load.seconds,
            warehouse_MB=_megabytes(root / "warehouse.duckdb"),
            one_more_s=more.result,
            published_s=max(0.0, copied.result - more.result),
            trends_s=trends.result,
            trends_MB=trends.peak,
            report_s=page.seconds,
            page_MB=page.result,
        )
    yield tables
    yield event_log(bench)


def _warehouse(root: Path, *, published: bool) -> Warehouse:
    copy = root / "published" / "warehouse.duckdb"
    return Warehouse(root / "warehouse.duckdb", published=copy if published else None, lock_wait_seconds=600)


def load_all(root: Path, archive: Path, first: date, newest: date) -> None:
    """Load all windows, and publish them."""
    days = [first + timedelta(days=n) for n in range((newest - first).days + 1)]
    for _ in load_batches(Archive(archive), _warehouse(root, published=False), days, now=utc_now()):
        pass
    _warehouse(root, published=True).publish()


def load_again(root: Path, archive: Path, day: date, published: bool) -> float:
    """Return the median seconds to load a window as a run does."""
    warehouse = _warehouse(root, published=published)
    load = partial(load_days, Archive(archive), warehouse, [day], now=utc_now())
    return median(_timed(load)[0] for _ in range(4))


def read_trends(root: Path, day: date) -> float:
    """Return the median seconds to read a window of `model_trends`."""
    with _warehouse(root, published=False).reading() as tables:
        return median(_timed(lambda: tables.read("model_trends", since=day, until=day))[0] for _ in range(4))


def report_page(root: Path) -> float:
    """Write the report, and return its page's size in MB."""
    from orpipeline.report.files import write_report

    with _warehouse(root, published=False).reading() as tables:
        write_report(root / "reports", tables, now=utc_now())
    return _megabytes(root / "reports" / "index.html")


def event_log(bench: Bench) -> Table:
    """Measure Dagster's event log in SQLite with one event for each asset and window."""
    table = Table(
        "Hourly windows: Dagster's event log",
        "SQLite, with one materialization of each of eight assets and window; a run writes more events, so a log of "
        "runs is larger. Dagster records the first ones, and their rows are copied. `tick` is a `snapshot_sensor` that "
        "skips.",
    )
    for windows in bench.sizes((30, 365), (365, 1_460, 8_760)):
        home = bench.folder("home")
        (home / "dagster.yaml").write_text(DAEMON)
        measured = alone(use_event_log, home, bench.newest, windows).result
        table.add(f"{windows:,} windows", **measured)
    return table


def use_event_log(home: Path, newest: date, windows: int) -> dict[str, float]:
    """Fill an event log, and return what its size and what reading and writing it costs."""
    import dagster as dg

    from orpipeline.defs.build import build_defs
    from orpipeline.defs.names import Names

    os.environ["OPENROUTER_API_KEY"] = KEY
    archive_windows(home / "raw", 1, newest)
    settings = Settings(data_dir=home, archive=home / "raw", start_date=newest - timedelta(days=windows - 1))
    sensor = build_defs(settings).resolve_sensor_def("snapshot_sensor")
    keys = Names().daily_assets
    with dg.DagsterInstance.from_config(str(home)) as instance:

        def record() -> None:
            for key in keys:
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=newest.isoformat()))

        def tick() -> None:
            with dg.build_sensor_context(instance) as context:
                result = sensor(context)
            if not isinstance(result, dg.SensorResult) or not result.skip_reason:
                raise RuntimeError(f"the tick did not skip: {result}")

        record()
        _copy_events(home / "history" / "runs" / "index.db", newest, windows)
        found = {len(instance.get_materialized_partitions(key)) for key in keys}
        if found != {windows}:
            raise RuntimeError(f"the event log has {found} partitions, not {windows}")
        partitions = median(_timed(lambda: instance.get_materialized_partitions(keys[0]))[0] for _ in range(3))
        write = median(_timed(record)[0] for _ in range(5)) / len(keys)
        ticks = median(_timed(tick)[0] for _ in range(9))
    return {
        "events": float(windows * len(keys)),
        "log_MB": _megabytes(home / "history"),
        "partitions_of_an_asset_s": partitions,
        "write_an_event_ms": 1000 * write,
        "tick_ms": 1000 * ticks,
    }


def _copy_events(database: Path, newest: date, windows: int) -> None:
    """Copy the events of the newest day for all days before it."""
    with sqlite3.connect(database) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(event_logs)") if name != "id"]
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM event_logs WHERE partition IS NOT NULL").fetchall()
        for n in range(1, windows):
            day = (newest - timedelta(days=n)).isoformat()
            copies = [
                [value.replace(newest.isoformat(), day) if isinstance(value, str) else value for value in row]
                for row in rows
            ]
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO event_logs ({', '.join(columns)}) VALUES ({marks})", copies)


# Long lists of models


def models(bench: Bench) -> Iterator[Table]:
    """Measure a response with up to 10,000 models in each of its 29 tasks."""
    table = Table(
        "Models per task",
        "A response of 29 tasks, all with the same models, 20 of each author. The limits are lifted to measure it; "
        "`stopped_by` names those that the response exceeds.",
    )
    for count in bench.sizes((10, 100, 689), (10, 100, 689, 2_000, 10_000)):
        ran = alone(take_long_response, bench.folder("models"), bench.newest, count)
        table.add(f"{count:,} models", **ran.result, memory_MB=ran.peak)
    yield table


def long_response(day: date, count: int) -> bytes:
    """Return a response whose tasks list `count` models each, in another order under each task."""
    total = sum(1 / place for place in range(1, count + 1))
    shares = [round(1 / place / total, 3) for place in range(1, count + 1)]

    def list_models(data: dict[str, Any]) -> None:
        for shift, task in enumerate(data["classifications"]):
            numbers = ((place + shift) % count for place in range(count))
            task["models"] = [
                {"id": f"author-{n // 20}/model-{n}", "tag_usage_share": share, "tag_token_share": share}
                for n, share in zip(numbers, shares, strict=True)
            ]

    return sample_response(day, change=list_models)


def take_long_response(root: Path, day: date, count: int) -> dict[str, float | str]:
    """Take a response from its bytes to the published copy, whatever its size is."""
    from orpipeline import archive
    from orpipeline.importing import responses

    body = long_response(day, count)
    most = frames.MOST_MODELS
    stopped = {
        "the contracts": parse_size(body, day) > most,
        "an import": len(body) > responses.MAX_RESPONSE_BYTES,
        "the client": len(body) > MAX_BODY_BYTES,
        "the archive": len(body) > archive.MAX_RESPONSE_BYTES,
    }
    frames.MOST_MODELS = archive.MAX_RESPONSE_BYTES = sys.maxsize
    parse_s, parsed = _timed(lambda: frames.parse([(day, body)]))
    validate_s, findings = _timed(lambda: validate(parsed))
    if rejected_days(findings):
        raise RuntimeError(f"the response is invalid:\n{findings}")
    rank_s, boards = _timed(lambda: leaderboards(parsed.task_classifications, parsed.task_models))
    raw = Archive(root / "raw")
    raw.put(body, fetched_at=utc_now(), source="made up", origin="demo")
    load_s, _ = _timed(lambda: load_days(raw, _warehouse(root, published=True), [day], now=utc_now()))
    return {
        "response_MB": len(body) / 1e6,
        "gzipped_MB": len(gzip.compress(body)) / 1e6,
        "parse_s": parse_s,
        "validate_s": validate_s,
        "rank_s": rank_s,
        "write_and_publish_s": load_s - parse_s - validate_s - rank_s,
        "leaderboard_rows": float(len(boards["model_leaderboard"])),
        "stopped_by": ", ".join(name for name, is_above in stopped.items() if is_above) or "nothing",
    }


def parse_size(body: bytes, day: date) -> int:
    """Return how many models a response lists."""
    oversized = frames.parse([(day, body)]).oversized
    return oversized[day][1] if oversized else 0


# Many readers


@dataclass(frozen=True)
class Read:
    """One read: how, its seconds, and its error, or an empty text."""

    how: str
    seconds: float
    error: str


def readers(bench: Bench) -> Iterator[Table]:
    """Read one day with up to 100 readers while a writer writes."""
    seconds = 8 if bench.small else 25
    days = [bench.newest - timedelta(days=n) for n in range(30 if bench.small else YEAR)]
    table = Table(
        "Readers",
        f"Each reader reads the newest day's leaderboard every {READ_EVERY:g} s for {seconds} s, with {len(days)} days "
        f"in the tables, while a writer loads that day every {WRITE_EVERY:g} s. The readers are threads of up to "
        f"{WORKERS} processes. Seconds are from start to end. An error is also a day that is not whole.",
    )
    for engine in ("DuckDB file", *([] if bench.no_lake else ["lake"])):
        root = bench.folder("readers")
        archive_windows(root / "raw", len(days), bench.newest)
        place = root / "warehouse.duckdb" if engine == "DuckDB file" else bench.lake()
        settings = Settings(data_dir=root, warehouse=place)
        alone(load_for_readers, settings, days)
        for count in (0, *bench.sizes((1, 10), (1, 10, 100))):
            _add_readers(bench, table, engine, settings, count, seconds)
    if bench.no_lake:
        table.note += f" There are {bench.no_lake}."
    yield table


def _add_readers(bench: Bench, table: Table, engine: str, settings: Settings, count: int, seconds: int) -> None:
    processes = min(WORKERS, count)
    parts = [len(range(part, count, processes)) for part in range(processes)]
    with _processes(1) as one, _processes(max(1, processes)) as pool:
        ready = time.time() + 10  # until then, all processes have imported polars and DuckDB
        writing = one.submit(write_again, settings, bench.newest, ready, seconds)
        reading = [pool.submit(read_again, settings, bench.newest, part, ready, seconds) for part in parts]
        connections = [0]
        while engine == "lake" and not all(part.done() for part in (writing, *reading)):
            connections.append(bench.connections())
            time.sleep(0.3)
        reads = [read for part in reading for read in part.result()]
        writes = writing.result()
    row: dict[str, float | str] = {"write_s": median(writes), "slowest_write_s": max(writes)}
    for how in sorted({read.how for read in reads}):
        took = [1000 * read.seconds for read in reads if read.how == how]
        row |= {f"{how}_ms": median(took), f"{how}_p95_ms": _percentile(took, 95), f"{how}_max_ms": max(took)}
    if reads:
        row |= {"reads": f"{len(reads):,}", "errors": f"{sum(bool(read.error) for read in reads):,}"}
    if engine == "lake":
        row["connections"] = str(max(connections))
    table.add(f"{engine}, {count} readers", **row)
    for error in sorted({read.error for read in reads if read.error})[:3]:
        click.echo(f"an error of a reader: {error}", err=True)


def load_for_readers(settings: Settings, days: Sequence[date]) -> None:
    """Load all days, and publish them."""
    for _ in load_batches(Archive(Path(settings.archive)), open_warehouse(settings), days, now=utc_now()):
        pass


def write_again(settings: Settings, day: date, ready: float, seconds: int) -> list[float]:
    """Load a day at regular intervals, and return the seconds of each load."""
    archive, warehouse, took = Archive(Path(settings.archive)), open_warehouse(settings), []
    for due in _times(ready, seconds, WRITE_EVERY):
        _sleep_until(due)
        took.append(_clocked(lambda: load_days(archive, warehouse, [day], now=utc_now()))[0])
    return took


def read_again(settings: Settings, day: date, count: int, ready: float, seconds: int) -> list[Read]:
    """Read a day at regular intervals in some threads, and return all reads."""
    expected = len(_read(settings, day))
    reads: list[Read] = []
    lock = threading.Lock()

    def reader(number: int) -> None:
        ways = (("read", _read), ("parquet", _scan))
        for turn, due in enumerate(_times(ready + READ_EVERY * number / count, seconds, READ_EVERY)):
            _sleep_until(due)
            how, read = ways[(turn + number) % len(ways)]
            start, error = time.perf_counter(), ""
            try:
                rows = len(read(settings, day))
                error = "" if rows == expected else f"{rows} rows instead of {expected}"
            except Exception as caught:  # any error of a reader is a result
                error = f"{type(caught).__name__}: {caught}"
            with lock:
                reads.append(Read(how, time.perf_counter() - start, error))

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(reader, range(count)))
    return reads


def _read(settings: Settings, day: date) -> pl.DataFrame:
    import orpipeline

    return orpipeline.read("model_leaderboard", since=day, until=day, settings=settings)


def _scan(settings: Settings, day: date) -> pl.DataFrame:
    file = Path(settings.published).parent / "parquet" / "model_leaderboard.parquet"
    return pl.scan_parquet(file).filter(as_of=day).collect()


def _times(ready: float, seconds: int, every: float) -> list[float]:
    return [ready + every * n for n in range(max(1, int(seconds / every)))]


def _sleep_until(due: float) -> None:
    time.sleep(max(0.0, due - time.time()))


SIMULATIONS: dict[str, Callable[[Bench], Iterator[Table]]] = {
    "sources": sources,
    "hourly": hourly,
    "models": models,
    "readers": readers,
}


@contextmanager
def _open_bench(small: bool) -> Iterator[Bench]:
    os.environ["NO_PROXY"] = "127.0.0.1"
    with (
        LocalApi() as api,
        tempfile.TemporaryDirectory(prefix="orpipeline_scaling_") as root,
        ExitStack() as close,
    ):
        yield Bench(Path(root), api.base_url, small, close)


@click.command()
@click.option("--only", type=click.Choice(list(SIMULATIONS)), help="Only one simulation.")
@click.option("--small", is_flag=True, help="Small sizes, to see whether everything works.")
def main(only: str | None, small: bool) -> None:
    """Run the simulations, and print their tables."""
    import duckdb

    start = time.perf_counter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end, too
    with _open_bench(small) as bench:
        for name, work in SIMULATIONS.items():
            if only in (None, name):
                for table in work(bench):  # a run that is stopped has shown what it measured
                    click.echo(f"{table.markdown()}\n")
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    click.echo(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, duckdb {duckdb.__version__}, on "
        f"{utc_now():%Y-%m-%d}, in {time.perf_counter() - start:.0f} s; load averages at the end {busy}."
    )


if __name__ == "__main__":
    main()

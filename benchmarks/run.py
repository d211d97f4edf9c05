"""Times orpipeline, compared with Dagster doing nothing and with other solutions. Prints one table.

    python benchmarks/run.py [--runs 3] [--scaffold-python <python with dagster-duckdb-pandas>]

The programs run in turns, because the machine's load changes. A ratio is the median of the ratios of the rounds.
Each run is a process with a new folder and made-up responses. Run it with the Python that orpipeline is installed in.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import click
import duckdb

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.testing import LocalApi, sample_response
from orpipeline.testing.local_api import KEY

HERE = Path(__file__).resolve().parent
OURS = str(Path(sysconfig.get_path("scripts")) / "orpipeline")
PACKAGES = ("dagster", "duckdb", "polars", "pandera", "httpx")
SCAFFOLD_PACKAGES = ("dagster", "dagster-duckdb-pandas", "duckdb", "pandas")
SCAFFOLD_DAYS = 3
# SQLite in DAGSTER_HOME is Dagster's default.
DAGSTER_YAML = "telemetry:\n  enabled: false\n"
LIBRARIES = "dagster, dagster_duckdb, duckdb, polars, pandera.polars, pyarrow, httpx, msgspec, tenacity, platformdirs"
LOAD_OURS = "from orpipeline.definitions import defs; defs.get_repository_def()"
LOAD_LIBRARIES = f"import {LIBRARIES}"
YEAR, REPORTED_DAYS, TEN_YEARS = 365, 400, 3650
EVENT_DAYS = 120
BATCHES = {"DAGSTER_EVENT_BATCH_SIZE": "1000"}


@dataclass(frozen=True)
class Took:
    """One run: its seconds from start to end, the number that it printed (or None), and its peak memory in bytes."""

    wall: float
    printed: float | None
    peak: int
    started: float
    """Seconds since the epoch."""

    def until_durable(self, warehouse: Path) -> float:
        """Return the seconds from the start to the last change of the DuckDB file."""
        return warehouse.stat().st_mtime - self.started


@dataclass(frozen=True)
class Row:
    """A line of the table. `holds` is None if the line has no limit."""

    work: str
    measured: str
    bar: str
    holds: bool | None


class Bench:
    """Has responses to import, and times processes."""

    def __init__(self, root: Path, base_url: str, runs: int) -> None:
        self.root, self.base_url, self.runs = root, base_url, runs
        self.newest = newest_completed_day(utc_now())
        self.bytecode = root / "bytecode"
        self.responses = {days: self._made_up(days) for days in (1, YEAR, REPORTED_DAYS, TEN_YEARS)}

    def _made_up(self, days: int) -> Path:
        """Return a folder with one file for each day up to the newest: a year of responses, repeated."""
        folder = self.root / f"responses_{days}"
        folder.mkdir()
        of_year = [sample_response(self.newest - timedelta(days=n)) for n in range(min(days, YEAR))]
        for n in range(days):
            day, stated = self.day(n), self.day(n % YEAR)
            body = of_year[n % YEAR].replace(f'"as_of":"{stated}"'.encode(), f'"as_of":"{day}"'.encode())
            (folder / f"{day}.json").write_bytes(body)
        return folder

    def day(self, before: int) -> date:
        """Return the day this many days before the newest."""
        return self.newest - timedelta(days=before)

    @contextmanager
    def world(self, copy_of: Path | None = None) -> Iterator[Path]:
        """Create a data folder with a DAGSTER_HOME in it, empty or with a copy of other data."""
        folder = Path(tempfile.mkdtemp(prefix="world_", dir=self.root))
        if copy_of is not None:
            shutil.copytree(copy_of, folder, dirs_exist_ok=True)
        (folder / "dagster_home").mkdir(exist_ok=True)
        (folder / "dagster_home" / "dagster.yaml").write_text(DAGSTER_YAML)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def run(self, folder: Path, *command: object, variables: Mapping[str, str] | None = None) -> Took:
        """Run a process in a folder, with more environment variables if given. Raises RuntimeError if it fails."""
        started, start = time.time(), time.perf_counter()
        # Output goes to files: a full pipe would stop the process.
        with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
            environment = {**self._environment(folder), **(variables or {})}
            process = subprocess.Popen([str(c) for c in command], env=environment, cwd=folder, stdout=out, stderr=err)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.perf_counter() - start
            printed = (folder / "out").read_text().strip()
            if process.returncode:
                raise RuntimeError(
                    f"{command} ended with {process.returncode}:\n{printed}{(folder / 'err').read_text()}"
                )
        return Took(wall, _number(printed), used.ru_maxrss * 1024, started)

    def task(self, folder: Path, *arguments: object, variables: Mapping[str, str] | None = None) -> Took:
        """Run one of tasks.py's tasks."""
        return self.run(folder, sys.executable, HERE / "tasks.py", *arguments, variables=variables)

    def _environment(self, folder: Path) -> Mapping[str, str]:
        ours = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            # All share one place for bytecode, whether a package is installed or run from its sources.
            "PYTHONPYCACHEPREFIX": str(self.bytecode),
            "DAGSTER_HOME": str(folder / "dagster_home"),
            "ORPIPELINE_DATA_DIR": str(folder),
            "ORPIPELINE_START_DATE": str(self.day(TEN_YEARS)),
            "ORPIPELINE_BASE_URL": self.base_url,
            "OPENROUTER_API_KEY": KEY,
            "BENCHMARK_WAREHOUSE": str(folder / "warehouse.duckdb"),
            "NO_PROXY": "127.0.0.1",
        }


def one_day(bench: Bench, scaffold: str | None) -> tuple[list[Row], float | None]:
    """Time one day: to the end of the process, and to durable tables. Also return the scaffold's seconds, if it ran."""
    floor, durable, ours, whole, bare, other = [], [], [], [], [], []
    for number in range(bench.runs + 1):
        for seconds, command in (
            (floor, (sys.executable, HERE / "floor.py", bench.newest)),
            (ours, (OURS, "run", "--date", bench.newest, "--no-report")),
            (whole, (OURS, "run", "--date", bench.newest)),
            (bare, (sys.executable, HERE / "bare.py", "bare")),
        ):
            with bench.world() as folder:
                took = bench.run(folder, *command)
                if number:  # the round before the first fills the bytecode cache
                    seconds.append(took.wall)
                    if seconds is ours:
                        _require_days(folder, "openrouter", 1)
                        durable.append(took.until_durable(folder / "warehouse.duckdb"))
        if scaffold and 0 < number <= SCAFFOLD_DAYS:
            with bench.world() as folder:
                took = bench.run(folder, scaffold, HERE / "scaffold.py", bench.newest)
                other.append(took.until_durable(folder / "warehouse.duckdb"))
                _require_days(folder, "main", 1)
    to_tables, to_end = _ratio(durable, floor), _ratio(ours, floor)
    rows = [
        Row(
            "one day without the report, the whole process with all events",
            f"{_s(ours)} against the floor's {_s(floor)} ({to_end:.2f}x); a bare script {_s(bare)}",
            "<= 1.3x floor",
            to_end <= 1.3,
        ),
        Row(
            "the same, process start to durable tables",
            f"{_s(durable)} ({to_tables:.2f}x)",
            "<= 1.3x floor",
            to_tables <= 1.3,
        ),
        Row("the same with the report", _s(whole), "report", None),
    ]
    if other:
        times = median(other) / median(durable)
        rows.append(
            Row("one day to durable tables, scaffold", f"{_s(other)} ({times:.1f}x ours)", ">= 3x faster", times >= 3)
        )
    return rows, median(other) if other else None


def report(bench: Bench) -> list[Row]:
    """Time what the report adds to a day, with that day alone and with 400 days of history."""
    rows: list[Row] = []
    for days in (1, REPORTED_DAYS):
        without, whole = [], []
        with bench.world() as loaded:
            bench.task(loaded, "import", bench.responses[days])
            for _ in range(bench.runs):
                for seconds, options in ((without, ["--no-report"]), (whole, [])):
                    with bench.world(loaded) as folder:
                        command = (OURS, "run", "--date", bench.newest, "--fetch", "never", *options)
                        seconds.append(bench.run(folder, *command).wall)
                        page = folder / "reports" / "index.html"
                        size = page.stat().st_size if page.exists() else 0
        added = [one - other for one, other in zip(whole, without, strict=True)]
        history = f"{days} days of history" if days > 1 else "one day of history"
        rows.append(Row(f"the report, added to a day, {history}", _s(added), "<= 1.5 s", median(added) <= 1.5))
        limit = 150_000 if days == 1 else 600_000
        rows.append(Row(f"the report's page, {history}", f"{size:,} bytes", f"< {limit:,}", size < limit))
    return rows


def backfill(bench: Bench, scaffold_day: float | None) -> list[Row]:
    """Time a year as one run, from the archive."""
    first = bench.day(YEAR - 1)
    floor, ours = [], []
    with bench.world() as archived:
        bench.task(archived, "import", bench.responses[YEAR])
        (archived / "warehouse.duckdb").unlink()
        for _ in range(bench.runs):
            with bench.world() as folder:
                floor.append(bench.run(folder, sys.executable, HERE / "floor.py", first, bench.newest).wall)
            with bench.world(archived) as folder:
                ours.append(bench.task(folder, "backfill", first, bench.newest).wall)
                _require_days(folder, "openrouter", YEAR)
    ratio = _ratio(ours, floor)
    against = f"{_s(ours)} against the floor's {_s(floor)} ({ratio:.2f}x)"
    rows = [Row("365 days as one backfill, SQLite event log", against, "<= 1.2x floor", ratio <= 1.2)]
    if scaffold_day:
        times = scaffold_day * YEAR / median(ours)
        rows.append(Row("the same, scaffold's day x 365", f"{times:.0f}x ours", ">= 100x faster", times >= 100))
    return rows


def event_log(bench: Bench) -> list[Row]:
    """Time a backfill with Dagster's state in SQLite, in Postgres, and in Postgres with batches of events."""
    work = f"{EVENT_DAYS} days as one backfill, Postgres event log, against SQLite"
    try:
        import dagster_postgres  # noqa: F401 - whether it is there

        from orpipeline_tests.servers import PostgresServer

        server = PostgresServer(bench.root / "postgres")
    except (ImportError, RuntimeError) as error:
        return [Row(work, f"not run: {error}", "report", None)]
    sqlite, postgres, batches = [], [], []
    with server, bench.world() as archived:
        bench.task(archived, "import", bench.responses[YEAR])
        (archived / "warehouse.duckdb").unlink()
        for number in range(bench.runs):
            for seconds, variables in ((sqlite, {}), (postgres, {}), (batches, BATCHES)):
                with bench.world(archived) as folder:
                    if seconds is not sqlite:
                        database = f"{'batches' if variables else 'single'}_{number}"
                        server.create_database(database)
                        _use_postgres(folder, server.url(database))
                    took = bench.task(folder, "backfill", bench.day(EVENT_DAYS - 1), bench.newest, variables=variables)
                    seconds.append(took.wall)
                    _require_days(folder, "openrouter", EVENT_DAYS)
    to_sqlite, to_single = _ratio(postgres, sqlite), _ratio(batches, postgres)
    return [
        Row(work, f"{_s(postgres)} against {_s(sqlite)} ({to_sqlite:.2f}x)", "report", None),
        Row(
            "the same with DAGSTER_EVENT_BATCH_SIZE=1000, against Postgres without",
            f"{_s(batches)} ({to_single:.2f}x; {_ratio(batches, sqlite):.2f}x SQLite)",
            "<= 0.7x",
            to_single <= 0.7,
        ),
    ]


def _use_postgres(folder: Path, url: str) -> None:
    """Let Dagster keep its state in a database."""
    url = url.replace("postgresql://", "postgresql+psycopg2://")  # as deploy/dagster.postgres.yaml explains
    storage = f"storage:\n  postgres:\n    postgres_url: {url}\n"
    (folder / "dagster_home" / "dagster.yaml").write_text(DAGSTER_YAML + storage)


def imports(bench: Bench) -> list[Row]:
    """Time imports into an empty warehouse, and measure what they store."""
    pure, reported, again, ten = [], [], [], []
    for _ in range(bench.runs):
        with bench.world() as folder:
            pure.append(bench.task(folder, "import", bench.responses[YEAR]).printed or 0)
            _require_days(folder, "openrouter", YEAR)
            sizes = f"archive {_size(folder / 'raw')}, warehouse {_size(folder / 'warehouse.duckdb')}"
        with bench.world() as folder:
            reported.append(bench.run(folder, OURS, "import", bench.responses[YEAR]).wall)
            again.append(bench.run(folder, OURS, "import", bench.responses[YEAR]).wall)
        with bench.world() as folder:
            ten.append(bench.task(folder, "import", bench.responses[TEN_YEARS]))
            _require_days(folder, "openrouter", TEN_YEARS)
            sizes_of_ten = f"archive {_size(folder / 'raw')}, warehouse {_size(folder / 'warehouse.duckdb')}"
    seconds, peak = [took.printed or 0 for took in ten], median(took.peak for took in ten) / 1e9
    raw = _size(bench.responses[YEAR])
    return [
        Row("365 days imported, bytes to leaderboard and published copy", _s(pure), "<= 4 s", median(pure) <= 4),
        Row("the same by the command, with Dagster's 3,285 materializations", _s(reported), "report", None),
        Row("the same again, with nothing new", _s(again), "report", None),
        Row("3,650 days imported", f"{_s(seconds)}, peak memory {peak:.2f} GB", "<= 1 GB", peak <= 1),
        Row("365 days on disk", f"{sizes}; the responses {raw}", "report", None),
        Row("3,650 days on disk", sizes_of_ten, "report", None),
    ]


def published(bench: Bench) -> Row:
    """Time what the published copy adds to a write, with a year of data."""
    with bench.world() as loaded:
        bench.task(loaded, "import", bench.responses[YEAR])
        seconds = [bench.task(loaded, "publish").printed or 0 for _ in range(bench.runs)]
    shown = f"{median(seconds) * 1000:.0f} ms"
    return Row("the published copy, added to a write, with 365 days", shown, "<= 1 s", median(seconds) <= 1)


def one_day_again(bench: Bench) -> Row:
    """Time one day that is already loaded, with ten years in the warehouse and with that day alone."""
    alone, many = [], []
    with bench.world() as one, bench.world() as ten:
        bench.task(one, "import", bench.responses[1])
        bench.task(ten, "import", bench.responses[TEN_YEARS])
        for _ in range(bench.runs):
            for seconds, copied in ((alone, one), (many, ten)):
                with bench.world(copied) as folder:
                    seconds.append(bench.run(folder, OURS, "run", "--date", bench.newest, "--fetch", "never").wall)
    ratio = _ratio(many, alone)
    against = f"{_s(many)} against {_s(alone)} ({ratio:.2f}x)"
    return Row("one day again with 3,650 days in the warehouse, against with 1", against, "<= 1.3x", ratio <= 1.3)


def code_location(bench: Bench) -> Row:
    """Time the import of the code location, and of its libraries alone."""
    ours, libraries = [], []
    with bench.world() as folder:
        for _ in range(bench.runs + 2):
            for seconds, code in ((libraries, LOAD_LIBRARIES), (ours, LOAD_OURS)):
                seconds.append(bench.run(folder, sys.executable, "-W", "ignore", "-c", code).wall)
    ours, libraries = ours[2:], libraries[2:]
    ratio = _ratio(ours, libraries)
    against = f"{_s(ours)} against {_s(libraries)} ({ratio:.2f}x)"
    return Row("loading the code location, against its libraries", against, "<= 1.25x", ratio <= 1.25)


def sensor_tick(bench: Bench) -> Row:
    """Time a tick of the sensor that skips."""
    seconds = []
    for _ in range(bench.runs):
        with bench.world() as folder:
            seconds.append(bench.task(folder, "tick").printed or 0)
    shown = f"{median(seconds) * 1000:.0f} ms"
    return Row("a sensor tick that skips", shown, "<= 50 ms", median(seconds) <= 0.05)


def _number(printed: str) -> float | None:
    try:
        return float(printed)
    except ValueError:
        return None


def _ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    return median(one / of for one, of in zip(seconds, base, strict=True))


def _s(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s"


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _require_days(folder: Path, schema: str, days: int) -> None:
    """Raise RuntimeError unless the tables have this many days."""
    with duckdb.connect(folder / "warehouse.duckdb", read_only=True) as connection:
        for table in ("task_classifications", "macro_categories", "task_models", "model_leaderboard"):
            query = f"SELECT count(DISTINCT as_of) FROM warehouse.{schema}.{table}"
            found = connection.execute(query).fetchall()[0][0]
            if found != days:
                raise RuntimeError(f"{table} has {found} days, not {days}")


def versions(python: str, packages: Sequence[str]) -> str:
    """Return the versions of packages as a Python has them."""
    code = "import sys, json, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return ", ".join(f"{name} {version}" for name, version in json.loads(done.stdout).items())


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="The number of rounds.")
@click.option("--scaffold-python", metavar="PATH", help="A Python with dagster-duckdb-pandas, to run the scaffold too.")
@click.option("--only", help="Only the work whose function has this name, such as imports.")
def main(runs: int, scaffold_python: str | None, only: str | None) -> None:
    """Time everything, and print the table."""
    rows: list[Row] = []
    scaffold_day: float | None = None
    with LocalApi() as api, tempfile.TemporaryDirectory(prefix="orpipeline_benchmark_") as root:
        bench = Bench(Path(root), api.base_url, runs)
        if only in (None, "one_day"):
            found, scaffold_day = one_day(bench, scaffold_python)
            rows += found
        for name, work in (
            ("report", lambda: report(bench)),
            ("backfill", lambda: backfill(bench, scaffold_day)),
            ("event_log", lambda: event_log(bench)),
            ("imports", lambda: imports(bench)),
            ("published", lambda: [published(bench)]),
            ("one_day_again", lambda: [one_day_again(bench)]),
            ("code_location", lambda: [code_location(bench)]),
            ("sensor_tick", lambda: [sensor_tick(bench)]),
        ):
            if only in (None, name):
                rows += work()
                click.echo(f"{name} done", err=True)
    click.echo(f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions(sys.executable, PACKAGES)}")
    if scaffold_python:
        click.echo(f"scaffold: {versions(scaffold_python, SCAFFOLD_PACKAGES)}")
    click.echo(f"Medians of {runs} rounds on {utc_now():%Y-%m-%d}:\n")
    click.echo("| work | measured | limit | |\n| --- | --- | --- | --- |")
    for row in rows:
        verdict = {None: "", True: "holds", False: "**missed**"}[row.holds]
        click.echo(f"| {row.work} | {row.measured} | {row.bar} | {verdict} |")


if __name__ == "__main__":
    main()

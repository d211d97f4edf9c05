"""How long one day takes, process start to end: ours, against Dagster's floor and two other ways.

    python benchmarks/one_day.py [--runs 3] [--scaffold-python <python with dagster-duckdb-pandas>]

Each round runs every variant once, so that whatever else the machine does falls on all of them; a round before the
first is not counted. Each run has its own new folder. The answer is made up, and comes over HTTP on the loopback
address. It needs orpipeline to be installed in the Python that runs it.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

import click
import duckdb

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.demo.api import KEY, DemoApi

HERE = Path(__file__).resolve().parent
TARGET = 1.5
"""What ours may take at most, as a multiple of the floor."""
EXPECTED_ROWS = {"task_classifications": 29, "macro_categories": 4, "task_models": 290}
"""How many rows the made-up answer has, whoever reads it."""
# The same for every variant with Dagster. SQLite in DAGSTER_HOME is its default.
DAGSTER_YAML = "telemetry:\n  enabled: false\n"
PACKAGES = ("dagster", "duckdb", "polars", "pandera", "httpx")
SCAFFOLD_PACKAGES = ("dagster", "dagster-duckdb-pandas", "duckdb", "pandas")


@dataclass
class Variant:
    """A way to do one day. `command` takes the day and the run's folder; times are in seconds, one a run."""

    name: str
    command: Callable[[date, Path], Sequence[str]]
    schema: str | None
    """The schema of its tables in the folder's `warehouse.duckdb`; None where it writes none."""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def variants(scaffold_python: str | None) -> list[Variant]:
    """Return what is compared, the floor first and ours second."""
    ours = str(Path(sysconfig.get_path("scripts")) / "orpipeline")
    found = [
        Variant("floor", lambda day, _: [sys.executable, str(HERE / "floor.py"), f"{day}"], None),
        Variant("ours", lambda day, _: [ours, "run", "--date", f"{day}"], "openrouter"),
        Variant("bare", lambda _, folder: [sys.executable, str(HERE / "bare.py"), str(folder)], "main"),
    ]
    if scaffold_python:
        command = [scaffold_python, str(HERE / "scaffold.py")]
        found.append(Variant("scaffold", lambda day, _: [*command, f"{day}"], "main"))
    return found


def run_once(variant: Variant, day: date, base_url: str, bytecode: Path) -> tuple[float, float]:
    """Run a variant in a new folder, and return the seconds and the CPU seconds from its start to its end.

    Raises RuntimeError where it fails, or where its tables do not hold the day.
    """
    with tempfile.TemporaryDirectory(prefix="one_day_") as name:
        folder = Path(name)
        home = folder / "dagster_home"
        home.mkdir()
        (home / "dagster.yaml").write_text(DAGSTER_YAML)
        command, environment = variant.command(day, folder), _environment(folder, home, base_url, bytecode)
        cpu, start = _children_cpu(), time.perf_counter()
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        wall, cpu = time.perf_counter() - start, _children_cpu() - cpu
        if done.returncode:
            raise RuntimeError(f"{variant.name} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        if variant.schema:
            _require_rows(variant, folder / "warehouse.duckdb", day)
        return wall, cpu


def _environment(folder: Path, home: Path, base_url: str, bytecode: Path) -> dict[str, str]:
    ours = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        # Bytecode that the warm-up wrote, for all alike: whether somebody's settings or installation keep any, and a
        # package that is run from its sources, would otherwise cost one variant what it does not cost another.
        "PYTHONPYCACHEPREFIX": str(bytecode),
        "DAGSTER_HOME": str(home),
        "ORPIPELINE_DATA_DIR": str(folder),
        "ORPIPELINE_BASE_URL": base_url,
        "OPENROUTER_API_KEY": KEY,
        "BENCHMARK_WAREHOUSE": str(folder / "warehouse.duckdb"),
        "NO_PROXY": "127.0.0.1",
    }


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _require_rows(variant: Variant, warehouse: Path, day: date) -> None:
    with duckdb.connect(warehouse, read_only=True) as connection:
        for table, expected in EXPECTED_ROWS.items():
            query = f"SELECT count(*) FROM warehouse.{variant.schema}.{table} WHERE as_of = ?"
            found = connection.execute(query, [day]).fetchall()[0][0]
            if found != expected:
                raise RuntimeError(f"{variant.name}: {table} has {found} rows of {day}, not {expected}")


def ratio(seconds: Sequence[float], floor: Sequence[float]) -> float:
    """Return how many times the floor a variant takes: the median of the rounds' own ratios."""
    return median(one / of for one, of in zip(seconds, floor, strict=True))


def table(compared: Sequence[Variant]) -> str:
    """Return the medians and the ratios as a Markdown table."""
    floor = compared[0]
    lines = [
        "| variant | seconds (min to max) | times the floor | CPU seconds (min to max) | times the floor's CPU |",
        "|---|---:|---:|---:|---:|",
    ]
    for v in compared:
        cells = (v.name, _range(v.wall), ratio(v.wall, floor.wall), _range(v.cpu), ratio(v.cpu, floor.cpu))
        lines.append("| {} | {} | {:.2f} | {} | {:.2f} |".format(*cells))
    return "\n".join(lines)


def _range(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def versions(python: str, packages: Sequence[str]) -> str:
    """Return the versions of packages as a Python has them."""
    code = "import sys, importlib.metadata as m; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True).stdout.strip()


@click.command()
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="How many rounds count.")
@click.option("--scaffold-python", metavar="PATH", help="A Python with dagster-duckdb-pandas, to run the scaffold too.")
def main(runs: int, scaffold_python: str | None) -> None:
    """Time one day in each variant, and print the medians."""
    compared = variants(scaffold_python)
    day = newest_completed_day(utc_now())
    with DemoApi() as api, tempfile.TemporaryDirectory(prefix="one_day_bytecode_") as bytecode:
        for number in range(runs + 1):
            for variant in compared:
                wall, cpu = run_once(variant, day, api.base_url, Path(bytecode))
                what = f"run {number}" if number else "warm-up"
                click.echo(f"{what}: {variant.name} {wall:.2f} s", err=True)
                if number:
                    variant.wall.append(wall)
                    variant.cpu.append(cpu)
    click.echo(f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions(sys.executable, PACKAGES)}")
    if scaffold_python:
        click.echo(f"scaffold: {versions(scaffold_python, SCAFFOLD_PACKAGES)}")
    click.echo(f"Medians of {runs} interleaved runs, one day each, process start to end:\n\n{table(compared)}\n")
    floor, ours = compared[:2]
    wall, cpu = ratio(ours.wall, floor.wall), ratio(ours.cpu, floor.cpu)
    # On a machine that is busy with other things, time says more of those than of us: both have to be met.
    verdict = "met" if max(wall, cpu) <= TARGET else "missed"
    click.echo(f"ours / floor: {wall:.2f} in time, {cpu:.2f} in CPU time; at most {TARGET} of both is {verdict}.")


if __name__ == "__main__":
    main()

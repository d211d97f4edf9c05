"""Other processes, for what one process alone cannot show: locks, kills, limits."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "True")
print("open", flush=True)
sys.stdin.read()
"""
_WRITE = "import sys, duckdb; duckdb.connect(sys.argv[1]).execute('CREATE SCHEMA written_by_another').fetchall()"


def run_python(code: str, *arguments: object) -> str:
    """Run code in another process, and return its output."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_another_process_can_write(database: Path) -> None:
    """Fail if this process has left the DuckDB file open."""
    run_python(_WRITE, database)


@contextmanager
def started(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start code in another process, and wait until it prints `open`. The code must end when its input ends."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            let_go(process)


@contextmanager
def held_open(database: Path, *, read_only: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Keep a DuckDB file open in another process."""
    with started(_HOLD, database, read_only) as process:
        yield process


def let_go(process: subprocess.Popen[str]) -> None:
    """End the process's input."""
    assert process.stdin is not None
    process.stdin.close()


@contextmanager
def let_go_at_the_first_warning(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process's input as soon as orpipeline warns that it waits for the process. Fail if it never does."""
    warned: list[str] = []

    class LetGo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warned.append(record.getMessage())
            let_go(process)

    handler = LetGo(logging.WARNING)
    logging.getLogger("orpipeline").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("orpipeline").removeHandler(handler)
    assert "Waiting" in warned[0]

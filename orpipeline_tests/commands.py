"""Running commands: in this process, or as an installed program if the test is about the process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from orpipeline.cli.commands import execute
from orpipeline.network import TESTING

ORPIPELINE = Path(sys.executable).with_name("orpipeline")
_FOREIGN = ("ORPIPELINE_", "OPENROUTER_", "DAGSTER_HOME")


def run_command(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    """Execute a command in this process, in a folder; return what it printed and its exit code.

    `encoding` is that of its terminal; other bytes are escaped as surrogates. The command has only the given variables
    of orpipeline's. Everything that it changes in this process is restored.
    """
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    with (
        _restored_process(),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        for name in [name for name in os.environ if _is_foreign(name)]:
            del os.environ[name]
        os.environ.update(environment or {})
        code = execute(arguments)
    printed = [stream.buffer.getvalue().decode(encoding, "surrogateescape") for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(arguments, code, *printed)


def run_program(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the installed `orpipeline` as a user does: in its own process, with only the given variables."""
    inherited = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
    return subprocess.run(
        [str(ORPIPELINE), *arguments],
        cwd=folder,
        env={**inherited, "COLUMNS": "100", "NO_COLOR": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _is_foreign(name: str) -> bool:
    return name.startswith(_FOREIGN) and name != TESTING


@contextlib.contextmanager
def _restored_process() -> Iterator[None]:
    environment = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)

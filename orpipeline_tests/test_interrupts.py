"""Ctrl-C and SIGTERM, once and several times, at different moments of a real command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from orpipeline.testing import LocalApi, Reply
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import ORPIPELINE

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the tests read /proc")

LINE = "orpipeline: interrupted; the archive and the tables are consistent."
Wait = Callable[[subprocess.Popen[str], LocalApi], None]


def _until_it_imports(process: subprocess.Popen[str], _: LocalApi) -> None:
    _wait_for(lambda: "polars" in Path(f"/proc/{process.pid}/maps").read_text())


def _until_a_run_waits_for_the_api(process: subprocess.Popen[str], api: LocalApi) -> None:
    _wait_for(lambda: bool(api.requests) or process.poll() is not None)
    time.sleep(0.5)  # processes that Dagster may have started are ready, too


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _hang(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read()  # returns when the client is gone


@pytest.fixture
def command(tmp_path: Path, api: LocalApi) -> Iterator[subprocess.Popen[str]]:
    """`orpipeline run` in a process group of its own, whose API sends nothing."""
    api.serve(Reply(act=_hang))
    environment = {
        **os.environ,
        "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
        "ORPIPELINE_BASE_URL": api.base_url,
        "OPENROUTER_API_KEY": KEY,
    }
    with subprocess.Popen(
        [str(ORPIPELINE), "run"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def _interrupted(process: subprocess.Popen[str], kind: signal.Signals, gaps: Sequence[float]) -> str:
    """Send a signal to the whole process group, as a terminal does, and again after each gap; return stderr."""
    for gap in (0.0, *gaps):
        time.sleep(gap)
        if process.poll() is None:
            os.killpg(process.pid, kind)
    return process.communicate(timeout=60)[1]


@pytest.mark.parametrize(
    ("moment", "kind", "gaps"),
    [
        (_until_a_run_waits_for_the_api, signal.SIGTERM, []),
        pytest.param(_until_it_imports, signal.SIGINT, [0.05], marks=pytest.mark.slow),
        pytest.param(_until_a_run_waits_for_the_api, signal.SIGINT, [0.0, 0.05], marks=pytest.mark.slow),
    ],
)
def test_signals_end_a_command_with_one_line_and_no_traceback(
    command: subprocess.Popen[str], api: LocalApi, moment: Wait, kind: signal.Signals, gaps: list[float]
) -> None:
    moment(command, api)
    stderr = _interrupted(command, kind, gaps)
    assert [line for line in stderr.splitlines() if line] == [LINE]  # an empty line may close the terminal's `^C`
    assert command.returncode == 130

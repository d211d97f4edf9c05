from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import dagster as dg
import httpx
import pytest

from orpipeline import read
from orpipeline.archive import Archive
from orpipeline.cli.commands import cli
from orpipeline.cli.dagster_runs import dagster_instance, prepare_dagster_home
from orpipeline.defs.build import build_defs
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.commands import ORPIPELINE, run_command, run_program

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
COMMANDS = ["demo", "dev", "run", "fetch", "import", "rebuild", "leaderboard", "export", "report", "doctor"]


# The demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo ran with 3 days, in spite of the user's own settings, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / ".env").write_text(f"ORPIPELINE_REPORTS={folder / 'own-reports'}\n")
    own = {
        "ORPIPELINE_DATA_DIR": str(folder / "data"),
        "ORPIPELINE_ARCHIVE": str(folder / "own-archive"),
        "ORPIPELINE_WAREHOUSE": str(folder / "own.duckdb"),
        "ORPIPELINE_START_DATE": "2026-08-01",
        "DAGSTER_HOME": str(folder / "own-home"),
    }
    done = run_program("demo", "--days", "3", folder=folder, environment=own)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_the_demo_prints_a_leaderboard_and_the_next_steps(demo: tuple[Path, str]) -> None:
    _, printed = demo
    assert "DEMO: made-up data\nShare of classified requests by model, " in printed
    assert len(re.findall(r"^ *\d+(?:\S\d+)?  +\w.*%", printed, re.MULTILINE)) == 10
    assert re.search(r"^ +1 +[A-Z]\w+ .*%", printed, re.MULTILINE)  # a name of the catalogue
    assert re.search(r"\n  /.*index.html  \(open it in a browser\)\n", printed)
    assert "orpipeline dev --demo" in printed
    assert "Source: OpenRouter" not in printed


def test_the_demo_changes_only_its_own_folder_and_fetches_the_newest_day_over_http(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    assert {path.name for path in folder.iterdir()} == {".env", "data"}
    assert {path.name for path in (folder / "data").iterdir()} == {"demo"}
    snapshots = read("snapshots", settings=Settings(data_dir=folder / "data" / "demo"))
    days = [YESTERDAY - timedelta(days=n) for n in (2, 1, 0)]
    assert snapshots.select("as_of", "origin").rows() == [(day, "demo") for day in days]
    assert snapshots["source"][-1].startswith("http://127.0.0.1:")
    assert str(YESTERDAY) in (folder / "data" / "demo" / "reports" / "index.html").read_text()


# Help and errors


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_whole_sentences_and_two_examples(tmp_path: Path, command: str) -> None:
    done = run_command(command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert f"Usage: orpipeline {command}" in done.stdout
    texts = [option.help for option in cli.commands[command].params if isinstance(option, click.Option)]
    assert [text for text in texts if not re.match(r"[A-Z].*\.(  \[default: .*\])?$", text or "")] == []
    _, examples = done.stdout.split("\n  Examples:\n")
    assert len(re.findall(rf"^    orpipeline {command}(?: |$)", examples, re.MULTILINE)) >= 2
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_every_example_is_a_valid_command() -> None:
    """Click parses each one as the shell passes it on, and runs nothing."""
    epilogs = [command.epilog or "" for command in (cli, *cli.commands.values())]
    lines = [line for epilog in epilogs for line in re.findall(r"^ *orpipeline (.*)$", epilog, re.MULTILINE)]
    assert len(lines) >= 2 * len(epilogs)
    for line in lines:
        name, *arguments = shlex.split(re.split(r" +(?:#|>|\|\|)", line)[0])
        with cli.commands[name].make_context(name, arguments):
            pass


def test_the_list_of_commands_cuts_no_sentence(tmp_path: Path) -> None:
    printed = run_command("--help", folder=tmp_path, environment={"COLUMNS": "60"}).stdout
    assert max(map(len, printed.split("\n\n  Examples")[0].splitlines())) <= 60
    assert re.findall(r"^(\w+):$", printed, re.MULTILINE) == ["Options", "Start", "Daily", "History"]
    for name in COMMANDS:
        assert f"{name} {cli.commands[name].short_help} " in " ".join(printed.split())
        assert (cli.commands[name].short_help or "").endswith(".")


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
def test_the_completion_that_bash_loads_completes_a_command(tmp_path: Path) -> None:
    script = """
eval "$(_ORPIPELINE_COMPLETE=bash_source orpipeline)"
complete -p orpipeline
COMP_WORDS=(orpipeline doc) COMP_CWORD=1
_orpipeline_completion orpipeline
echo "${COMPREPLY[@]}"
"""
    environment = {"PATH": f"{ORPIPELINE.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "complete -o nosort -F _orpipeline_completion orpipeline\ndoctor\n"


def test_fetch_imports_nothing_that_is_slow(tmp_path: Path, api: LocalApi) -> None:
    code = "import sys; from orpipeline.cli.commands import execute; print(execute(['fetch']), *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **_online(tmp_path, api)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert {"0", "httpx"} <= loaded
    assert loaded.isdisjoint({"dagster", "polars", "pandera", "pandas", "pyarrow", "duckdb", "resvg_py"})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["leaderboard"], 1, "The tables have no days yet"),
        (["leaderboard", "--demo"], 1, "data/demo yet. Run `orpipeline demo` first."),
        (["import", "--demo", "."], 1, "Run `orpipeline demo` first."),
        (["leaderboard", "--date", "2026-13-01"], 2, "'--date': '2026-13-01' is not a day. Write it as YYYY-MM-DD."),
        (["rebuild", "--to", "6 Oct"], 2, "'--to': '6 Oct' is not a day. Write it as YYYY-MM-DD."),
        (["leaderboard", "--top", "0"], 2, "'--top': 0 is not in the range x>=1."),
        (["run", "--date", "2020-01-01"], 2, "2020-01-01 is outside the daily partitions, 2026-06-17 to"),
        (["import", "missing-file"], 2, "missing-file: "),
        (["rebuild"], 1, "has no day in that range"),
        (["rebuild", "--from", "2026-10-02", "--to", "2026-10-01"], 2, "is after"),
        (["export", "--to", "out"], 1, "nothing to export"),
        (["report"], 1, "nothing to report"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_an_error_is_one_line_on_standard_error(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = run_command(*arguments, folder=tmp_path, environment={"ORPIPELINE_DATA_DIR": str(tmp_path / "data")})
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.startswith("orpipeline: ")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in run_command("--debug", "leaderboard", folder=tmp_path, environment=_data(tmp_path)).stderr


def test_dev_without_the_webserver_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dagster_webserver", None)
    done = run_command("dev", folder=tmp_path, environment=_data(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'orpipeline[ui]'" in done.stderr
    assert not (tmp_path / "data").exists()


# Settings


def _data(folder: Path) -> dict[str, str]:
    return {"ORPIPELINE_DATA_DIR": str(folder / "data")}


def _row(printed: str, name: str) -> str:
    """Return a line of `doctor` by its name, without its mark."""
    return next(line[17:] for line in printed.splitlines()[1:] if line[2:17].strip() == name)


def test_a_command_reads_the_env_file_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"ORPIPELINE_DATA_DIR={tmp_path / 'from-file'}\nORPIPELINE_BASE_URL=http://127.0.0.1:1/from-file\n"
    )
    done = run_command("doctor", folder=tmp_path)
    assert _row(done.stdout, "settings file") == str(tmp_path / ".env")
    assert _row(done.stdout, "API") == "http://127.0.0.1:1/from-file"
    # A variable that is set wins over the file.
    done = run_command("doctor", folder=tmp_path, environment={"ORPIPELINE_BASE_URL": "http://127.0.0.1:1/set"})
    assert _row(done.stdout, "API") == "http://127.0.0.1:1/set"
    assert str(tmp_path / "from-file") in _row(done.stdout, "archive")


def test_an_env_file_that_is_not_text_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    done = run_command("doctor", folder=tmp_path, environment=_data(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / ".env") in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["doctor", "--deep"], ["leaderboard"], ["leaderboard", "--demo"], ["report"], ["export", "--to", "x"]],
)
def test_a_command_that_reads_creates_nothing(tmp_path: Path, arguments: list[str]) -> None:
    run_command(*arguments, folder=tmp_path, environment=_data(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Runs


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Dagster's databases, created once: creating them takes longer than a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.setenv("DAGSTER_HOME", str(prepare_dagster_home(Settings(data_dir=tmp_path_factory.mktemp("home")))))
        with dagster_instance():
            pass
        yield Path(os.environ["DAGSTER_HOME"])


def _online(folder: Path, api: LocalApi) -> dict[str, str]:
    """Return the variables of a pipeline with an API key, whose API has yesterday's response."""
    api.serve(sample_response(YESTERDAY))
    return {**_data(folder), "ORPIPELINE_BASE_URL": api.base_url, "OPENROUTER_API_KEY": KEY}


@pytest.fixture
def online(tmp_path: Path, api: LocalApi, dagster_home: Path) -> dict[str, str]:
    return {**_online(tmp_path, api), "DAGSTER_HOME": str(dagster_home)}


def test_run_fetches_the_newest_day_once_and_names_the_files_that_it_wrote(
    tmp_path: Path, api: LocalApi, online: dict[str, str]
) -> None:
    del online["DAGSTER_HOME"]
    data, named = tmp_path / "data", []
    for options in ((), ("--no-report",)):
        done = run_command("run", *options, folder=tmp_path, environment=online)
        assert (done.returncode, done.stderr) == (0, "")
        first, files = done.stdout.split("\n", 1)
        assert first == f"{YESTERDAY} is in the archive and in the tables."
        named.append(_named_files(files))
    report = {
        "page": data / "reports" / "index.html",
        "dated": data / "reports" / str(YESTERDAY) / "index.html",
        "picture": data / "reports" / str(YESTERDAY) / "card.png",
    }
    assert named[1] == {
        "response": next((data / "raw" / "task_classifications").rglob("*.gz")),
        "warehouse": data / "warehouse.duckdb",
        "published": data / "reports" / "published" / "warehouse.duckdb",
    }
    assert named[0] == named[1] | report
    assert _named_files(run_command("report", folder=tmp_path, environment=online).stdout) == report
    with dg.DagsterInstance.from_config(str(data / "dagster")) as instance:
        runs = instance.get_runs()
    assert len(runs) == 2
    for run in runs:
        # What the UI needs to list a run under its job.
        assert run.tags[".dagster/repository"] == "__repository__@orpipeline"
        job = build_defs(Settings(data_dir=data)).resolve_job_def(run.job_name)
        assert dg.validate_run_config(job, run.run_config)
    assert len(api.requests) == 1
    assert Archive(data / "raw").days() == [YESTERDAY]


def _named_files(printed: str) -> dict[str, Path]:
    """Return the files that a command named, one a line. All of them must be there."""
    named = {name: Path(path) for name, path in (line.split(maxsplit=1) for line in printed.splitlines())}
    assert [path for path in named.values() if not path.is_file()] == []
    return named


def test_a_missing_key_is_one_clear_line_before_anything_starts(
    tmp_path: Path, api: LocalApi, online: dict[str, str]
) -> None:
    del online["OPENROUTER_API_KEY"]
    done = run_command("run", "--no-report", folder=tmp_path, environment=online)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "OPENROUTER_API_KEY is not set" in done.stderr
    assert not (tmp_path / "data").exists()
    assert api.requests + api.catalogue_requests == []
    # Without a request, no key is needed.
    Archive(tmp_path / "data" / "raw").put(
        sample_response(YESTERDAY), fetched_at=datetime.now(UTC), source="a test", origin="api"
    )
    assert run_command("run", "--no-report", folder=tmp_path, environment=online).returncode == 0


def test_a_wrong_key_is_one_clear_line_without_the_key(tmp_path: Path, api: LocalApi, online: dict[str, str]) -> None:
    refused = Reply(json.dumps({"error": {"code": 401, "message": f"bad key {KEY}"}}).encode(), 401)
    api.serve(refused)
    api.serve_catalogue(refused)
    done = run_command("run", "--no-report", folder=tmp_path, environment=online)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert (done.stdout + done.stderr).count("does not accept the key in OPENROUTER_API_KEY") == 1
    assert KEY not in done.stdout + done.stderr
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("variable", ["ORPIPELINE_DATA_DIR", "DAGSTER_HOME"])
def test_a_folder_that_cannot_be_created_is_one_clear_line(
    tmp_path: Path, online: dict[str, str], variable: str
) -> None:
    (tmp_path / "file").touch()
    online[variable] = str(tmp_path / "file" / "under")
    done = run_command("run", "--no-report", folder=tmp_path, environment=online)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "file") in done.stderr
    assert "ot a directory" in done.stderr
    assert KEY not in done.stderr


@pytest.mark.slow  # it starts four Dagster processes
def test_dev_shows_the_demo_and_ends_on_sigterm(demo: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(demo[0] / "data", tmp_path / "data")
    (tmp_path / ".env").write_text("ORPIPELINE_START_DATE=2026-08-01\n")
    # The demo's partitions begin with its own first day, whatever `.env` states.
    assert _partitions_in_dev(tmp_path, "--demo")[0] == (YESTERDAY - timedelta(days=2)).isoformat()


def _partitions_in_dev(folder: Path, *options: str) -> list[str]:
    """Return the daily partitions that `dev` shows, after it has ended on SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    background = "trap '' INT; exec \"$@\""  # a shell's background job ignores SIGINT
    with subprocess.Popen(
        ["sh", "-c", background, "sh", str(ORPIPELINE), "dev", *options, "--port", str(port)],
        cwd=folder,
        env={**os.environ, **_data(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            query = '{ partitions: assetNodes(assetKeys: [{path: ["openrouter", "snapshots"]}]) { partitionKeys } }'
            deadline = time.monotonic() + 120
            while (shown := _graphql(port, query)) is None:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()  # or the test would wait for it without end
    return shown["partitions"][0]["partitionKeys"]


def _graphql(port: int, query: str) -> dict[str, list[dict[str, list[str]]]] | None:
    """Return the response of the UI's API, or None until the server and its code location are ready."""
    try:
        reply = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}).json()
    except (httpx.TransportError, ValueError):
        return None
    data: dict[str, list[dict[str, list[str]]]] | None = reply.get("data")
    return data if data and data["partitions"] else None

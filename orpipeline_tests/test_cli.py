from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from orpipeline.archive.folder import Archive
from orpipeline_tests.answers import answer
from orpipeline_tests.commands import ORPIPELINE, run_command
from orpipeline_tests.scripted_api import KEY, Reply, ScriptedApi

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo has run (with 3 days), and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = run_command("demo", "--days", "3", folder=folder, environment={"ORPIPELINE_DATA_DIR": str(folder / "data")})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def _leaderboard(demo: tuple[Path, str], *arguments: str) -> str:
    folder, _ = demo
    done = run_command(
        "leaderboard", "--demo", *arguments, folder=folder, environment={"ORPIPELINE_DATA_DIR": str(folder / "data")}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_demo_prints_a_leaderboard_and_what_to_do_next(demo: tuple[Path, str]) -> None:
    _, said = demo
    assert "DEMO, made-up data" in said
    assert "demo-aurora/" in said
    assert "orpipeline dev --demo" in said
    assert "Source: OpenRouter" not in said


def test_the_demo_fetches_the_newest_day_over_http_and_keeps_to_its_own_folder(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    assert {path.name for path in (folder / "data").iterdir()} == {"demo"}
    with duckdb.connect(folder / "data" / "demo" / "warehouse.duckdb", read_only=True) as connection:
        rows = connection.execute("SELECT as_of, origin, source FROM openrouter.snapshots ORDER BY 1").fetchall()
    assert [(as_of, origin) for as_of, origin, _ in rows] == [
        (YESTERDAY - timedelta(days=n), "demo") for n in (2, 1, 0)
    ]
    assert rows[-1][2].startswith("http://127.0.0.1:")


def test_the_demo_touches_nothing_of_the_users_own(tmp_path: Path) -> None:
    own = {
        "ORPIPELINE_DATA_DIR": str(tmp_path / "data"),
        "ORPIPELINE_ARCHIVE": str(tmp_path / "own-archive"),
        "ORPIPELINE_WAREHOUSE": str(tmp_path / "own.duckdb"),
        "DAGSTER_HOME": str(tmp_path / "own-home"),
        "ORPIPELINE_START_DATE": "2026-08-01",
    }
    (tmp_path / ".env").write_text(f"ORPIPELINE_ARCHIVE={tmp_path / 'env-archive'}\n")
    done = run_command("demo", "--days", "1", folder=tmp_path, environment=own)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".env"}


def test_the_leaderboard_fits_80_columns(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    done = run_command(
        "leaderboard",
        "--demo",
        folder=folder,
        environment={"ORPIPELINE_DATA_DIR": str(folder / "data"), "COLUMNS": "80"},
    )
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"\d+\.\d%.*\d+\.\d%.*\d+\.\d%", done.stdout)


def test_the_leaderboards_formats_have_the_same_figures_and_the_citation(demo: tuple[Path, str]) -> None:
    as_json = json.loads(_leaderboard(demo, "--format", "json", "--top", "5", "--scope", "code"))
    as_csv = list(csv.DictReader(io.StringIO(_leaderboard(demo, "--format", "csv", "--top", "5", "--scope", "code"))))
    markdown = _leaderboard(demo, "--format", "md", "--top", "5", "--scope", "code")
    assert as_json["as_of"] == YESTERDAY.isoformat()
    assert as_json["scope"] == "code"
    assert [row["model_id"] for row in as_json["rows"]] == [row["model_id"] for row in as_csv]
    assert [row["usage_share"] for row in as_json["rows"]] == [float(row["usage_share"]) for row in as_csv]
    assert all(row["model_id"].replace("_", r"\_") in markdown for row in as_csv)
    assert f"**DEMO, made-up data: Model leaderboard, scope code, 7 days up to {YESTERDAY}**" in markdown
    for text in (as_json["citation"], as_csv[0]["citation"], markdown):
        assert "made up by orpipeline" in text


def test_an_earlier_day_can_be_shown(demo: tuple[Path, str]) -> None:
    day = (YESTERDAY - timedelta(days=2)).isoformat()
    assert json.loads(_leaderboard(demo, "--format", "json", "--date", day))["as_of"] == day


def test_a_closed_pipe_is_no_error(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; '{ORPIPELINE}' leaderboard --demo --format json | head -c 1"],
        env={**os.environ, "ORPIPELINE_DATA_DIR": str(folder / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "rror" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["leaderboard"], 1, "is empty. Run `orpipeline run` first."),
        (["leaderboard", "--date", "2026-13-01"], 2, "'2026-13-01' does not match"),
        (["leaderboard", "--top", "0"], 2, "--top"),
        (["run"], 1, "OPENROUTER_API_KEY is not set"),
        (["run", "--date", "2020-01-01"], 2, "2020-01-01 is outside the daily partitions, 2026-06-17 to"),
        (["run", "--date", "2999-01-01"], 2, "outside the daily partitions"),
        (["run", "--fetch", "sometimes"], 2, "'sometimes'"),
        (["demo", "--days", "0"], 2, "--days"),
        (["import", "nothing-is-here"], 2, "nothing-is-here: there is no file"),
        (["rebuild"], 1, "has no day in that range"),
        (["rebuild", "--from", "2026-10-02", "--to", "2026-10-01"], 2, "is after"),
        (["export", "--to", "out"], 1, "nothing to export"),
        (["report"], 1, "nothing to report"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_an_error_is_one_line_on_standard_error(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = run_command(*arguments, folder=tmp_path, environment={"ORPIPELINE_DATA_DIR": str(tmp_path / "data")})
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("orpipeline: ")
    assert "Traceback" not in done.stdout + done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run_command(
        "--debug", "leaderboard", folder=tmp_path, environment={"ORPIPELINE_DATA_DIR": str(tmp_path / "data")}
    )
    assert "Traceback" in done.stderr


def test_the_doctor_says_what_is_there_what_is_missing_and_what_is_used(tmp_path: Path, api: ScriptedApi) -> None:
    api.answers(answer(YESTERDAY))
    assert run_command("run", "--no-report", folder=tmp_path, environment=_asking(tmp_path, api)).returncode == 0
    archive = Archive(tmp_path / "data" / "raw")
    old = YESTERDAY - timedelta(days=3)
    archive.put(answer(old), fetched_at=datetime.now(UTC), source="a test", origin="import")
    done = run_command("doctor", folder=tmp_path, environment=_asking(tmp_path, api))
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert f"lost days 2: {YESTERDAY - timedelta(days=2)}, {YESTERDAY - timedelta(days=1)}" in said
    assert f"not in tables 1: {old}" in said
    assert "requests 1 of 30 in the last minute, 1 of 500 in the last 24 hours" in said
    assert KEY not in said


@pytest.mark.parametrize("command", ["demo", "dev", "run", "import", "rebuild", "leaderboard", "report", "export"])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    done = run_command(command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Usage: orpipeline" in done.stdout


def test_help_does_not_wait_for_dagster(tmp_path: Path) -> None:
    code = "import sys, orpipeline.cli.app; sys.exit(any(m in sys.modules for m in ('dagster', 'polars', 'pandera')))"
    done = subprocess.run([str(ORPIPELINE.with_name("python")), "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 0


def _asking(folder: Path, api: ScriptedApi, **more: str) -> dict[str, str]:
    return {
        "ORPIPELINE_DATA_DIR": str(folder / "data"),
        "ORPIPELINE_BASE_URL": api.base_url,
        "OPENROUTER_API_KEY": KEY,
        **more,
    }


def test_a_wrong_key_is_one_clear_line_without_the_key(tmp_path: Path, api: ScriptedApi) -> None:
    api.answers(Reply(json.dumps({"error": {"code": 401, "message": f"bad key {KEY}"}}).encode(), 401))
    done = run_command("run", "--no-report", folder=tmp_path, environment=_asking(tmp_path, api))
    assert done.returncode == 1
    assert "The API does not accept the key in OPENROUTER_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stdout + done.stderr
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_no_network_is_one_clear_line(tmp_path: Path, api: ScriptedApi) -> None:
    environment = _asking(tmp_path, api, ORPIPELINE_BASE_URL="http://127.0.0.1:9/api/v1")
    done = run_command("run", "--no-report", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "could not be reached" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["ORPIPELINE_DATA_DIR", "DAGSTER_HOME", "ORPIPELINE_ARCHIVE"])
def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, api: ScriptedApi, where: str) -> None:
    api.answers(answer(YESTERDAY))
    (tmp_path / "file").write_text("a file, no folder")
    environment = _asking(tmp_path, api, **{where: str(tmp_path / "file" / "under")})
    done = run_command("run", "--no-report", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "ot a directory" in done.stderr
    assert done.stderr.count("\n") == 1
    assert KEY not in done.stderr


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, api: ScriptedApi) -> None:
    environment = _asking(tmp_path, api, ORPIPELINE_BASE_URL="ftp://x", ORPIPELINE_START_DATE="soon")
    done = run_command("run", "--no-report", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "ORPIPELINE_BASE_URL" in done.stderr
    assert "ORPIPELINE_START_DATE" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path, api: ScriptedApi) -> None:
    """The disk is full for files above a size: the limit that a process can be given by `ulimit -f`."""
    api.answers(answer(YESTERDAY))
    environment = _asking(tmp_path, api)
    assert run_command("run", "--no-report", folder=tmp_path, environment=environment).returncode == 0
    warehouse = tmp_path / "data" / "warehouse.duckdb"
    with duckdb.connect(warehouse, read_only=True) as connection:
        before = connection.execute("FROM openrouter.task_models").fetchall()
    api.answers(answer(YESTERDAY, lambda data: data["classifications"][0].update(display_name="Restated")))
    # Room for the raw answer (8 blocks of 1 KiB), and for nothing larger.
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 16; exec '{ORPIPELINE}' run --fetch always"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    with duckdb.connect(warehouse, read_only=True) as connection:
        assert connection.execute("FROM openrouter.task_models").fetchall() == before


def test_state_stays_between_runs(tmp_path: Path, api: ScriptedApi) -> None:
    api.answers(answer(YESTERDAY))
    environment = _asking(tmp_path, api)
    for _ in range(2):
        assert run_command("run", "--no-report", folder=tmp_path, environment=environment).returncode == 0
    home = tmp_path / "data" / "dagster"
    assert (home / "dagster.yaml").is_file()
    assert len(list((home / "history" / "runs").glob("*-*.db"))) == 2
    assert len(api.asked) == 1
    assert date.fromisoformat(next((tmp_path / "data" / "raw").glob("2*")).name) == YESTERDAY

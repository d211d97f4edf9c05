"""What the commands print."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from orpipeline.cli.terminal import as_csv, moved, print_imported, print_leaderboard, print_line
from orpipeline.importing.importer import Imported
from orpipeline_tests.answers import DAY, one_tag_answer
from orpipeline_tests.commands import run_command
from orpipeline_tests.world import World

WEEK_BEFORE = DAY - timedelta(days=7)
CITATION = "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0."


@pytest.mark.parametrize(
    ("change", "first_seen", "known", "shown"),
    [
        (0.0123, WEEK_BEFORE, True, "▲1.2"),
        (-0.0123, WEEK_BEFORE, True, "▼1.2"),
        (0.0004, WEEK_BEFORE, True, "0.0"),
        (None, DAY, True, "new"),
        (None, WEEK_BEFORE + timedelta(days=1), True, "new"),
        (None, WEEK_BEFORE - timedelta(days=1), True, "back"),
        (None, DAY, False, ""),
    ],
)
def test_a_change_is_up_down_new_back_or_unknown(
    change: float | None, first_seen: date, known: bool, shown: str
) -> None:
    row = {"usage_share_change_7d": change, "first_seen": first_seen}
    assert moved(row, WEEK_BEFORE, known=known) == shown


def test_a_model_that_returns_is_back_and_not_new(tmp_path: Path, world: World) -> None:
    """One model is listed 8 days ago, not 7 days ago, and now; another one is listed for the first time."""
    stays = {"demo-a/stays": 0.4}
    for day, models in {
        DAY - timedelta(days=8): {**stays, "demo-a/returns": 0.3},
        WEEK_BEFORE: stays,
        DAY: {**stays, "demo-a/returns": 0.3, "demo-a/comes": 0.2},
    }.items():
        world.store(one_tag_answer(day, models))
        world.make_tables(day)
    environment = {"ORPIPELINE_DATA_DIR": str(world.folder)}
    table = run_command("leaderboard", folder=tmp_path, environment=environment).stdout
    column = {line.split()[2]: line.split()[5] for line in table.splitlines() if "demo-a/" in line}
    assert column == {"demo-a/stays": "0.0", "demo-a/returns": "back", "demo-a/comes": "new"}
    markdown = run_command("leaderboard", "--format", "md", folder=tmp_path, environment=environment).stdout
    assert markdown.startswith(f"**Model leaderboard, scope all, 7 days up to {DAY}**\n\n| # |")
    assert "| 2 | demo-a/returns | 30.0% | back |" in markdown
    other = run_command("leaderboard", "--date", "2026-09-01", folder=tmp_path, environment=environment)
    assert (other.returncode, len(other.stderr.splitlines())) == (1, 1)
    assert "no rows for 2026-09-01: they have 3 days" in other.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_citation_is_never_cut(world: World, width: int) -> None:
    world.store(one_tag_answer(DAY, {"demo-a/stays": 0.4}))
    world.make_tables(DAY)
    text = io.StringIO()
    rows = world.warehouse.read("model_leaderboard").filter(scope="all").with_columns(moved=pl.lit(""))
    print_leaderboard(Console(file=text, width=width), rows, title="t", citation=CITATION)
    assert text.getvalue().endswith(f"\n{CITATION}\n")


def test_text_is_printed_without_markup_and_control_characters() -> None:
    text = io.StringIO()
    print_line(Console(file=text, width=80), "log.jsonl:100: [red]:boom:[/red] \x1b[31m")
    assert text.getvalue() == "log.jsonl:100: [red]:boom:[/red] \\u001b[31m\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\\u0009=1"),
        ("\r=1", "'\\u000d=1"),
        ("\x1b=1", "'\\u001b=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a;=1,-1", "a;'=1,'-1"),
        ("a/b-c+d=e@f:free", "a/b-c+d=e@f:free"),
        ("", ""),
    ],
)
def test_csv_marks_text_that_a_spreadsheet_would_compute(text: str, cell: str) -> None:
    written = as_csv(pl.DataFrame({"name": [text, None], "change": [-0.5, None]}), CITATION)
    assert list(csv.reader(io.StringIO(written)))[1:] == [[cell, "-0.5", CITATION], ["", "", CITATION]]


def test_the_leaderboard_takes_any_number_of_models(tmp_path: Path, world: World) -> None:
    world.store(one_tag_answer(DAY, {"demo-a/stays": 0.4, "demo-a/more": 0.3}))
    world.make_tables(DAY)
    environment = {"ORPIPELINE_DATA_DIR": str(world.folder)}
    for top, count in (("1", 1), ("99999999999999999999", 2)):
        arguments = ("leaderboard", "--top", top, "--format", "json")
        done = run_command(*arguments, folder=tmp_path, environment=environment)
        assert len(json.loads(done.stdout)["rows"]) == count


def test_an_import_counts_days_once_and_names_all_missing_ones() -> None:
    text = io.StringIO()
    imported = Imported(new=[DAY], restated=[DAY, DAY], same=[DAY - timedelta(days=30)])
    missing = [DAY - timedelta(days=n) for n in range(29, 0, -1) if n != 15]
    print_imported(Console(file=text, width=80), imported, missing, dry_run=False)
    assert [line.split(maxsplit=1)[1] for line in text.getvalue().splitlines()[1:4]] == [
        "1 day, 2026-10-06",
        "1 day, 2026-09-06",
        "2 answers of 1 day, 2026-10-06",
    ]
    assert "28: 2026-09-07 to 2026-09-20, 2026-09-22 to 2026-10-05" in text.getvalue()


def test_an_error_shows_no_control_characters(tmp_path: Path) -> None:
    done = run_command("import", "\x1b[31mred", folder=tmp_path, environment={})
    assert (done.returncode, "\x1b" in done.stderr, "\\u001b[31mred" in done.stderr) == (2, False, True)


def test_json_has_the_day_on_which_a_model_was_first_seen(tmp_path: Path, world: World) -> None:
    world.store(one_tag_answer(DAY, {"demo-a/stays": 0.4}))
    world.make_tables(DAY)
    done = run_command(
        "leaderboard", "--format", "json", folder=tmp_path, environment={"ORPIPELINE_DATA_DIR": str(world.folder)}
    )
    assert json.loads(done.stdout)["rows"][0]["first_seen"] == DAY.isoformat()

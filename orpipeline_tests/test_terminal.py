"""What the commands print."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from rich.cells import cell_len
from rich.console import Console

from orpipeline.cli import terminal
from orpipeline.cli.board import moved
from orpipeline.cli.formats import as_csv
from orpipeline.cli.terminal import print_imported, print_line
from orpipeline.importing.importer import Imported
from orpipeline.testing import Task, sample_response
from orpipeline_tests.commands import run_command
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import World

WEEK_BEFORE = DAY - timedelta(days=7)
CITATION = "Source: OpenRouter (openrouter.ai/rankings), as of 2026-10-06. Licensed under CC BY 4.0."


@pytest.mark.parametrize(
    ("change", "first_seen", "shown"),
    [
        (0.0123, WEEK_BEFORE, "▲1.2"),
        (-0.0123, WEEK_BEFORE, "▼1.2"),
        (0.0004, WEEK_BEFORE, "0.0"),
        (None, DAY, "new"),
        (None, WEEK_BEFORE + timedelta(days=1), "new"),
        (None, WEEK_BEFORE - timedelta(days=1), "back"),
    ],
)
def test_a_change_is_up_down_new_or_back(change: float | None, first_seen: date, shown: str) -> None:
    assert moved({"usage_share_change_7d": change, "first_seen": first_seen}, WEEK_BEFORE) == shown


def load(world: World, *bodies: bytes) -> Path:
    """Load responses into the tables, and return the data folder."""
    for body in bodies:
        as_of = world.store(body).revision.as_of
        assert as_of
        world.make_tables(as_of)
    return world.folder


def leaderboard(data: Path, *arguments: str, width: int = 80) -> str:
    """Return what the command prints in a terminal of a width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal.out, "width", width)
        done = run_command("leaderboard", *arguments, folder=data, environment={"ORPIPELINE_DATA_DIR": str(data)})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def table_rows(printed: str) -> dict[str, list[str]]:
    """Return a table's cells by the name in the second column; without the bar and the lines between rows."""
    lines = printed.split("─\n", 1)[1].split("\n\n")[0].splitlines()
    cells = [[cell for cell in re.split(r" {2,}", line.strip()) if not re.match("[█▏▎▍▌▋▊▉]", cell)] for line in lines]
    return {row[1]: row for row in cells if len(row) > 2}


def test_a_model_that_returns_is_back_and_not_new(world: World) -> None:
    """One model is listed 8 days ago, not 7 days ago, and now; another one is listed for the first time."""
    stays = {"demo-a/stays": 0.4}
    data = load(
        world,
        sample_response(DAY - timedelta(days=8), [Task("code:debugging", models={**stays, "demo-a/returns": 0.3})]),
        sample_response(WEEK_BEFORE, [Task("code:debugging", models=stays)]),
        sample_response(DAY, [Task("code:debugging", models={**stays, "demo-a/returns": 0.3, "demo-a/comes": 0.2})]),
    )
    printed = leaderboard(data)
    assert re.search(r"since\n *rank .* 29 Sep\n", printed)
    assert {name: row[-1] for name, row in table_rows(printed).items()} == {
        "stays": "0.0",
        "returns": "back",
        "comes": "new",
    }
    markdown = leaderboard(data, "--format", "md")
    assert markdown.startswith(
        "**Share of classified requests by model, all tasks, 30 Sep to 6 Oct 2026**\n\nThe lists"
    )
    assert "| 2 | returns | demo-a | 30.0% | 30.0% | 30.0% | back |" in markdown
    # By tokens, and without the day to compare with, no change is known, so the column is not there.
    assert "since" not in leaderboard(data, "--by", "tokens")
    assert "since" not in leaderboard(data, "--date", str(WEEK_BEFORE))
    environment = {"ORPIPELINE_DATA_DIR": str(data)}
    other = run_command("leaderboard", "--date", "2026-09-01", folder=data, environment=environment)
    assert (other.returncode, len(other.stderr.splitlines())) == (1, 1)
    assert "no rows for 2026-09-01: they have 3 days" in other.stderr


LISTED_ONLY = "From here on, ranks are among listed models only: a model on no list has at most 5.0% of requests."


@pytest.mark.parametrize(
    ("shares", "notes"),
    [
        (
            (0.5, 0.2, 0.1, 0.1, 0.1),
            {2: "The order of the next 3 models is not known."},
        ),  # the lists leave nothing open
        ((0.1, 0.1, 0.1, 0.05), {0: "The order of the next 3 models is not known.", 3: LISTED_ONLY}),
        ((0.5, 0.2, 0.05), {2: LISTED_ONLY}),
        ((0.5, 0.2, 0.05, 0.05), {2: LISTED_ONLY}),  # two rows with the same ranks need no more words
        ((0.5, 0.2, 0.05, 0.05, 0.05), {2: f"The order of the next 3 models is not known. {LISTED_ONLY}"}),
        ((0.5, 0.1, 0.1, 0.1, 0.05), {1: "The order of the next 3 models is not known.", 4: LISTED_ONLY}),
        ((0.5, 0.3, 0.2), {}),
    ],
)
def test_a_line_is_above_the_rows_of_unknown_order_and_above_those_that_unlisted_models_can_pass(
    world: World, shares: Sequence[float], notes: Mapping[int, str]
) -> None:
    data = load(
        world,
        sample_response(
            DAY, [Task("code:debugging", models={f"demo-a/m{n}": share for n, share in enumerate(shares, start=1)})]
        ),
    )
    assert printed_notes(leaderboard(data)) == notes
    markdown = [line for line in leaderboard(data, "--format", "md").splitlines() if line.startswith("| ")][2:]
    lines = [n for n, line in enumerate(markdown) if line.startswith("|  |")]
    assert {n - above: markdown[n].strip("| ") for above, n in enumerate(lines)} == notes
    # The rows that are not printed are part of the group, too.
    assert printed_notes(leaderboard(data, "--top", "3")) == {place: notes[place] for place in notes if place < 3}


def printed_notes(printed: str) -> dict[int, str]:
    """Return the sentences between a table's rows, by the number of rows above them."""
    notes: dict[int, str] = {}
    place = 0
    for part in re.split(r"─+\n", printed.split("\n\n")[1] + "\n")[1:]:
        lines = part.splitlines()
        is_row = [re.match(r" *\d+(\S\d+)? +m\d", line) is not None for line in lines]
        if note := " ".join(line.strip() for line, of_row in zip(lines, is_row, strict=True) if not of_row):
            notes[place] = note
        place += sum(is_row)
    return notes


def test_rows_of_certain_ranks_can_be_below_those_of_unknown_order(world: World) -> None:
    shares = {f"demo-{n}/m{n}": share for n, share in enumerate((0.4, 0.16, 0.16, 0.16, 0.09), start=1)}
    data = load(world, sample_response(DAY, [Task("code:debugging", models=shares)]))
    note = "The order of the next 3 {} is not known."
    ranks = ["1", "2–4", "2–4", "2–4", "5"]  # noqa: RUF001
    printed = leaderboard(data)
    assert [row[0] for row in table_rows(printed).values()] == ranks
    assert printed_notes(printed) == {1: note.format("models")}
    authors = leaderboard(data, "--authors")
    assert [row[0] for row in table_rows(authors).values()] == ranks
    assert note.format("authors") in authors


def test_without_any_certain_rank_the_lead_tells_so_instead_of_a_line(world: World) -> None:
    data = load(world, sample_response(DAY, [Task("code:debugging", models={f"demo-{n}/m{n}": 0.1 for n in range(3)})]))
    for arguments in ((), ("--top", "1")):
        printed = leaderboard(data, *arguments)
        assert printed_notes(printed) == {}
        lead = " ".join(printed.split("\n\n")[0].splitlines()[1:]).replace("  ", " ")
        assert lead == (
            "The lists attribute 30.0% of requests to 3 models. A model on no list has at most 10.0% of requests, so "
            "all ranks are among listed models only. The order of the models is not known: each row shows its possible "
            "ranks."
        )
    lead = " ".join(leaderboard(data, "--authors").split("\n\n")[0].split())
    assert lead.endswith("The order of the authors is not known: each row shows its possible ranks.")


def test_ranks_hold_against_every_model_only_above_the_line_of_unlisted_models(world: World) -> None:
    """Rounding can move the first model's share, on 19 lists, below what an unlisted model can have; not the second's.

    `leaderboard_coverage` counts one model above that line, which is the second.
    """
    lists = {f"t{n}": {"demo-a/first": 0.053, f"demo-b/m{n}": 0.051} for n in range(19)}
    data = load(world, tags_response({**lists, "t19": {"demo-a/second": 1.0}}))
    document = json.loads(leaderboard(data, "--format", "json"))
    assert document["coverage"]["usage_models_above_unlisted"] == 1
    assert [row["model"] for row in document["rows"][:2]] == ["first", "second"]
    printed = leaderboard(data)
    assert "so all ranks are among listed models only" in " ".join(printed.split())
    assert "From here on, ranks are among listed models only" not in " ".join(printed.split())


def tags_response(lists: Mapping[str, Mapping[str, float]]) -> bytes:
    """Return a response whose tags have equal shares, and these models."""
    share = 1 / len(lists)
    shares = dict.fromkeys(("usage_share", "token_share", "category_usage_share", "category_token_share"), share)
    tags = [
        {
            "tag": tag,
            "display_name": tag,
            "macro_category": "general",
            **shares,
            "models": [{"id": name, "tag_usage_share": s, "tag_token_share": s} for name, s in models.items()],
        }
        for tag, models in lists.items()
    ]
    macros = [{"key": "general", "label": "General", "usage_share": 1.0, "token_share": 1.0}]
    data = {"as_of": str(DAY), "window_days": 7, "classifications": tags, "macro_categories": macros}
    return json.dumps({"data": data}).encode()


def test_a_name_is_whole_if_it_fits_and_keeps_its_beginning_and_end(world: World) -> None:
    names = ["qwen3-next-80b-a3b-instruct-2509", "nemotron-3-ultra-550b-a55b:free", "a" * 70 + "-mini"]
    shares = {f"demo-a/{name}": 0.4 - place / 10 for place, name in enumerate(names)}
    data = load(
        world, sample_response(DAY, [Task("code:debugging", models={**shares, "demo-a/ember-20261001:free": 0.01})])
    )
    wide = list(table_rows(leaderboard(data, width=150)))
    assert wide[:2] == names[:2]
    narrow = list(table_rows(leaderboard(data)))
    assert (narrow[0], narrow[1], narrow[3]) == (names[0], names[1], "ember:free")
    assert re.fullmatch(r"a+…a+-mini", narrow[2])
    # There is room for the author, whose name was left out.
    assert [row[2] for row in table_rows(leaderboard(data, width=150)).values()] == ["demo-a"] * 4
    assert "demo-a" not in leaderboard(data)


def test_the_table_fits_its_terminal_and_the_citation_is_never_cut(world: World) -> None:
    data = load(world, sample_response(WEEK_BEFORE), sample_response(DAY))
    last_headings = {
        (): "29 Sep",
        ("--by", "tokens"): "requests",
        ("--authors",): "top model",
        ("--scope", "code"): "29 Sep",
    }
    for (arguments, last_heading), width in product(last_headings.items(), (60, 80, 120)):
        *lines, last = leaderboard(data, *arguments, width=width).splitlines()
        assert last.startswith(CITATION)
        assert max(map(cell_len, lines)) <= width
        assert [line for line in lines if line.startswith(("rank", " rank")) and line.endswith(last_heading)]


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
    world.store(sample_response(DAY, [Task("code:debugging", models={"demo-a/stays": 0.4, "demo-a/more": 0.3})]))
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
        "2 responses of 1 day, 2026-10-06",
    ]
    assert "28: 2026-09-07 to 2026-09-20, 2026-09-22 to 2026-10-05" in text.getvalue()


def test_an_error_shows_no_control_characters(tmp_path: Path) -> None:
    done = run_command("import", "\x1b[31mred", folder=tmp_path, environment={})
    assert (done.returncode, "\x1b" in done.stderr, "\\u001b[31mred" in done.stderr) == (2, False, True)


def test_json_has_the_day_on_which_a_model_was_first_seen(tmp_path: Path, world: World) -> None:
    world.store(sample_response(DAY, [Task("code:debugging", models={"demo-a/stays": 0.4})]))
    world.make_tables(DAY)
    done = run_command(
        "leaderboard", "--format", "json", folder=tmp_path, environment={"ORPIPELINE_DATA_DIR": str(world.folder)}
    )
    assert json.loads(done.stdout)["rows"][0]["first_seen"] == DAY.isoformat()

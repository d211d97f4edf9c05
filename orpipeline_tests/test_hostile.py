"""Names, days and sizes that an attacker could choose: every output shows them as text, and their size is limited."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import csv
import html
import io
import json
import re
import time
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import polars as pl
import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from orpipeline.archive import Archive
from orpipeline.cli.leaderboard import Board, markdown_table, models_board, print_board
from orpipeline.cli.terminal import out
from orpipeline.contracts.findings import FINDINGS_SCHEMA
from orpipeline.contracts.tables import EXPORTED
from orpipeline.defs import metadata
from orpipeline.defs.alerts import alert_text
from orpipeline.load import Loaded, load_days
from orpipeline.report.data import ReportData
from orpipeline.report.files import csv_of
from orpipeline.report.page import render_embeds
from orpipeline.report.picture import card, render_card
from orpipeline.report.views import View
from orpipeline.report.wording import author_name, shown_name
from orpipeline.testing import sample_response
from orpipeline.testing.local_api import KEY
from orpipeline.text import one_line, plain
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.commands import run_command
from orpipeline_tests.hostile import NAMES
from orpipeline_tests.publishing import DESCRIPTION
from orpipeline_tests.report_data import NEWEST, Page, days_before, page_of, report_of, warehouse_of
from orpipeline_tests.responses import DAY, tag
from orpipeline_tests.world import NAMES as ASSETS
from orpipeline_tests.world import World

NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
ALL_NAMES = list(NAMES.values())
SHOWN = [plain(name) for name in ALL_NAMES]
SHORT = [shown_name(name, {}) for name in ALL_NAMES]
CITATION = "Source: a test."


# Twenty names in the frames of a day


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """A made-up day with a history of nine days, and enough models for twenty names."""

    def more_models(data: dict[str, Any]) -> None:
        for place in (1, 2):
            model = {"id": f"demo-more/{place}", "tag_usage_share": 0.0, "tag_token_share": 0.0}
            tag(data, "math")["models"].append(model)

    responses = {day: sample_response(day, change=more_models) for day in days_before(9)}
    return report_of(warehouse_of(tmp_path_factory.mktemp("hostile"), responses))


@pytest.fixture(scope="module")
def hostile(ordinary: ReportData) -> ReportData:
    """The same day; the names of its twenty first models and tasks, and of all its macro-categories, are hostile."""
    models = ordinary.models.sort("usage_rank", "model_id").filter(scope="all")["model_id"].to_list()
    tasks = ordinary.tasks.sort("usage_share", "tag", descending=[True, False])
    others = [tasks["tag"], tasks["display_name"], ordinary.macros["key"], ordinary.macros["label"]]
    columns = [models, *(column.to_list() for column in others)]
    new = {before: after for column in columns for before, after in zip(column, ALL_NAMES, strict=False)}

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        frame = frame.with_columns(pl.col(pl.String).replace(new))
        if "author" not in frame.columns:
            return frame
        model = "model_id" if "model_id" in frame.columns else "top_model"
        return frame.with_columns(author=pl.col(model).str.extract("(?s)^(.*?)/"))

    frames: dict[str, Any] = {
        field.name: renamed(frame)
        for field in fields(ordinary)
        if isinstance(frame := getattr(ordinary, field.name), pl.DataFrame)
    }
    frames["coverage"] = {new.get(scope, scope): row for scope, row in ordinary.coverage.items()}
    return replace(ordinary, snapshot={**ordinary.snapshot, "source": NAMES["HTML"]}, **frames)


@pytest.fixture(scope="module")
def board(hostile: ReportData) -> pl.DataFrame:
    """The leaderboard of the twenty names, in their order."""
    rows = hostile.models.sort("usage_rank", maintain_order=True).filter(scope="all").head(len(NAMES))
    assert rows["model_id"].to_list() == ALL_NAMES
    return rows


@pytest.fixture(scope="module")
def shown(hostile: ReportData) -> Board:
    """What the terminal and Markdown show of it."""
    return models_board(View(hostile, "all", NAMES["Markdown"], "usage"), "requests", len(NAMES))


def unprintable(text: str) -> set[str]:
    """Return the characters of a text that `plain` escapes, except for line ends."""
    return {character for character in text if plain(character) != character} - {"\n"}


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_each_name_without_markup_or_control_characters(
    hostile: ReportData, shown: Board, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(out, "width", width)
    with out.capture() as captured:
        print_board(shown, hostile, NAMES["line ends"], len(NAMES))
    text = captured.get()
    assert unprintable(text) == set()
    assert max(map(cell_len, text.rpartition("\n\n")[0].splitlines())) <= width
    assert text.endswith(plain(NAMES["line ends"]) + "\n")


def test_markdown_shows_each_name_as_the_text_of_a_cell(hostile: ReportData, shown: Board) -> None:
    written = markdown_table(shown, hostile, NAMES["line ends"])
    assert unprintable(written) == set()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(written)
    cells = [token.children or [] for token in tokens if token.type == "inline"]
    assert {part.type for cell in cells for part in cell} == {"text", "strong_open", "strong_close"}
    texts = ["".join(part.content for part in cell) for cell in cells]
    assert texts[-1] == plain(NAMES["line ends"])
    columns = sum(bool(column.heading) for column in shown.columns)
    ids = texts[2:][2::columns][: len(SHOWN) + 1]  # the third column, below the title and the sentence
    assert ids == ["id", *SHOWN]


def test_csv_shows_each_name_and_a_spreadsheet_computes_none(board: pl.DataFrame) -> None:
    written = csv_of(board, NAMES["formulas"]).decode("utf-8-sig")
    assert unprintable(written) == set()
    rows = list(csv.DictReader(io.StringIO(written)))
    shown = [name.replace("'", "") for name in SHOWN]
    assert [row["model_id"].replace("'", "") for row in rows] == shown
    assert all(float(row["usage_share"]) >= 0 for row in rows)
    for separator in (",", ";"):  # a spreadsheet may be set to either
        cells = [cell for row in csv.reader(io.StringIO(written), delimiter=separator) for cell in row]
        assert [cell for cell in cells if re.match(r"[=@]|[+-](?![0-9.]+(e-?[0-9]+)?(,|$))", cell)] == []


def test_the_page_shows_each_name_as_text_and_gets_no_element_from_it(
    ordinary: ReportData, hostile: ReportData
) -> None:
    written = page_of(hostile)
    page, other = Page(written), Page(page_of(ordinary))
    rows = [cells for cells in page.table("ranking").body if len(cells) > 1]
    assert [cells[1] for cells in rows[: len(SHOWN)]] == [
        f"{shown_name(name, {})} {author_name(name.split('/')[0] if '/' in name else None)}" for name in ALL_NAMES
    ]
    counts = [Counter(name for name, _ in one.tags) for one in (page, other)]
    assert counts[0] == counts[1]
    assert {name for _, given in page.tags for name in given} == {name for _, given in other.tags for name in given}
    assert written.count("</script") == sum(name == "script" for name, _ in page.tags)
    assert unprintable(page.everything) <= {"\N{NO-BREAK SPACE}"}
    assert set(SHOWN) <= {model for model, _, _ in page.data["history"]["models"]}


def test_the_embedded_parts_and_the_csv_show_each_name_as_text(ordinary: ReportData, hostile: ReportData) -> None:
    for name, part in render_embeds(hostile).items():
        tags = [Counter(tag for tag, _ in Page(one).tags) for one in (part, render_embeds(ordinary)[name])]
        assert tags[0] == tags[1]
    for one in (hostile.models, hostile.task_models):
        written = csv_of(one, NAMES["formulas"]).decode("utf-8-sig")
        assert unprintable(written) == set()
        for separator in (",", ";"):  # a spreadsheet may be set to either
            cells = [cell for row in csv.reader(io.StringIO(written), delimiter=separator) for cell in row]
            assert [cell for cell in cells if re.match(r"[=@]|[+-](?![0-9.]+(e-?[0-9]+)?(,|$))", cell)] == []


def test_the_picture_shows_each_name_as_text(ordinary: ReportData, hostile: ReportData) -> None:
    drawn = [ElementTree.fromstring(card(data)) for data in (ordinary, hostile)]
    assert render_card(hostile).startswith(b"\x89PNG")
    assert {element.tag for element in drawn[1].iter()} == {element.tag for element in drawn[0].iter()}
    texts = ["".join(element.itertext()) for element in drawn[1].iter("{http://www.w3.org/2000/svg}text")]
    assert unprintable("".join(texts)) == set()
    for name in ALL_NAMES[:6]:
        assert any(text.startswith(shown_name(name, {})[:8]) for text in texts), name


def test_an_alert_shows_each_name_in_one_line_and_notifies_nobody() -> None:
    for name in ALL_NAMES:
        message = alert_text(f"orpipeline: {NAMES['Slack']}", f"Rejected {name}")
        what, reason = message.split("\n")
        assert what.startswith("orpipeline: a/&lt;!channel&gt; ")
        assert html.unescape(reason) == f"Rejected {one_line(name)}"[:1500].replace("@", "\N{FULLWIDTH COMMERCIAL AT}")
        assert not {"<", ">", "@"} & set(message)
        assert unprintable(message) == set()
    assert alert_text("orpipeline", "&" * 2000).endswith("\n" + "&amp;" * 1500)


def test_dagsters_metadata_has_names_in_tables_only(hostile: ReportData, board: pl.DataFrame) -> None:
    found = [(NEWEST, "WARN", name, "task_models", "model_id", name, name) for name in ALL_NAMES]
    findings = pl.DataFrame(found, schema=FINDINGS_SCHEMA, orient="row")
    tables = {
        "top_10": metadata.leaderboard_metadata(board, {}),
        "largest_changes": metadata.trends_metadata(board, board, {}),
        "authors": {"authors": metadata.authors_metadata(hostile.authors)["top_10"]},
        "task_mix": metadata.tasks_metadata(hostile.tasks),
        "groups": metadata.macros_metadata(hostile.macros),
        "findings": {"findings": metadata.findings_table(findings)},
    }
    for name, shown in tables.items():
        cells = [cell for record in shown[name].records for cell in record.data.values()]
        authors = {plain(name.split("/")[0]) for name in ALL_NAMES}
        assert len({*ALL_NAMES, *SHORT, *authors} & set(cells)) >= 3
        for key, value in shown.items():
            if not isinstance(value, dg.TableMetadataValue):
                assert not [bad for bad in ALL_NAMES if bad in f"{key} {getattr(value, 'value', value)}"]


# From the response to every file and event


def _renamed(data: dict[str, Any]) -> None:
    ids = dict.fromkeys(model["id"] for task in data["classifications"] for model in task["models"])
    new = dict(zip(ids, ALL_NAMES, strict=False))
    for task, name in zip(data["classifications"], ALL_NAMES, strict=False):
        task["display_name"] = name
    for task in data["classifications"]:
        for model in task["models"]:
            model["id"] = new.get(model["id"], model["id"])
    for category, name in zip(data["macro_categories"], ALL_NAMES, strict=False):
        category["label"] = name


@pytest.mark.usefixtures("at_noon")
def test_names_stay_text_from_the_response_to_every_output(world: World, tmp_path: Path) -> None:
    source = "'; DROP TABLE openrouter.snapshots; --.json"
    world.archive.put(sample_response(DAY, change=_renamed), fetched_at=NOON, source=source, origin="import")
    assert world.run(DAY).success
    assert world.tables()["snapshots"][0]["source"] == source
    assert set(ALL_NAMES) <= set(world.warehouse.read("model_leaderboard")["model_id"])
    assert set(ALL_NAMES) <= set(world.warehouse.read("task_classifications")["display_name"])
    for asset in ASSETS.daily_assets:
        event = world.instance.get_latest_materialization_event(asset)
        assert event is not None
        assert event.asset_materialization is not None
        for value in event.asset_materialization.metadata.values():
            if not isinstance(value, dg.TableMetadataValue):
                assert not [name for name in ALL_NAMES if name in str(value.value)]
    environment = {
        "ORPIPELINE_DATA_DIR": str(world.folder),
        "ORPIPELINE_BASE_URL": "https://127.0.0.1:1/api/v1",  # `doctor` looks whether a test may send requests there
        "OPENROUTER_API_KEY": KEY,
    }
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in (
        *(("leaderboard", "--top", str(10**9), "--format", form) for form in ("table", "csv", "json", "md")),
        ("leaderboard", "--scope", NAMES["ANSI escapes"]),
        ("report",),
        ("export", "--to", "to"),
        ("doctor",),
        ("leaderboard", "--authors"),
    ):
        done = run_command(*arguments, folder=tmp_path, environment=environment)
        assert unprintable(done.stdout + done.stderr) == set(), arguments
        assert (done.returncode, done.stderr.count("\n")) == ((2, 1) if "--scope" in arguments else (0, 0)), done
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    reports = {world.folder / "reports" / name for name in ("index.html", "latest.json")}
    day = world.folder / "reports" / str(DAY)
    reports |= {day / name for name in ("index.html", "card.png", "leaderboard.csv", "tasks.csv", "report.json")}
    reports |= {day / "embed" / f"{name}.html" for name in ("ranking", "tasks", "changes")}
    exported = {tmp_path / "to" / name for name in DESCRIPTION}
    assert written == reports | exported | {tmp_path / "to" / f"{name}.parquet" for name in EXPORTED}


# Days, file names and sizes


def _load(folder: Path, body: bytes) -> tuple[Loaded, Warehouse]:
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    assert archive.put(body, fetched_at=NOON, source="a test", origin="import").revision.as_of == DAY
    return load_days(archive, warehouse, [DAY], now=NOON), warehouse


def _with_models(count: int) -> bytes:
    return sample_response(
        DAY,
        change=lambda data: tag(data, "math")["models"].extend(
            {"id": f"m/{n}", "tag_usage_share": 0.0, "tag_token_share": 0.0} for n in range(count)
        ),
    )


def _nested(depth: int) -> bytes:
    classifications = json.dumps(DAY.isoformat()) + ', "classifications": ' + "[" * depth + "]" * depth
    return ('{"data": {"as_of": ' + classifications + "}}").encode()


@pytest.mark.parametrize("body", [_nested(500), _with_models(100_000)], ids=["nested", "100,000 models"])
def test_an_absurd_response_is_rejected_quickly(tmp_path: Path, body: bytes) -> None:
    start = time.perf_counter()
    loaded, warehouse = _load(tmp_path, body)
    assert time.perf_counter() - start < 10
    assert DAY in loaded.validated.errors
    assert warehouse.read("task_models").is_empty()

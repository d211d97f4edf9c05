"""The documentation: its links lead somewhere, its SQL runs, and its generated reference is current."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import duckdb
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from orpipeline import read
from orpipeline.archive import Archive
from orpipeline.catalogue import CATALOGUE
from orpipeline.load import load_catalogues, load_days
from orpipeline.settings import API_KEY, Settings
from orpipeline.testing import Task, sample_response
from orpipeline.warehouse.warehouse import Warehouse, open_warehouse
from orpipeline_tests.reference import PAGES as GENERATED
from orpipeline_tests.reference import reference
from orpipeline_tests.world import local

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
PAGES = sorted([PROJECT / "README.md", *DOCS.glob("*.md"), *PROJECT.glob("benchmarks/*.md")])

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="these tests are installed without the documentation")


def _tokens(page: Path) -> Sequence[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def _headings(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each heading's text, and its anchor as GitHub makes it."""
    tokens = _tokens(page)
    seen: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(part.content for part in inline.children or [])
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            seen[anchor] = seen.get(anchor, -1) + 1
            yield text, f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor


def _links(page: Path) -> list[str]:
    parts = [part for token in _tokens(page) for part in token.children or []]
    return [str(target) for part in parts if (target := part.attrGet("href") or part.attrGet("src"))]


def test_every_link_within_the_documentation_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page in PAGES:
        for link in _links(page):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if "://" in link or (target.exists() and (not anchor or anchor in dict(_headings(target)).values())):
                continue
            broken.append(f"{page.name}: {link}")
    assert not broken


def test_the_readme_leads_to_every_page() -> None:
    assert {PROJECT / link.partition("#")[0] for page in PAGES for link in _links(page) if page.parent == PROJECT} >= {
        *DOCS.glob("*.md")
    }


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_is_current(page: str) -> None:
    assert (DOCS / page).read_text() == GENERATED[page](), "update it: python -m orpipeline_tests.reference"


def test_the_headings_of_troubleshooting_are_texts_that_the_code_shows() -> None:
    """`...` in a heading stands for what differs."""
    trees = [ast.parse(path.read_text()) for path in (PROJECT / "orpipeline").rglob("*.py")]
    shown = "\n".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    texts = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(texts) > 12
    assert not [part for text in texts for part in text.split("...") if part.strip() not in shown]


def test_the_readmes_query_shows_the_first_five_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r'python -c "\n(.*?)"\n', (PROJECT / "README.md").read_text(), re.DOTALL)
    assert code
    settings, day = Settings(data_dir=tmp_path), date(2026, 10, 6)
    archive = Archive(settings.archive)
    archive.put(sample_response(day), fetched_at=datetime(2026, 10, 7, 12, tzinfo=UTC), source="a test", origin="demo")
    load_days(archive, open_warehouse(settings), [day], now=datetime(2026, 10, 8, tzinfo=UTC))
    exec(dedent(code[1]).replace("data/demo/reports", str(settings.reports)))
    first = read("latest_leaderboard", settings=settings).sort("usage_rank")["model_id"][:6].to_list()
    shown = capsys.readouterr().out
    assert [model in shown for model in first] == [True] * 5 + [False]


def test_the_reference_has_every_setting_with_its_meaning_and_marks_secrets() -> None:
    text = reference()
    for name, field in Settings.model_fields.items():
        (row,) = re.findall(rf"^\| `ORPIPELINE_{name.upper()}` .*$", text, re.MULTILINE)
        assert field.description
        assert field.description in row
        assert ("secret" in row) == (name == "alert_webhook")
    assert re.search(rf"^\| `{API_KEY}` .*secret", text, re.MULTILINE)


FIRST, NEWEST = date(2026, 8, 24), date(2026, 10, 6)
MISSING, RESTATED = date(2026, 9, 15), date(2026, 9, 20)
SUNDAYS = [date(2026, 8, 30) + timedelta(weeks=n) for n in range(6)]


def _shares(day: date) -> dict[str, float]:
    """Return the shares of the only task's models: the first model changes on 11 September, and two come in October."""
    if day <= date(2026, 8, 30):
        return {"rival/one": 0.5, "author/mini": 0.1}
    if day <= date(2026, 9, 10):
        return {"rival/one": 0.5, "author/model": 0.3, "author/mini": 0.1}
    if day <= date(2026, 9, 30):
        return {"author/model": 0.4, "rival/one": 0.3, "author/mini": 0.1}
    return {"author/model": 0.4, "rival/one": 0.25, "late/comer": 0.2, "author/mini": 0.06, "late/small": 0.03}


CUT = date(2026, 9, 10)


def _model(model_id: str, usd_per_million: int, *, weights: str) -> dict[str, Any]:
    price = f"0.00000{usd_per_million}"
    pricing = {"prompt": price, "completion": price}
    created = 1_780_000_000
    named = {"id": model_id, "canonical_slug": model_id, "name": model_id.title(), "hugging_face_id": weights}
    return {**named, "created": created, "pricing": pricing}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What the SQL below each heading of the page returns, from six weeks of made-up days."""
    folder = tmp_path_factory.mktemp("sql")
    archive, warehouse = Archive(folder / "raw"), Warehouse(folder / "warehouse.duckdb")
    days = [day for n in range((NEWEST - FIRST).days + 1) if (day := FIRST + timedelta(days=n)) != MISSING]
    for day in days:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
        archive.put(
            sample_response(day, [Task("code:debugging", models=_shares(day))]),
            fetched_at=noon,
            source="a test",
            origin="import",
        )
    restated = sample_response(RESTATED, [Task("code:debugging", models={**_shares(RESTATED), "author/mini": 0.11})])
    archive.put(restated, fetched_at=datetime(2026, 9, 21, 22, tzinfo=UTC), source="a test", origin="import")
    assert not load_days(archive, warehouse, days, now=datetime(2026, 11, 1, tzinfo=UTC)).validated.errors
    for day in days:
        models = [
            _model("author/model", 1 if day >= CUT else 2, weights="hub/model"),
            _model("rival/one", 3, weights=""),
        ]
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)
        body = json.dumps({"data": models}).encode()
        archive.of(CATALOGUE).put(body, fetched_at=noon, source="a test", origin="import")
    load_catalogues(archive, warehouse, days, now=datetime(2026, 11, 1, tzinfo=UTC))
    with duckdb.connect(str(local(warehouse.place)), read_only=True) as connection:
        return {heading: _rows(connection, query) for heading, query in _queries(DOCS / "sql.md")}


def _queries(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the heading above each SQL block of a page, and the block."""
    tokens = _tokens(page)
    heading = ""
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            heading = token.content
        elif token.type == "fence" and token.info == "sql":
            yield heading, token.content


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_every_query_of_the_page_returns_what_the_page_promises(results: dict[str, list[dict[str, Any]]]) -> None:
    """The figures are calculated by hand: with one task, a model's share is its share of the task."""
    assert len(results) >= 12
    assert not [heading for heading, rows in results.items() if not rows]

    def of(heading: str, *columns: str) -> list[tuple[Any, ...]]:
        return [
            tuple(round(row[name], 6) if isinstance(row[name], float) else row[name] for name in columns)
            for row in results[heading]
        ]

    assert of("Ranks that are certain", "usage_rank", "model_id", "holds_against_every_model") == [
        (1, "author/model", True),
        (2, "rival/one", True),
        (3, "late/comer", True),
        (4, "author/mini", True),
        (5, "late/small", False),  # a model on no list can have 3%, too
    ]
    assert of("Open weights by task", "tag", "open_weights") == [("code:debugging", 0.4)]
    assert of("Open weights over time", "as_of", "open_weights")[-1] == (NEWEST, 0.4)
    assert of("The cheapest model among each task's top 10", "cheapest", "usd_per_million") == [("Author/Model", 2.0)]
    cut = of("What a price cut did to a share", "as_of", "prompt_price_before", "prompt_price", "share_before")
    assert cut == [(CUT, 2.0, 1.0, _shares(CUT - timedelta(days=1))["author/model"])]
    assert sum(models for (models,) in of("Models by age", "models")) == 5
    assert of("A model's history", "as_of")[0] == (date(2026, 8, 31),)
    first = ["rival/one"] * 2 + ["author/model"] * 4
    assert of("The first model of each week", "sunday", "model_id") == list(zip(SUNDAYS, first, strict=True))
    assert of("Each week of a model", "sunday", "usage_share") == list(
        zip(SUNDAYS[1:], [0.3, 0.4, 0.4, 0.4, 0.4], strict=True)
    )
    # The first of 6 weeks does not list the model: it then had at most 0.1, as the last listed one.
    average = of("The average of a model's last 12 weeks", "weeks", "weeks_listed", "at_least", "at_most")
    assert average == [(6, 5, round(1.9 / 6, 6), round(2.0 / 6, 6))]
    author = of("An author's share over time", "as_of", "usage_rank", "usage_share", "model_count", "top_model")
    assert author[0] == (FIRST, 2, 0.1, 1, "author/mini")
    assert author[-1] == (NEWEST, 1, 0.46, 2, "author/model")
    movers = of("Biggest movers over 7 days", "model_id", "change", "was_unlisted")
    assert movers[:3] == [("late/comer", 0.1, True), ("rival/one", -0.05, False), ("author/mini", -0.04, False)]
    assert {change for _, change, _ in movers[3:]} == {0.0}  # the small newcomer could have had 3% before
    newcomers = of("Newcomers of the last 30 days", "model_id", "first_listed")
    assert newcomers == [("late/comer", date(2026, 10, 1)), ("late/small", date(2026, 10, 1))]
    assert of("Missing days", "missing") == [(MISSING,)]
    coverage = ("as_of", "model_count", "usage_attributed", "unlisted_usage_upper", "usage_models_above_unlisted")
    assert of("Coverage of each day", *coverage)[-1] == (NEWEST, 5, 0.94, 0.03, 4)
    tasks = of("Tasks in which a model is first", "display_name", "task_share", "tag_usage_share", "ahead_by")
    assert tasks == [("Debugging", 1.0, 0.4, 0.15)]
    assert of("Macro-categories by week", "as_of", "code") == [(sunday, 1.0) for sunday in SUNDAYS]
    assert of("Where a figure comes from", "usage_share", "revision", "origin") == [(0.4, 1, "import")]
    assert of("What a share consists of", "display_name", "contribution") == [("Debugging", 0.4)]
    assert of("Restated days", "as_of", "revision") == [(RESTATED, 2)]

"""Text and sizes that somebody else chose: they are data, execute nowhere, and are bounded."""

from __future__ import annotations

import io
import resource
import time
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from orpipeline.cli.terminal import as_markdown, print_leaderboard
from orpipeline.snapshot import Fetch
from orpipeline_tests.answers import DAY, answer, tag
from orpipeline_tests.scripted_api import KEY, ScriptedApi
from orpipeline_tests.world import World, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")

HOSTILE = [
    "a/'; DROP TABLE openrouter.snapshots; --",
    'a/"quoted"',
    "a/<img src=x onerror=alert(1)>",
    "a/![](http://evil.invalid/x.png)",
    "a/../../../etc/passwd",
    "a/\x1b[31mred\x07",
    "a/\u202egnirts",
    "a/[bold]markup[/bold]",
    "a/| cell | cell",
    "a/\U0001f600",
]


def _bend(data: dict[str, Any]) -> None:
    task = tag(data, "math")
    task["display_name"] = HOSTILE[0]
    for model, name in zip(task["models"], HOSTILE, strict=True):
        model["id"] = name


def test_hostile_names_go_through_as_they_are_and_run_nowhere(world: World) -> None:
    world.keep(answer(bend=_bend))
    result = world.run(DAY)
    assert result.success
    rows = world.tables()
    assert {row["model_id"] for row in rows["task_models"] if row["tag"] == "math"} == set(HOSTILE)
    assert HOSTILE[0] in {row["display_name"] for row in rows["task_classifications"]}
    assert len(rows["snapshots"]) == 1


def test_hostile_names_cannot_speak_to_the_terminal_or_break_a_markdown_table(world: World) -> None:
    world.keep(answer(bend=_bend))
    world.run(DAY)
    board = world.warehouse.read("model_leaderboard").filter(scope="general").with_columns(moved=pl.lit(""))
    text = io.StringIO()
    print_leaderboard(Console(file=text, width=110), board, title="t", citation="c")
    for said in (text.getvalue(), as_markdown(board, title="t", citation="c")):
        assert "\x1b" not in said
        assert "\x07" not in said
        assert "\u202e" not in said
    assert "[bold]markup[/bold]" in text.getvalue()
    lines = [line for line in as_markdown(board, title="t", citation="c").splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}
    assert "<img" not in as_markdown(board, title="t", citation="c")


@pytest.fixture
def asking(world: World, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    return World(world.folder, world.instance, api.base_url)


@pytest.mark.parametrize("as_of", ["../../x", "/etc/passwd", "2026-10-06/../..", "2026-10-06\x00", "C:\\x"])
def test_a_path_for_a_day_is_kept_aside(asking: World, api: ScriptedApi, as_of: str) -> None:
    api.answers(answer(bend=lambda data: data.update(as_of=as_of)))
    failure = failure_of(asking.run(DAY, fetch=Fetch.auto))
    assert "states no day" in str(failure.description)
    outside = [path for path in asking.folder.parent.rglob("*.json.gz") if "undated" not in path.parts]
    assert outside == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"data": {"as_of": "2026-10-06", "x": "' + b"y" * 11_000_000 + b'"}}',
        answer(
            bend=lambda data: tag(data, "math")["models"].extend(
                {"id": f"m/{n}", "tag_usage_share": 0.0, "tag_token_share": 0.0} for n in range(100_000)
            )
        ),
    ],
    ids=["deep nesting", "11 MB", "100,000 models"],
)
def test_an_absurd_answer_is_refused_in_bounded_memory_and_time(asking: World, api: ScriptedApi, body: bytes) -> None:
    api.answers(body)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    failure_of(asking.run(DAY, fetch=Fetch.auto))
    assert time.perf_counter() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    assert all(not rows for rows in asking.tables().values())

"""The report's page: one self-contained HTML file.

Its content security policy blocks all loading and every script except its own. Figures and names are in the page as
JSON that is escaped for HTML, or as text that the template escapes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from orpipeline.clock import missing_days
from orpipeline.contracts.rules import ALL, COMPARED_DAYS
from orpipeline.report import ranking, rows, wording
from orpipeline.report.colours import PAGE, author_slot, page_variables
from orpipeline.report.compiled import page_charts
from orpipeline.report.data import ReportData
from orpipeline.report.history import history, history_table
from orpipeline.report.periods import drawn_step
from orpipeline.report.story import story
from orpipeline.text import plain

TABLE_ROWS = 100
"""The maximum number of models in a table of the page."""
_LIST_ROWS = 15
_FINDING_ROWS = 20
_FOLDER = Path(__file__).parent
_SCRIPTS = ("wording.js", "state.js", "charts.js", "history.js", "tables.js", "exports.js", "page.js")
# These five could end the script element, or a line in old JavaScript engines.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}
_BREAKS = re.compile(r"(?<=[/:_.\-])(?=\w)")


def render_page(data: ReportData) -> str:
    """Return a day's report as HTML. The same data always gives the same text."""
    tasks, moved = _tasks(data), rows.mover_rows(data, PAGE)
    shown = history(data, PAGE) if len(data.days) > 1 else None
    chart_rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "models": ranking.model_rows(data, PAGE),
        "authors": ranking.author_rows(data, PAGE),
        "mix": rows.task_mix_rows(data, PAGE),
        "movers": moved,
        "task_models": ranking.task_rows(data, PAGE),
        "task_authors": ranking.task_author_rows(data, PAGE),
    }
    early, vega, script = _read("html/theme.js"), _vega(), _script()
    scopes = ranking.scopes(data)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            snapshot=data.snapshot,
            policy=_policy(early, vega, script),
            css=_read("html/page.css"),
            variables=page_variables(),
            early_script=early,
            vega=vega,
            script=script,
            charts=_json(page_charts()),
            rows=_json({name: _columns(listed) for name, listed in chart_rows.items()}),
            history=_json(shown),
            facts=_json(_facts(data)),
            scopes=scopes,
            measures=wording.MEASURES,
            story=story(data),
            boards={scope: _board(data, scope) for scope in scopes},
            author_boards={scope: _authors(data, scope) for scope in scopes},
            mix=chart_rows["mix"],
            tables=_history_tables(data, shown),
            step=drawn_step(data.days, data.as_of),
            gaps=wording.range_texts(missing_days(data.days)),
            movers=moved,
            newcomers=_newcomers(data),
            departed=data.departed.to_dicts(),
            tasks=tasks,
            findings=data.warnings.head(_FINDING_ROWS).to_dicts(),
            finding_count=len(data.warnings),
            lost=wording.range_texts(data.lost_days),
            since=ranking.since_text(data),
            limits={"table": TABLE_ROWS, "list": _LIST_ROWS, "compared": COMPARED_DAYS},
        )
    )


def _facts(data: ReportData) -> dict[str, Any]:
    """Return what the page's script needs to name the data: its day, its source, and whether it is made up."""
    return {
        "as_of": data.as_of.isoformat(),
        "citation": plain(data.snapshot["citation"]),
        "demo": data.is_demo,
        "since": ranking.since_text(data),
        "window": wording.window_text(data.as_of, data.snapshot["window_days"]),
    }


def _board(data: ReportData, scope: str) -> dict[str, Any]:
    """Return a scope's models for the table: the first ones by requests, and how many there are."""
    of_scope = data.leaderboard.filter(scope=scope)
    listed = ranking.ranked(of_scope, "usage", "model_id")
    return {
        "rows": [row | {"moved": ranking.moved_text(row, data)} for row in listed[:TABLE_ROWS]],
        "count": len(listed),
        "certain": _certain(of_scope),
        "coverage": data.coverage[scope],
    }


def _authors(data: ReportData, scope: str) -> dict[str, Any]:
    of_scope = data.authors.filter(scope=scope)
    return {
        "rows": ranking.ranked(of_scope, "usage", "author")[:TABLE_ROWS],
        "count": len(of_scope),
        "certain": _certain(of_scope),
    }


def _certain(of_scope: pl.DataFrame) -> dict[str, int]:
    """Return how many ranks are certain, for each measure."""
    return {
        measure: of_scope.filter(pl.col(f"{measure}_rank_best") == pl.col(f"{measure}_rank_worst")).height
        for measure in wording.MEASURES
    }


def _tasks(data: ReportData) -> list[dict[str, Any]]:
    """Return the tasks that list models, those with most requests first, with their models by requests and tokens."""
    labels = dict(zip(data.macros["key"], data.macros["label"], strict=True))
    ordered = data.tasks.sort("usage_share", "tag", descending=[True, False])
    return [
        task
        | {
            "macro": labels.get(task["macro_category"], task["macro_category"]),
            "models": data.task_lists[task["tag"]].head(TABLE_ROWS).to_dicts(),
            "rankings": {measure: ranking.task_ranking(data, task["tag"], measure) for measure in wording.MEASURES},
        }
        for task in ordered.iter_rows(named=True)
        if task["tag"] in data.task_lists
    ]


def _newcomers(data: ReportData) -> list[dict[str, Any]]:
    """Return the models first listed in the last `COMPARED_DAYS` days; none if the history is too short to tell."""
    newcomers = data.leaderboard.filter(pl.col("scope") == ALL, pl.col("first_seen") > data.compared_day)
    return ranking.ranked(newcomers, "usage", "model_id") if data.days[0] <= data.compared_day else []


def _history_tables(data: ReportData, shown: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the tables of the history's charts by kind and measure; none without a history."""
    if shown is None:
        return {}
    return {
        kind: {measure: history_table(shown, kind, measure, data.drawn) for measure in wording.MEASURES}
        for kind in ("models", "authors", "macros")
    }


def _columns(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as columns, which take less space; None if a row lacks a column.

    A column with many repeated values is `{"of": [distinct values], "at": [the index of each row's value]}`.
    """
    names = dict.fromkeys(name for row in listed for name in row)
    return {name: _column([row.get(name) for row in listed]) for name in names}


def _column(values: list[Any]) -> Any:
    distinct = list(dict.fromkeys(values))
    if 2 * len(distinct) > len(values):
        return values
    places = {value: place for place, value in enumerate(distinct)}
    return {"of": distinct, "at": [places[value] for value in values]}


def _json(value: object) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _vega() -> str:
    """Return Vega and its interpreter of expressions as one script."""
    return "\n".join(_read(f"vega/{name}") for name in ("vega.min.js", "vega-interpreter.min.js"))


def _script() -> str:
    """Return the page's own files as one script."""
    parts = "\n".join(_read(f"html/{name}") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _policy(*scripts: str) -> str:
    """Return a content security policy that allows these scripts and blocks all loading."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "name": _name,
        "percent": wording.percent,
        "points": wording.points,
        "day": wording.day_text,
        "instant": _instant_text,
        "size": wording.size_text,
        "counted": wording.count_text,
        "author_slot": author_slot,
        "move_text": wording.move_text,
    }
    environment.globals |= {
        "author_of": ranking.author_of,
        "rank_range": wording.rank_range,
        "unknown": wording.UNKNOWN,
        "window_text": wording.window_text,
    }
    return environment


def _name(text: str) -> Markup:
    """Return a name as HTML, isolated from the text around it. A line may break only after its punctuation."""
    return Markup("<bdi>{}</bdi>").format(Markup("<wbr>").join(escape(part) for part in _BREAKS.split(plain(text))))


def _instant_text(instant: datetime) -> str:
    return f"{wording.day_text(instant.astimezone(UTC).date())}, {instant.astimezone(UTC):%H:%M:%S} UTC"

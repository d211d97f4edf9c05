"""The report's page: one self-contained HTML file.

Its content security policy blocks all loading and every script except its own three. Figures and names are in the page
as JSON that is escaped for HTML, or as text that the template escapes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orpipeline.contracts.rules import ALL
from orpipeline.days import missing_days
from orpipeline.report import history_rows, rows, wording
from orpipeline.report.charts.compiled import both_widths
from orpipeline.report.charts.history import macro_history, model_history
from orpipeline.report.charts.leaderboard import leaderboard
from orpipeline.report.charts.movers import movers
from orpipeline.report.charts.tasks import task_mix, task_models
from orpipeline.report.colours import PAGE, author_slot, macro_slot, page_variables
from orpipeline.report.data import COMPARED_DAYS, TOP_MODELS, ReportData
from orpipeline.text import plain

TABLE_ROWS = 100
"""The maximum number of models in a table of the page."""
_LIST_ROWS = 15
_FINDING_ROWS = 20
_FOLDER = Path(__file__).parent
# These five could end the script element, or a line in old JavaScript engines.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}


def render_page(data: ReportData) -> str:
    """Return a day's report as HTML. The same data always gives the same text."""
    lines = tuple(history_rows.top_series(data, PAGE))
    areas = history_rows.macro_history_rows(data, PAGE)
    mix = rows.task_mix_rows(data, PAGE)
    moved = rows.mover_rows(data, PAGE)
    chart_rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "leaderboard": rows.leaderboard_rows(data, PAGE),
        "mix": mix,
        "lines": history_rows.model_history_rows(data, lines),
        "line_labels": history_rows.model_labels(lines),
        "areas": areas,
        "area_labels": history_rows.macro_labels(data, areas),
        "movers": moved,
        "task_models": rows.task_model_rows(data, PAGE),
    }
    tasks = _tasks(data)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    early = (_FOLDER / "theme.js").read_text(encoding="utf-8")
    bundle = _bundle()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            data=data,
            snapshot=data.snapshot,
            policy=_policy(early, bundle, script),
            css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
            variables=page_variables(),
            early_script=early,
            bundle=bundle,
            script=script,
            charts=_json(_charts(data, lines, tasks, has_movers=bool(moved))),
            rows=_json({name: _columns(listed) for name, listed in chart_rows.items()}),
            scopes=rows.scopes(data),
            measures=rows.MEASURES,
            story=_story(data),
            leaderboards={scope: _leaderboard(data, scope) for scope in rows.scopes(data)},
            leaderboard_sizes=dict(data.leaderboard.group_by("scope").len().iter_rows()),
            mix=mix,
            has_history=len(data.days) > 1,
            history=_history_table(data, lines),
            step=history_rows.drawn_step(data.days, data.as_of),
            gaps=_gaps(data),
            lines=lines,
            movers=moved,
            compared_known=data.compared_day in data.days,
            newcomers=_newcomers(data),
            departed=data.departed.to_dicts(),
            has_week=data.days[0] <= data.compared_day,
            tasks=tasks,
            findings=data.warnings.head(_FINDING_ROWS).to_dicts(),
            finding_count=len(data.warnings),
            lost=wording.range_texts(data.lost_days),
            limits={
                "table": TABLE_ROWS,
                "list": _LIST_ROWS,
                "compared": COMPARED_DAYS,
                "lines": TOP_MODELS,
            },
        )
    )


def _charts(
    data: ReportData, lines: tuple[history_rows.Series, ...], tasks: Sequence[Mapping[str, Any]], *, has_movers: bool
) -> dict[str, Any]:
    """Return the Vega of each chart that the day has, by the chart's name."""
    vega: dict[str, Any] = {
        "leaderboard": both_widths(leaderboard, PAGE, ("leaderboard",)),
        "mix": both_widths(task_mix, PAGE, ("mix",)),
    }
    if len(data.days) > 1:
        vega["lines"] = both_widths(model_history, PAGE, ("lines", "line_labels"), lines)
        vega["areas"] = both_widths(macro_history, PAGE, ("areas", "area_labels"))
    if has_movers:
        vega["movers"] = both_widths(movers, PAGE, ("movers",))
    if tasks:
        vega["task_models"] = both_widths(task_models, PAGE, ("task_models",), tasks[0]["tag"])
    return vega


def _story(data: ReportData) -> dict[str, Any]:
    """Return the facts of the headline and the tiles, and the tasks whose two measures differ most."""
    board, called = data.leaderboard.filter(scope=ALL), rows.chart_names(data)
    ranked = [row | {"name": called[row["model_id"]]} for row in board.iter_rows(named=True)]
    leaders = [row for row in ranked if row["usage_rank"] == 1]
    followers = [row for row in ranked if row["usage_rank"] > 1]
    by_tokens = [row for row in ranked if row["token_rank"] == 1]
    gaps = data.tasks.with_columns(gap=pl.col("token_share") - pl.col("usage_share")).sort("gap", "tag")
    moved = board.filter(pl.col("usage_share_change_7d") != 0).sort(
        pl.col("usage_share_change_7d").abs(), "model_id", descending=[True, False]
    )
    return {
        "leaders": leaders,
        "second": followers[0] if followers else None,
        "token_leaders": by_tokens,
        "fewer_tokens": gaps.row(0, named=True),
        "more_tokens": gaps.row(-1, named=True),
        "mover": {**moved.row(0, named=True), "name": called[moved["model_id"][0]]} if len(moved) else None,
        "is_comparable": board["usage_share_change_7d"].is_not_null().any(),
        "model_count": len(ranked),
    }


def _leaderboard(data: ReportData, scope: str) -> list[dict[str, Any]]:
    of_scope = data.leaderboard.filter(scope=scope).head(TABLE_ROWS)
    return [row | {"moved": rows.moved_text(row, data)} for row in of_scope.iter_rows(named=True)]


def _tasks(data: ReportData) -> list[dict[str, Any]]:
    """Return the tasks that list models, those with most requests first, with their models and unlisted shares."""
    models = data.task_models.partition_by("tag", as_dict=True, maintain_order=True)
    labels = dict(zip(data.macros["key"], data.macros["label"], strict=True))
    ordered = data.tasks.sort("usage_share", "tag", descending=[True, False])
    return [
        task
        | {
            "macro": labels.get(task["macro_category"], task["macro_category"]),
            "models": models[task["tag"],].head(TABLE_ROWS).to_dicts(),
            "rest": {
                share: max(0.0, round(1 - float(models[task["tag"],][share].sum()), 6))
                for share in ("tag_usage_share", "tag_token_share")
            },
        }
        for task in ordered.iter_rows(named=True)
        if (task["tag"],) in models
    ]


def _newcomers(data: ReportData) -> list[dict[str, Any]]:
    """Return the models first listed in the last `COMPARED_DAYS` days; none if the history is too short to tell."""
    newcomers = data.leaderboard.filter(pl.col("scope") == ALL, pl.col("first_seen") > data.compared_day)
    return newcomers.to_dicts() if data.days[0] <= data.compared_day else []


def _history_table(data: ReportData, lines: Sequence[history_rows.Series]) -> list[dict[str, Any]]:
    """Return the drawn days, newest first, with the share of each line and macro-category."""
    slots = history_rows.drawn_days(data.days, data.as_of)
    macros = {(row["as_of"], row["key"]): row for row in data.macro_history.iter_rows(named=True)}
    return [
        {
            "day": slots[index][0],
            "there": slots[index][1],
            "shares": {line.key: line.shares[index] for line in lines},
            "macros": {key: macros.get((slots[index][0], key)) for key in data.macros["key"]},
        }
        for index in reversed(range(len(slots)))
    ]


def _gaps(data: ReportData) -> list[str]:
    """Return the days missing from the tables between their first day and this one."""
    return wording.range_texts(missing_days(data.days))


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


@cache
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, from the copies in vl-convert."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # The same strings to JavaScript, but without a meaning in HTML.
    return bundle.replace("</script", "<\\/script").replace("<!--", "\\u003c!--")


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
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "percent": wording.percent,
        "published_percent": wording.published_percent,
        "points": wording.points,
        "change": wording.change,
        "day": wording.day_text,
        "instant": _instant_text,
        "size": wording.size_text,
        "counted": wording.count_text,
        "author_slot": author_slot,
        "macro_slot": macro_slot,
        "weekday": _weekday,
    }
    environment.globals |= {"rank_range": wording.rank_range, "author_of": rows.author_of, "unknown": wording.UNKNOWN}
    return environment


def _instant_text(instant: datetime) -> str:
    return f"{wording.day_text(instant.astimezone(UTC).date())}, {instant.astimezone(UTC):%H:%M:%S} UTC"


def _weekday(day: date) -> str:
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[day.weekday()]

"""The day as one HTML page that needs nothing but itself.

The page's own policy lets it load nothing and run no script but its own three; figures and names come as JSON that is
escaped for HTML, or as text that the template escapes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orpipeline.leaderboard import ALL
from orpipeline.report import charts, rows, wording
from orpipeline.report.colours import PAGE, author_slot, macro_slot, page_variables
from orpipeline.report.data import COMPARED_DAYS, TOP_MODELS, ReportData
from orpipeline.text import plain

TABLE_ROWS = 100
"""How many models a table of the page lists at most."""
_LIST_ROWS = 15
_FINDING_ROWS = 20
_FOLDER = Path(__file__).parent
# In JSON inside HTML these five could end the script, or the line in old engines.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}


def render_page(data: ReportData) -> str:
    """Return the report of a day as HTML. The same data gives the same text."""
    lines = rows.series(data, PAGE)
    areas, area_labels = rows.macro_history_rows(data, PAGE)
    mix = rows.task_mix_rows(data, PAGE)
    moved = rows.mover_rows(data, PAGE)
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "leaderboard": rows.leaderboard_rows(data, PAGE),
        "mix": mix,
        "lines": rows.model_history_rows(data, lines),
        "line_labels": rows.model_labels(lines),
        "areas": areas,
        "area_labels": area_labels,
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
            rows=_json({name: _columns(found) for name, found in tables.items()}),
            scopes=rows.scopes(data),
            measures=rows.MEASURES,
            story=_story(data),
            leaderboards={scope: _leaderboard(data, scope) for scope in rows.scopes(data)},
            leaderboard_sizes=dict(data.leaderboard.group_by("scope").len().iter_rows()),
            mix=mix,
            has_history=len(data.days) > 1,
            history=_history_table(data, lines),
            step=rows.drawn_step(data.days, data.as_of),
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
            lost=wording.day_ranges(data.lost_days),
            limits={
                "table": TABLE_ROWS,
                "list": _LIST_ROWS,
                "compared": COMPARED_DAYS,
                "lines": TOP_MODELS,
            },
        )
    )


def _charts(
    data: ReportData, lines: Sequence[rows.Series], tasks: Sequence[Mapping[str, Any]], *, has_movers: bool
) -> dict[str, Any]:
    """Return each chart's Vega for wide and for narrow pages."""
    named = charts.named_rows
    found: dict[str, Any] = {
        "leaderboard": charts.both_widths(charts.leaderboard, PAGE, named("leaderboard")),
        "mix": charts.both_widths(charts.task_mix, PAGE, named("mix")),
    }
    if len(data.days) > 1:
        of_models = charts.both_widths(charts.model_history, PAGE, named("lines"), named("line_labels"), lines)
        of_macros = charts.both_widths(charts.macro_history, PAGE, named("areas"), named("area_labels"))
        found["lines"] = of_models
        found["areas"] = of_macros
    if has_movers:
        found["movers"] = charts.both_widths(charts.movers, PAGE, named("movers"))
    if tasks:
        of_task = charts.both_widths(charts.task_models, PAGE, named("task_models"), tasks[0]["tag"])
        found["task_models"] = of_task
    return found


def _story(data: ReportData) -> dict[str, Any]:
    """Return what the day's sentences say: the leaders, how sure their place is, and where measures differ most."""
    board, called = data.leaderboard.filter(scope=ALL), rows.names(data)
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
    """Return the tasks that list models, those with most requests first, each with its rows and what they leave out."""
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
    """Return the models that the last days list for the first time; none where the history is not longer than them."""
    found = data.leaderboard.filter(pl.col("scope") == ALL, pl.col("first_seen") > data.compared_day)
    return found.to_dicts() if data.days[0] <= data.compared_day else []


def _history_table(data: ReportData, lines: Sequence[rows.Series]) -> list[dict[str, Any]]:
    """Return the days that are drawn, newest first, with each line's share."""
    slots = rows.drawn_days(data.days, data.as_of)
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
    """Return the days between the first and this one that the tables do not have."""
    known = set(data.days)
    span = (data.as_of - data.days[0]).days
    return wording.day_ranges(day for n in range(span) if (day := data.days[0] + timedelta(days=n)) not in known)


def _columns(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as columns, which take less room; a row that lacks a column has None there.

    A column whose values recur is `{"of": [distinct values], "at": [for each row, which of them]}`.
    """
    listed = list(found)
    names = list(dict.fromkeys(name for row in listed for name in row))
    return {name: _column([row.get(name) for row in listed]) for name in names}


def _column(values: list[Any]) -> Any:
    distinct = list(dict.fromkeys(values))
    if 2 * len(distinct) > len(values):
        return values
    places = {value: place for place, value in enumerate(distinct)}
    return {"of": distinct, "at": [places[value] for value in values]}


def _json(value: object) -> str:
    """Return JSON that can stand inside a script element, whatever it holds."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


@cache
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, as vl-convert has them on board."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # In a string of JavaScript these mean the same, and to HTML they mean nothing.
    return bundle.replace("</script", "<\\/script").replace("<!--", "\\u003c!--")


def _policy(*scripts: str) -> str:
    """Return a content security policy that lets the page run these scripts, and load nothing."""
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
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return names[day.weekday()]

"""The report's page and its embedded parts: self-contained HTML files.

Their content security policy blocks all loading and every script except their own. Figures and names are in the HTML as
text that the templates escape, or as JSON that is escaped for HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orpipeline.clock import day_spans, missing_days
from orpipeline.report import wording
from orpipeline.report.certainty import floor_points
from orpipeline.report.data import DAILY_POINTS, ReportData
from orpipeline.report.history import History, lines_svg
from orpipeline.report.views import movements, scopes, task_leaders, tasks, views
from orpipeline.text import plain

_LICENSE_URL = "https://creativecommons.org/licenses/by/4.0/"
_FOLDER = Path(__file__).parent / "html"
# These five could end the script element, or a line in old JavaScript engines.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}
_EMBED_SCRIPT = """
const tell = () => parent.postMessage({ orpipelineHeight: document.documentElement.scrollHeight }, "*");
new ResizeObserver(tell).observe(document.body);
"""


def page_facts(data: ReportData) -> dict[str, Any]:
    """Return the facts of a day's page for other programs: `report.json` and `latest.json`."""
    view = views(data)[0]
    return {
        "as_of": data.as_of.isoformat(),
        "window_days": data.snapshot["window_days"],
        "headline": view.headline.striptags(),
        "citation": plain(data.snapshot["citation"]),
        "is_demo": data.is_demo,
        "sha256": data.snapshot["sha256"],
        "revision": data.snapshot["revision"],
        "days": len(data.days),
        "version": version("orpipeline"),
    }


def render_page(data: ReportData, *, days: Sequence[date], written_at: datetime, is_dated: bool) -> str:
    """Return a day's page as HTML. The same arguments always give the same text.

    `days` are those that have a page. `is_dated`: the page is in its day's folder; the newest one is beside them.
    """
    found, all_tasks, facts = views(data), tasks(data), page_facts(data)
    history = History(data) if len(data.days) > 1 else None
    script, folder = _read("page.js"), "" if is_dated else f"{data.as_of}/"
    page_data = {
        "as_of": data.as_of.isoformat(),
        "folder": folder,
        "scopes": [plain(scope) for scope in scopes(data)],
        "units": {view.key: view.unit for view in found},
        "history": history.page_data() if history else None,
    }
    return _render(
        "page.html.j2",
        script,
        data=data,
        title=_title(data),
        views=found,
        tasks=all_tasks,
        leading={measure: task_leaders(all_tasks, measure) for measure in wording.MEASURES},
        model_index={model: place for place, model in enumerate(history.models)} if history else {},
        facts=facts,
        scopes=scopes(data),
        lines=_charts(history, data) if history else {},
        embeds=embed_titles(data),
        window=_window(data),
        missing=day_spans(missing_days(data.days)),
        folder=folder,
        root="../" if is_dated else "",
        is_dated=is_dated,
        earlier=max((day for day in days if day < data.as_of), default=None),
        later=min((day for day in days if day > data.as_of), default=None),
        days=() if is_dated else sorted({*days, data.as_of}, reverse=True),
        written_at=written_at,
        page_data=_json(page_data),
        linked_data=_json(_linked_data(data, facts, folder=folder, written_at=written_at)),
    )


def embed_titles(data: ReportData) -> dict[str, str]:
    """Return the titles of the parts for other pages, by name. The history needs a second day."""
    unit, where = views(data)[0].unit, "in made-up data" if data.is_demo else "on OpenRouter"
    titles = {
        "ranking": f"Share of {unit} {where} by model, {_window(data)}",
        "tasks": f"Who leads each task {where}, {_window(data)}",
        "changes": f"Certain changes {where} since {wording.day_text(data.compared_day)}, share of {unit}",
        "history": f"Share of {unit} {where} by model, to {wording.day_text(data.as_of)}",
    }
    return {name: title for name, title in titles.items() if name != "history" or len(data.days) > 1}


def render_embeds(data: ReportData) -> dict[str, str]:
    """Return the parts for other pages as HTML by name: small pages of all tasks and requests, with their source."""
    lines = _charts(History(data), data) if len(data.days) > 1 else {}
    shown = {"data": data, "view": views(data)[0], "tasks": tasks(data), "lines": lines}
    return {
        part: _render("embed.html.j2", _EMBED_SCRIPT, part=part, title=title, **shown)
        for part, title in embed_titles(data).items()
    }


def _render(template: str, script: str, **values: Any) -> str:
    css = _read("page.css")
    return _environment().get_template(template).render(policy=_policy(script), css=css, script=script, **values)


def _window(data: ReportData) -> str:
    return wording.window_text(data.as_of, data.snapshot["window_days"])


def _title(data: ReportData) -> str:
    return f"{'DEMO: ' if data.is_demo else ''}OpenRouter task shares by model, {_window(data)}"


def _charts(history: History, data: ReportData) -> dict[str, Markup]:
    """Return the page's lines as they are without a script."""
    return {
        "models": lines_svg(history.lines(), data.drawn, height=360),
        "macros": lines_svg(history.macro_lines(), data.drawn, height=240),
    }


def _linked_data(data: ReportData, facts: Mapping[str, Any], *, folder: str, written_at: datetime) -> dict[str, Any]:
    """Return the page's description as a dataset of schema.org."""
    files = (f"{folder}leaderboard.csv", f"{folder}tasks.csv")
    first = data.as_of - timedelta(days=data.snapshot["window_days"] - 1)
    source = {"license": _LICENSE_URL, "isBasedOn": "https://openrouter.ai/rankings"}
    return {
        "@context": "https://schema.org",
        "@type": "Dataset",
        "name": _title(data),
        "description": facts["headline"],
        "temporalCoverage": f"{first}/{data.as_of}",
        "dateModified": written_at.isoformat(),
        "identifier": f"sha256:{facts['sha256']}",
        "creditText": facts["citation"],
        "creator": {"@type": "Organization", "name": f"orpipeline {facts['version']}"},
        "distribution": [{"@type": "DataDownload", "encodingFormat": "text/csv", "contentUrl": file} for file in files],
        **({} if data.is_demo else source),
    }


def _json(value: object) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


@cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return a content security policy that allows this script and blocks all loading."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
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
        "counted": wording.count_text,
        "day": wording.day_text,
        "short_day": wording.short_day_text,
        "instant": _instant_text,
        "possible": lambda change: wording.possible_points(change.low, change.high),
        "least_points": lambda change: f"{floor_points(abs(change.least)):g}",
        "author": wording.author_name,
    }
    environment.globals |= {"movements": movements, "measures": wording.MEASURES, "daily_points": DAILY_POINTS}
    return environment


def _instant_text(instant: datetime) -> str:
    return f"{wording.day_text(instant.astimezone(UTC).date())}, {instant.astimezone(UTC):%H:%M:%S} UTC"

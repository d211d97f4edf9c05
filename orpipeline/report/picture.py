"""The report's pictures, dark on white: the ranking for a page or a chat, and a landscape one for a social post."""

from __future__ import annotations

from typing import Any

from orpipeline.contracts.rules import ALL
from orpipeline.report.charts import parts
from orpipeline.report.charts.ranking import models
from orpipeline.report.colours import PICTURE
from orpipeline.report.compiled import to_png
from orpipeline.report.data import ReportData
from orpipeline.report.ranking import Row, since_text, top_models
from orpipeline.report.wording import count_text, percent, window_text
from orpipeline.text import plain

CARD_WIDTH, CARD_HEIGHT = 1200, 675
"""The size of the landscape picture in pixels."""
_WIDTH = 760
_CARD_ROWS = 6
_CARD_MARGIN = 40


def render_picture(data: ReportData) -> bytes:
    """Return the day's top 20 models by requests as a PNG, 1,216 pixels wide."""
    return to_png(picture(data), scale=1.6)


def render_card(data: ReportData) -> bytes:
    """Return the day's first models by requests as a PNG of 1,200 x 675 pixels, legible in a social post."""
    return to_png(card(data), scale=1)


def picture(data: ReportData) -> parts.Spec:
    """Return the chart of `render_picture`."""
    spec = models(
        PICTURE,
        narrow=False,
        since=since_text(data),
        name_room=240,
        width=_WIDTH,
        padding=24,
        background=PICTURE.paper,
        title=_title(data, size=22, line=True),
    )
    spec["layer"].append(_citation(data))
    return _with_rows(spec, _rows(data))


def card(data: ReportData) -> parts.Spec:
    """Return the chart of `render_card`."""
    rows = [row for row in _rows(data) if row["kind"] == "bar"][:_CARD_ROWS]
    scale = parts.scale_between("470", "width - 130")
    spec = parts.chart(
        [
            parts.text("ranks", 36, PICTURE, align="center", size=24, weight=700),
            parts.name(84, 370, PICTURE, dy=-11, size=25),
            parts.dot(92, dy=18, size=130),
            parts.text("about", 106, PICTURE, dy=18, size=18, quiet=True, limit=340),
            *parts.whisker("share", "upper", scale, PICTURE, tick=22),
            parts.bar("share", scale, size=34),
            parts.text("share_text", "width", PICTURE, align="right", size=30, weight=700),
            _citation(data, size=17),
        ],
        PICTURE,
        width=CARD_WIDTH,
        height=CARD_HEIGHT,
        fit="fit",
        padding={"left": _CARD_MARGIN, "right": _CARD_MARGIN, "top": 28, "bottom": 50},
        background=PICTURE.paper,
        title=_title(data, size=34, line=False),
    )
    return _with_rows(spec, rows)


def _rows(data: ReportData) -> list[Row]:
    return top_models(data, PICTURE, ALL, "usage")


def _with_rows(spec: parts.Spec, rows: list[Row]) -> parts.Spec:
    return spec | {"data": {"values": rows}}


def _title(data: ReportData, *, size: int, line: bool) -> parts.Spec:
    window = window_text(data.as_of, data.snapshot["window_days"])
    demo = ["DEMO, made-up data"] if data.is_demo else []
    cover = data.coverage[ALL]
    covered, cap = percent(cover["usage_attributed"]), percent(cover["unlisted_usage_upper"])
    return {
        "text": [*demo, f"Share of {'made-up' if data.is_demo else 'classified OpenRouter'} requests, {window}"],
        "subtitle": [
            "Bar: the share that the published task lists attribute to the model. Whisker: its upper bound.",
            f"The lists attribute {covered} of requests to {count_text(cover['model_count'], 'model')}.",
            *([f"Vertical line: the most that a model on no list can have, {cap}."] if line else []),
        ],
        "anchor": "start",
        "color": PICTURE.ink,
        "fontSize": size,
        "offset": size,
        "subtitleColor": PICTURE.muted,
        "subtitleFontSize": round(size * 0.58),
        "subtitlePadding": 8,
    }


def _citation(data: ReportData, size: int = 11) -> parts.Spec:
    """Return the source as a layer below the chart."""
    mark: dict[str, Any] = {"type": "text", "align": "left", "baseline": "top", "fontSize": size}
    encoding = {
        "x": {"value": 0},
        "y": {"value": {"expr": "height + 16"}},
        "text": {"field": "text", "type": "nominal"},
        "color": {"value": PICTURE.muted},
    }
    return {"data": {"values": [{"text": plain(data.snapshot["citation"])}]}, "mark": mark, "encoding": encoding}

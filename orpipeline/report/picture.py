"""The report's picture: the day's top models as a PNG."""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert

from orpipeline.contracts.rules import ALL
from orpipeline.report.charts.leaderboard import leaderboard
from orpipeline.report.colours import PICTURE
from orpipeline.report.data import ReportData
from orpipeline.report.rows import leaderboard_rows
from orpipeline.report.wording import count_text, day_text
from orpipeline.text import plain

_WIDTH = 740
_NAME_ROOM = 248


def render_picture(data: ReportData) -> bytes:
    """Return the day's top 20 models by requests as a PNG, about 1,500 pixels wide, dark on white."""
    rows = [row for row in leaderboard_rows(data, PICTURE) if (row["scope"], row["measure"]) == (ALL, "usage")]
    chart = leaderboard(PICTURE, alt.InlineData(rows), narrow=False, width=_WIDTH, name_room=_NAME_ROOM)
    chart.layer = alt.layer(*chart.layer, _citation(data), data=chart.data).layer
    chart = chart.properties(title=_title(data, len(rows)), padding=24, background=PICTURE.paper)
    return vl_convert.vegalite_to_png(chart.to_dict(), scale=2)


def _citation(data: ReportData) -> Any:
    return (
        alt.Chart(alt.InlineData([{"text": plain(data.snapshot["citation"])}]))
        .mark_text(align="left", baseline="top", fontSize=11, limit=_WIDTH)
        .encode(x=alt.value(0), y=alt.value(alt.expr("height + 16")), text="text:N", color=alt.value(PICTURE.muted))
    )


def _title(data: ReportData, model_count: int) -> Any:
    demo = ["DEMO, made-up data"] if data.is_demo else []
    requests = "Made-up requests" if data.is_demo else "Requests that OpenRouter classified"
    return alt.TitleParams(
        [*demo, f"Top {count_text(model_count, 'model')} by share of requests, {day_text(data.as_of)}"],
        subtitle=[
            f"{requests} in the {count_text(data.snapshot['window_days'], 'day')} up to that day.",
            "Bar: the share that the published task lists attribute to the model. Whisker: its upper bound.",
        ],
        anchor="start",
        color=PICTURE.ink,
        fontSize=22,
        offset=26,
        subtitleColor=PICTURE.muted,
        subtitleFontSize=13,
        subtitlePadding=8,
    )

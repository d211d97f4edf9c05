"""The leaderboard: a bar for each attributed share, a whisker up to its upper bound."""

from __future__ import annotations

from typing import Any

import altair as alt

from orpipeline.report.charts.drawing import Pen, chosen, finished, params, scale_between
from orpipeline.report.colours import Theme

_NAME_ROOM = "clamp(0.28 * width, 190, 296)"  # the maximum fits nearly every name; the minimum leaves room for the bars
_TOOLTIPS = {
    "model_id": "Model",
    "author": "Author",
    "share_text": "Attributed share",
    "upper_text": "Upper bound",
    "range_text": "Possible ranks",
    "change_text": "Change in 7 days",
    "tasks_text": "Listed under",
    "top_task": "Top task",
}


def leaderboard(theme: Theme, data: Any, *, narrow: bool, width: Any = "container", name_room: Any = _NAME_ROOM) -> Any:
    """Return the leaderboard of the chosen measure and scope.

    `name_room` is the width of the model names in a wide chart: pixels, or an expression of the chart's `width`.
    """
    layers = _narrow(Pen(theme)) if narrow else _wide(Pen(theme), name_room)
    return finished(
        layers,
        theme,
        data,
        params=params(measure="usage", scope="all"),
        only=chosen("measure", "scope"),
        width=width,
        height=alt.Step(66 if narrow else 44),
    )


def _wide(pen: Pen, name_room: Any) -> list[Any]:
    theme, scale = pen.theme, scale_between(f"106 + {name_room}", "width - 172")
    right, change = alt.expr("width - 94"), alt.expr("width - 2")
    small: dict[str, Any] = {"size": 12, "colour": theme.muted}
    return [
        _head("Rank", 28, theme, align="right"),
        _head("Possible", 64, theme, align="center", only="measure === 'usage'"),
        _head("Model", 98, theme),
        _head("Attributed share, and upper bound", alt.expr(f"106 + {name_room}"), theme),
        _head("Share", right, theme, align="right"),
        _head("7 days", change, theme, align="right", only="measure === 'usage'"),
        pen.rules(44),
        pen.text("rank", 28, align="right", size=17, weight=600),
        pen.text("range_text", 64, align="center", **small),
        pen.model(98, dy=-8, room=name_room),
        pen.dot(102, dy=9),
        pen.text("author", 111, dy=9, limit=alt.expr(f"{name_room} - 13"), **small),
        pen.whisker("share", "upper", scale, tick=10),
        pen.bar("share", scale, size=16),
        pen.text("share_text", right, align="right", dy=-8, size=15, weight=600),
        pen.text("up_to", right, align="right", dy=9, **small),
        pen.text("moved", change, align="right", size=13),
        pen.touch(44, _TOOLTIPS),
    ]


def _narrow(pen: Pen) -> list[Any]:
    theme, scale = pen.theme, scale_between("30", "width - 4")
    right = alt.expr("width - 2")
    small: dict[str, Any] = {"size": 12, "colour": theme.muted}
    return [
        pen.rules(66),
        pen.text("rank", 18, align="right", dy=-19, size=15, weight=600),
        pen.model(30, dy=-19, room="width - 92"),
        pen.text("share_text", right, align="right", dy=-19, size=14, weight=600),
        pen.dot(34, dy=0, size=50),
        pen.text("range_and_author", 43, limit=alt.expr("width - 122"), **small),
        pen.text("moved", right, align="right", size=12),
        pen.whisker("share", "upper", scale, dy=18, tick=8),
        pen.bar("share", scale, dy=18, size=9),
        pen.touch(66, _TOOLTIPS),
    ]


def _head(text: str, x: Any, theme: Theme, *, align: Any = "left", only: str = "") -> Any:
    """Return a column heading above the chart, shown if the expression `only` is true."""
    head = alt.Chart(alt.InlineData([{"head": text}]))
    head = head.transform_filter(only) if only else head
    return head.mark_text(align=align, baseline="middle", fontSize=11, clip=False).encode(
        x=alt.value(x), y=alt.value(-12), text="head:N", color=alt.value(theme.muted)
    )

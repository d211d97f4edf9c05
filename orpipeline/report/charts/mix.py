"""The task mix: the tasks by macro-category."""

from __future__ import annotations

from orpipeline.report.charts import parts
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import Theme

_TASK, _MACRO = "datum.kind === 'task'", "datum.kind === 'macro'"
_USAGE_X, _TOKEN_X = "width - 78", "width - 4"


def mix(theme: Theme, *, narrow: bool) -> Spec:
    """Return a filled dot for each task's share of requests, and a ring for its share of tokens."""
    height = 44 if narrow else 27
    tooltips = {"name": "Task", "usage_text": "Requests", "token_text": "Tokens", "gap_text": "Difference"}
    layers = [*_dots(theme, narrow), *_tasks(theme, narrow), *_macros(theme, narrow), parts.touch(height, tooltips)]
    return parts.chart(layers, theme, height={"step": height})


def _dots(theme: Theme, narrow: bool) -> list[Spec]:
    """Return each task's line between its two shares, the ring and the filled dot."""
    scale = parts.scale_between("4", "width - 6") if narrow else parts.scale_between("210", "width - 170")
    axis = None if narrow else {"format": "%", "orient": "top", "tickCount": 5}
    usage, token = parts.quantity("usage", scale, axis), parts.quantity("token", scale, axis)
    dy = 9 if narrow else 0
    line = {"type": "rule", "strokeWidth": 3, "opacity": 0.45, "yOffset": dy, "y2Offset": dy}
    ring = {"type": "point", "size": 80, "strokeWidth": 2, "opacity": 1, "yOffset": dy, "fill": theme.paper}
    dot = {"type": "circle", "size": 95, "opacity": 1, "yOffset": dy}
    return [
        parts.layer(line, {"x": usage, "x2": {"field": "token"}, "y": parts.PLACE, "color": parts.OF_ROW}, _TASK),
        parts.layer(ring, {"x": token, "y": parts.PLACE, "stroke": parts.OF_ROW}, _TASK),
        parts.layer(dot, {"x": usage, "y": parts.PLACE, "color": parts.OF_ROW}, _TASK),
    ]


def _tasks(theme: Theme, narrow: bool) -> list[Spec]:
    x, dy = 0 if narrow else 4, -8 if narrow else 0
    return [
        parts.text("name", x, theme, dy=dy, limit=_name_limit(narrow), only=_TASK),
        parts.text("usage_text", _USAGE_X, theme, align="right", dy=dy, weight=600, only=_TASK),
        parts.text("token_text", _TOKEN_X, theme, align="right", dy=dy, quiet=True, only=_TASK),
    ]


def _macros(theme: Theme, narrow: bool) -> list[Spec]:
    """Return each macro-category's heading, with a square in its colour."""

    def bold(field: str, x: parts.X, *, align: str = "left", limit: parts.X | None = None) -> Spec:
        return parts.text(field, x, theme, align=align, limit=limit, dy=6, size=14, weight=700, only=_MACRO)

    square = {"type": "square", "size": 110, "opacity": 1, "yOffset": 6}
    return [
        bold("usage_text", _USAGE_X, align="right"),
        bold("token_text", _TOKEN_X, align="right"),
        bold("name", 18, limit=_name_limit(narrow)),
        parts.layer(square, {"x": parts.pixels(8), "y": parts.PLACE, "color": parts.OF_ROW}, _MACRO),
    ]


def _name_limit(narrow: bool) -> parts.X:
    return "width - 150" if narrow else 196

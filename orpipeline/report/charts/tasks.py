"""The task mix, and the models of one task."""

from __future__ import annotations

from typing import Any

import altair as alt

from orpipeline.report.charts.drawing import Pen, chosen, colour_of_row, finished, layer, params, scale_between
from orpipeline.report.colours import Theme

_TASK, _MACRO = "datum.kind === 'task'", "datum.kind === 'macro'"
_USAGE_X, _TOKEN_X = alt.expr("width - 78"), alt.expr("width - 4")


def task_mix(theme: Theme, data: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return the tasks by macro-category: a filled dot for the share of requests, a ring for the share of tokens."""
    pen, height = Pen(theme), 44 if narrow else 27
    layers = [
        *_dots(pen, narrow),
        *_task_words(pen, narrow),
        *_macro_words(pen, narrow),
        pen.touch(height, {"name": "Task", "usage_text": "Requests", "token_text": "Tokens", "gap_text": "Difference"}),
    ]
    return finished(layers, theme, data, params=(), width=width, height=alt.Step(height))


def _dots(pen: Pen, narrow: bool) -> list[Any]:
    """Return each task's line between its two shares, the ring and the filled dot."""
    scale = scale_between("4", "width - 6") if narrow else scale_between("210", "width - 170")
    axis = None if narrow else alt.Axis(format="%", orient="top", tickCount=5)
    usage = alt.X("usage:Q", scale=scale, axis=axis, title=None)
    token = alt.X("token:Q", scale=scale, axis=axis, title=None)
    tasks, dy = layer().transform_filter(_TASK), 9 if narrow else 0
    line = tasks.mark_rule(strokeWidth=3, opacity=0.45, yOffset=dy, y2Offset=dy)
    ring = tasks.mark_point(size=80, strokeWidth=2, opacity=1, yOffset=dy, fill=pen.theme.paper)
    dot = tasks.mark_circle(size=95, opacity=1, yOffset=dy)
    return [
        line.encode(x=usage, x2="token:Q", y=pen.place, color=colour_of_row()),
        ring.encode(x=token, y=pen.place, stroke=colour_of_row()),
        dot.encode(x=usage, y=pen.place, color=colour_of_row()),
    ]


def _task_words(pen: Pen, narrow: bool) -> list[Any]:
    x, dy = 0 if narrow else 4, -8 if narrow else 0
    return [
        pen.text("name", x, dy=dy, limit=_name_limit(narrow), only=_TASK),
        pen.text("usage_text", _USAGE_X, align="right", dy=dy, weight=600, only=_TASK),
        pen.text("token_text", _TOKEN_X, align="right", dy=dy, colour=pen.theme.muted, only=_TASK),
    ]


def _macro_words(pen: Pen, narrow: bool) -> list[Any]:
    """Return each macro-category's heading, with a square in its colour."""
    bold: dict[str, Any] = {"dy": 6, "size": 14, "weight": 700, "only": _MACRO}
    square = layer().transform_filter(_MACRO).mark_square(size=110, opacity=1, yOffset=6)
    return [
        pen.text("usage_text", _USAGE_X, align="right", **bold),
        pen.text("token_text", _TOKEN_X, align="right", **bold),
        pen.text("name", 18, limit=_name_limit(narrow), **bold),
        square.encode(x=alt.value(8), y=pen.place, color=colour_of_row()),
    ]


def _name_limit(narrow: bool) -> Any:
    return alt.expr("width - 132") if narrow else 196


def task_models(theme: Theme, data: Any, task: str, *, narrow: bool, width: Any = "container") -> Any:
    """Return the chosen task's models by their share of the task, and the share of all models that it does not list."""
    pen, height = Pen(theme), 54 if narrow else 38
    scale = scale_between("30", "width - 4") if narrow else scale_between("330", "width - 76")
    right = alt.expr("width - 2")
    dy = 14 if narrow else 0
    name_dy = -10 if narrow else -7
    texts = [
        pen.text("position", 20, align="right", dy=name_dy if narrow else 0, size=15, weight=600),
        pen.model(32, dy=name_dy, room="width - 96" if narrow else 296),
        pen.text("share_text", right, align="right", dy=name_dy if narrow else 0, size=14, weight=600),
    ]
    if not narrow:
        texts += [
            pen.dot(36, dy=9, size=50),
            pen.text("author", 45, dy=9, size=12, colour=theme.muted, limit=270),
        ]
    bar = pen.bar("share", scale, size=9 if narrow else 14, dy=dy)
    tooltips = {"model_id": "Model", "author": "Author", "share_text": "Share of the task"}
    layers = [
        pen.rules(height),
        bar.transform_filter("datum.position"),
        pen.bar("share", scale, size=8 if narrow else 13, dy=dy, filled=False).transform_filter("!datum.position"),
        *texts,
        pen.touch(height, tooltips),
    ]
    return finished(
        layers,
        theme,
        data,
        params=params(measure="usage", task=task),
        only=chosen("measure", "task"),
        width=width,
        height=alt.Step(height),
    )

"""The movers: the largest changes of attributed share over 7 days."""

from __future__ import annotations

from typing import Any

import altair as alt

from orpipeline.report.charts.drawing import Pen, finished, layer, scale_between
from orpipeline.report.colours import Theme


def movers(theme: Theme, data: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return the movers as bars: losses to the left of zero, gains to the right."""
    pen, height = Pen(theme), 52 if narrow else 40
    scale = scale_between("8", "width - 8") if narrow else scale_between("330", "width - 200")
    dy = 16 if narrow else 0
    zero = (
        layer()
        # On a narrow page the names are above the bars, so the zero line is only a little higher than a bar.
        .mark_tick(thickness=1, size=14 if narrow else height, yOffset=dy, orient="vertical")
        .encode(x=alt.XDatum(0, scale=scale), y=pen.place, color=alt.value(theme.muted))
    )
    bars = pen.bar("change", scale, size=8 if narrow else 14, dy=dy)
    right, far = alt.expr("width - 2"), alt.expr("width - 110")
    if narrow:
        texts = [
            pen.model(0, dy=-10, room="width - 100"),
            pen.text("moved", right, align="right", dy=-10, weight=600),
        ]
    else:
        texts = [
            pen.model(4, dy=-8, room=300),
            pen.dot(8, dy=9),
            pen.text("author", 17, dy=9, size=12, colour=theme.muted, limit=290),
            pen.text("moved", far, align="right", size=14, weight=600),
            pen.text("now", right, align="right", size=12, colour=theme.muted),
        ]
    tooltips = {"model_id": "Model", "author": "Author", "change_text": "Change in 7 days", "now": "Share"}
    layers = [pen.rules(height), zero, bars, *texts, pen.touch(height, tooltips)]
    return finished(layers, theme, data, params=(), width=width, height=alt.Step(height))

"""The movers: the largest changes of share over 7 days."""

from __future__ import annotations

from orpipeline.report.charts import parts
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import Theme


def movers(theme: Theme, *, narrow: bool) -> Spec:
    """Return the movers as bars: losses to the left of zero, gains to the right."""
    height, dy = (52, 16) if narrow else (40, 0)
    scale = parts.scale_between("8", "width - 8") if narrow else parts.scale_between("330", "width - 220")
    # On a narrow page the names are above the bars, so the zero line is only a little higher than a bar.
    zero = {"type": "tick", "thickness": 1, "size": 14 if narrow else height, "yOffset": dy, "orient": "vertical"}
    at_zero = {"datum": 0, "type": "quantitative", "scale": scale, "axis": None, "title": None}
    right = "width - 2"
    if narrow:
        texts = [
            parts.name(0, "width - 120", theme, dy=-10),
            parts.text("moved", right, theme, align="right", dy=-10, weight=600),
        ]
    else:
        texts = [
            parts.name(4, 300, theme, dy=-8),
            parts.dot(8, dy=9),
            parts.text("about", 17, theme, dy=9, size=12, quiet=True, limit=290),
            parts.text("moved", "width - 96", theme, align="right", size=14, weight=600),
            parts.text("now", right, theme, align="right", size=12, quiet=True),
        ]
    tooltips = {"id": "Model", "about": "Author", "moved": "Change in 7 days", "now": "Share"}
    layers = [
        parts.rules(height, theme),
        parts.layer(zero, {"x": at_zero, "y": parts.PLACE, "color": {"value": theme.muted}}),
        parts.bar("change", scale, size=8 if narrow else 14, dy=dy),
        *texts,
        parts.touch(height, tooltips),
    ]
    return parts.chart(layers, theme, height={"step": height})
